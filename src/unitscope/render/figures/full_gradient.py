"""Full gradients: a signed map on the photo beside the parts that add up to the logit."""

from __future__ import annotations

from matplotlib.figure import Figure

from unitscope.attribution.full_gradient import LEFT_OUT, FullGradient
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
from unitscope.render.sheets import Sheet
from unitscope.render.views import View
from unitscope.render.words import clean, number

# Inches: the map, and the room between it and the bars.
_MAP = 4.5
_GAP = 0.3

# Squares of pixels along the longer side of the map.
CELLS = 28


def full_gradient_figure(
    result: FullGradient,
    *,
    image: int | None = None,
    cells: int | None = CELLS,
    scale: Scale | None = None,
    style: str = "signed",
    colours: str | None = None,
) -> Figure:
    """A signed map on the photo, in logits, and the parts that add up to the logit.

    `image` is one photo of the batch (all when None). Pixels are summed in squares, `cells`
    along the longer side, or shown one by one when None. `scale` is that of a map, its
    own when None; `style` and `colours` are as in `cams_figure`.
    """
    look = Look(style, colours)
    blocks = []
    for photo in photos_shown(len(result), image):
        for place in range(len(result.classes[photo])):
            blocks += _blocks(result, photo, place, cells, look, scale)
    return page(blocks)


def full_gradient_panel(
    result: FullGradient,
    photo: int,
    place: int,
    look: Look,
    scale: Scale,
    cells: int | None = CELLS,
    pixels: int = PIXELS,
) -> Panel:
    """The signed map of one class on one photo, with the logit above it."""
    view = View.of(result.subjects[photo], result.input_size, pixels)
    laid = result.on_photo(photo, view.size, cells=cells)[place]
    total = float(result.explained[photo, place])
    return Panel(
        pixels=look.overlay(view, laid, scale),
        title=clean(result.label(photo, place)),
        line=f"{result.scores.number} {number(total, sign=True)}",
        note="no evidence (all 0)" if scale.is_blank else "",
    )


def full_gradient_scale(
    result: FullGradient, photo: int, place: int, cells: int | None = CELLS
) -> Scale:
    """The scale of one map alone, in logits."""
    maps = result.combined if cells is None else result.blocks(cells)
    return Scale.of(maps[photo, place].numpy(), THIS_MAP, signed=True)


def scale_words(result: FullGradient, cells: int | None = CELLS) -> str:
    """What the colours count."""
    side = 1 if cells is None else result.side(cells)
    each = "a pixel" if side == 1 else f"a square of {side}×{side} pixels"
    return f"{result.scores.numbers} that {each} of the input gives"


def rows_of(
    result: FullGradient, photo: int, place: int
) -> list[tuple[str, float]]:
    """The parts of a class's logit; what is left out where that is more than rounding."""
    return [
        (name, value)
        for name, value in result.grouped(photo, place).items()
        if name != LEFT_OUT or not result.exact
    ]


def _blocks(
    result: FullGradient,
    photo: int,
    place: int,
    cells: int | None,
    look: Look,
    scale: Scale | None,
) -> list[Block]:
    """The map and the parts of one class on one photo."""
    scale = scale or full_gradient_scale(result, photo, place, cells)
    title = f"Pixels and biases: {result.subjects[photo].name}"
    panel = full_gradient_panel(result, photo, place, look, scale, cells)
    return [
        heading(title),
        _map_and_bars(panel, _chart(result, photo, place)),
        colour_bar(scale, scale_words(result, cells), look),
        note(adding_up(result, photo, place)),
    ]


def _map_and_bars(panel: Panel, chart: BarChart) -> Block:
    (cell,) = cells_of([panel], _MAP)

    def draw(sheet: Sheet, y: float) -> None:
        cell.draw_at(sheet, MARGIN, y)
        left = MARGIN + _MAP + _GAP
        chart.draw(sheet, left, y + 0.1, INNER - _MAP - _GAP)

    return Block(max(cell.height, chart.height + 0.1) + 0.05, draw)


def _chart(result: FullGradient, photo: int, place: int) -> BarChart:
    """The parts, and the logit that they add up to."""
    bars = [
        Bar(name, value, number(value, sign=True))
        for name, value in rows_of(result, photo, place)
    ]
    total = float(result.explained[photo, place])
    what = result.scores.number
    bars.append(Bar(what, total, f"= {number(total, sign=True)}"))
    values = [bar.value for bar in bars]
    return BarChart(
        bars,
        low=min(0.0, *values),
        high=max(0.0, *values),
        names=1.75,
        values=0.85,
        step=0.27,
    )


def adding_up(result: FullGradient, photo: int, place: int) -> str:
    """What adds up, what has no place on the map, and what is left out."""
    what = result.scores.number
    beside = float(result.beside[photo, place])
    words = (
        f"FullGrad: input · gradient and bias · gradient of every layer, nothing scaled. The "
        f"map, {number(beside, sign=True)} of biases without a place on the photo"
    )
    if result.exact:
        return f"{words}, and nothing else, add up to the {what}."
    left = number(float(result.left_out[photo, place]), sign=True)
    named = ", ".join(
        f"{name} {number(float(values[photo, place]), sign=True)}"
        for name, values in result.curved.items()
    )
    because = f": these are not piecewise linear ({named})" if named else ""
    return (
        f"{words}, and {left} that is left out add up to the {what}{because}."
    )
