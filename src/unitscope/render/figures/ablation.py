"""Ablations: the classes before and after units were switched off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from unitscope.attribution.ablation import Ablation, Change
from unitscope.plurals import plural
from unitscope.render.colours import Scale
from unitscope.render.figures.bars import NAMES, ValueAxis
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    WIDTH,
    Block,
    heading,
    note,
    page,
)
from unitscope.render.figures.looks import Look
from unitscope.render.figures.panels import Cell, Panel, cells_of, photos_shown
from unitscope.render.figures.units import unit_panels
from unitscope.render.sheets import (
    ACCENT,
    INK,
    QUIET,
    SOFT,
    HorizontalAlign,
    Sheet,
)
from unitscope.render.words import EFFECTS_IN_WORDS, listing, number

# Inches: the unit maps on the right, and the gap between them.
_MAPS = 3.3
_GAP = 0.15

# Inches: one pair of bars, and the room for ranks and for logits beside the bars.
_STEP = 0.62
_RANKS = 0.85
_VALUES = 0.55

# Units that are named one by one.
_MOST_LISTED = 20


def ablation_figure(
    ablation: Ablation,
    *,
    image: int | None = None,
    top: int = 5,
    style: str | None = None,
) -> Figure:
    """The `top` classes before and after units were switched off, and the units' maps.

    Each class has a pair of bars, with its ranks beside them.
    """
    look = Look(style)
    blocks = []
    for photo in photos_shown(len(ablation.subjects), image):
        blocks += ablation_blocks(ablation, photo, top, look)
    return page(blocks)


def ablation_blocks(
    ablation: Ablation,
    photo: int,
    top: int,
    look: Look | None = None,
    scale: Scale | None = None,
) -> list[Block]:
    """The ablation on one photo; its unit maps have the `scale`, or each its own."""
    name = ablation.subjects[photo].name
    panels = _unit_panels(ablation, photo, look or Look(), scale)
    changes = ablation.changes(top, photo)
    turned = ablation.turned_over()[photo]
    return [
        heading(f"{switched_off(ablation)}: {name}"),
        _bars_and_maps(ablation, panels, changes),
        note(_words(ablation, turned=turned)),
    ]


def _words(ablation: Ablation, *, turned: bool) -> str:
    scores = ablation.scores
    verdict = "changes" if turned else "stays the same"
    how = "a second forward pass with their maps changed"
    if ablation.exact:
        how = "exact algebra on one forward pass"
    if ablation.effect is not None:
        how = EFFECTS_IN_WORDS[ablation.effect]
    return (
        f"The top prediction {verdict}. After: {how}. Rows are in original order; the "
        f"numbers beside the bars are {scores.numbers}."
    )


def switched_off(ablation: Ablation) -> str:
    """What was done, in words: "Without units 3, 5 and 8 of features"."""
    if ablation.effect is not None:
        heads = ablation.maps.called(5)
        done = done_to(heads, ablation.replaced, "")
        return f"{done}, {ablation.effect} effect"
    noun = "unit" if len(ablation.units) == 1 else "units"
    units = listing([str(unit) for unit in ablation.units], 5)
    if len(ablation.units) > _MOST_LISTED:
        units = f"{len(ablation.units):,} {noun}"
    else:
        units = f"{noun} {units}"
    return done_to(
        f"{units} of {ablation.layer}", ablation.replaced, ablation.where
    )


def done_to(units: str, replaced: str, where: str) -> str:
    """Units off or replaced, in words: "Without unit 3", "Unit 3 set to 0.5 in 4 of 49 cells"."""
    place = f" in {where}" if where else ""
    if not replaced:
        return f"Without {units}{place}"
    return f"{units[0].upper()}{units[1:]} set to {replaced}{place}"


def _columns(units: int) -> int:
    """The columns of the square of unit maps beside the bars."""
    if units == 1:
        return 1
    return 2 if units <= 4 else 3


def _unit_panels(
    ablation: Ablation, photo: int, look: Look, scale: Scale | None
) -> list[Panel]:
    columns = _columns(len(ablation.units))
    maps = ablation.maps.first(columns * columns)
    panels = unit_panels(maps, photo, scale, look)
    if scale is None:
        return panels

    bar = look.bar(scale)
    return [replace(panel, bar=bar) for panel in panels]


def _bars_and_maps(
    ablation: Ablation, panels: Sequence[Panel], changes: Sequence[Change]
) -> Block:
    columns = _columns(len(ablation.units))
    gaps = _GAP * (columns - 1)
    width = (_MAPS - gaps) / columns
    cells = cells_of(panels, width)
    rows = [
        cells[start : start + columns]
        for start in range(0, len(cells), columns)
    ]
    more = len(ablation.units) - len(panels)

    height_of_maps = sum(row[0].height for row in rows)
    if more:
        height_of_maps += 0.25
    height_of_bars = 0.45 + _STEP * len(changes)
    height = max(height_of_maps, height_of_bars)

    def draw(sheet: Sheet, y: float) -> None:
        _draw_pairs(sheet, MARGIN, y, INNER - _MAPS - 0.45, changes)
        left = WIDTH - MARGIN - _MAPS
        bottom = _draw_maps(sheet, left, y, rows, width + _GAP)
        if more:
            words = f"and {plural(more, f'more {ablation.maps.noun}')}"
            sheet.text(
                left,
                bottom + 0.12,
                words,
                size=8,
                colour=SOFT,
            )

    return Block(height + 0.05, draw)


def _draw_maps(
    sheet: Sheet,
    x: float,
    y: float,
    rows: Sequence[Sequence[Cell]],
    step: float,
) -> float:
    """Draw the unit maps; returns the height where they end."""
    for row in rows:
        for column, cell in enumerate(row):
            cell.draw_at(sheet, x + column * step, y)
        y += row[0].height
    return y


def _draw_pairs(
    sheet: Sheet, x: float, y: float, width: float, changes: Sequence[Change]
) -> None:
    logits = [change.logit_before for change in changes]
    logits += [change.logit_after for change in changes]
    low = min(0.0, *logits)
    high = max(0.0, *logits)

    left = x + NAMES + 0.12
    if low < 0:
        left += _VALUES
    right = x + width
    room = right - _RANKS - _VALUES - left
    axis = ValueAxis.between(low, high, left, room)

    _draw_legend(sheet, left, y, right)
    for row, change in enumerate(changes):
        top = y + 0.38 + row * _STEP
        _draw_name_and_ranks(sheet, x + NAMES, top + 0.26, right, change)
        _draw_pair(sheet, top, axis, change)

    bottom = y + 0.38 + _STEP * len(changes) - 0.15
    sheet.rule(
        axis.zero,
        y + 0.3,
        axis.zero,
        bottom,
        colour=SOFT,
    )


def _draw_legend(sheet: Sheet, left: float, y: float, right: float) -> None:
    for x, colour, word in (
        (left, QUIET, "before"),
        (left + 0.85, ACCENT, "after"),
    ):
        sheet.box(
            x,
            y + 0.02,
            0.14,
            0.11,
            fill=colour,
        )
        sheet.text(
            x + 0.2,
            y + 0.13,
            word,
            size=8,
            colour=SOFT,
        )
    sheet.text(
        right,
        y + 0.13,
        "rank",
        size=8,
        colour=SOFT,
        align="right",
    )


def _draw_name_and_ranks(
    sheet: Sheet, name_end: float, baseline: float, right: float, change: Change
) -> None:
    first = change.rank_before == 1
    sheet.text(
        name_end,
        baseline,
        change.label,
        size=9.5,
        align="right",
        room=NAMES,
        bold=first,
    )

    moved = change.rank_before != change.rank_after
    ranks = f"{change.rank_before} → {change.rank_after}"
    colour = INK if moved else SOFT
    sheet.text(
        right,
        baseline,
        ranks,
        size=9,
        align="right",
        bold=moved,
        colour=colour,
    )


def _draw_pair(sheet: Sheet, y: float, axis: ValueAxis, change: Change) -> None:
    for offset, logit, colour in (
        (0.0, change.logit_before, QUIET),
        (0.2, change.logit_after, ACCENT),
    ):
        top = y + offset
        axis.draw_bar(
            sheet,
            top,
            logit,
            height=0.17,
            fill=colour,
        )

        align: HorizontalAlign = "left" if logit >= 0 else "right"
        beside = axis.end(logit) + (0.06 if logit >= 0 else -0.06)
        sheet.text(
            beside,
            top + 0.135,
            number(logit),
            size=8,
            align=align,
        )
