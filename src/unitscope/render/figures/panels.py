"""Panels: pictures with a title and a colour bar, laid out in a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unitscope.errors import InputError
from unitscope.render.figures.blocks import INNER, MARGIN, Block
from unitscope.render.figures.looks import ColourBar
from unitscope.render.fonts import text_width
from unitscope.render.sheets import LINE, SOFT, Sheet
from unitscope.render.views import Pixels

PIXELS = 520
"""The longer side of a panel's picture."""

_MOST = 60
_GAP = 0.2
_WIDEST = 4.8
_TITLE = 0.2
_LINE = 0.18

# The number of columns that leaves the fewest gaps, by the number of panels.
_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 4, 8: 4, 9: 3}


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a grid, with a title and a line of text above it.

    `bar` is the colour bar of this picture alone. `note` is written on the picture, and
    in place of the line where there is none.
    """

    pixels: Pixels
    title: str
    line: str = ""
    bar: ColourBar | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Cell:
    """A panel at the size it is drawn at: its height in inches, and how it is drawn.

    `draw_at` draws it on a sheet with its top left corner at (x, y).
    """

    height: float
    draw_at: Callable[[Sheet, float, float], None]


def photos_shown(count: int, image: int | None) -> list[int]:
    """The photos of a batch of `count` that a figure shows: all, or the one chosen.

    Raises IndexError for a photo that does not exist.
    """
    if image is None:
        return list(range(count))
    if not -count <= image < count:
        raise IndexError(f"there is no photo {image} in a batch of {count}")
    return [image % count]


def check_count(maps: int, noun: str) -> None:
    """Raise ValueError where a figure would have too many maps; `noun` names them."""
    if maps > _MOST:
        raise InputError(
            f"a figure holds at most {_MOST} maps: choose image= or fewer {noun}"
        )


def grid(panels: Sequence[Panel], columns: int | None = None) -> list[Block]:
    """The panels in rows of `columns`, one block a row."""
    columns = columns or _COLUMNS.get(len(panels), 4)
    gaps = _GAP * (columns - 1)
    width = min(_WIDEST, (INNER - gaps) / columns)
    cells = cells_of(panels, width)
    rows = [
        cells[start : start + columns]
        for start in range(0, len(cells), columns)
    ]
    return [_row(row, width + _GAP) for row in rows]


def _row(cells: Sequence[Cell], step: float) -> Block:
    def draw(sheet: Sheet, y: float) -> None:
        for column, cell in enumerate(cells):
            cell.draw_at(sheet, MARGIN + column * step, y)

    return Block(cells[0].height + 0.08, draw)


def cells_of(panels: Sequence[Panel], width: float) -> list[Cell]:
    """The panels as cells of the same `width`, as high as the highest picture needs."""
    aspects = [_aspect(panel.pixels) for panel in panels]
    box = width * max(aspects, default=1.0)
    return [_cell(panel, width, box) for panel in panels]


def _aspect(pixels: Pixels) -> float:
    """Height over width, within bounds: panoramas and strips are fitted into a box."""
    rows, cols = pixels.shape[:2]
    return float(np.clip(rows / cols, 0.3, 1.5))


def _cell(panel: Panel, width: float, box: float) -> Cell:
    """The panel as a cell; `box` is the height in inches that its picture may have."""
    bar = 0.36 if panel.bar else 0.0
    below = 0.08 + bar
    height = _TITLE + _LINE + box + below + 0.1

    def draw(sheet: Sheet, x: float, y: float) -> None:
        line = panel.line or panel.note
        sheet.text(
            x,
            y + 0.14,
            panel.title,
            size=10,
            bold=True,
            room=width,
        )
        sheet.text(
            x,
            y + _TITLE + 0.12,
            line,
            size=8.5,
            colour=SOFT,
            room=width,
        )
        _draw_picture(sheet, panel, x, y + _TITLE + _LINE, width, box)

        if panel.bar is not None:
            sheet.colour_bar(
                x, y + _TITLE + _LINE + box + 0.08, width, *panel.bar
            )

    return Cell(height, draw)


def _draw_picture(
    sheet: Sheet, panel: Panel, x: float, y: float, width: float, box: float
) -> None:
    """The picture as large as it fits, in the middle of its box."""
    rows, cols = panel.pixels.shape[:2]
    fit = min(width / cols, box / rows)
    across = cols * fit
    down = rows * fit
    left = x + (width - across) / 2
    top = y + (box - down) / 2
    sheet.picture(left, top, across, down, panel.pixels)

    if panel.note:
        middle = left + across / 2
        centre = top + down / 2
        _draw_label(sheet, middle, centre, panel.note, across)


def _draw_label(
    sheet: Sheet, x: float, y: float, text: str, room: float
) -> None:
    width = min(room, text_width(text, 8) + 0.2)
    sheet.box(
        x - width / 2,
        y - 0.13,
        width,
        0.25,
        fill="#ffffff",
        edge=LINE,
        line=0.5,
    )
    sheet.text(
        x,
        y + 0.04,
        text,
        size=8,
        align="center",
        room=width,
    )
