"""Pictures of screenings and of inputs of units: readable, and with the very numbers."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from networks import Gap, seeded
from readable import assert_readable
from report_page import check
from unitscope.accounts.account import accounts
from unitscope.errors import LayerError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.render import figure, html
from unitscope.render.report import html_of
from unitscope.render.words import number

HOSTILE = (
    "swimming_pool/outdoor",
    "$\\frac{1}{0}$ and $x_1^",
    "<script>alert(1)</script>",
    "湖 بحر \u202egnp.exe\nline\ttab",
    "a very long label, " * 30 + "W" * 300,
)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return wrap(seeded(Gap), list(HOSTILE), Preprocessing(resize=36, crop=32))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    return Image.fromarray(pixels)


def texts(drawn: Figure) -> str:
    said = [artist.get_text() for artist in drawn.findobj(Text)]
    return " ".join(said)


def test_a_screening_shows_every_layer_and_says_what_was_scaled(
    model: Classifier, photo: Image.Image
) -> None:
    screening = model.screen([photo, photo], verify=4)
    drawn = figure(screening, image=0)
    assert_readable(drawn)
    said = texts(drawn)
    for row in screening.strengths():
        assert row.layer in said
        assert f"{number(row.largest)} (unit {row.unit})" in said
    assert "Bars are scaled to the longest of each column" in said
    assert "measured" in said and "drawn at random" in said
    assert_readable(figure(screening, layers=["features.3"], top=0))
    with pytest.raises(LayerError, match="was not screened"):
        figure(screening, layers=["fc"])

    page = html(screening)
    assert "features.0" in page and "units that give 90 %" in page
    assert "<script>alert" not in page


def test_a_report_says_why_layers_cannot_be_estimated(
    photo: Image.Image,
) -> None:
    class Detached(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    model = wrap(
        seeded(Detached), preprocessing=Preprocessing(resize=36, crop=32)
    )
    explanation = model.explain(photo)
    (account,) = accounts(model, explanation, screen=True)
    assert account.screening is None
    said = check(html_of(account)).text
    assert "This cannot be estimated here: the network computes its" in said
    (plain,) = accounts(model, explanation)
    assert "Which layers carry" not in check(html_of(plain)).text


def test_the_inputs_of_a_unit_show_numbers_that_add_up(
    model: Classifier, photo: Image.Image
) -> None:
    inputs = model.inputs_of(photo, "features", 2)
    drawn = figure(inputs, count=3)
    assert_readable(drawn)
    said = texts(drawn)
    for summand in inputs.top(3):
        assert number(summand.contribution, 3, sign=True) in said
    assert "5 other units of features.2" in said
    assert f"= {number(inputs.value, 3)}" in said and "relu gives" in said
    page = html(inputs)
    assert "pre-activation" in page and "features.2" in page
    assert_readable(figure(model.inputs_of(photo, "fc", 1)))
