"""Histogram contents: the activations of a layer's units, binned for pages."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.atlas.summaries.histogram import Histogram
from unitscope.explorer.atlas_tables import plain_values

_OCTAVES = 11
# Nearly thirds of an octave, chosen among the edges of the summaries' buckets.
_THIRDS = (1.0, 1 + 17 / 64, 1 + 38 / 64)
_HEIGHTS = "0123456789abcdefghijklmnopqrstuvwxyz"


class HistogramContents:
    """Histograms in thirds of an octave, on one axis for all units of a layer.

    `shares` (unit, bin) are the shares of all cells, `zero` (unit) those at zero, and
    `below` (unit) those between zero and the first bin. `signed` says whether the layer
    has negative activations, which no bin counts.
    """

    shares: Float[np.ndarray, "unit bin"]
    zero: Float[np.ndarray, " unit"]
    below: Float[np.ndarray, " unit"]
    signed: bool

    def __init__(self, atlas: StoredAtlas, layer: AtlasLayer) -> None:
        histogram = Histogram(layer.units)
        histogram.restore(atlas.arrays(f"{layer.name}/histogram"))
        lower, upper, counts = histogram.buckets()
        total = counts.sum(axis=1, keepdims=True)
        total = total.clip(min=1)

        largest = upper.max(initial=0.0)
        self._edges = _edges(float(largest))
        bins = np.searchsorted(self._edges, lower, side="right") - 1

        is_zero = (lower == 0) & (upper == 0)
        is_positive = lower > 0
        is_binned = is_positive & (bins >= 0)
        is_below = is_positive & (bins < 0)
        is_negative = lower < 0

        binned = np.zeros((layer.units, len(self._edges) - 1))
        np.add.at(
            binned.T,
            bins[is_binned],
            counts[:, is_binned].T,
        )
        self.shares = binned / total
        self.zero = _share(counts, total, is_zero)
        self.below = _share(counts, total, is_below)

        negative_counts = counts[:, is_negative]
        self.signed = bool(negative_counts.any())

        single_cell = 1 / total.max()
        exponent = np.floor(np.log10(single_cell))
        self._floor = float(10.0**exponent)
        """The power of ten at or below the share of a single cell."""

    def plain(self) -> dict[str, Any]:
        """The edges of the bins, and the lowest share on a logarithmic axis."""
        return {
            "edges": plain_values(self._edges.tolist(), 8),
            "floor": self._floor,
        }

    def sparks(self) -> list[str]:
        """Each unit's histogram as a text, with a digit or letter a bin for its height.

        Heights are logarithms of shares, from that of a single cell to the largest bin.
        """
        largest_bin = float(self.shares.max(initial=0.0))
        largest = max(largest_bin, 10 * self._floor)
        with np.errstate(divide="ignore"):
            depths = np.log(self.shares / largest)
            floor_depth = np.log(self._floor / largest)
            fractions = 1 - depths / floor_depth

        top = len(_HEIGHTS) - 1
        heights = (fractions * top).clip(1, top)
        heights = heights.round()
        heights = np.where(self.shares > 0, heights, 0)
        return [_text(unit) for unit in heights.astype(int)]


def _text(heights: Int[np.ndarray, " bin"]) -> str:
    characters = [_HEIGHTS[height] for height in heights]
    return "".join(characters)


def _share(
    counts: Shaped[np.ndarray, "unit bucket"],
    total: Shaped[np.ndarray, "unit 1"],
    buckets: Bool[np.ndarray, " bucket"],
) -> Float[np.ndarray, " unit"]:
    """The share of all cells that lie in some of the buckets."""
    within = counts[:, buckets]
    shares: np.ndarray = within.sum(axis=1, keepdims=True) / total
    return shares[:, 0]


def _edges(largest: float) -> Float[np.ndarray, " edge"]:
    """The edges of bins in the octaves below the largest activation."""
    if largest <= 0:
        return np.ones(1)

    top = int(np.ceil(np.log2(largest)))
    octaves = np.arange(top - _OCTAVES, top)
    lower_edges = np.outer(np.exp2(octaves), _THIRDS)
    last_edge = 2.0**top
    return np.append(lower_edges.ravel(), last_edge)
