"""Layers: which layers carry a prediction, by the estimates of a screening."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from unitscope.attribution.scores import Scores
from unitscope.attribution.screening import LayerStrength, Screening, Verified
from unitscope.render.figures.bars import Bar, ValueAxis, bar_block
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    Block,
    heading,
    note,
    page,
)
from unitscope.render.figures.panels import photos_shown
from unitscope.render.sheets import ACCENT, QUIET, SOFT, Sheet
from unitscope.render.words import clean, number

# Inches: one layer, its name, and the number behind a bar.
_STEP = 0.27
_NAMES = 2.5
_VALUES = 1.15
_GAP = 0.25


class _Column(NamedTuple):
    title: str
    colour: str
    value: Callable[[LayerStrength], float]
    text: Callable[[LayerStrength], str]


_COLUMNS = (
    _Column(
        "strongest unit: |estimate|",
        ACCENT,
        lambda row: row.largest,
        lambda row: f"{number(row.largest)} (unit {row.unit})",
    ),
    _Column(
        "all units: sum of |estimates|",
        QUIET,
        lambda row: row.total,
        lambda row: number(row.total),
    ),
)


def layers_figure(
    screening: Screening,
    *,
    image: int | None = None,
    layers: Sequence[str] | None = None,
    top: int = 8,
) -> Figure:
    """A strip of bars, one row a layer in order of execution, and the `top` units.

    `layers` are those shown: by default the outermost ones, as many as fit.
    """
    shown = screening.outline() if layers is None else list(layers)
    for name in shown:
        screening.top(1, layer=name)  # refuses layers that were not screened
    blocks = []
    for photo in photos_shown(len(screening.classes), image):
        blocks += layer_blocks(screening, photo, shown, top)
    return page(blocks)


def layer_blocks(
    screening: Screening, photo: int, shown: Sequence[str], top: int
) -> list[Block]:
    """The strip of one photo, and the units with the largest estimates."""
    rows = [row for row in screening.strengths(photo) if row.layer in shown]
    label = screening.label(photo)
    name = screening.subjects[photo].name
    blocks = [
        heading(f"Which layers carry {label}: {name}"),
        _strip(rows),
        note(words_of_scale(screening, photo, len(rows))),
    ]
    if top:
        blocks += [
            heading(f"The {top} units with the largest estimates"),
            _top_units(screening, photo, top),
        ]
    if screening.verified:
        verified = screening.verified[photo]
        blocks.append(note(words_of_correlation(verified, screening.scores)))
    return blocks


def words_of_scale(screening: Screening, photo: int, shown: int) -> str:
    """What the numbers are, and what the bars were scaled by."""
    what = screening.scores.number
    hidden = len(screening.layers) - shown
    inside = (
        f" {hidden} more layers lie inside or between these." if hidden else ""
    )
    return (
        f"Estimates in {screening.scores.numbers}, to first order, from one forward and one "
        f"backward pass: −Σ gradient · activation over a unit's map is what the {what} of "
        f"{number(screening.logit(photo))} would gain with the unit off. Bars are scaled to "
        f"the longest of each column; nothing is clipped.{inside}"
    )


def words_of_correlation(verified: Verified, scores: Scores) -> str:
    """How well estimates rank units, by those that were switched off."""
    count = len(verified.sample)
    if verified.correlation is None:
        return (
            f"Too few units were switched off ({count}) for a rank correlation."
        )
    alone = verified.top_correlation
    among = (
        ""
        if alone is None
        else f" Among the top units alone it is {alone:.2f}."
    )
    return (
        f"Spearman's rank correlation with real passes is {verified.correlation:.2f} over "
        f"{count} units drawn at random from the layers.{among} A correlation over the top "
        f"units is not that over all. Measured numbers are {scores.numbers} too."
    )


def _strip(rows: Sequence[LayerStrength]) -> Block:
    width = (INNER - _NAMES - 0.12 - _GAP) / len(_COLUMNS)

    def draw(sheet: Sheet, y: float) -> None:
        for row, strength in enumerate(rows):
            sheet.text(
                MARGIN + _NAMES,
                y + 0.24 + row * _STEP + 0.15,
                clean(strength.layer),
                size=9,
                align="right",
                room=_NAMES,
            )
        for place, column in enumerate(_COLUMNS):
            left = MARGIN + _NAMES + 0.12 + place * (width + _GAP)
            _draw_column(sheet, left, y, width, column, rows)

    return Block(0.34 + _STEP * len(rows), draw)


def _draw_column(
    sheet: Sheet,
    left: float,
    y: float,
    width: float,
    column: _Column,
    rows: Sequence[LayerStrength],
) -> None:
    sheet.text(left, y + 0.1, column.title, size=8, colour=SOFT, room=width)
    most = max((column.value(row) for row in rows), default=0.0)
    axis = ValueAxis.between(0.0, most, left, width - _VALUES)
    for row, strength in enumerate(rows):
        top = y + 0.24 + row * _STEP
        value = column.value(strength)
        axis.draw_bar(sheet, top + 0.02, value, height=0.17, fill=column.colour)
        sheet.text(
            axis.end(value) + 0.06,
            top + 0.15,
            column.text(strength),
            size=8,
            room=_VALUES - 0.06,
        )
    bottom = y + 0.24 + _STEP * len(rows) - 0.04
    sheet.rule(axis.zero, y + 0.22, axis.zero, bottom, colour=SOFT)


def _top_units(screening: Screening, photo: int, top: int) -> Block:
    bars = []
    for effect in screening.top(top, photo):
        text = number(effect.estimate, sign=True)
        if effect.measured is not None:
            text += f", measured {number(effect.measured, sign=True)}"
        name = f"unit {effect.unit} of {clean(effect.layer)}"
        bars.append(Bar(name, effect.estimate, text))
    return bar_block(bars, names=_NAMES, values=1.7, step=0.3)
