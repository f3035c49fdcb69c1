"""Evaluation: for each measure the mean of every method with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from unitscope.evaluation.evaluation import Evaluation
from unitscope.evaluation.measure import Measure
from unitscope.render.figures.bars import ValueAxis
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    Block,
    heading,
    lead,
    note,
    page,
)
from unitscope.render.sheets import ACCENT, LINE, QUIET, SOFT, Sheet
from unitscope.render.words import clean, number

_NAMES = 1.9
_VALUES = 3.1
_STEP = 0.28
_DOT = 0.11
_AXIS = 0.3

_DIRECTIONS = {1: ": more is better", -1: ": less is better", 0: ""}


def evaluation_figure(
    evaluation: Evaluation, *, measures: Sequence[str] | None = None
) -> Figure:
    """A chart for each measure, or for some: dots are means, lines 95 % intervals."""
    for name in measures or ():
        evaluation.of(name, evaluation.first.name)  # refuses unknown names
    shown = [
        measure
        for measure in evaluation.measures
        if measures is None or measure.name in measures
    ]
    count = len(evaluation.photos)
    about = evaluation.about
    blocks = [
        lead(f"What maps of {about['model']} are worth, over {count} photos")
    ]
    for measure in shown:
        blocks += _measure_blocks(evaluation, measure)
    hidden = about["hidden pixels"]
    blocks.append(
        note(
            f"Class explained: {about['class explained']}. Score: {about['score']}. "
            f"Hidden pixels: {hidden}. Grey: baselines. Lines: {about['intervals']}; "
            "each axis spans its own values, none is "
            "clipped. Intervals of two methods may overlap though their difference, photo by "
            "photo, is clear of 0; the words behind each interval are what that says of "
            f"{evaluation.first.name}."
        )
    )
    return page(blocks)


def _measure_blocks(evaluation: Evaluation, measure: Measure) -> list[Block]:
    direction = _DIRECTIONS[measure.better]
    title = f"{measure.name}{direction}"
    formula = (
        f"{measure.formula}. Unit: {measure.unit}. Source: {measure.source}."
    )
    return [heading(title), note(formula), _chart(evaluation, measure)]


def _chart(evaluation: Evaluation, measure: Measure) -> Block:
    methods = [
        method
        for method in evaluation.methods
        if evaluation.count(measure.name, method.name)
    ]
    means = {
        method.name: evaluation.mean(measure.name, method.name)
        for method in methods
    }
    ends = [
        value
        for estimate in means.values()
        for value in estimate
        if not math.isnan(value)
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = INNER - _NAMES - 0.15 - _VALUES

    def draw(sheet: Sheet, y: float) -> None:
        left = MARGIN + _NAMES + 0.15
        axis = ValueAxis.between(low, high, left, room)
        bottom = y + _STEP * len(methods) + 0.04
        _draw_ends(sheet, axis, (low, high), y, bottom)
        for row, method in enumerate(methods):
            middle = y + row * _STEP + 0.15
            colour = QUIET if method.is_null else ACCENT
            mean, begin, end = means[method.name]
            _draw_estimate(sheet, axis, middle, (mean, begin, end), colour)
            sheet.text(
                MARGIN + _NAMES,
                middle + 0.05,
                clean(method.name),
                size=9.5,
                align="right",
                room=_NAMES,
            )
            sheet.text(
                left + room + 0.15,
                middle + 0.05,
                _words(evaluation, measure, method.name),
                size=8.5,
                room=_VALUES - 0.15,
            )

    return Block(_STEP * len(methods) + _AXIS, draw)


def _draw_ends(
    sheet: Sheet,
    axis: ValueAxis,
    ends: tuple[float, float],
    top: float,
    bottom: float,
) -> None:
    """Rules at both ends of an axis, with their values below."""
    for value in ends:
        place = axis.end(value)
        sheet.rule(place, top, place, bottom, colour=LINE)
        sheet.text(
            place,
            bottom + 0.14,
            number(value, 3),
            size=7.5,
            colour=SOFT,
            align="center",
        )


def _draw_estimate(
    sheet: Sheet,
    axis: ValueAxis,
    y: float,
    estimate: tuple[float, float, float],
    colour: str,
) -> None:
    mean, low, high = estimate
    if not math.isnan(low):
        sheet.box(
            axis.end(low),
            y - 0.015,
            axis.end(high) - axis.end(low),
            0.03,
            fill=colour,
        )
    sheet.box(axis.end(mean) - _DOT / 2, y - _DOT / 2, _DOT, _DOT, fill=colour)


def _words(evaluation: Evaluation, measure: Measure, method: str) -> str:
    """The mean with its interval, and what may be said of the first method beside it."""
    mean, low, high = evaluation.mean(measure.name, method)
    text = number(mean, 3)
    if not math.isnan(low):
        text += f" ({number(low, 3)} to {number(high, 3)})"
    if method == evaluation.first.name:
        return text
    verdict = evaluation.verdict(measure.name, method)
    first = clean(evaluation.first.name)
    words = {
        "better": f"{first} better",
        "worse": f"{first} worse",
        "as good": "the same",
        "open": "not told apart",
    }
    if verdict not in words:
        return text
    return f"{text} – {words[verdict]}"
