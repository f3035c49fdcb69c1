"""Predictions: the photo as the network saw it, beside its first classes."""

from __future__ import annotations

from matplotlib.figure import Figure

from unitscope.attribution.explanation import Explanation
from unitscope.render.figures.bars import NAMES, Bar, BarChart
from unitscope.render.figures.blocks import MARGIN, WIDTH, Block, page
from unitscope.render.figures.panels import Cell, Panel, cells_of, photos_shown
from unitscope.render.sheets import SOFT, Sheet
from unitscope.render.views import View
from unitscope.render.words import number, percent

_PIXELS = 700
_PHOTO = 4.2  # inches


def predictions_figure(
    explanation: Explanation, *, image: int | None = None, top: int = 5
) -> Figure:
    """The photo with the network's crop outlined, and its `top` classes as bars."""
    photos = photos_shown(len(explanation), image)
    return page([prediction_block(explanation, photo, top) for photo in photos])


def prediction_block(explanation: Explanation, photo: int, top: int) -> Block:
    """One photo beside the probabilities of its `top` classes."""
    subject = explanation.subjects[photo]
    view = View.of(subject, explanation.input_size, _PIXELS)
    crop = (
        "the network saw all of it"
        if view.whole
        else "the network saw the part inside the outline"
    )
    (cell,) = cells_of([Panel(view.veiled(), subject.name, crop)], _PHOTO)

    scores, entries = explanation.scores, explanation.top(top)[photo]
    bars = []
    for entry in entries:
        shown = scores.shown(percent(entry.probability), number(entry.logit))
        share = entry.probability
        length = entry.logit if share is None else share
        bars.append(Bar(entry.label, length, " · ".join(shown)))
    low, high = 0.0, 1.0
    if not scores.has_probabilities:
        low = min(0.0, *(entry.logit for entry in entries))
        high = max(0.0, *(entry.logit for entry in entries)) or 1.0
    chart = BarChart(
        bars,
        low=low,
        high=high,
        names=NAMES,
        values=1.55,
        step=0.36,
    )
    return _beside(cell, chart, " · ".join(scores.columns()))


def _beside(cell: Cell, chart: BarChart, heading: str) -> Block:
    def draw(sheet: Sheet, y: float) -> None:
        cell.draw_at(sheet, MARGIN, y)
        x = MARGIN + _PHOTO + 0.35
        sheet.text(
            x,
            y + 0.16,
            heading,
            size=8,
            colour=SOFT,
        )
        chart.draw(sheet, x, y + 0.36, WIDTH - MARGIN - x)

    return Block(max(cell.height, 0.6 + chart.height), draw)
