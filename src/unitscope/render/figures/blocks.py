"""Blocks: the parts of a page, and those that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from unitscope.render.colours import Scale
from unitscope.render.figures.looks import Look
from unitscope.render.fonts import line_height, wrapped
from unitscope.render.sheets import SOFT, Sheet
from unitscope.render.words import clean

WIDTH = 10.4
"""Inches; at 150 dots an inch, 1560 pixels."""

MARGIN = 0.3
INNER = WIDTH - 2 * MARGIN

_TITLE_SIZE = 12.5
_NOTE_SIZE = 8


@dataclass(frozen=True)
class Block:
    """A part of a page over its whole width: its height in inches, and how it is drawn.

    `draw` draws it on a sheet from a height `y` downwards.
    """

    height: float
    draw: Callable[[Sheet, float], None]


def page(blocks: Sequence[Block], gap: float = 0.0) -> Figure:
    """The blocks one below the other, `gap` inches apart, on a page of their height."""
    heights = sum(block.height for block in blocks)
    gaps = gap * max(0, len(blocks) - 1)
    sheet = Sheet(WIDTH, 2 * MARGIN + heights + gaps)

    y = MARGIN
    for block in blocks:
        block.draw(sheet, y)
        y += block.height + gap
    return sheet.figure


def heading(text: str) -> Block:
    """A heading of one line."""
    return _title([clean(text)], bold=True)


def lead(text: str) -> Block:
    """An opening sentence, as large as a heading and on as many lines as it needs."""
    return _title(wrapped(text, INNER, _TITLE_SIZE), bold=False)


def _title(lines: Sequence[str], *, bold: bool) -> Block:
    step = line_height(_TITLE_SIZE)

    def draw(sheet: Sheet, y: float) -> None:
        for row, line in enumerate(lines):
            baseline = y + 0.18 + row * step
            sheet.text(
                MARGIN,
                baseline,
                line,
                size=_TITLE_SIZE,
                bold=bold,
                room=INNER,
            )

    return Block(0.2 + step * len(lines), draw)


def note(text: str) -> Block:
    """Small print, wrapped."""
    lines = wrapped(text, INNER, _NOTE_SIZE)

    def draw(sheet: Sheet, y: float) -> None:
        sheet.paragraph(
            MARGIN,
            y + 0.14,
            text,
            INNER,
            size=_NOTE_SIZE,
        )

    return Block(0.12 + line_height(_NOTE_SIZE) * len(lines), draw)


def colour_bar(scale: Scale, quantity: str, look: Look) -> Block:
    """The colour bar of a scale, with the name of its quantity beside it."""
    drawn, lut = look.bar(scale)

    def draw(sheet: Sheet, y: float) -> None:
        sheet.colour_bar(MARGIN, y + 0.02, 4.2, drawn, lut)
        sheet.text(
            MARGIN + 4.4,
            y + 0.13,
            quantity,
            size=8,
            colour=SOFT,
        )

    return Block(0.42, draw)
