"""Residual answers as they are drawn: heads by name, all parts beside the maps."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from report_page import Page, check
from unitscope.accounts.account import Account
from unitscope.accounts.parts import parts_of
from unitscope.model import Classifier
from unitscope.render import html
from unitscope.render.diagram import plan
from unitscope.render.figures import figure
from unitscope.render.markup import templates
from unitscope.render.report import _pages
from unitscope.render.report_contents import contents
from unitscope.render.stacks import reach, stack
from unitscope.render.words import number

# What is said of other answers.
FOREIGN = (
    "local answer",
    "gradient ×",
    "left out",
    "leaves out",
    "+ bias",
    "its bias",
    "unit 1",
    "the last feature map",
    "mean activation",
    "did not fire",
)


@pytest.fixture(scope="module")
def shown(vit_account: Account) -> dict[str, Any]:
    return contents(vit_account)


@pytest.fixture(scope="module")
def page(vit_account: Account, shown: dict[str, Any]) -> Page:
    template = templates().get_template("report/page.html.j2")
    return check(
        template.render(
            page=shown,
            account=vit_account,
            network=vit_account.network,
            index=False,
        )
    )


def test_a_report_tells_the_parts_and_the_heads(
    page: Page, vit_account: Account
) -> None:
    text, first = page.text, vit_account.classes[0]
    explanation = vit_account.explanation
    assert "An account of the residual stream: exact parts." in text
    parts = parts_of(explanation, first)
    logit = float(explanation.logits[0, first])
    assert f"{number(parts['patches'])} of the logit {number(logit)}" in text
    for index in vit_account.classes:
        for part in parts_of(explanation, index).values():
            assert number(part, 3, sign=True) in text
    for story in vit_account.units:
        name = explanation.head.unit_name(story.unit)
        assert f"head {name} " in text
        assert number(float(story.direct_without or 0), 3) in text
        assert number(story.logit_without, 3) in text
    assert "direct effect" in text and "total effect" in text
    assert "Heads 0.1 and 1.0" in text or "heads 0.1 and 1.0" in text
    for check_ in vit_account.checks:
        assert check_.statement in text


def test_blocks_are_drawn_with_what_heads_and_mlps_give(
    shown: dict[str, Any], vit_account: Account
) -> None:
    heads = vit_account.heads
    assert heads is not None
    drawn = str(shown["heads"]["blocks"])
    for block, (of_heads, of_mlps) in enumerate(
        zip(heads.by_block, heads.mlps_by_block, strict=True)
    ):
        words = number(of_heads, sign=True), number(of_mlps, sign=True)
        assert f"block {block}: heads {words[0]}, MLPs {words[1]}" in drawn
    # One scale: as tall as the numbers say.
    bars = re.findall(r'height="([0-9.]+)" class="(for|against|mlp)"', drawn)
    tall = {
        kind: [
            float(height) for height, each in bars if (each == "mlp") == kind
        ]
        for kind in (False, True)
    }
    unit = tall[False][0] / abs(heads.by_block[0])
    for heights, values in (
        (tall[False], heads.by_block),
        (tall[True], heads.mlps_by_block),
    ):
        expected = [max(abs(value) * unit, 0.5) for value in values]
        assert heights == pytest.approx(expected, abs=0.3)


def test_no_words_of_other_answers_are_said(
    page: Page, vit_account: Account
) -> None:
    texts = [
        page.text,
        Page(f"<div>{html(vit_account)}</div>").text,
        Page(f"<div>{html(vit_account.explanation)}</div>").text,
    ]
    for text in texts:
        assert [word for word in FOREIGN if word in text.lower()] == []


@pytest.mark.parametrize(
    ("turning", "said"),
    [
        ((), "By direct effect, none of the 4 heads changes"),
        ((1,), "By direct effect, 1 head of 4 changes the top prediction"),
        ((0, 3), "By direct effect, 2 heads of 4 change the top prediction"),
    ],
)
def test_heads_that_turn_the_prediction_are_counted(
    vit_account: Account,
    shown: dict[str, Any],
    turning: tuple[int, ...],
    said: str,
) -> None:
    account = dataclasses.replace(vit_account, turning=turning)
    template = templates().get_template("report/ablation.html.j2")
    assert said in Page(template.render(page=shown, account=account)).text


def test_a_notebook_shows_all_parts_and_names_heads(
    vit: Classifier, vit_account: Account
) -> None:
    explanation = vit_account.explanation
    text = Page(f"<div>{html(explanation)}</div>").text
    assert "All parts add up to the logit" in text and "embedding" in text
    assert "head 1.0" in text
    off = Page(f"<div>{html(explanation.ablate([1]))}</div>").text
    assert "without head 0.1" in off
    ablated = Page(f"<div>{html(vit_account.ablation)}</div>").text
    assert "Without heads 0.1 and 1.0, total effect" in ablated


def test_the_pieces_of_an_account_name_heads_and_show_parts(
    vit_account: Account,
) -> None:
    pages = {name: _words(page) for name, page in _pages(vit_account)}
    for name in ("units.png", "attention.png", "contributions.png"):
        assert "head 1.0" in pages[name] and "unit 2" not in pages[name]
    assert "on patches, up to" in pages["attention.png"]
    assert "from the patches" in pages["units.png"]
    assert "embedding" in pages["contributions.png"]
    assert "left out" not in pages["contributions.png"]
    assert "patches +" in pages["cams.png"] or "patches −" in pages["cams.png"]
    assert "later blocks react" in pages["ablation.png"]
    explanation = vit_account.explanation
    assert "The numbers are those of" in _words(
        figure(explanation, show="parts", top=1)
    )


def _words(drawn: Figure) -> str:
    return " ".join(
        artist.get_text()
        for artist in drawn.axes[0].get_children()
        if isinstance(artist, Text)
    )


def test_the_diagram_shows_the_token_that_is_read(vit_account: Account) -> None:
    described = plan(vit_account.network).description
    assert "1 token read after 2 blocks with 4 heads" in described


def test_a_stack_lays_parts_end_to_end() -> None:
    segments = stack({"a": 2.0, "b": -1.0, "c": 1.0})
    assert [(each.begin, each.end) for each in segments] == [
        (0.0, 2.0),
        (0.0, -1.0),
        (2.0, 3.0),
    ]
    assert reach([{"a": 2.0, "b": -1.0}, {"a": 4.0}]) == (-1.0, 4.0)
    assert len({each.colour for each in segments}) == 3
