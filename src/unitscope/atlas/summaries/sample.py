"""Sample: the maps of all units on a few random images, so that maxima are not all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.top_images import packed

_LARGEST_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)


class Sample(Summary):
    """The `count` images with the smallest hash keys.

    That is a uniform sample, the same in every run. For each of its images it holds
    every unit's map, in half precision as shares of the map's own largest |value|.
    Sorted by a unit's score they show the unit across its range, also on ordinary
    images.
    """

    def __init__(self, units: int, count: int, cells: tuple[int, int]) -> None:
        self._count = count
        self._cells = cells
        self._limit = _LARGEST_KEY
        self._hash_keys = np.zeros(0, np.uint64)
        self.images = np.zeros(0, np.int64)
        self.maxima = np.zeros((0, units), np.float32)
        self.means = np.zeros((0, units), np.float32)
        self._maps = np.zeros((0, units, *cells), np.float16)
        self._peaks = np.zeros((0, units), np.float32)

    def following(self) -> Sample:
        """An empty summary for further images; it skips those with too large keys."""
        units = self.maxima.shape[1]
        fresh = Sample(units, self._count, self._cells)
        fresh._limit = self._largest_key()
        return fresh

    def _largest_key(self) -> np.uint64:
        """The largest hash key that can still enter the sample."""
        full = len(self._hash_keys) == self._count > 0
        if not full:
            return self._limit
        return min(self._limit, self._hash_keys[-1])

    def maps(self) -> Float[np.ndarray, "image unit row col"]:
        """All units' maps on the sampled images, accurate to 0.05 % of their peaks."""
        peaks = self._peaks[:, :, None, None]
        return self._maps.astype(np.float32) * peaks

    def update(self, observed: Observed) -> None:
        """Add those images of a batch whose hash keys are small enough."""
        if not self._count:
            return
        chosen = np.flatnonzero(observed.hash_keys <= self._largest_key())
        if not len(chosen):
            return

        shares, peaks = packed(observed.maps[chosen])
        self._merge(
            observed.hash_keys[chosen],
            observed.images[chosen],
            observed.maximum[chosen],
            observed.mean[chosen],
            shares,
            peaks,
        )

    def merge(self, other: Sample) -> None:
        """Add those images of another sample whose hash keys are small enough."""
        self._merge(*other._columns())

    def _merge(self, *others: np.ndarray) -> None:
        pairs = zip(self._columns(), others, strict=True)
        joined = [np.concatenate(pair) for pair in pairs]
        hash_keys, images, *_ = joined
        order = np.lexsort((images, hash_keys))[: self._count]
        (
            self._hash_keys,
            self.images,
            self.maxima,
            self.means,
            self._maps,
            self._peaks,
        ) = (column[order] for column in joined)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return (
            self._hash_keys,
            self.images,
            self.maxima,
            self.means,
            self._maps,
            self._peaks,
        )

    def arrays(self) -> Arrays:
        """All arrays, by image.

        `draws` (the hash keys) and `images` (image), `maxima`, `means` and `peaks`
        (image, unit), `maps` (image, unit, row, col).
        """
        return {
            "draws": self._hash_keys,
            "images": self.images,
            "maxima": self.maxima,
            "means": self.means,
            "peaks": self._peaks,
            "maps": self._maps,
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
        self._hash_keys = np.array(arrays["draws"])
        self.images = np.array(arrays["images"])
        self.maxima = np.array(arrays["maxima"])
        self.means = np.array(arrays["means"])
        self._peaks = np.array(arrays["peaks"])
        self._maps = np.array(arrays["maps"])
