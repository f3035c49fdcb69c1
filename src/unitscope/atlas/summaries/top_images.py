"""Top images: every unit's images with the largest scores, and its maps on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.summaries.base import Arrays, Observed, Summary

CRITERIA = ("maximum", "mean")

# The number of map cells that may wait to be ranked.
_MOST_WAITING = 1 << 20


class TopImages(Summary):
    """The `count` images with the largest score for each unit, best first.

    The score is the map's maximum or its mean, as `criterion` says. Equal scores are
    ranked by the images' order in the data set. Maps are stored in half precision as
    shares of their own largest |value|, the peak. Where fewer images were seen, the
    remaining entries have the image −1 and the score −∞.
    """

    def __init__(
        self, units: int, count: int, cells: tuple[int, int], criterion: str
    ) -> None:
        self._criterion = criterion
        self._scores = np.full((units, count), -np.inf, np.float32)
        self._images = np.full((units, count), -1, np.int64)
        self._maps = np.zeros((units, count, *cells), np.float16)
        self._peaks = np.zeros((units, count), np.float32)

        # The best scores of earlier images, in other summaries. An image below the last
        # of them cannot be among the best.
        self._earlier = self._scores.copy()
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._waiting_cells = 0

    def following(self) -> TopImages:
        """An empty summary for further images; it skips those with too low scores."""
        units, count = self._scores.shape
        fresh = TopImages(units, count, self._maps.shape[2:], self._criterion)
        scores = np.concatenate([self._earlier, self.scores], 1)
        descending = -np.sort(-scores, axis=1)
        fresh._earlier = descending[:, :count]
        return fresh

    @property
    def scores(self) -> Float[np.ndarray, "unit image"]:
        """The scores, best first; −∞ where fewer images were seen."""
        self._rank_waiting()
        return self._scores

    @property
    def images(self) -> Int64[np.ndarray, "unit image"]:
        """The images' places in the data set; −1 where fewer were seen."""
        self._rank_waiting()
        return self._images

    def maps(self) -> Float[np.ndarray, "unit image row col"]:
        """The units' maps on their images, accurate to 0.05 % of each map's peak."""
        self._rank_waiting()
        peaks = self._peaks[:, :, None, None]
        return self._maps.astype(np.float32) * peaks

    def update(self, observed: Observed) -> None:
        """Rank the images of a batch."""
        scores = observed.mean
        if self._criterion == "maximum":
            scores = observed.maximum

        # An equal score may still replace an image that comes later in the data set.
        worst = self._scores[:, -1]
        worst_earlier = self._earlier[:, -1]
        rows, units = np.nonzero(scores >= np.maximum(worst, worst_earlier))
        if len(rows):
            maps = observed.maps[rows, units]
            candidates = (
                units,
                observed.images[rows],
                scores[rows, units],
                maps,
            )
            self._waiting.append(candidates)
            self._waiting_cells += maps.size

        # Ranking the candidates of many batches at once is faster.
        if self._waiting_cells > _MOST_WAITING:
            self._rank_waiting()

    def _rank_waiting(self) -> None:
        """Merge the waiting candidates."""
        if not self._waiting:
            return
        columns = zip(*self._waiting, strict=True)
        joined = (np.concatenate(column) for column in columns)
        units, images, scores, maps = joined
        self._waiting = []
        self._waiting_cells = 0

        # The candidates of each unit side by side, best first.
        order = np.lexsort((images, -scores, units))
        present, first, counts = np.unique(
            units[order],
            return_index=True,
            return_counts=True,
        )
        most = self._scores.shape[1]
        width = min(int(counts.max()), most)
        first_places = np.repeat(first, counts)
        ranks = np.arange(len(order)) - first_places
        fits = ranks < width
        best = order[fits]
        rows = np.repeat(np.arange(len(present)), counts)
        places = rows[fits], ranks[fits]

        shape = len(present), width
        cells = self._maps.shape[2:]
        ranked_scores = np.full(shape, -np.inf, np.float32)
        ranked_images = np.full(shape, -1, np.int64)
        shares = np.zeros((*shape, *cells), np.float16)
        peaks = np.zeros(shape, np.float32)
        ranked_scores[places] = scores[best]
        ranked_images[places] = images[best]
        shares[places], peaks[places] = packed(maps[best])
        self._merge(
            present,
            ranked_scores,
            ranked_images,
            shares,
            peaks,
        )

    def merge(self, other: TopImages) -> None:
        """Rank the images of another summary among the own ones."""
        other._rank_waiting()
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
        all_peaks = np.concatenate([self._peaks[units], peaks], 1)

        best = _order(all_scores, all_images)[:, :count]
        self._scores[units] = np.take_along_axis(all_scores, best, 1)
        self._images[units] = np.take_along_axis(all_images, best, 1)
        self._peaks[units] = np.take_along_axis(all_peaks, best, 1)

        # Maps are large: write only those of units whose ranking changed.
        moved = best != np.arange(count)
        changed = moved.any(axis=1)
        changed_units = units[changed]
        own_maps = self._maps[changed_units]
        all_maps = np.concatenate([own_maps, shares[changed]], 1)
        best_maps = best[changed][:, :, None, None]
        ranked_maps = np.take_along_axis(all_maps, best_maps, 1)
        self._maps[changed_units] = ranked_maps

    def arrays(self) -> Arrays:
        """`scores`, `images`, `peaks` (unit, image); `maps` (unit, image, row, col)."""
        self._rank_waiting()
        return {
            "scores": self._scores,
            "images": self._images,
            "peaks": self._peaks,
            "maps": self._maps,
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
        self._scores = np.array(arrays["scores"])
        self._images = np.array(arrays["images"])
        self._peaks = np.array(arrays["peaks"])
        self._maps = np.array(arrays["maps"])


def packed(
    maps: Float[np.ndarray, "*some row col"],
) -> tuple[Float[np.ndarray, "*some row col"], Float[np.ndarray, "*some"]]:
    """Maps as half-precision shares of their own largest |value|, and that value."""
    peaks = np.abs(maps).max(axis=(-2, -1))
    divisors = np.where(peaks > 0, peaks, 1)
    shares = maps / divisors[..., None, None]
    return shares.astype(np.float16), peaks


def _order(
    scores: Float[np.ndarray, "unit image"],
    images: Int64[np.ndarray, "unit image"],
) -> Int64[np.ndarray, "unit image"]:
    """The order by descending score, then by image; empty entries (−∞) come last."""
    return np.lexsort((images, -scores), axis=1)
