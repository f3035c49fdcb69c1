"""Bars: one side of a photo marked like a bar code, and read in the network's input.

Bars of uneven widths, black and white in turn, tell by their widths where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# A cell whose level is a smaller share of the largest one is undecided: padding, or
# the blend of two bars.
DECIDED = 0.25

# So many edges in sequence fit in one place only, as a rule.
ENOUGH_EDGES = 5

# A line may miss edges by this many pixels, of the input and of the photo. The place
# of an edge is known to half a pixel where the levels have steps only.
_TOLERANCE = 0.75

# Bars this many times as wide as a pixel of the input can be told apart. Those that are
# not resized can be told apart whatever their width.
_RESOLVED = 1.3
_NOT_RESIZED = 1.05

# How near an edge signs are not compared, in pixels of the input and of the photo.
_MARGIN = 0.3
_MARGIN_ON_PHOTO = 0.15

# A side with fewer pixels of the input cannot be read.
_FEWEST_PIXELS = 8


class Line(NamedTuple):
    """The position on the photo, `start + slope · position on the input`, in pixels."""

    start: float
    slope: float

    def centres(self, count: int) -> Float[np.ndarray, " pixel"]:
        """Where the centres of the first `count` pixels of the input lie."""
        centres = np.arange(count) + 0.5
        return self.start + self.slope * centres


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars along a side of a photo, which has `extent` pixels.

    `edges` are the positions at which black and white change, in order. The narrowest
    bars have `width` pixels.
    """

    extent: int
    width: float
    edges: Int[np.ndarray, " edge"]

    @classmethod
    def drawn(cls, extent: int, width: float, seed: int) -> Bars:
        """Bars of `width` (at least 1) pixels or twice that, at random."""
        generator = np.random.default_rng(seed)
        count = int(extent / width) + 1
        widths = width * generator.integers(1, 3, count)
        edges = np.round(np.cumsum(widths)).astype(np.int64)
        edges = edges[edges < extent]
        if extent > 1 and not len(edges):
            edges = np.array([extent // 2])
        return cls(extent, width, edges)

    def contains(
        self, positions: Float[np.ndarray, point], slack: float
    ) -> Bool[np.ndarray, point]:
        """Whether positions lie on the side, or beyond it by less than `slack`."""
        return (positions > -slack) & (positions < self.extent + slack)

    def is_slight(self, levels: Float[np.ndarray, " pixel"]) -> bool:
        """Whether a side of the input with these levels shows too little to be read."""
        if self.extent == 1:
            return False
        if are_decided(levels).sum() < _FEWEST_PIXELS:
            return True
        return self.width <= 1 and len(edges_in(levels)) < 2

    def signs(
        self, positions: Float[np.ndarray, " point"]
    ) -> Int[np.ndarray, " point"]:
        """1 where a position lies on a white bar, and −1 where on a black one."""
        passed = np.searchsorted(self.edges, positions, side="right")
        return 1 - 2 * (passed % 2)

    def clear(
        self, positions: Float[np.ndarray, " point"], slope: float
    ) -> Bool[np.ndarray, " point"]:
        """Whether positions are on the photo and away from edges.

        `slope` is how many pixels of the photo one of the input covers.
        """
        borders = np.array([0, *self.edges, self.extent])
        bar = np.searchsorted(borders, positions, side="right")
        on_photo = (bar > 0) & (bar < len(borders))
        bar = np.clip(bar, 1, len(borders) - 1)
        margin = _MARGIN * abs(slope) + _MARGIN_ON_PHOTO
        behind_last = positions - borders[bar - 1] >= margin
        before_next = borders[bar] - positions >= margin
        is_clear: Bool[np.ndarray, " point"] = (
            on_photo & behind_last & before_next
        )
        return is_clear

    def fits(self, levels: Float[np.ndarray, " pixel"]) -> list[Line]:
        """All lines from input to photo on which the edges in `levels` lie, best first.

        `levels` are positive where the input shows white, along one of its sides. The
        slope is negative where the photo is mirrored.
        """
        seen = edges_in(levels)
        if self.extent <= 3 and len(seen) == len(self.edges) < 2:
            # So few pixels have no two edges: all of them are taken to be shown.
            return self._whole(levels)
        if len(seen) < 2:
            return []

        found: list[Line] = []
        for part in _parts(len(seen)):
            lines = self._through(seen[part])
            if any(line.slope > 0 for line in lines):
                return lines
            found = found or lines
        return found

    def _through(self, seen: Float[np.ndarray, " edge"]) -> list[Line]:
        """The lines that take edges seen in the input to edges in sequence."""
        if len(seen) > len(self.edges):
            return []
        places = np.lib.stride_tricks.sliding_window_view(self.edges, len(seen))
        places = np.concatenate([places, places[:, ::-1]]).astype(np.float64)

        design = np.stack([np.ones_like(seen), seen], axis=1)
        solutions = np.linalg.lstsq(design, places.T, rcond=None)[0]
        starts, slopes = solutions
        misses = np.abs(design @ solutions - places.T).max(axis=0)
        shares = misses / _tolerance(np.abs(slopes))
        steepest = max(_NOT_RESIZED, self.width / _RESOLVED)
        return [
            Line(float(starts[place]), float(slopes[place]))
            for place in np.argsort(shares, kind="stable")
            if shares[place] <= 1 and abs(slopes[place]) <= steepest
        ]

    def _whole(self, levels: Float[np.ndarray, " pixel"]) -> list[Line]:
        decided = np.flatnonzero(are_decided(levels))
        if not len(decided):
            return []
        count = decided[-1] - decided[0] + 1
        slope = self.extent / float(count)
        return [Line(-slope * float(decided[0]), slope)]

    def agree(self, levels: Float[np.ndarray, " pixel"], line: Line) -> bool:
        """Whether the input shows black and white where a line puts them.

        Which of the two is white is left open.
        """
        positions = line.centres(len(levels))
        on_clear = self.clear(positions, line.slope)
        tested = on_clear & are_decided(levels)
        if tested.sum() < 0.5 * on_clear.sum() or not tested.any():
            return False
        products = self.signs(positions) * np.sign(levels)
        return bool(abs(products[tested].mean()) > 0.9)


def refined(
    line: Line, readings: Sequence[tuple[Bars, Float[np.ndarray, " pixel"]]]
) -> Line:
    """The line of least squares through all edges near `line`, in several readings."""
    on_input: list[float] = []
    on_photo: list[float] = []
    for bars, levels in readings:
        if not len(bars.edges):
            continue
        for seen in edges_in(levels):
            told = line.start + line.slope * seen
            nearest = int(np.abs(bars.edges - told).argmin())
            edge = float(bars.edges[nearest])
            if abs(edge - told) <= _tolerance(line.slope):
                on_input.append(float(seen))
                on_photo.append(edge)
    if len(set(on_photo)) < 2:
        return line
    slope, start = np.polyfit(on_input, on_photo, 1)
    return Line(float(start), float(slope))


def edges_in(levels: Float[np.ndarray, " pixel"]) -> Float[np.ndarray, " edge"]:
    """Where levels change their sign, between the first and last decided pixel.

    The sign tells between which centres of pixels; the levels tell where between them.
    """
    decided = np.flatnonzero(are_decided(levels))
    if not len(decided):
        return np.empty(0)
    first, last = decided[0], decided[-1]
    shown = levels[first : last + 1]
    is_white = shown >= 0
    before = np.flatnonzero(is_white[1:] != is_white[:-1])
    near, far = shown[before], shown[before + 1]
    edges: Float[np.ndarray, " edge"] = (
        first + 0.5 + before + near / (near - far)
    )
    return edges


def are_decided(
    levels: Float[np.ndarray, " pixel"],
) -> Bool[np.ndarray, " pixel"]:
    """Where black and white differ clearly."""
    sizes = np.abs(levels)
    least = DECIDED * sizes.max()
    decided: Bool[np.ndarray, " pixel"] = (sizes > least) & (sizes > 0)
    return decided


def _parts(count: int) -> list[slice]:
    """The parts of so many edges to look for, one after the other.

    Padding by reflection shows bars again beyond the photo's borders.
    """
    parts = [slice(0, count)]
    if count >= 2 * ENOUGH_EDGES:
        half = count // 2
        for first in (half // 2, 0, count - half):
            parts.append(slice(first, first + half))
    return parts


def _tolerance(slope: Any) -> Any:
    """How far a line may miss an edge, in pixels of the photo; for one slope or many."""
    return _TOLERANCE * (abs(slope) + 1)
