"""Contrasts drawn: numbers that add up on the picture, the fragment and the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from networks import Gap, Mlp, seeded
from report_page import check
from unitscope.accounts.account import Account
from unitscope.attribution.contrast import Contrast
from unitscope.errors import InputError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.render import figure, html, write_report
from unitscope.render.margins import adding_up, lead, margin_rows
from unitscope.render.report import html_of
from unitscope.render.report_contrast import contrast_view
from unitscope.render.words import number

SMALL = Preprocessing(resize=36, crop=32)
LABELS = ["coast", "harbor", "alley", "attic", "barn"]


def photo(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), np.uint8)
    return Image.fromarray(pixels).resize((130, 90), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return wrap(seeded(Gap), LABELS, SMALL)


@pytest.fixture(scope="module")
def local() -> Classifier:
    return wrap(seeded(Mlp), LABELS, SMALL)


@pytest.fixture(scope="module")
def contrast(model: Classifier) -> Contrast:
    return model.explain(photo()).contrast("coast", "harbor")


def texts(drawn: Figure) -> str:
    return " | ".join(each.get_text() for each in drawn.findobj(Text))


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_rows_add_up_to_the_margin(
    model: Classifier, local: Classifier, vit: Classifier, count: int
) -> None:
    for each in (model, local, vit):
        contrast = each.explain([photo(), photo(1)]).contrast()
        for image in range(2):
            rows = margin_rows(contrast, image, count)
            total = sum(row.value for row in rows)
            assert total == pytest.approx(
                float(contrast.margin[image]), abs=1e-5
            )
            units = [row.unit.unit for row in rows if row.unit]
            assert len(units) == len(set(units)) <= 2 * count


def test_rows_are_named_as_what_they_are(
    model: Classifier, local: Classifier, vit: Classifier
) -> None:
    def last(each: Classifier) -> list[str]:
        rows = margin_rows(each.explain(photo()).contrast(), 0, 1)
        return [row.name for row in rows if row.unit is None]

    assert last(model) == ["4 other units", "bias"]
    assert last(local) == ["4 other units", "left out"]
    others, *parts = last(vit)
    assert others in ("2 other heads", "3 other heads")
    assert parts == ["MLPs", "embedding", "bias"]


def test_the_picture_says_which_colour_speaks_for_which_class(
    contrast: Contrast, tmp_path: Path
) -> None:
    drawn = figure(contrast)
    words = texts(drawn)
    assert "Why coast, not harbor: " in words
    assert "logits: orange speaks for coast, violet for harbor" in words
    assert lead(contrast, 0) in words and "a local answer" not in words
    margin = number(float(contrast.margin[0]), sign=True)
    assert f"margin {margin} logits" in words and f"= {margin}" in words
    for row in margin_rows(contrast, 0, 5):
        assert row.name in words and number(row.value, sign=True) in words
    assert "exactly" in words
    with Image.open(contrast.save(tmp_path / "contrast.png")) as picture:
        assert picture.size[0] == 1560
    heat = texts(contrast.figure(style="heat"))
    assert "what speaks for coast alone" in heat and "violet" not in heat


def test_local_and_residual_pictures_say_so(
    local: Classifier, vit: Classifier
) -> None:
    words = texts(figure(local.explain(photo()).contrast()))
    assert "· a local answer" in words and "A local answer: gradient" in words
    words = texts(figure(vit.explain(photo()).contrast()))
    assert "what the patches gave" in words and "a local answer" not in words


def test_a_batch_is_drawn_photo_by_photo(model: Classifier) -> None:
    contrast = model.explain([photo(), photo(1)]).contrast()
    both, one = figure(contrast), figure(contrast, image=1)
    assert both.get_figheight() > 1.8 * one.get_figheight()
    with pytest.raises(IndexError, match="no photo 2"):
        figure(contrast, image=2)
    with pytest.raises(InputError, match="show is one of 'contrast'"):
        figure(contrast, show="cams")


def test_a_map_of_zeros_is_said_to_be_one(model: Classifier) -> None:
    contrast = model.explain(photo()).ablate(range(6)).contrast(0, 1)
    assert "no difference (all 0)" in texts(figure(contrast))
    level = dataclasses.replace(contrast, margin=torch.zeros(1))
    assert lead(level, 0) == "coast is level with harbor"
    behind = dataclasses.replace(contrast, margin=-torch.ones(1))
    assert lead(behind, 0) == "coast is behind harbor"


def test_differentiable_contrasts_are_drawn_without_gradients(
    model: Classifier,
) -> None:
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    contrast = model.explain(x, differentiable=True).contrast()
    assert "Why " in texts(contrast.figure())
    assert "margin" in contrast._repr_html_()


def test_the_fragment_holds_the_rows(contrast: Contrast) -> None:
    page = check(contrast._repr_html_())
    assert "Why coast, not harbor" in page.text
    assert "orange speaks for coast, violet for harbor" in page.text
    for row in margin_rows(contrast, 0, 5):
        assert number(row.value, sign=True) in page.text
    assert adding_up(contrast, "features") in page.text


def test_classes_that_do_not_exclude_each_other() -> None:
    model = wrap(seeded(Gap), LABELS, SMALL, scores="sigmoid")
    contrast = model.explain(photo()).contrast(0, 1)
    assert contrast.question() == "why coast more than harbor"


class TestReport:
    def test_it_compares_the_top_two_by_default(
        self, model: Classifier
    ) -> None:
        account = Account.of(model, model.explain(photo()))
        text = check(html_of(account)).text
        first, second = account.predictions[:2]
        assert f"Why {first.label}, not {second.label}" in text
        assert account.contrast is not None
        margin = number(float(account.contrast.margin[0]), 3, sign=True)
        assert f"a margin of {margin} logits" in text
        for row in margin_rows(account.contrast, 0, 5):
            assert number(row.value, 3, sign=True) in text
        assert "What flips it" in text
        assert "(a local answer)" not in text

    def test_what_flips_it_is_told_and_confirmed(
        self, model: Classifier
    ) -> None:
        account = Account.of(model, model.explain(photo()))
        flip = account.flip
        assert flip is not None and flip.found and flip.holds
        text = check(html_of(account)).text
        assert "A real forward pass confirms it." in text
        assert f"without {flip.what()}," in text
        one = dataclasses.replace(flip, units=(3,))
        words = page_of(account, one)
        assert "One unit is enough: without unit 3," in words
        two = dataclasses.replace(flip, units=(3, 4), minimal=True)
        words = page_of(account, two)
        assert (
            "2 units are enough, and no fewer: without units 3 and 4" in words
        )
        greedy = dataclasses.replace(two, minimal=False)
        assert "(found greedily, so a smaller set may exist)" in page_of(
            account, greedy
        )
        assert flip.b is not None and flip.confirmed is not None
        wrong = flip.confirmed.clone()
        wrong[flip.b] = wrong[flip.a] - 1
        assert "does NOT confirm it" in page_of(
            account, flip.confirmed_by(wrong)
        )
        none = dataclasses.replace(flip, b=None, units=(), confirmed=None)
        assert "No set of units lets any other class overtake" in page_of(
            account, none
        )

    def test_a_class_that_was_asked_for(self, model: Classifier) -> None:
        explanation = model.explain(photo())
        last = explanation.top(5)[0][-1]
        account = Account.of(model, explanation, against=last.label)
        assert account.contrast is not None and account.flip is not None
        first = account.predictions[0]
        assert account.contrast.pairs[0] == (first.index, last.index)
        assert account.flip.to == last.index
        title = f"Why {first.label}, not {last.label}"
        assert title in check(html_of(account)).text
        named = Account.of(
            model, explanation, classes=[last.index], against=first.index
        )
        assert named.contrast is not None
        assert named.contrast.pairs[0] == (last.index, first.index)
        assert "is behind" in check(html_of(named)).text

    def test_a_local_one_says_so(self, local: Classifier) -> None:
        account = Account.of(local, local.explain(photo()))
        page = html_of(account)
        text = check(page).text
        assert "(a local answer)" in text and "weaker than an exact one" in text
        assert 'class="numbers margin local"' in page
        assert account.flip is not None and account.flip.most == 16

    def test_there_is_none_where_there_is_no_other_class(
        self, tmp_path: Path
    ) -> None:
        one = wrap(seeded(lambda: Gap(classes=1)), ["cat"], SMALL)
        numbers = wrap(seeded(Gap), LABELS, SMALL, scores="none")
        for each in (one, numbers):
            account = Account.of(each, each.explain(photo()))
            assert account.contrast is None and account.flip is None
            page = html_of(account)
            assert 'id="contrast"' not in page and "#contrast" not in page
        write_report([account], tmp_path)
        assert not (tmp_path / "contrast.png").exists()
        assert "no other class" in texts(figure(account, show="contrast"))
        asked = Account.of(numbers, numbers.explain(photo()), against="coast")
        assert asked.contrast is not None

    @pytest.mark.parametrize("width", [1280, 390])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_a_real_page(
        self,
        browser: Any,
        vit: Classifier,
        tmp_path: Path,
        width: int,
        scheme: str,
    ) -> None:
        from browsing import opened_page

        (path,) = write_report(
            [Account.of(vit, vit.explain(photo()))], tmp_path, pieces=False
        )
        viewport = {"width": width, "height": 900}
        page = opened_page(browser, viewport, scheme)
        page.goto(path.as_uri())
        section = page.locator("#contrast")
        assert section.is_visible()
        assert section.locator("tbody tr").count() == 4 + 3 + 1
        wider = (
            "document.documentElement.scrollWidth - "
            "document.documentElement.clientWidth"
        )
        assert page.evaluate(wider) <= 0
        fill = "e => getComputedStyle(e).fill"
        bars = (
            section.locator(".bar.for rect").first,
            section.locator(".bar.against rect").first,
        )
        assert bars[0].evaluate(fill) != bars[1].evaluate(fill)
        page.close()


def page_of(account: Account, flip: Any) -> str:
    """What the report of another flip says of it."""
    view = contrast_view(dataclasses.replace(account, flip=flip), (64, 64))
    assert view is not None
    return view.flip


def test_accounts_show_it_too(model: Classifier) -> None:
    account = Account.of(model, model.explain(photo()))
    assert account.flip is not None
    words = texts(figure(account, show="contrast"))
    assert "Why " in words and "overtakes" in words
    assert html(account)
