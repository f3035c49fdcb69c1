"""Fragments: results as self-contained pieces of HTML for notebooks, in the notebook's colours, light or dark."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from unitscope.accounts.account import Account
from unitscope.attribution.ablation import Ablation
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.kernels import Filters
from unitscope.network_facts import NetworkFacts
from unitscope.render import diagram, figures
from unitscope.render.colours import Scale
from unitscope.render.markup import data_uri, templates
from unitscope.render.overlays import View, shown
from unitscope.render.report import filters_picture, is_random
from unitscope.render.words import change as difference
from unitscope.render.words import clean, number, percent, tick

_PIXELS = 300
# A batch of photos is shown up to here; what is not shown is said.
_MOST_PHOTOS = 4
_MOST_UNITS = 12


@dataclass(frozen=True)
class ScaleView:
    """A colour bar: its ends in words, its picture."""

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
    rows: Sequence[Sequence[str]] = field(default=())


@functools.singledispatch
def html(result: Any) -> str:
    """A result as a self-contained fragment of HTML: predictions, maps and tables, with styles and pictures inside."""
    raise TypeError(f"there is no HTML of a {type(result).__name__}")


@html.register
def _(result: Explanation) -> str:
    parts: list[Part] = []
    for image in range(min(len(result), _MOST_PHOTOS)):
        parts += _explanation_parts(result, image)
    return _fragment([*parts, *_rest(len(result))])


@html.register
def _(result: UnitMaps) -> str:
    parts: list[Part] = []
    for image in range(min(len(result.subjects), _MOST_PHOTOS)):
        parts.append(
            _units_part(
                result, image, f"Units of {result.layer}: {result.subjects[image].name}"
            )
        )
    return _fragment([*parts, *_rest(len(result.subjects))])


@html.register
def _(result: Ablation) -> str:
    parts: list[Part] = []
    for image in range(min(len(result.subjects), _MOST_PHOTOS)):
        parts += _ablation_parts(result, image)
    return _fragment([*parts, *_rest(len(result.subjects))])


@html.register
def _(result: Filters) -> str:
    return _fragment([_filters_part(result)])


@html.register
def _(result: NetworkFacts) -> str:
    # Several cells of a notebook are one page: each drawing needs ids of its own.
    drawing = diagram.svg(result, prefix=f"us-{id(result):x}")
    return _fragment(
        [
            Part(
                f"{result.architecture}: {diagram.summary(result)}",
                diagram.KEY,
                drawing=drawing,
            )
        ]
    )


@html.register
def _(result: Account) -> str:
    warning = (
        "The weights are random: the predictions and maps mean nothing."
        if is_random(result)
        else ""
    )
    parts = [Part(result.sentence(), warning=warning)]
    parts += _explanation_parts(
        result.explanation, 0, list(result.classes), heading=False
    )
    parts += _ablation_parts(result.ablation, 0)
    parts += [_filters_part(filters) for filters in result.filters[:1]]
    return _fragment(parts)


def _fragment(parts: Sequence[Part]) -> str:
    return templates().get_template("fragment.html.j2").render(parts=parts)


def _rest(count: int) -> list[Part]:
    return (
        [Part(text=f"{count - _MOST_PHOTOS} more photos are not shown here.")]
        if count > _MOST_PHOTOS
        else []
    )


def _explanation_parts(
    explanation: Explanation,
    image: int,
    classes: Sequence[int] | None = None,
    *,
    heading: bool = True,
) -> list[Part]:
    predictions = explanation.top(5)[image]
    chosen = (
        [prediction.index for prediction in predictions]
        if classes is None
        else list(classes)
    )
    one = explanation[image]
    view = View.of(one.subjects[0], one.input_size, _PIXELS)
    scale = figures.cam_scale(one, [0], [chosen])
    name = clean(one.subjects[0].name)
    photo = Picture(
        data_uri(view.veiled()),
        f"{name}, with what the network saw outlined",
        name,
        "the photo",
    )
    panels = figures.cam_panels(one, 0, chosen, scale, pixels=_PIXELS)
    units = one.unit_maps([part.unit for part in one.top_units(chosen[0], 4)])
    first = clean(one.labels[chosen[0]])
    off = (
        f", without units {', '.join(map(str, one.off[:5]))}{' …' if len(one.off) > 5 else ''}"
        if one.off
        else ""
    )
    return [
        Part(
            f"{name}{off}" if heading else "",
            columns=("class", "logit", "probability"),
            rows=[
                (p.label, number(p.logit), percent(p.probability)) for p in predictions
            ],
        ),
        Part(
            "Where the evidence lies",
            figures.adding_up(one, chosen),
            pictures=[photo, *_pictures(panels, f"Class activation map on {name}")],
            scale=_scale_view(scale, "logits; orange for the class, violet against it"),
        ),
        _units_part(units, 0, f"The units that add most to {first}"),
    ]


def _units_part(
    maps: UnitMaps, image: int, heading: str, scale: Scale | None = None
) -> Part:
    some = figures.first_units(maps, _MOST_UNITS)
    panels = figures.unit_panels(some, image, scale, pixels=_PIXELS)
    more = len(maps.units) - len(some.units)
    left_out = f" {more} more units are not shown here." if more else ""
    return Part(
        heading,
        "Activations as the network computed them; each map has its own "
        f"scale.{left_out}",
        pictures=_pictures(panels, f"Map on {clean(maps.subjects[image].name)}"),
    )


def _ablation_parts(ablation: Ablation, image: int) -> list[Part]:
    changes = ablation.changes(5, image)
    rows = [
        (
            change.label,
            f"{change.rank_before} → {change.rank_after}",
            f"{number(change.logit_before)} → {number(change.logit_after)}",
            difference(change.logit_before, change.logit_after),
            f"{percent(change.probability_before)} → "
            f"{percent(change.probability_after)}",
        )
        for change in changes
    ]
    heading = f"{figures.switched_off(ablation)}: {ablation.subjects[image].name}"
    table = Part(
        heading, columns=("class", "rank", "logit", "change", "probability"), rows=rows
    )
    return [table, _units_part(ablation.maps, image, "")]


def _filters_part(filters: Filters) -> Part:
    words = figures.filters_words(filters)
    picture = Picture(
        data_uri(filters_picture(filters)[0], lossless=True),
        f"Filters of {clean(filters.layer)}: {words}",
    )
    return Part(
        f"Filters of {filters.layer}",
        words[0].upper() + words[1:],
        pictures=[picture],
        wide=True,
    )


def _pictures(panels: Sequence[figures.Panel], what: str) -> list[Picture]:
    return [
        Picture(
            data_uri(panel.pixels),
            f"{what}: {clean(panel.title)}, {panel.note or panel.line}",
            panel.title,
            panel.note or panel.line,
            None if panel.bar is None else _scale_view(panel.bar[0], ""),
        )
        for panel in panels
    ]


def _scale_view(scale: Scale, words: str) -> ScaleView | None:
    if scale.is_blank:
        return None
    drawn, lut = shown(scale, "signed" if scale.signed else "heat")
    low, high = tick(float(f"{drawn.low:.3g}")), tick(float(f"{drawn.high:.3g}"))
    text = ", ".join(
        part
        for part in (words, "" if scale.over == "this map alone" else scale.over)
        if part
    )
    return ScaleView(
        low,
        high,
        data_uri(np.ascontiguousarray(lut[None]), lossless=True),
        f"colour scale from {low} to {high}",
        text,
    )
