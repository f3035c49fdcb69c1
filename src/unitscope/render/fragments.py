"""Fragments: results as self-contained pieces of HTML for notebooks.

They have the notebook's colours, light or dark.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from unitscope.accounts.account import Account
from unitscope.accounts.parts import parts_of
from unitscope.attribution.ablation import Ablation, Change
from unitscope.attribution.classes import Prediction
from unitscope.attribution.contrast import Contrast
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.full_gradient import FullGradient
from unitscope.attribution.scores import Scores
from unitscope.attribution.screening import Screening
from unitscope.attribution.unit_ablations import UnitAblations
from unitscope.attribution.unit_inputs import UnitInputs
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.kernels import Filters
from unitscope.network_facts import NetworkFacts
from unitscope.plurals import plural
from unitscope.render import diagram
from unitscope.render.colours import THIS_MAP, Scale
from unitscope.render.diagram_svg import svg
from unitscope.render.figures.ablation import switched_off
from unitscope.render.figures.cams import adding_up, cam_panels, cam_scale
from unitscope.render.figures.contrast import contrast_panel, contrast_scale
from unitscope.render.figures.filters import filters_words
from unitscope.render.figures.full_gradient import adding_up as pixel_words
from unitscope.render.figures.full_gradient import (
    full_gradient_panel,
    full_gradient_scale,
    rows_of,
    scale_words,
)
from unitscope.render.figures.looks import Look
from unitscope.render.figures.panels import Panel
from unitscope.render.figures.unit_ablations import each_in_words
from unitscope.render.figures.units import unit_panels, units_title
from unitscope.render.inner_tables import Table, inputs_table, layers_table
from unitscope.render.kernel_sheet import KernelSheet
from unitscope.render.margins import adding_up as margin_words
from unitscope.render.margins import margin_rows
from unitscope.render.markup import data_uri, templates
from unitscope.render.overlays import shown
from unitscope.render.views import View
from unitscope.render.words import (
    capitalised,
    clean,
    difference,
    number,
    percent,
    quantity_in_full,
    tick,
)

_PIXELS = 300

# A fragment says how many photos and units it omits.
_MOST_PHOTOS = 4
_MOST_UNITS = 12
_MOST_EFFECTS = 10


@dataclass(frozen=True)
class ScaleView:
    """A colour bar: its ends in words, and its picture."""

    low: str
    high: str
    picture: str
    alt: str
    words: str


@dataclass(frozen=True)
class Picture:
    """A picture with its caption."""

    source: str
    alt: str
    title: str = ""
    line: str = ""
    scale: ScaleView | None = None


@dataclass(frozen=True)
class Part:
    """A part of a fragment: heading, text, pictures with a colour bar, and a table."""

    heading: str = ""
    text: str = ""
    warning: str = ""
    pictures: Sequence[Picture] = ()
    scale: ScaleView | None = None
    wide: bool = False
    drawing: Markup | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@functools.singledispatch
def html(result: Any) -> str:
    """A result as a self-contained fragment of HTML, with styles and pictures inside.

    Raises TypeError for a result that has none.
    """
    raise TypeError(f"there is no HTML of a {type(result).__name__}")


@html.register
def _(result: Explanation) -> str:
    parts: list[Part] = []
    for photo in range(min(len(result), _MOST_PHOTOS)):
        explanation = result[photo]
        heading = _name_and_units_off(explanation)
        parts += _explanation_parts(explanation, heading)
    return _fragment([*parts, *_omitted(len(result))])


@html.register
def _(result: UnitMaps) -> str:
    count = len(result.subjects)
    parts = []
    for photo in range(min(count, _MOST_PHOTOS)):
        heading = f"{units_title(result)}: {result.subjects[photo].name}"
        parts.append(_units_part(result, photo, heading))
    return _fragment([*parts, *_omitted(count)])


@html.register
def _(result: Ablation) -> str:
    count = len(result.subjects)
    parts: list[Part] = []
    for photo in range(min(count, _MOST_PHOTOS)):
        parts += _ablation_parts(result, photo)
    return _fragment([*parts, *_omitted(count)])


@html.register
def _(result: Contrast) -> str:
    count = len(result)
    parts: list[Part] = []
    for photo in range(min(count, _MOST_PHOTOS)):
        parts += _contrast_parts(result, photo)
    return _fragment([*parts, *_omitted(count)])


@html.register
def _(result: FullGradient) -> str:
    parts: list[Part] = []
    for photo in range(min(len(result), _MOST_PHOTOS)):
        for place in range(len(result.classes[photo])):
            parts += _full_gradient_parts(result, photo, place)
    return _fragment([*parts, *_omitted(len(result))])


@html.register
def _(result: Screening) -> str:
    count = len(result.classes)
    shown = result.outline()
    parts = [
        _table_part(layers_table(result, photo, shown))
        for photo in range(min(count, _MOST_PHOTOS))
    ]
    return _fragment([*parts, *_omitted(count)])


@html.register
def _(result: UnitInputs) -> str:
    return _fragment([_table_part(inputs_table(result))])


@html.register
def _(result: Filters) -> str:
    return _fragment([_filters_part(result)])


@html.register
def _(result: NetworkFacts) -> str:
    # All cells of a notebook are one page: each drawing needs ids of its own.
    drawing = svg(result, prefix=f"us-{id(result):x}")
    heading = f"{result.architecture}: {diagram.summary(result)}"
    return _fragment([Part(heading, diagram.KEY, drawing=drawing)])


@html.register
def _(result: Account) -> str:
    warning = ""
    if result.network.has_random_weights:
        warning = (
            "The weights are random: the predictions and maps mean nothing."
        )

    return _fragment(
        [
            Part(result.sentence(), warning=warning),
            *_explanation_parts(result.explanation, "", result.classes),
            *_ablation_parts(result.ablation, 0),
            *map(_filters_part, result.filters[:1]),
        ]
    )


def _fragment(parts: Sequence[Part]) -> str:
    return templates().get_template("fragment.html.j2").render(parts=parts)


def _omitted(photos: int) -> list[Part]:
    if photos <= _MOST_PHOTOS:
        return []
    return [
        Part(text=f"{photos - _MOST_PHOTOS} more photos are not shown here.")
    ]


def _explanation_parts(
    explanation: Explanation, heading: str, classes: Sequence[int] | None = None
) -> list[Part]:
    """Predictions, maps and units of one photo; by default of its top classes."""
    predictions = explanation.top(5)[0]
    shown = classes or [entry.index for entry in predictions]
    parts = [
        _predictions_part(predictions, heading, explanation.scores),
        _maps_part(explanation, shown),
    ]
    if explanation.head.maps_are_a_part:
        parts.append(_sums_part(explanation, shown))
    return [*parts, _strongest_units_part(explanation, shown[0])]


def _table_part(table: Table) -> Part:
    return Part(
        table.heading, table.text, columns=table.columns, rows=table.rows
    )


def _sums_part(explanation: Explanation, classes: Sequence[int]) -> Part:
    """What every part of a residual stream gives of the logits."""
    several = [parts_of(explanation, index) for index in classes]
    rows = [
        [
            explanation.labels[index],
            *(number(part, 3, sign=True) for part in parts.values()),
            number(float(explanation.logits[0, index])),
        ]
        for index, parts in zip(classes, several, strict=True)
    ]
    what = explanation.scores.number
    return Part(
        text=f"All parts add up to the {what}; the maps show the patches alone.",
        columns=["class", *several[0], f"= {what}"],
        rows=rows,
    )


def _name_and_units_off(explanation: Explanation) -> str:
    """The photo, and what is off or changed in it."""
    text, head = clean(explanation.subjects[0].name), explanation.head

    def units(numbers: Sequence[int]) -> str:
        names = ", ".join(map(head.unit_name, numbers[:5]))
        noun = head.unit_noun if len(numbers) == 1 else f"{head.unit_noun}s"
        return f"{noun} {names}{' …' if len(numbers) > 5 else ''}"

    if explanation.off:
        text += f", without {units(explanation.off)}"
    if explanation.altered:
        text += f", {units(explanation.altered)} changed"
    return text


def _predictions_part(
    predictions: Sequence[Prediction], heading: str, scores: Scores
) -> Part:
    rows = []
    for entry in predictions:
        row = [entry.label]
        if scores.has_logits:
            row.append(number(entry.logit))
        if scores.has_probabilities:
            row.append(percent(entry.probability))
        rows.append(row)
    columns = ["class", *reversed(scores.columns())]
    return Part(heading, columns=columns, rows=rows)


def _maps_part(explanation: Explanation, classes: Sequence[int]) -> Part:
    subject = explanation.subjects[0]
    name = clean(subject.name)
    view = View.of(subject, explanation.input_size, _PIXELS)
    photo = Picture(
        source=data_uri(view.veiled()),
        alt=f"{name}, with what the network saw outlined",
        title=name,
        line="the photo",
    )

    scale = cam_scale(explanation, [0], [classes])
    panels = cam_panels(
        explanation,
        0,
        classes,
        scale,
        pixels=_PIXELS,
    )
    return Part(
        "Where the evidence lies",
        adding_up(explanation, classes),
        pictures=[photo, *_pictures(panels, f"Class activation map on {name}")],
        scale=_scale_view(
            scale,
            f"{explanation.scores.numbers}; orange for the class, violet against it",
        ),
    )


def _strongest_units_part(explanation: Explanation, index: int) -> Part:
    """The units that add most to a class."""
    strongest = explanation.top_units(index, 4)
    maps = explanation.unit_maps([unit.unit for unit in strongest])
    label = clean(explanation.labels[index])
    lines = []
    if maps.hold == "attention":
        unit = explanation.scores.numbers
        lines = [
            f"{number(unit_.contribution, sign=True)} {unit}"
            for unit_ in strongest
        ]
    heading = f"The {maps.noun}s that add most to {label}"
    return _units_part(maps, 0, heading, lines)


def _units_part(
    maps: UnitMaps, photo: int, heading: str, lines: Sequence[str] = ()
) -> Part:
    shown = maps.first(_MOST_UNITS)
    panels = unit_panels(
        shown,
        photo,
        None,
        lines=lines,
        pixels=_PIXELS,
    )
    held = quantity_in_full(maps.hold)
    words = f"{held}; each map has its own scale."
    more = len(maps.units) - len(shown.units)
    if more:
        verb = "is" if more == 1 else "are"
        others = plural(more, f"more {maps.noun}")
        words += f" {others} {verb} not shown here."

    name = clean(maps.subjects[photo].name)
    return Part(heading, words, pictures=_pictures(panels, f"Map on {name}"))


def _ablation_parts(ablation: Ablation, photo: int) -> list[Part]:
    table = Part(
        f"{switched_off(ablation)}: {ablation.subjects[photo].name}",
        columns=_change_columns(ablation.scores),
        rows=[
            _change_row(change, ablation.scores)
            for change in ablation.changes(5, photo)
        ],
    )
    return [table, _units_part(ablation.maps, photo, "")]


@html.register
def _(result: UnitAblations) -> str:
    count = len(result.subjects)
    parts = [
        _each_part(result, photo) for photo in range(min(count, _MOST_PHOTOS))
    ]
    return _fragment([*parts, *_omitted(count)])


def _each_part(result: UnitAblations, photo: int) -> Part:
    """The units whose ablation changes the first class most."""
    label = result.labels[result.first_class(photo)]
    number_name = result.scores.number
    effects = result.effects(None, photo)
    return Part(
        f"{each_in_words(result)}: {result.subjects[photo].name}",
        f"What that does to the {number_name} of {label}; the {_MOST_EFFECTS} largest changes "
        f"of {plural(len(effects), result.noun)}.",
        columns=[result.noun, f"{number_name} then", "change", "first class"],
        rows=[
            [
                each.name,
                number(each.after),
                difference(each.before, each.after),
                each.first,
            ]
            for each in effects[:_MOST_EFFECTS]
        ],
    )


def _contrast_parts(contrast: Contrast, photo: int) -> list[Part]:
    """A contrast's map, and how its margin adds up."""
    explanation = contrast.explanation
    name = clean(explanation.subjects[photo].name)
    question = capitalised(contrast.question(photo))
    scale = contrast_scale(contrast, photo)
    panel = contrast_panel(contrast, photo, Look("signed"), scale, _PIXELS)
    a, b = map(clean, contrast.labels(photo))
    numbers = explanation.scores.numbers
    words = f"{numbers}; orange speaks for {a}, violet for {b}"
    rows = [
        [row.name, number(row.value, sign=True)]
        for row in margin_rows(contrast, photo, 5)
    ]
    margin = number(float(contrast.margin[photo]), sign=True)
    return [
        Part(
            f"{question}: {name}",
            margin_words(contrast, clean(explanation.head.layer)),
            pictures=_pictures([panel], f"Contrast map on {name}"),
            scale=_scale_view(scale, words),
        ),
        Part(
            columns=["", f"margin in {numbers}"],
            rows=[*rows, ["margin", f"= {margin}"]],
        ),
    ]


def _full_gradient_parts(
    result: FullGradient, photo: int, place: int
) -> list[Part]:
    """A map of pixels, and how the logit adds up."""
    name = clean(result.subjects[photo].name)
    scale = full_gradient_scale(result, photo, place)
    panel = full_gradient_panel(
        result, photo, place, Look("signed"), scale, pixels=_PIXELS
    )
    what = result.scores.number
    rows = [
        [part, number(value, sign=True)]
        for part, value in rows_of(result, photo, place)
    ]
    total = number(float(result.explained[photo, place]), sign=True)
    return [
        Part(
            heading=f"Pixels and biases: {name}",
            text=pixel_words(result, photo, place),
            pictures=_pictures([panel], f"FullGrad map on {name}"),
            scale=_scale_view(scale, scale_words(result)),
        ),
        Part(columns=["", what], rows=[*rows, [what, f"= {total}"]]),
    ]


def _change_columns(scores: Scores) -> list[str]:
    columns = ["class", "rank", scores.number, "change"]
    if scores.has_probabilities and scores.has_logits:
        columns.append("probability")
    return columns


def _change_row(change: Change, scores: Scores) -> list[str]:
    before, after = change.logit_before, change.logit_after
    row = [
        change.label,
        f"{change.rank_before} → {change.rank_after}",
        f"{number(before)} → {number(after)}",
        difference(before, after),
    ]
    if scores.has_probabilities and scores.has_logits:
        shares = (change.probability_before, change.probability_after)
        row.append(" → ".join(map(percent, shares)))
    return row


def _filters_part(filters: Filters) -> Part:
    words = filters_words(filters)
    picture = Picture(
        source=data_uri(KernelSheet.of(filters).pixels, lossless=True),
        alt=f"Filters of {clean(filters.layer)}: {words}",
    )
    heading = f"Filters of {filters.layer}"
    return Part(
        heading,
        capitalised(words),
        pictures=[picture],
        wide=True,
    )


def _pictures(panels: Sequence[Panel], subject: str) -> list[Picture]:
    """The panels as pictures; `subject` begins what a screen reader says of each."""
    pictures = []
    for panel in panels:
        line = panel.note or panel.line
        pictures.append(
            Picture(
                source=data_uri(panel.pixels),
                alt=f"{subject}: {clean(panel.title)}, {line}",
                title=panel.title,
                line=line,
                scale=None if panel.bar is None else _scale_view(panel.bar[0]),
            )
        )
    return pictures


def _scale_view(scale: Scale, words: str = "") -> ScaleView | None:
    if scale.is_blank:
        return None
    drawn, lut = shown(scale, scale.style)
    low, high = (tick(float(f"{end:.3g}")) for end in (drawn.low, drawn.high))
    over = "" if scale.over == THIS_MAP else scale.over
    return ScaleView(
        low=low,
        high=high,
        picture=data_uri(np.ascontiguousarray(lut[None]), lossless=True),
        alt=f"colour scale from {low} to {high}",
        words=", ".join(filter(None, (words, over))),
    )
