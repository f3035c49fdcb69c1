"""Figures: results drawn with matplotlib's objects; no pyplot, no global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from unitscope.accounts.account import Account
from unitscope.attribution.ablation import Ablation, Change
from unitscope.attribution.classes import class_indices, probabilities_of
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.kernels import Filters
from unitscope.network_facts import NetworkFacts
from unitscope.render import diagram
from unitscope.render.colours import Scale
from unitscope.render.overlays import View, overlay, shown
from unitscope.render.sheets import (
    ACCENT,
    INK,
    LINE,
    QUIET,
    SOFT,
    Block,
    Sheet,
    line_height,
    page,
    text_width,
    wrapped,
)
from unitscope.render.words import (
    clean,
    listing,
    number,
    numbers,
    percent,
    plural,
    power,
)

WIDTH = 10.4
"""Inches; at 150 dots an inch, 1560 pixels."""

_MARGIN = 0.3
_INNER = WIDTH - 2 * _MARGIN
_PIXELS = 520
_MOST_PANELS = 60

MapScale = Literal["shared", "photo", "map"]


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a grid: what is above it, beneath it, and the colour bar that belongs to it alone."""

    pixels: UInt8[np.ndarray, "height width 3"]
    title: str
    line: str = ""
    bar: tuple[Scale, UInt8[np.ndarray, "256 3"]] | None = None
    note: str = ""


# ---- class activation maps


def cams_figure(
    explanation: Explanation,
    *,
    image: int | None = None,
    classes: int | str | Sequence[int | str] | None = None,
    top: int = 5,
    scale: MapScale | Scale | None = None,
    style: str = "signed",
    colours: str | None = None,
    columns: int | None = None,
) -> Figure:
    """Class activation maps on their photos, in logits, with the completeness error beneath.

    `image` is one photo of the batch (all when None); `classes` are labels or indices,
    each photo's `top` classes when None. `scale` is "shared" (over all maps drawn; the
    default, but for the write-up's style), "photo" (over the maps of a photo), "map"
    (each alone), or a Scale. `style` is "signed", "heat", "contour", "write-up" or
    "plain"; `colours` a colour map.
    """
    blocks = _cam_blocks(
        explanation, image, classes, top, scale, style, colours, columns, heading=True
    )
    return page(blocks, WIDTH, margin=_MARGIN)


def cam_scale(
    explanation: Explanation,
    images: Sequence[int],
    classes: Sequence[Sequence[int]],
    over: str = "",
    *,
    signed: bool = True,
) -> Scale:
    """The scale shared by the maps of some classes of some photos, in logits."""
    maps = [
        explanation[i].cams_of(list(chosen)).cpu().numpy().ravel()
        for i, chosen in zip(images, classes, strict=True)
    ]
    count = sum(map(len, classes))
    return Scale.of(
        np.concatenate(maps),
        over or ("this map" if count == 1 else f"shared over these {count} maps"),
        signed=signed,
    )


def _cam_blocks(
    explanation: Explanation,
    image: int | None,
    classes: int | str | Sequence[int | str] | None,
    top: int,
    scale: MapScale | Scale | None,
    style: str,
    colours: str | None,
    columns: int | None,
    *,
    heading: bool,
) -> list[Block]:
    images = _images(explanation, image)
    scale = scale or ("map" if style == "write-up" else "shared")
    signed = style not in ("heat", "write-up")
    if classes is None:
        chosen = [[p.index for p in ranking] for ranking in explanation.top(top)]
    else:
        chosen = [class_indices(explanation.labels, classes)] * len(explanation)
    if sum(len(chosen[i]) for i in images) > _MOST_PANELS:
        raise ValueError(
            f"a figure holds at most {_MOST_PANELS} maps: choose image= or fewer "
            "classes"
        )
    shared = (
        scale
        if isinstance(scale, Scale)
        else cam_scale(explanation, images, [chosen[i] for i in images], signed=signed)
    )
    blocks = []
    for i in images:
        own = cam_scale(
            explanation,
            [i],
            [chosen[i]],
            f"shared over this photo's {len(chosen[i])} maps",
            signed=signed,
        )
        common = (
            {"photo": own, "map": None}.get(scale, shared)
            if isinstance(scale, str)
            else shared
        )
        panels = cam_panels(explanation, i, chosen[i], common, style, colours)
        if heading:
            blocks.append(
                _heading(f"Where the evidence lies: {explanation.subjects[i].name}")
            )
        blocks.extend(_grid(panels, columns))
        if common is not None:
            blocks.append(
                _colour_bar(
                    common, "evidence at every place, in logits", style, colours
                )
            )
        words = _scale_words(common.over if common else "each map alone", style)
        blocks.append(_note(f"Scale: {words}. {adding_up(explanation[i], chosen[i])}"))
    return blocks


def adding_up(explanation: Explanation, classes: Sequence[int]) -> str:
    """Say, of one photo, how its maps add up to the logits, or that a local answer's do not and by how much."""
    if explanation.exact:
        error = power(float(explanation.completeness_error[0]))
        over = f"largest error over all {plural(len(explanation.labels), 'class')}: {error} of the largest logit"
        return f"The mean of each map + its bias = its logit; {over}."
    left = explanation.left_out_of([classes[0]])[0, 0]
    logit = explanation.logits[0, classes[0]]
    return (
        f"A local answer: gradient × activation at {clean(explanation.layer)}. Of the "
        "logit of "
        f"{clean(explanation.labels[classes[0]])}, {number(float(logit))}, the mean of "
        "its map leaves out "
        f"{number(float(left))}."
    )


def cam_panels(
    explanation: Explanation,
    image: int,
    classes: Sequence[int],
    common: Scale | None,
    style: str = "signed",
    colours: str | None = None,
    pixels: int = _PIXELS,
) -> list[Panel]:
    """A panel for every class's map on one photo, on the `common` scale or each on its own."""
    view = View.of(explanation.subjects[image], explanation.input_size, pixels)
    laid = explanation.cams_on_photo(image, list(classes), view.size)
    probabilities = probabilities_of(explanation.logits[image])
    signed = style not in ("heat", "write-up")
    panels = []
    for index, one in zip(classes, laid, strict=True):
        mine = common or cam_scale(
            explanation, [image], [[index]], "this map alone", signed=signed
        )
        panels.append(
            Panel(
                overlay(view, one, mine, style, colours),
                explanation.labels[index],
                f"logit {number(float(explanation.logits[image, index]))} · "
                f"{percent(float(probabilities[index]))}",
                shown(mine, style, colours) if common is None else None,
                "no evidence (all 0)"
                if _silent(explanation, image, index)
                else "nothing above 0"
                if mine.is_blank
                else "",
            )
        )
    return panels


def _silent(explanation: Explanation, image: int, index: int) -> bool:
    return not bool(explanation[image].cams_of([index]).any())


def _scale_words(over: str, style: str) -> str:
    colouring = {
        "signed": "orange speaks for the class, violet against it, grey means neither",
        "heat": "only evidence for the class is drawn (values below 0 are left out)",
        "contour": "lines at ¼, ½ and ¾ of the scale, orange for the class and violet against it",
        "write-up": "map ÷ the scale's end, values below 0 left out, blended by its own strength as in the write-up",
    }.get(style, "the map alone, without the photo")
    return f"{over}; {colouring}"


# ---- unit maps


def units_figure(
    maps: UnitMaps,
    *,
    image: int | None = None,
    scale: MapScale | Literal["unit"] | Scale = "map",
    style: str | None = None,
    colours: str | None = None,
    columns: int | None = None,
    lines: Sequence[str] = (),
) -> Figure:
    """Maps of units on their photos, in activations.

    `image` is one photo of the batch (all when None). `scale` is "map" (each map has
    its own, with its own colour bar), "unit" (a unit's maps of all photos share one),
    "photo" (all maps of a photo), "shared" (all maps drawn), or a Scale. `style` is
    "heat" by default, and "signed" where maps have negative values. `lines` are written
    beneath the titles, one a unit.
    """
    return page(
        _unit_blocks(maps, image, scale, style, colours, columns, lines, heading=True),
        WIDTH,
        margin=_MARGIN,
    )


def unit_scale(
    maps: UnitMaps,
    images: Sequence[int] | None = None,
    over: str = "",
    *,
    signed: bool | None = None,
) -> Scale:
    """The scale shared by all maps of some photos (all when None), in activations."""
    cells = (
        maps.maps.cpu().numpy()
        if images is None
        else maps.maps[list(images)].cpu().numpy()
    )
    count = cells.shape[0] * cells.shape[1]
    return Scale.of(
        cells,
        over or ("this map alone" if count == 1 else f"shared over these {count} maps"),
        signed=signed,
    )


def _unit_blocks(
    maps: UnitMaps,
    image: int | None,
    scale: MapScale | Literal["unit"] | Scale,
    style: str | None,
    colours: str | None,
    columns: int | None,
    lines: Sequence[str],
    *,
    heading: bool,
) -> list[Block]:
    images = _images(maps.subjects, image)
    if len(images) * len(maps.units) > _MOST_PANELS:
        raise ValueError(
            f"a figure holds at most {_MOST_PANELS} maps: choose image= or fewer units"
        )
    signed = False if style in ("heat", "write-up") else None
    shared = (
        scale if isinstance(scale, Scale) else unit_scale(maps, images, signed=signed)
    )
    blocks = []
    for i in images:
        common = (
            {"shared": shared, "photo": unit_scale(maps, [i], signed=signed)}.get(scale)
            if isinstance(scale, str)
            else scale
        )
        panels = unit_panels(
            maps,
            i,
            common,
            style,
            colours,
            lines,
            per_unit_over=images if scale == "unit" else None,
        )
        if heading:
            blocks.append(_heading(f"Units of {maps.layer}: {maps.subjects[i].name}"))
        blocks.extend(_grid(panels, columns))
        if common is not None:
            blocks.append(
                _colour_bar(
                    common,
                    "activation",
                    style or ("signed" if common.signed else "heat"),
                    colours,
                )
            )
        alone = (
            "each unit has its own scale"
            if scale == "unit"
            else "each map has its own scale"
        )
        cut = style in ("heat", "write-up") and bool((maps.maps[i] < 0).any())
        left_out = "; values below 0 are left out" if cut else ""
        blocks.append(
            _note(
                "Activations as the network computed them; scale: "
                f"{common.over if common else alone}{left_out}."
            )
        )
    return blocks


def unit_panels(
    maps: UnitMaps,
    image: int,
    common: Scale | None,
    style: str | None = None,
    colours: str | None = None,
    lines: Sequence[str] = (),
    per_unit_over: Sequence[int] | None = None,
    pixels: int = _PIXELS,
) -> list[Panel]:
    """A panel for every unit's map on one photo, on the `common` scale or each on its own."""
    view = View.of(maps.subjects[image], maps.input_size, pixels)
    laid = maps.on_photo(image, view.size)
    panels = []
    for position, (unit, one) in enumerate(zip(maps.units, laid, strict=True)):
        cells = maps.maps[image, position].cpu().numpy()
        signed = False if style in ("heat", "write-up") else None
        alone = Scale.of(cells, "this map alone", signed=signed)
        if per_unit_over is not None:
            every = maps.maps[list(per_unit_over), position].cpu().numpy()
            alone = Scale.of(every, "shared over this unit's maps", signed=signed)
        mine = common or alone
        drawn = style or ("signed" if mine.signed else "heat")
        silent = not cells.any()
        measured = (
            f"mean {number(float(cells.mean()))}, max {number(float(cells.max()))}"
        )
        panels.append(
            Panel(
                overlay(view, one, mine, drawn, colours),
                f"unit {unit}",
                lines[position]
                if position < len(lines)
                else ""
                if silent
                else measured,
                None if common else shown(mine, drawn, colours),
                "no activation (all 0)"
                if silent
                else "nothing above 0"
                if mine.is_blank
                else "",
            )
        )
    return panels


# ---- ablation


def ablation_figure(
    ablation: Ablation,
    *,
    image: int | None = None,
    top: int = 5,
    style: str | None = None,
) -> Figure:
    """The `top` classes before and after units were switched off, as paired bars with ranks, and the units' maps."""
    return page(_ablation_blocks(ablation, image, top, style), WIDTH, margin=_MARGIN)


def _ablation_blocks(
    ablation: Ablation,
    image: int | None,
    count: int,
    style: str | None,
    scale: Scale | None = None,
) -> list[Block]:
    blocks = []
    for i in _images(ablation.subjects, image):
        changes = ablation.changes(count, i)
        blocks.append(
            _heading(f"{switched_off(ablation)}: {ablation.subjects[i].name}")
        )
        blocks.append(_paired(ablation, i, changes, style, scale))
        how = (
            "exact algebra on one forward pass"
            if ablation.exact
            else "a second forward pass with their maps set to zero"
        )
        verdict = (
            "The first prediction changes"
            if ablation.turned_over()[i]
            else "The first prediction stays"
        )
        blocks.append(
            _note(
                f"{verdict}. After: {how}. Rows in the order before; logits at the "
                "bars."
            )
        )
    return blocks


def switched_off(ablation: Ablation) -> str:
    """What was done, in words: "Without units 3, 5 and 8 of features"."""
    noun = "unit" if len(ablation.units) == 1 else "units"
    return f"Without {noun} {listing([str(unit) for unit in ablation.units], 5)} of {ablation.layer}"


def _paired(
    ablation: Ablation,
    image: int,
    changes: Sequence[Change],
    style: str | None,
    scale: Scale | None,
) -> Block:
    some = 1 if len(ablation.units) == 1 else 2 if len(ablation.units) <= 4 else 3
    maps = first_units(ablation.maps, some * some)
    panels = unit_panels(maps, image, scale, style)
    if scale is not None and panels:
        panels = [
            Panel(
                p.pixels,
                p.title,
                p.line,
                shown(scale, style or ("signed" if scale.signed else "heat")),
                p.note,
            )
            for p in panels
        ]
    side, gap = 3.3, 0.15
    width = (side - gap * (some - 1)) / some
    cells = [_panel(panel, width, _aspect(panels)) for panel in panels]
    rows = [cells[start : start + some] for start in range(0, len(cells), some)]
    more = len(ablation.units) - len(maps.units)
    maps_height = sum(row[0].height for row in rows) + (0.25 if more else 0)
    step = 0.62
    height = max(maps_height, 0.45 + step * len(changes)) + 0.05

    def draw(sheet: Sheet, y: float) -> None:
        _draw_pairs(sheet, _MARGIN, y, _INNER - side - 0.45, changes, step)
        top = y
        for row in rows:
            for column, cell in enumerate(row):
                cell.draw_at(
                    sheet, WIDTH - _MARGIN - side + column * (width + gap), top
                )
            top += row[0].height
        if more:
            sheet.text(
                WIDTH - _MARGIN - side,
                top + 0.12,
                f"and {more} more units",
                size=8,
                colour=SOFT,
            )

    return Block(height, draw)


def _draw_pairs(
    sheet: Sheet,
    x: float,
    y: float,
    width: float,
    changes: Sequence[Change],
    step: float,
) -> None:
    names, ranks, values = 1.75, 0.85, 0.55
    values_of = [
        v for change in changes for v in (change.logit_before, change.logit_after)
    ]
    low, high = min(0.0, *values_of), max(0.0, *values_of)
    left = x + names + 0.12 + (values if low < 0 else 0)
    room = x + width - ranks - values - left
    unit = room / (high - low or 1.0)
    zero = left - low * unit
    for place, colour, word in (
        (left, QUIET, "before"),
        (left + 0.85, ACCENT, "after"),
    ):
        sheet.box(place, y + 0.02, 0.14, 0.11, fill=colour)
        sheet.text(place + 0.2, y + 0.13, word, size=8, colour=SOFT)
    sheet.text(x + width, y + 0.13, "rank", size=8, colour=SOFT, align="right")
    for row, change in enumerate(changes):
        top = y + 0.38 + row * step
        sheet.text(
            x + names,
            top + 0.26,
            change.label,
            size=9.5,
            align="right",
            room=names,
            bold=change.rank_before == 1,
        )
        for offset, value, colour in (
            (0.0, change.logit_before, QUIET),
            (0.2, change.logit_after, ACCENT),
        ):
            sheet.box(
                zero + min(0.0, value * unit),
                top + offset,
                abs(value * unit),
                0.17,
                fill=colour,
            )
            beside = zero + value * unit + (0.06 if value >= 0 else -0.06)
            sheet.text(
                beside,
                top + offset + 0.135,
                number(value),
                size=8,
                align="left" if value >= 0 else "right",
            )
        moved = change.rank_before != change.rank_after
        sheet.text(
            x + width,
            top + 0.26,
            f"{change.rank_before} → {change.rank_after}",
            size=9,
            align="right",
            bold=moved,
            colour=INK if moved else SOFT,
        )
    sheet.rule(
        zero,
        y + 0.3,
        zero,
        y + 0.38 + step * len(changes) - 0.15,
        colour=SOFT,
        line=0.7,
    )


# ---- predictions and contributions


def predictions_figure(
    explanation: Explanation, *, image: int | None = None, top: int = 5
) -> Figure:
    """The photo with the network's crop outlined, beside the probabilities of its `top` classes."""
    return page(_prediction_blocks(explanation, image, top), WIDTH, margin=_MARGIN)


def _prediction_blocks(
    explanation: Explanation, image: int | None, top: int
) -> list[Block]:
    blocks = []
    for i in _images(explanation, image):
        view = View.of(explanation.subjects[i], explanation.input_size, 700)
        predictions = explanation.top(top)[i]
        cell = _panel(
            Panel(view.veiled(), explanation.subjects[i].name, _crop_words(view)),
            4.2,
            _aspect_of(view.photo),
        )
        rows = [
            (
                p.label,
                p.probability,
                f"{percent(p.probability)} · logit {number(p.logit)}",
            )
            for p in predictions
        ]
        blocks.append(_beside(cell, rows, 4.2, (0.0, 1.0), "probability · logit"))
    return blocks


def _crop_words(view: View) -> str:
    return (
        "the network saw all of it"
        if view.whole
        else "the network saw what is inside the outline"
    )


def contributions_figure(
    explanation: Explanation,
    *,
    which: int | str | None = None,
    image: int = 0,
    count: int = 10,
) -> Figure:
    """What the `count` strongest units, all others and the bias add to a class's logit (the first class by default)."""
    return page(
        _contribution_blocks(explanation, which, image, count), WIDTH, margin=_MARGIN
    )


def _contribution_blocks(
    explanation: Explanation, which: int | str | None, image: int, count: int
) -> list[Block]:
    (image,) = _images(explanation, image)
    index = (
        explanation.top(1)[image][0].index
        if which is None
        else explanation.class_index(which)
    )
    units, logit = (
        explanation.top_units(index, count, image),
        float(explanation.logits[image, index]),
    )
    bias = float(explanation[image].left_out_of(index)[0, 0])
    rest = logit - bias - sum(part.contribution for part in units)
    others = explanation.feature_map.shape[1] - len(units)
    rows = [
        (f"unit {part.unit}", part.contribution, number(part.contribution, sign=True))
        for part in units
    ]
    if others:
        rows.append((f"{plural(others, 'other unit')}", rest, number(rest, sign=True)))
    rows.append(
        ("bias" if explanation.exact else "left out", bias, number(bias, sign=True))
    )
    rows.append(("logit", logit, f"= {number(logit)}"))
    span = (
        min(0.0, *(value for _, value, _ in rows)),
        max(0.0, *(value for _, value, _ in rows)),
    )
    bars = Block(
        0.34 * len(rows) + 0.15,
        lambda sheet, y: _draw_bars(
            sheet, _MARGIN, y, _INNER, rows, span, names=1.8, values=0.9
        ),
    )
    label = explanation.labels[index]
    return [
        _heading(f"What the units add to {label}: {explanation.subjects[image].name}"),
        bars,
        _note(
            "Contribution in logits = weight × mean activation; all contributions + "
            "the bias = the logit."
            if explanation.exact
            else "Contribution in logits = gradient × activation, summed over the cells: a local answer, which leaves "
            "out the rest of the logit."
        ),
    ]


def _beside(
    cell: _Cell,
    rows: Sequence[tuple[str, float, str]],
    width: float,
    span: tuple[float, float],
    legend: str,
) -> Block:
    step = 0.36
    height = max(cell.height, 0.6 + step * len(rows))

    def draw(sheet: Sheet, y: float) -> None:
        cell.draw_at(sheet, _MARGIN, y)
        x = _MARGIN + width + 0.35
        sheet.text(x, y + 0.16, legend, size=8, colour=SOFT)
        _draw_bars(
            sheet,
            x,
            y + 0.36,
            WIDTH - _MARGIN - x,
            rows,
            span,
            names=1.75,
            values=1.55,
            step=step,
        )

    return Block(height, draw)


def _draw_bars(
    sheet: Sheet,
    x: float,
    y: float,
    width: float,
    rows: Sequence[tuple[str, float, str]],
    span: tuple[float, float],
    *,
    names: float,
    values: float,
    step: float = 0.34,
) -> None:
    low, high = span
    left = x + names + 0.12
    unit = (width - names - 0.12 - values) / (high - low or 1.0)
    zero = left - low * unit
    for row, (label, value, text) in enumerate(rows):
        top = y + row * step
        sheet.text(x + names, top + 0.17, label, size=9.5, align="right", room=names)
        sheet.box(
            zero + min(0.0, value * unit),
            top + 0.03,
            abs(value * unit),
            0.19,
            fill=ACCENT if value >= 0 else "#5b3fa8",
        )
        sheet.text(
            max(zero, zero + value * unit) + 0.08,
            top + 0.17,
            text,
            size=8.5,
            room=values,
        )
    sheet.rule(zero, y - 0.02, zero, y + step * len(rows) - 0.06, colour=SOFT)


# ---- filters


def filters_figure(
    filters: Filters,
    *,
    size: int = 50,
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    columns: int | None = None,
) -> Figure:
    """A layer's filters in a grid, numbered; a grid of filters × channels where several channels are shown apart.

    `size` is the longer side in pixels that a kernel is enlarged to, with
    `interpolation`; `columns` is how many stand in a row.
    """
    return page(
        _filter_blocks(filters, size, interpolation, columns), WIDTH, margin=_MARGIN
    )


def filters_words(filters: Filters, interpolation: str = "nearest") -> str:
    """What a grid of filters shows, and how the weights became grey values or colours."""
    rows, cols = filters.weights.shape[-2:]
    count = len(filters.filters)
    which = (
        f"all {count} filters"
        if count == filters.filters_in_layer
        else f"{count} of {filters.filters_in_layer} filters"
    )
    what = (
        "input channels as red, green, blue"
        if filters.rgb
        else f"input channel{'s' if len(filters.channels) > 1 else ''} {numbers(filters.channels)}"
    )
    if not filters.rgb and len(filters.channels) > 1:
        what += ", a column each"
    span = f"{number(float(filters.low.min()), 4)} to {number(float(filters.high.max()), 4)}"
    scale = (
        "every kernel stretched from its own least to its own greatest weight "
        f"(weights from {span})"
        if filters.scale == "kernel"
        else f"all on one scale, weights from {span}"
    )
    enlarged = (
        "enlarged without smoothing"
        if interpolation == "nearest"
        else f"enlarged with {interpolation} interpolation"
    )
    return f"{which} of {filters.layer}, {rows}×{cols}, {what}; {scale}; {enlarged}."


def _filter_blocks(
    filters: Filters,
    size: int,
    interpolation: Literal["nearest", "bilinear", "bicubic"],
    columns: int | None,
) -> list[Block]:
    pictures = filters.enlarged(size, interpolation)
    apart = not filters.rgb and len(filters.channels) > 1
    if not filters.rgb and not apart:
        pictures = pictures[:, 0]
    if apart and len(filters.channels) * len(filters.filters) > 4096:
        raise ValueError(
            "a figure holds at most 4,096 kernels: choose filters or channels"
        )
    across = (
        len(filters.channels)
        if apart
        else columns or _filter_columns(len(filters.filters))
    )
    left = 0.45 if apart else 0.0
    gap = 0.07
    cell = min(0.85, (_INNER - left - gap * (across - 1)) / across)
    high = (
        cell
        * pictures.shape[-3 if filters.rgb else -2]
        / pictures.shape[-2 if filters.rgb else -1]
    )
    label = min(7.5, cell * 16)
    step = high + (0.07 if apart else label / 72 + 0.1)
    count = len(filters.filters)
    rows = count if apart else -(-count // across)

    def draw(sheet: Sheet, y: float) -> None:
        if apart:
            for column, channel in enumerate(filters.channels):
                if cell > 0.2 or column % 8 == 0:
                    sheet.text(
                        _MARGIN + left + column * (cell + gap) + cell / 2,
                        y + 0.12,
                        str(channel),
                        size=7,
                        colour=SOFT,
                        align="center",
                    )
        for position, number_ in enumerate(filters.filters):
            row = position if apart else position // across
            top = y + (0.2 if apart else 0) + row * step
            if apart:
                sheet.text(
                    _MARGIN + left - 0.08,
                    top + high / 2 + 0.04,
                    str(number_),
                    size=7,
                    colour=SOFT,
                    align="right",
                )
            for column in range(across) if apart else (position % across,):
                x = _MARGIN + left + column * (cell + gap)
                sheet.picture(
                    x,
                    top,
                    cell,
                    high,
                    _eight_bit(
                        pictures[position, column] if apart else pictures[position]
                    ),
                    crisp=True,
                )
                if not apart:
                    sheet.text(
                        x + cell / 2,
                        top + high + label / 72 + 0.02,
                        str(number_),
                        size=label,
                        colour=SOFT,
                        align="center",
                    )

    heading = f"Filters of {filters.layer}" + (
        " (rows: filters, columns: input channels)" if apart else ""
    )
    return [
        _heading(heading),
        Block(rows * step + (0.25 if apart else 0.05), draw),
        _note(filters_words(filters, interpolation)),
    ]


def _filter_columns(count: int) -> int:
    return next(
        (n for n in (16, 15, 12, 10, 8) if count % n == 0 and count >= n),
        min(16, count),
    )


def _eight_bit(picture: np.ndarray) -> UInt8[np.ndarray, "row col 3"]:
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    return np.asarray(np.round(255 * rgb), np.uint8)


# ---- the network and the whole account


def network_figure(network: NetworkFacts) -> Figure:
    """The network as a diagram of its stages."""
    return page(_network_blocks(network), WIDTH, margin=_MARGIN)


def _network_blocks(network: NetworkFacts) -> list[Block]:
    plan = diagram.plan(network)
    factor = _INNER / plan.width

    def draw(sheet: Sheet, y: float) -> None:
        diagram.draw_on_sheet(plan, sheet, _MARGIN, y, factor)

    return [
        _heading(f"{network.architecture}: {diagram.summary(network)}"),
        Block(plan.height * factor, draw),
        _note(diagram.KEY),
    ]


SHOWS = (
    "overview",
    "predictions",
    "cams",
    "units",
    "contributions",
    "ablation",
    "filters",
    "network",
)


def account_figure(
    account: Account, *, show: str = "overview", style: str = "signed"
) -> Figure:
    """The account of a photo on one page, or one piece of it.

    `show` is "overview" (predictions, maps, units, ablation), "predictions", "cams",
    "units", "contributions", "ablation", "filters" (all layers shown) or "network".
    """
    pieces = account_blocks(account, style)
    if show == "overview":
        blocks = [
            _heading(account.sentence(), wrap=True),
            *(
                block
                for name in ("predictions", "cams", "units", "ablation")
                for block in pieces[name]()
            ),
        ]
        return page(blocks, WIDTH, margin=_MARGIN, gap=0.08)
    if show not in pieces:
        raise ValueError(
            f"show is one of {', '.join(repr(known) for known in SHOWS)}, not {show!r}"
        )
    return page(pieces[show](), WIDTH, margin=_MARGIN)


def account_blocks(
    account: Account, style: str = "signed"
) -> dict[str, Callable[[], list[Block]]]:
    """What draws each piece of an account."""
    explanation, first = account.explanation, account.classes[0]
    maps = explanation.unit_maps([story.unit for story in account.units])
    lines = [
        f"{number(story.contribution.contribution, sign=True)} logits"
        for story in account.units
    ]
    return {
        "predictions": lambda: _prediction_blocks(
            explanation, 0, len(account.predictions)
        ),
        "cams": lambda: _cam_blocks(
            explanation,
            0,
            list(account.classes),
            5,
            None,
            style,
            None,
            None,
            heading=True,
        ),
        "units": lambda: [
            _heading(f"The units that add most to {account.label(first)}"),
            *_unit_blocks(
                maps,
                0,
                account_unit_scale(account),
                None,
                None,
                4,
                lines,
                heading=False,
            ),
        ],
        "contributions": lambda: _contribution_blocks(
            explanation, first, 0, len(account.units)
        ),
        "ablation": lambda: _ablation_blocks(
            account.ablation, 0, 5, None, account_unit_scale(account)
        ),
        "filters": lambda: [
            block
            for shown in account.filters
            for block in _filter_blocks(shown, 50, "nearest", None)
        ],
        "network": lambda: _network_blocks(account.network),
    }


def account_unit_scale(account: Account) -> Scale:
    """The one scale of all unit maps of an account, the switched-off ones included, so that they can be compared."""
    units = [story.unit for story in account.units]
    every = list(dict.fromkeys([*units, *account.ablation.units]))
    maps = account.explanation.unit_maps(every)
    return unit_scale(
        maps, None, f"shared over all {len(every)} unit maps of this account"
    )


# ---- what the blocks are made of


@dataclass(frozen=True, eq=False)
class _Cell:
    height: float
    draw_at: Callable[[Sheet, float, float], None]


def _images(subjects: Explanation | Sequence[object], image: int | None) -> list[int]:
    count = len(subjects)
    if image is None:
        return list(range(count))
    if not -count <= image < count:
        raise IndexError(f"there is no photo {image} in a batch of {count}")
    return [image % count]


def first_units(maps: UnitMaps, count: int) -> UnitMaps:
    """The first `count` units of some maps."""
    return UnitMaps(
        maps.layer,
        maps.units[:count],
        maps.maps[:, :count],
        maps.grid,
        maps.input_size,
        maps.subjects,
    )


def _aspect_of(pixels: UInt8[np.ndarray, "height width 3"]) -> float:
    """Height over width, within bounds: panoramas and strips are fitted into a box."""
    return float(np.clip(pixels.shape[0] / pixels.shape[1], 0.3, 1.5))


def _aspect(panels: Sequence[Panel]) -> float:
    return max((_aspect_of(panel.pixels) for panel in panels), default=1.0)


def _panel(panel: Panel, width: float, aspect: float) -> _Cell:
    title, line = 0.2, 0.18
    box = width * aspect
    under = 0.08 + (0.36 if panel.bar else 0.0)
    height = title + line + box + under + 0.1

    def draw(sheet: Sheet, x: float, y: float) -> None:
        sheet.text(x, y + 0.14, panel.title, size=10, bold=True, room=width)
        sheet.text(
            x,
            y + title + 0.12,
            panel.line or panel.note,
            size=8.5,
            colour=SOFT,
            room=width,
        )
        rows, cols = panel.pixels.shape[:2]
        fit = min(width / cols, box / rows)
        left, top = (
            x + (width - cols * fit) / 2,
            y + title + line + (box - rows * fit) / 2,
        )
        sheet.picture(left, top, cols * fit, rows * fit, panel.pixels)
        if panel.note:
            _label(
                sheet,
                left + cols * fit / 2,
                top + rows * fit / 2,
                panel.note,
                cols * fit,
            )
        if panel.bar is not None:
            sheet.colour_bar(x, y + title + line + box + 0.08, width, *panel.bar)

    return _Cell(height, draw)


def _label(sheet: Sheet, x: float, y: float, text: str, room: float) -> None:
    width = min(room, text_width(text, 8) + 0.2)
    sheet.box(x - width / 2, y - 0.13, width, 0.25, fill="#ffffff", edge=LINE, line=0.5)
    sheet.text(x, y + 0.04, text, size=8, align="center", room=width)


def _grid(panels: Sequence[Panel], columns: int | None) -> list[Block]:
    columns = columns or {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 4, 8: 4, 9: 3}.get(
        len(panels), 4
    )
    gap = 0.2
    width = min(4.8, (_INNER - gap * (columns - 1)) / columns)
    aspect = _aspect(panels)
    blocks = []
    for start in range(0, len(panels), columns):
        cells = [
            _panel(panel, width, aspect) for panel in panels[start : start + columns]
        ]

        def draw(sheet: Sheet, y: float, cells: Sequence[_Cell] = tuple(cells)) -> None:
            for column, cell in enumerate(cells):
                cell.draw_at(sheet, _MARGIN + column * (width + gap), y)

        blocks.append(Block(cells[0].height + 0.08, draw))
    return blocks


def _heading(text: str, *, wrap: bool = False) -> Block:
    lines = wrapped(text, _INNER, 12.5) if wrap else [clean(text)]
    step = line_height(12.5)

    def draw(sheet: Sheet, y: float) -> None:
        for row, line in enumerate(lines):
            sheet.text(
                _MARGIN,
                y + 0.18 + row * step,
                line,
                size=12.5,
                bold=not wrap,
                room=_INNER,
            )

    return Block(0.2 + step * len(lines), draw)


def _note(text: str) -> Block:
    lines = wrapped(text, _INNER, 8)
    return Block(
        0.12 + line_height(8) * len(lines),
        lambda sheet, y: sheet.paragraph(_MARGIN, y + 0.14, text, _INNER),
    )


def _colour_bar(scale: Scale, what: str, style: str, colours: str | None) -> Block:
    drawn, lut = shown(scale, style, colours)

    def draw(sheet: Sheet, y: float) -> None:
        sheet.colour_bar(_MARGIN, y + 0.02, 4.2, drawn, lut)
        sheet.text(_MARGIN + 4.4, y + 0.13, what, size=8, colour=SOFT)

    return Block(0.42, draw)
