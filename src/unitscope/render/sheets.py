"""Sheets: a page on which text, pictures and bars are placed in inches, and which becomes a matplotlib figure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from unitscope.render.colours import Scale
from unitscope.render.words import clean, tick

INK = "#1c1f24"
SOFT = "#626a75"
LINE = "#c9ced6"
ACCENT = "#b4480f"
QUIET = "#9aa5b4"
PAPER = "#ffffff"

DPI = 150

_MISSING = "□"
# Fonts that people have for scripts which matplotlib's own DejaVu Sans lacks.
_FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip

HorizontalAlign = Literal["left", "center", "right"]


@functools.cache
def _families() -> tuple[str, ...]:
    known = set(font_manager.fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in _FALLBACKS if name in known))


@functools.cache
def _drawable(character: str) -> bool:
    """Whether one of the fonts has the character: matplotlib warns, and draws a box, where none has."""
    paths = [
        font_manager.findfont(font_manager.FontProperties(family=family))
        for family in _families()
    ]
    return any(
        font_manager.get_font(path).get_char_index(ord(character)) for path in paths
    )


def writable(text: str) -> str:
    """The text on one line, with a box for every character that no font can draw."""
    return "".join(c if _drawable(c) else _MISSING for c in clean(text))


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a text in inches at a size in points."""
    font = font_manager.get_font(
        font_manager.findfont(
            font_manager.FontProperties(family="DejaVu Sans", weight=weight)
        )
    )
    font.set_size(size, 72)
    known = "".join(c if font.get_char_index(ord(c)) else "W" for c in text)
    font.set_text(known, 0.0)
    # Hinting at the size of the screen widens a text by some hundredths.
    return 1.04 * float(font.get_width_height()[0]) / 64 / 72


def fitted(text: str, room: float, size: float, weight: str = "normal") -> str:
    """The text, cut with … to fit into `room` inches."""
    text = writable(text)
    if text_width(text[:400], size, weight) <= room and len(text) <= 400:
        return text
    low, high = 0, min(len(text), 400)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high)
            if text_width(text[:middle] + "…", size, weight) <= room
            else (low, middle - 1)
        )
    return text[:low].rstrip() + "…"


def wrapped(text: str, room: float, size: float) -> list[str]:
    """The text in lines of at most `room` inches; words longer than a line are cut."""
    lines: list[str] = []
    for word in writable(text).split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(fitted(word, room, size))
    return lines


class Sheet:
    """A page of `width` × `height` inches, measured from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(self.figure)
        # One pair of axes over the whole page, whose coordinates are inches.
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._fix()

    def _fix(self) -> None:
        self._axes.set(xlim=(0, self.width), ylim=(self.height, 0))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 9,
        colour: str = INK,
        bold: bool = False,
        align: HorizontalAlign = "left",
        room: float | None = None,
    ) -> None:
        """One line whose baseline is at `y`, cut to `room` inches; never read as mathematics."""
        weight = "bold" if bold else "normal"
        shown = fitted(text, room if room is not None else self.width, size, weight)
        # Given outright rather than left to the user's defaults, so that a figure looks
        # the same everywhere.
        properties = font_manager.FontProperties(
            family=list(_families()), size=size, weight=weight
        )
        self._axes.add_artist(
            Text(
                x,
                y,
                shown,
                color=colour,
                ha=align,
                va="baseline",
                fontproperties=properties,
                parse_math=False,
                usetex=False,
            )
        )

    def paragraph(
        self,
        x: float,
        y: float,
        text: str,
        room: float,
        *,
        size: float = 8,
        colour: str = SOFT,
    ) -> None:
        """Text wrapped to `room` inches, the first baseline at `y`."""
        for row, line in enumerate(wrapped(text, room, size)):
            self.text(x, y + row * line_height(size), line, size=size, colour=colour)

    def picture(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        pixels: UInt8[np.ndarray, "height width _"],
        *,
        crisp: bool = False,
    ) -> None:
        """A picture with its top left corner at (x, y), and a hairline around it."""
        self._axes.imshow(
            pixels,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            interpolation="nearest" if crisp else "auto",
            zorder=1,
        )
        self.box(x, y, width, height, fill="none", edge=LINE, line=0.5)
        self._fix()

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = QUIET,
        edge: str = "none",
        line: float = 0.0,
    ) -> None:
        """A rectangle."""
        self._axes.add_patch(
            Rectangle(
                (x, y),
                width,
                height,
                facecolor=fill,
                edgecolor=edge,
                linewidth=line,
                zorder=2,
            )
        )

    def polygon(
        self,
        points: Sequence[tuple[float, float]],
        *,
        fill: str,
        edge: str = INK,
        line: float = 0.7,
    ) -> None:
        """A closed polygon."""
        self._axes.add_patch(
            Polygon(
                list(points),
                closed=True,
                facecolor=fill,
                edgecolor=edge,
                linewidth=line,
                joinstyle="round",
                zorder=2,
            )
        )

    def rule(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        *,
        colour: str = LINE,
        line: float = 0.7,
    ) -> None:
        """A straight line."""
        self._axes.plot(
            [x1, x2],
            [y1, y2],
            color=colour,
            linewidth=line,
            zorder=2.5,
            solid_capstyle="butt",
            marker="",
        )
        self._fix()

    def colour_bar(
        self,
        x: float,
        y: float,
        width: float,
        scale: Scale,
        lut: UInt8[np.ndarray, "256 3"],
        *,
        size: float = 7.5,
    ) -> None:
        """A horizontal colour bar with the real values of a scale beneath it; 0.32 inches high with its numbers."""
        if scale.is_blank:
            self.text(
                x,
                y + 0.12,
                "no colours: every value is 0",
                size=size,
                colour=SOFT,
                room=width,
            )
            return
        self._axes.imshow(
            lut[None],
            extent=(x, x + width, y + 0.13, y),
            aspect="auto",
            interpolation="nearest",
            zorder=1,
        )
        self.box(x, y, width, 0.13, fill="none", edge=LINE, line=0.5)
        for value in ticks(scale, max(2, int(width / 0.55))):
            place = x + width * (value - scale.low) / (scale.high - scale.low)
            self.rule(place, y + 0.13, place, y + 0.17, colour=SOFT, line=0.6)
            self.text(
                place, y + 0.29, tick(value), size=size, colour=SOFT, align="center"
            )


def ticks(scale: Scale, most: int) -> list[float]:
    """Round values within a scale, at most `most` + 1 of them; 0 and both ends' neighbourhood included."""
    values = MaxNLocator(
        nbins=max(1, min(most, 6)), steps=[1, 2, 2.5, 5, 10], min_n_ticks=2
    ).tick_values(scale.low, scale.high)
    margin = 1e-9 * scale.high
    return [
        0.0 if abs(v) < margin else float(f"{v:.6g}")
        for v in values
        if scale.low - margin <= v <= scale.high + margin
    ]


def line_height(size: float) -> float:
    """The distance of two baselines in inches."""
    return size * 1.45 / 72


@dataclass(frozen=True)
class Block:
    """A part of a page, over its whole width: its height in inches, and what draws it on a sheet from `y` on."""

    height: float
    draw: Callable[[Sheet, float], None]


def page(
    blocks: Sequence[Block], width: float, *, margin: float = 0.3, gap: float = 0.0
) -> Figure:
    """The blocks one below the other on a sheet as high as they need."""
    height = (
        2 * margin
        + sum(block.height for block in blocks)
        + gap * max(0, len(blocks) - 1)
    )
    sheet = Sheet(width, height)
    y = margin
    for block in blocks:
        block.draw(sheet, y)
        y += block.height + gap
    return sheet.figure
