"""Colours: look-up tables, and the scale that gives every value its colour."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.ticker import MaxNLocator

from unitscope.errors import InputError

Table: TypeAlias = UInt8[np.ndarray, "256 3"]

HEAT = "ember"
"""The default for activations: matplotlib's inferno without its black end.

Black would only darken the photo.
"""

SIGNED = "violet-orange"
"""The default for signed maps: orange for, violet against.

Blue would be lost in skies and seas. Both ends differ for all kinds of colour vision.
"""

THIS_MAP = "this map alone"
"""What the scale of a single map spans, in words."""

# Position from −1 to 1, then red, green and blue.
_ANCHORS = {
    SIGNED: (
        (-1.0, 58, 28, 128),
        (-0.5, 136, 108, 204),
        (0.0, 246, 243, 240),
        (0.5, 244, 146, 52),
        (1.0, 158, 34, 4),
    )
}

# The part of one of matplotlib's colour maps, from begin to end.
_PARTS = {HEAT: ("inferno", 0.18, 0.97)}


@functools.cache
def table(name: str) -> Table:
    """The 256 colours (RGB, 8 bits) of one of this file's maps or one of matplotlib's.

    Raises ValueError for an unknown name.
    """
    if name in _ANCHORS:
        return _interpolated(np.array(_ANCHORS[name]))

    source, begin, end = _PARTS.get(name, (name, 0.0, 1.0))
    if source not in matplotlib.colormaps:
        raise InputError(
            f"there is no colour map {name!r}: use '{HEAT}', '{SIGNED}' or one of "
            "matplotlib's"
        )
    colour_map = matplotlib.colormaps[source]
    rgba = colour_map(np.linspace(begin, end, 256))
    rgb = rgba[:, :3] * 255
    return np.asarray(np.round(rgb), np.uint8)


def _interpolated(anchors: Float[np.ndarray, "anchor 4"]) -> Table:
    ramp = np.linspace(-1, 1, 256)
    positions, *channels = anchors.T
    interpolated = [np.interp(ramp, positions, channel) for channel in channels]
    rgb = np.stack(interpolated, axis=1)
    return np.asarray(np.round(rgb), np.uint8)


@dataclass(frozen=True)
class Scale:
    """The range of values that the colours span, in the unit of the maps.

    A signed scale is symmetric about 0 (`low` = −`high`), so that 0 has no colour; an
    unsigned scale begins at 0. `over` says in words which maps gave the range: "this
    map alone", "shared over these 5 maps".
    """

    low: float
    high: float
    signed: bool
    over: str

    @classmethod
    def of(
        cls,
        maps: Float[np.ndarray, " ..."],
        over: str,
        *,
        signed: bool | None = None,
    ) -> Scale:
        """The scale that spans the cells of some maps, infinite ones and NaN left out.

        When `signed` is None, the scale is signed if any value is negative.
        """
        finite = maps[np.isfinite(maps)]
        least = greatest = 0.0
        if finite.size:
            least = float(finite.min())
            greatest = float(finite.max())

        if signed is None:
            signed = least < 0
        if signed:
            high = max(greatest, -least, 0.0)
            low = -high
        else:
            high = max(greatest, 0.0)
            low = 0.0
        return cls(low, high, signed, over)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to show: no value differs from 0."""
        return self.high <= 0

    @property
    def colours(self) -> str:
        """The name of this scale's default colour map."""
        return SIGNED if self.signed else HEAT

    @property
    def style(self) -> str:
        """The name of this scale's default drawing style."""
        return "signed" if self.signed else "heat"

    def position(
        self, values: Float[np.ndarray, "*map"]
    ) -> Float[np.ndarray, "*map"]:
        """Where values lie on the scale, from 0 (low) to 1 (high), clipped.

        NaN stays NaN. On a blank scale every value lies where 0 does.
        """
        if self.is_blank:
            zero = 0.5 if self.signed else 0.0
            return np.where(np.isnan(values), np.nan, zero)
        span = self.high - self.low
        position = (values - self.low) / span
        return np.clip(position, 0, 1)

    def strength(
        self, values: Float[np.ndarray, "*map"]
    ) -> Float[np.ndarray, "*map"]:
        """How far values are from 0, up to 1 at the end of the scale.

        On an unsigned scale negative values have the strength 0. NaN stays NaN.
        """
        if self.is_blank:
            return np.where(np.isnan(values), np.nan, 0.0)
        sizes = np.abs(values) if self.signed else values
        shares = sizes / self.high
        return np.clip(shares, 0, 1)

    def ticks(self, most: int) -> list[float]:
        """Round values within the scale for a colour bar, at most `most` + 1."""
        locator = MaxNLocator(
            nbins=max(1, min(most, 6)),
            steps=[1, 2, 2.5, 5, 10],
            min_n_ticks=2,
        )
        margin = 1e-9 * self.high

        low = self.low - margin
        high = self.high + margin

        ticks = []
        for value in locator.tick_values(self.low, self.high):
            if not low <= value <= high:
                continue
            if abs(value) < margin:
                value = 0.0
            ticks.append(float(f"{value:.6g}"))
        return ticks


def shared_over(maps: int) -> str:
    """What the scale of so many maps spans, in words."""
    return f"shared over these {maps} maps" if maps > 1 else THIS_MAP
