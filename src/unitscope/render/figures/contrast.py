"""Contrasts: where and why one class and not another, a signed map beside what adds up."""

from __future__ import annotations

from matplotlib.figure import Figure

from unitscope.attribution.contrast import Contrast
from unitscope.render.colours import THIS_MAP, Scale
from unitscope.render.figures.bars import Bar, BarChart
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    Block,
    colour_bar,
    heading,
    note,
    page,
)
from unitscope.render.figures.looks import Look
from unitscope.render.figures.panels import (
    PIXELS,
    Panel,
    cells_of,
    photos_shown,
)
from unitscope.render.margins import adding_up, lead, margin_rows
from unitscope.render.sheets import Sheet
from unitscope.render.views import View
from unitscope.render.words import capitalised, clean, number, shorten

# Inches: the map, and the room between it and the bars.
_MAP = 4.5
_GAP = 0.3


def contrast_figure(
    contrast: Contrast,
    *,
    image: int | None = None,
    count: int = 5,
    scale: Scale | None = None,
    style: str = "signed",
    colours: str | None = None,
) -> Figure:
    """Why one class and not another: a signed map, and the units that add up, in logits.

    `image` is one photo of the batch (all when None). `count` units are named for each
    class. `scale` is that of the map, its own when None; `style` and `colours` are as in
    `cams_figure`.
    """
    look = Look(style, colours)
    blocks = []
    for photo in photos_shown(len(contrast), image):
        blocks += contrast_blocks(contrast, photo, count, look, scale)
    return page(blocks)


def contrast_scale(contrast: Contrast, image: int) -> Scale:
    """The scale of one photo's map alone, in logits."""
    return Scale.of(contrast.cams[image].cpu().numpy(), THIS_MAP, signed=True)


def contrast_blocks(
    contrast: Contrast,
    photo: int,
    count: int,
    look: Look,
    scale: Scale | None = None,
) -> list[Block]:
    """The contrast on one photo."""
    explanation = contrast.explanation
    name = explanation.subjects[photo].name
    scale = scale or contrast_scale(contrast, photo)
    a, b = (shorten(label, 40) for label in contrast.labels(photo))
    words = (
        f"{explanation.scores.numbers}: orange speaks for {a}, violet for {b}"
    )
    if look.positive_only:
        words = f"{explanation.scores.numbers}: what speaks for {a} alone"
    return [
        heading(f"{capitalised(contrast.question(photo))}: {name}"),
        _map_and_bars(contrast, photo, count, look, scale),
        colour_bar(scale, words, look),
        note(adding_up(contrast, clean(explanation.head.layer))),
    ]


def _map_and_bars(
    contrast: Contrast, photo: int, count: int, look: Look, scale: Scale
) -> Block:
    (cell,) = cells_of([contrast_panel(contrast, photo, look, scale)], _MAP)
    chart = _chart(contrast, photo, count)

    def draw(sheet: Sheet, y: float) -> None:
        cell.draw_at(sheet, MARGIN, y)
        left = MARGIN + _MAP + _GAP
        chart.draw(sheet, left, y + 0.1, INNER - _MAP - _GAP)

    return Block(max(cell.height, chart.height + 0.1) + 0.05, draw)


def contrast_panel(
    contrast: Contrast,
    photo: int,
    look: Look,
    scale: Scale,
    pixels: int = PIXELS,
) -> Panel:
    """The signed map on one photo, with the margin above it."""
    explanation = contrast.explanation
    view = View.of(explanation.subjects[photo], explanation.input_size, pixels)
    laid = contrast.on_photo(photo, view.size)
    what = explanation.scores.numbers
    margin = number(float(contrast.margin[photo]), sign=True)
    local = "" if explanation.head.adds_up else " · a local answer"
    return Panel(
        pixels=look.overlay(view, laid, scale),
        title=lead(contrast, photo),
        line=f"margin {margin} {what}{local}",
        note="no difference (all 0)" if scale.is_blank else "",
    )


def _chart(contrast: Contrast, photo: int, count: int) -> BarChart:
    """The rows of the margin, and the margin itself."""
    bars = [
        Bar(row.name, row.value, number(row.value, sign=True))
        for row in margin_rows(contrast, photo, count)
    ]
    margin = float(contrast.margin[photo])
    bars.append(Bar("margin", margin, f"= {number(margin, sign=True)}"))
    values = [bar.value for bar in bars]
    return BarChart(
        bars,
        low=min(0.0, *values),
        high=max(0.0, *values),
        names=1.35,
        values=0.85,
        step=0.3,
    )
