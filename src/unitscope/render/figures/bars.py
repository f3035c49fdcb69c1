"""Bars: values as horizontal bars, each with a name before it and a text behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unitscope.render.figures.blocks import INNER, MARGIN, Block
from unitscope.render.sheets import ACCENT, SOFT, Sheet

NAMES = 1.75
"""The room for the names of bars, in inches."""

_NEGATIVE = "#5b3fa8"


class Bar(NamedTuple):
    """One value, with its name and the text behind its bar."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class ValueAxis:
    """A horizontal axis: the place of the value 0, and the inches of the value 1."""

    zero: float
    unit: float

    @classmethod
    def between(
        cls, low: float, high: float, left: float, room: float
    ) -> ValueAxis:
        """The axis from low to high on `room` inches from `left`."""
        unit = room / (high - low or 1.0)
        return cls(left - low * unit, unit)

    def end(self, value: float) -> float:
        """Where the bar of a value ends."""
        return self.zero + value * self.unit

    def draw_bar(
        self, sheet: Sheet, y: float, value: float, *, height: float, fill: str
    ) -> None:
        """The bar from 0 to a value, its top at `y`."""
        length = value * self.unit
        left = self.zero + min(0.0, length)
        sheet.box(
            left,
            y,
            abs(length),
            height,
            fill=fill,
        )


@dataclass(frozen=True)
class BarChart:
    """Bars one below the other: their range, and the room in inches of their texts.

    The range `low` to `high` holds 0. `names` is the room before a bar, `values` the
    room behind it, `step` the distance between two bars.
    """

    bars: Sequence[Bar]
    low: float
    high: float
    names: float
    values: float
    step: float

    @property
    def height(self) -> float:
        """The height of all bars in inches."""
        return self.step * len(self.bars)

    def draw(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        """Draw the chart over `width` inches, with its top left corner at (x, y)."""
        left = x + self.names + 0.12
        room = width - self.names - 0.12 - self.values
        axis = ValueAxis.between(self.low, self.high, left, room)

        for row, bar in enumerate(self.bars):
            self._draw_bar(sheet, x, y + row * self.step, bar, axis)

        bottom = y + self.height - 0.06
        sheet.rule(
            axis.zero,
            y - 0.02,
            axis.zero,
            bottom,
            colour=SOFT,
        )

    def _draw_bar(
        self, sheet: Sheet, x: float, y: float, bar: Bar, axis: ValueAxis
    ) -> None:
        baseline = y + 0.17
        right = x + self.names
        sheet.text(
            right,
            baseline,
            bar.name,
            size=9.5,
            align="right",
            room=self.names,
        )

        fill = ACCENT if bar.value >= 0 else _NEGATIVE
        axis.draw_bar(
            sheet,
            y + 0.03,
            bar.value,
            height=0.19,
            fill=fill,
        )

        behind = max(axis.zero, axis.end(bar.value)) + 0.08
        sheet.text(
            behind,
            baseline,
            bar.text,
            size=8.5,
            room=self.values,
        )


def bar_block(
    bars: Sequence[Bar], *, names: float, values: float, step: float
) -> Block:
    """A chart over the whole width whose range is that of its bars, with 0 in it.

    `names`, `values` and `step` are those of `BarChart`.
    """
    numbers = [bar.value for bar in bars]
    chart = BarChart(
        bars,
        low=min(0.0, *numbers, 0.0),
        high=max(0.0, *numbers, 0.0),
        names=names,
        values=values,
        step=step,
    )

    def draw(sheet: Sheet, y: float) -> None:
        chart.draw(sheet, MARGIN, y, INNER)

    return Block(chart.height + 0.15, draw)
