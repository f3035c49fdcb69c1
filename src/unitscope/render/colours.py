"""Colours: look-up tables, and the scale that says which value has which colour."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8

Table = UInt8[np.ndarray, "256 3"]

HEAT = "ember"
"""Default for activations: matplotlib's inferno without its black end, which would only darken the photo."""
SIGNED = "violet-orange"
"""Default for signed maps: orange for, violet against. Blue would drown in skies and seas; both ends differ for all
kinds of colour vision."""

# Position from −1 to 1, then red, green, blue.
_ANCHORS = {
    SIGNED: (
        (-1.0, 58, 28, 128),
        (-0.5, 136, 108, 204),
        (0.0, 246, 243, 240),
        (0.5, 244, 146, 52),
        (1.0, 158, 34, 4),
    )
}
_PARTS = {HEAT: ("inferno", 0.18, 0.97)}


@functools.cache
def table(name: str) -> Table:
    """The 256 colours (RGB, 8 bits) of a colour map: one of this project's two, or any of matplotlib's."""
    if name in _ANCHORS:
        anchors = np.array(_ANCHORS[name])
        ramp = np.linspace(-1, 1, 256)
        rgb = np.stack(
            [
                np.interp(ramp, anchors[:, 0], anchors[:, channel])
                for channel in (1, 2, 3)
            ],
            axis=1,
        )
        return np.asarray(np.round(rgb), np.uint8)
    source, begin, end = _PARTS.get(name, (name, 0.0, 1.0))
    if source not in matplotlib.colormaps:
        raise ValueError(
            f"there is no colour map {name!r}: use '{HEAT}', '{SIGNED}' or one of "
            "matplotlib's"
        )
    rgba = matplotlib.colormaps[source](np.linspace(begin, end, 256))
    return np.asarray(np.round(rgba[:, :3] * 255), np.uint8)


@dataclass(frozen=True)
class Scale:
    """Which values the colours span, in the unit of the maps.

    A signed scale is symmetric about 0 (`low` = −`high`), so that no colour means
    nothing; another begins at 0. `over` says in words what the range was taken over:
    "this map alone", "shared over these 5 maps".
    """

    low: float
    high: float
    signed: bool
    over: str

    @classmethod
    def of(
        cls, maps: Float[np.ndarray, ...], over: str, *, signed: bool | None = None
    ) -> Scale:
        """The scale of some maps, from their own cells; signed when any is negative, unless said otherwise."""
        finite = maps[np.isfinite(maps)]
        least, most = (
            (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        )
        if signed is None:
            signed = least < 0
        high = max(most, -least, 0.0) if signed else max(most, 0.0)
        return cls(-high if signed else 0.0, high, signed, over)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to show: no value differs from 0."""
        return self.high <= 0

    @property
    def colours(self) -> str:
        """The name of the default colour map for this scale."""
        return SIGNED if self.signed else HEAT

    def position(self, values: Float[np.ndarray, "*map"]) -> Float[np.ndarray, "*map"]:
        """Where values lie on the scale, 0 (low) to 1 (high), clipped; NaN stays NaN. On a blank scale all lie at 0."""
        if self.is_blank:
            return np.where(np.isnan(values), np.nan, 0.5 if self.signed else 0.0)
        return np.clip((values - self.low) / (self.high - self.low), 0, 1)

    def strength(self, values: Float[np.ndarray, "*map"]) -> Float[np.ndarray, "*map"]:
        """How far values are from 0, up to 1 at the scale's end; negative ones count on a signed scale only."""
        if self.is_blank:
            return np.where(np.isnan(values), np.nan, 0.0)
        return np.clip((np.abs(values) if self.signed else values) / self.high, 0, 1)

    def ramp(self, count: int = 256) -> Float[np.ndarray, " {count}"]:
        """Values from low to high, for a colour bar."""
        return np.linspace(self.low, self.high, count)
