"""Top images: for every unit the images with the largest scores, and the unit's maps on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.summaries.base import Arrays, Observed, Summary

CRITERIA = ("maximum", "mean")


class TopImages(Summary):
    """The `count` images with the largest score for each unit, best first; equal scores in the data set's order.

    The score is the map's maximum or its mean. Maps are kept in half precision as shares of their own largest |value|,
    which is kept beside them. Where fewer images were seen, the rest have the place −1 and the score −∞.
    """

    def __init__(self, units: int, count: int, cells: tuple[int, int], criterion: str) -> None:
        self._criterion = criterion
        self.scores = np.full((units, count), -np.inf, np.float32)
        self.images = np.full((units, count), -1, np.int64)
        self._maps = np.zeros((units, count, *cells), np.float16)
        self._peaks = np.zeros((units, count), np.float32)
        # The best scores that are known from elsewhere: who does not reach the last of them need not be kept.
        self._known = self.scores.copy()

    def following(self) -> TopImages:
        """An empty summary for further images, which leaves out those that cannot be among the best any more."""
        fresh = TopImages(*self.scores.shape, self._maps.shape[2:], self._criterion)
        joined = np.concatenate([self._known, self.scores], 1)
        fresh._known = -np.sort(-joined, axis=1)[:, : self.scores.shape[1]]
        return fresh

    def maps(self) -> Float[np.ndarray, "unit image row col"]:
        """The units' maps on their images, right to 0.05 % of the largest activation of each."""
        return self._maps.astype(np.float32) * self._peaks[:, :, None, None]

    def update(self, observed: Observed) -> None:
        """Let the images of a batch take their places."""
        scores = observed.maximum if self._criterion == "maximum" else observed.mean
        # An equal score may still take the place of an image that comes later in the data set.
        enough = scores >= np.maximum(self.scores[:, -1], self._known[:, -1])
        hits = enough.sum(axis=0)
        units = np.flatnonzero(hits)
        if not len(units):
            return
        count = min(int(hits.max()), self.scores.shape[1])
        candidates = np.where(enough[:, units], scores[:, units], -np.inf).T
        places = np.where(enough[:, units].T, observed.images, -1)
        best = _order(candidates, places)[:, :count]
        shares, peaks = packed(observed.maps[best, units[:, None]])
        scores, places = np.take_along_axis(candidates, best, 1), np.take_along_axis(places, best, 1)
        # Of fewer hits the rest are empty places, which hold nothing.
        shares[places < 0], peaks[places < 0] = 0, 0
        self._merge(units, scores, places, shares, peaks)

    def merge(self, other: TopImages) -> None:
        """Let the images of another take their places."""
        self._merge(np.arange(len(self.scores)), other.scores, other.images, other._maps, other._peaks)

    def _merge(
        self,
        units: Int64[np.ndarray, " some"],
        scores: Float[np.ndarray, "some image"],
        images: Int64[np.ndarray, "some image"],
        shares: Float[np.ndarray, "some image row col"],
        peaks: Float[np.ndarray, "some image"],
    ) -> None:
        count = self.scores.shape[1]
        all_scores = np.concatenate([self.scores[units], scores], 1)
        all_images = np.concatenate([self.images[units], images], 1)
        best = _order(all_scores, all_images)[:, :count]
        self.scores[units] = np.take_along_axis(all_scores, best, 1)
        self.images[units] = np.take_along_axis(all_images, best, 1)
        self._peaks[units] = np.take_along_axis(np.concatenate([self._peaks[units], peaks], 1), best, 1)
        # Maps are large: only those that change their place are written.
        changed = (best != np.arange(count)).any(axis=1)
        old = self._maps[units[changed]]
        maps = np.concatenate([old, shares[changed]], 1)
        self._maps[units[changed]] = np.take_along_axis(maps, best[changed][:, :, None, None], 1)

    def arrays(self) -> Arrays:
        """`scores`, `images` and `peaks` (unit, image), and `maps` (unit, image, row, col)."""
        return {"scores": self.scores, "images": self.images, "peaks": self._peaks, "maps": self._maps}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        self.scores, self.images = np.array(arrays["scores"]), np.array(arrays["images"])
        self._peaks, self._maps = np.array(arrays["peaks"]), np.array(arrays["maps"])


def packed(
    maps: Float[np.ndarray, "*some row col"],
) -> tuple[Float[np.ndarray, "*some row col"], Float[np.ndarray, "*some"]]:
    """Maps as half-precision shares of their own largest |value|, and that value."""
    peaks = np.abs(maps).max(axis=(-2, -1))
    shares = maps / np.where(peaks > 0, peaks, 1)[..., None, None]
    return shares.astype(np.float16), peaks


def _order(
    scores: Float[np.ndarray, "unit image"], images: Int64[np.ndarray, "unit image"]
) -> Int64[np.ndarray, "unit image"]:
    """The order of descending scores, equal ones by the image's place; empty places, of score −∞, come last."""
    return np.lexsort((images, -scores), axis=1)
