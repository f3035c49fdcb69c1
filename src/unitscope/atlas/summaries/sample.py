"""Sample: the maps of all units on a few images drawn at random, so that not only maxima are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.top_images import packed


class Sample(Summary):
    """The `count` images with the smallest random numbers of their own: a uniform sample, the same in every run.

    Of each it keeps every unit's map, in half precision as shares of the map's own
    largest |value|. Sorted by a unit's score they show the unit across its range: what
    it does on ordinary images.
    """

    def __init__(self, units: int, count: int, cells: tuple[int, int]) -> None:
        self._count, self._cells = count, cells
        self._limit = np.uint64(0xFFFFFFFFFFFFFFFF)
        self._draws = np.zeros(0, np.uint64)
        self.images = np.zeros(0, np.int64)
        self.maxima = np.zeros((0, units), np.float32)
        self.means = np.zeros((0, units), np.float32)
        self._maps = np.zeros((0, units, *cells), np.float16)
        self._peaks = np.zeros((0, units), np.float32)

    def following(self) -> Sample:
        """An empty summary for further images, which leaves out those whose numbers are too large by now."""
        fresh = Sample(self.maxima.shape[1], self._count, self._cells)
        fresh._limit = (
            min(self._limit, self._draws[-1])
            if len(self._draws) == self._count > 0
            else self._limit
        )
        return fresh

    def maps(self) -> Float[np.ndarray, "image unit row col"]:
        """All units' maps on the sampled images, right to 0.05 % of the largest activation of each."""
        return self._maps.astype(np.float32) * self._peaks[:, :, None, None]

    def update(self, observed: Observed) -> None:
        """Take in those images of a batch whose numbers are small enough."""
        limit = self._draws[-1] if len(self._draws) == self._count > 0 else self._limit
        few = np.flatnonzero(observed.draws <= min(limit, self._limit))[
            : None if self._count else 0
        ]
        if not len(few):
            return
        shares, peaks = packed(observed.maps[few])
        self._merge(
            observed.draws[few],
            observed.images[few],
            observed.maximum[few],
            observed.mean[few],
            shares,
            peaks,
        )

    def merge(self, other: Sample) -> None:
        """Take in those images of another whose numbers are small enough."""
        self._merge(
            other._draws,
            other.images,
            other.maxima,
            other.means,
            other._maps,
            other._peaks,
        )

    def _merge(self, *others: np.ndarray) -> None:
        own = (
            self._draws,
            self.images,
            self.maxima,
            self.means,
            self._maps,
            self._peaks,
        )
        joined = [
            np.concatenate([mine, theirs])
            for mine, theirs in zip(own, others, strict=True)
        ]
        order = np.lexsort((joined[1], joined[0]))[: self._count]
        self._draws, self.images, self.maxima, self.means, self._maps, self._peaks = (
            one[order] for one in joined
        )

    def arrays(self) -> Arrays:
        """`draws` and `images` (image), `maxima`, `means` and `peaks` (image, unit), `maps` (image, unit, row, col)."""
        return {
            "draws": self._draws,
            "images": self.images,
            "maxima": self.maxima,
            "means": self.means,
            "peaks": self._peaks,
            "maps": self._maps,
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        self._draws, self.images = np.array(arrays["draws"]), np.array(arrays["images"])
        self.maxima, self.means = np.array(arrays["maxima"]), np.array(arrays["means"])
        self._peaks, self._maps = np.array(arrays["peaks"]), np.array(arrays["maps"])
