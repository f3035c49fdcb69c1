"""Top images: for every unit the images with the largest scores, and the unit's maps on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.summaries.base import Arrays, Observed, Summary

CRITERIA = ("maximum", "mean")

# How many numbers of maps may wait for their places.
_MOST_WAITING = 1 << 20


class TopImages(Summary):
    """The `count` images with the largest score for each unit, best first; equal scores in the data set's order.

    The score is the map's maximum or its mean. Maps are kept in half precision as
    shares of their own largest |value|, which is kept beside them. Where fewer images
    were seen, the rest have the place −1 and the score −∞.
    """

    def __init__(
        self, units: int, count: int, cells: tuple[int, int], criterion: str
    ) -> None:
        self._criterion = criterion
        self._scores = np.full((units, count), -np.inf, np.float32)
        self._images = np.full((units, count), -1, np.int64)
        self._maps = np.zeros((units, count, *cells), np.float16)
        self._peaks = np.zeros((units, count), np.float32)
        # The best scores that are known from elsewhere: who does not reach the last of
        # them need not be kept.
        self._known = self._scores.copy()
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._waits = 0

    def following(self) -> TopImages:
        """An empty summary for further images, which leaves out those that cannot be among the best any more."""
        fresh = TopImages(*self._scores.shape, self._maps.shape[2:], self._criterion)
        joined = np.concatenate([self._known, self.scores], 1)
        fresh._known = -np.sort(-joined, axis=1)[:, : self._scores.shape[1]]
        return fresh

    @property
    def scores(self) -> Float[np.ndarray, "unit image"]:
        """The scores, best first; −∞ where fewer images were seen."""
        self._place_waiting()
        return self._scores

    @property
    def images(self) -> Int64[np.ndarray, "unit image"]:
        """The images' places in the data set; −1 where fewer were seen."""
        self._place_waiting()
        return self._images

    def maps(self) -> Float[np.ndarray, "unit image row col"]:
        """The units' maps on their images, right to 0.05 % of the largest activation of each."""
        self._place_waiting()
        return self._maps.astype(np.float32) * self._peaks[:, :, None, None]

    def update(self, observed: Observed) -> None:
        """Let the images of a batch take their places."""
        scores = observed.maximum if self._criterion == "maximum" else observed.mean
        # An equal score may still take the place of an image that comes later in the
        # data set.
        rows, units = np.nonzero(
            scores >= np.maximum(self._scores[:, -1], self._known[:, -1])
        )
        if len(rows):
            self._waiting.append(
                (
                    units,
                    observed.images[rows],
                    scores[rows, units],
                    observed.maps[rows, units],
                )
            )
            self._waits += len(rows) * observed.maps[0, 0].size
        if self._waits > _MOST_WAITING:
            self._place_waiting()

    def _place_waiting(self) -> None:
        """Let the images that were taken in take their places: a few of many batches together."""
        if not self._waiting:
            return
        units, images, scores, maps = (
            np.concatenate(part) for part in zip(*self._waiting, strict=True)
        )
        self._waiting, self._waits = [], 0
        order = np.lexsort((images, -scores, units))
        several, first, counts = np.unique(
            units[order], return_index=True, return_counts=True
        )
        # Of each unit its images side by side; of fewer than the most the rest are
        # empty places, which hold nothing.
        width = min(int(counts.max()), self._scores.shape[1])
        ranks = np.arange(len(order)) - np.repeat(first, counts)
        best = order[ranks < width]
        where = (
            np.repeat(np.arange(len(several)), np.minimum(counts, width)),
            ranks[ranks < width],
        )
        all_scores = np.full((len(several), width), -np.inf, np.float32)
        all_images = np.full((len(several), width), -1, np.int64)
        shares = np.zeros((len(several), width, *self._maps.shape[2:]), np.float16)
        peaks = np.zeros((len(several), width), np.float32)
        all_scores[where], all_images[where] = scores[best], images[best]
        shares[where], peaks[where] = packed(maps[best])
        self._merge(several, all_scores, all_images, shares, peaks)

    def merge(self, other: TopImages) -> None:
        """Let the images of another take their places."""
        other._place_waiting()
        self._merge(
            np.arange(len(self._scores)),
            other._scores,
            other._images,
            other._maps,
            other._peaks,
        )

    def _merge(
        self,
        units: Int64[np.ndarray, " some"],
        scores: Float[np.ndarray, "some image"],
        images: Int64[np.ndarray, "some image"],
        shares: Float[np.ndarray, "some image row col"],
        peaks: Float[np.ndarray, "some image"],
    ) -> None:
        count = self._scores.shape[1]
        all_scores = np.concatenate([self._scores[units], scores], 1)
        all_images = np.concatenate([self._images[units], images], 1)
        best = _order(all_scores, all_images)[:, :count]
        self._scores[units] = np.take_along_axis(all_scores, best, 1)
        self._images[units] = np.take_along_axis(all_images, best, 1)
        self._peaks[units] = np.take_along_axis(
            np.concatenate([self._peaks[units], peaks], 1), best, 1
        )
        # Maps are large: only those that change their place are written.
        changed = (best != np.arange(count)).any(axis=1)
        old = self._maps[units[changed]]
        maps = np.concatenate([old, shares[changed]], 1)
        self._maps[units[changed]] = np.take_along_axis(
            maps, best[changed][:, :, None, None], 1
        )

    def arrays(self) -> Arrays:
        """`scores`, `images` and `peaks` (unit, image), and `maps` (unit, image, row, col)."""
        self._place_waiting()
        return {
            "scores": self._scores,
            "images": self._images,
            "peaks": self._peaks,
            "maps": self._maps,
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        self._scores, self._images = (
            np.array(arrays["scores"]),
            np.array(arrays["images"]),
        )
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
