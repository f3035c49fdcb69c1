"""Sheets: pages on which text, pictures and bars are placed in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Polygon, Rectangle
from matplotlib.text import Text

from unitscope.render.colours import Scale, Table
from unitscope.render.fonts import families, fitted, line_height, wrapped
from unitscope.render.words import tick

INK = "#1c1f24"
SOFT = "#626a75"
LINE = "#c9ced6"
ACCENT = "#b4480f"
QUIET = "#9aa5b4"
PAPER = "#ffffff"

DPI = 150

_BAR = 0.13
_TICK_SIZE = 7.5

HorizontalAlign = Literal["left", "center", "right"]


class Sheet:
    """A page of `width` × `height` inches, measured from its top left corner.

    `figure` is the matplotlib figure that it becomes.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(self.figure)
        # One pair of axes covers the whole page; its coordinates are inches.
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._fix()

    def _fix(self) -> None:
        # Some artists change the limits of the axes when they are added.
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
        """One line with its baseline at `y`, cut to `room` inches.

        Nothing in it is read as mathematics.
        """
        weight = "bold" if bold else "normal"
        shown = fitted(text, self.width if room is None else room, size, weight)

        # Every property is set, so that the user's defaults do not change a figure.
        properties = FontProperties(
            family=list(families()), size=size, weight=weight
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
        """Text wrapped to `room` inches, its first baseline at `y`."""
        for row, line in enumerate(wrapped(text, room, size)):
            baseline = y + row * line_height(size)
            self.text(
                x,
                baseline,
                line,
                size=size,
                colour=colour,
            )

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
        """A picture in a hairline frame, with its top left corner at (x, y).

        `crisp` enlarges it without smoothing.
        """
        self._axes.imshow(
            pixels,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            interpolation="nearest" if crisp else "auto",
            zorder=1,
        )
        self.box(
            x,
            y,
            width,
            height,
            fill="none",
            edge=LINE,
            line=0.5,
        )
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
        self, x: float, y: float, width: float, scale: Scale, lut: Table
    ) -> None:
        """A horizontal colour bar above the values of its scale, 0.32 inches high."""
        if scale.is_blank:
            self.text(
                x,
                y + 0.12,
                "no colours: every value is 0",
                size=_TICK_SIZE,
                colour=SOFT,
                room=width,
            )
            return

        self.picture(x, y, width, _BAR, lut[None], crisp=True)
        most_ticks = max(2, int(width / 0.55))
        for value in scale.ticks(most_ticks):
            distance = width * (value - scale.low)
            place = x + distance / (scale.high - scale.low)
            self._draw_tick(place, y, value)

    def _draw_tick(self, x: float, y: float, value: float) -> None:
        """A tick with its value, below a colour bar with its top at `y`."""
        self.rule(
            x,
            y + _BAR,
            x,
            y + 0.17,
            colour=SOFT,
            line=0.6,
        )
        self.text(
            x,
            y + 0.29,
            tick(value),
            size=_TICK_SIZE,
            colour=SOFT,
            align="center",
        )
