"""Histogram: how often every unit has which activation, in buckets of the logarithm, and the quantiles from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped

from unitscope.summaries.base import Arrays, Observed, Summary

# A bucket is a float32's exponent and the first six bits of its mantissa: at most 1/64 wide, relative to its values.
_SHIFT = 17
_PAGE = 64
_BUCKETS = 1 << 14
_MAGNITUDE = 0x7FFFFFFF


class Histogram(Summary):
    """Counts of activations over all cells of all images: deterministic, exact to 0.8 % of a value, merged by addition.

    Bucket b ≥ 0 holds the values whose float32 bits begin with b, bucket −1 − b their negatives; 0 and what is next to
    it are in bucket 0. Buckets are kept in pages of one power of two, of those powers that occurred.
    """

    def __init__(self, units: int) -> None:
        self._units = units
        self._pages: list[int] = []
        self._counts: list[np.ndarray] = []
        self._zero = np.zeros(units, np.int64)
        self._slots = np.full((2, _BUCKETS), -1, np.int64)

    def update(self, observed: Observed) -> None:
        """Count all cells."""
        images, units, rows, cols = observed.maps.shape
        bits = np.ascontiguousarray(observed.maps).view(np.int32).ravel()
        owners = np.broadcast_to(np.arange(units, dtype=np.int32)[:, None], (images, units, rows * cols)).ravel()
        least = 1 << _SHIFT
        positive = bits >= least
        counted = self._count(0, owners[positive], bits[positive] >> _SHIFT)
        if int(bits.min()) < 0:
            negative = (bits < 0) & (bits & _MAGNITUDE >= least)
            counted += self._count(1, owners[negative], (bits[negative] & _MAGNITUDE) >> _SHIFT)
        self._zero += images * rows * cols - counted

    def _count(
        self, sign: int, units: Shaped[np.ndarray, " value"], buckets: Shaped[np.ndarray, " value"]
    ) -> Int64[np.ndarray, " unit"]:
        """Count values of one sign; returns how many there are of every unit."""
        if not len(buckets):
            return np.zeros(self._units, np.int64)
        slots = self._slots[sign].take(buckets)
        if int(slots.min()) < 0:
            for page in np.unique(buckets[slots < 0] // _PAGE):
                self._add_page(-1 - int(page) if sign else int(page))
            slots = self._slots[sign].take(buckets)
        width = len(self._pages) * _PAGE
        found = np.bincount(units * width + slots, minlength=self._units * width)
        by_unit = found.reshape(self._units, width)
        for page, counts in zip(self._counts, np.split(by_unit, len(self._pages), 1), strict=True):
            page += counts
        counted: np.ndarray = by_unit.sum(axis=1)
        return counted

    def _add_page(self, page: int) -> None:
        first = len(self._pages) * _PAGE
        self._pages.append(page)
        self._counts.append(np.zeros((self._units, _PAGE), np.int64))
        if page >= 0:
            self._slots[0, page * _PAGE : (page + 1) * _PAGE] = np.arange(first, first + _PAGE)
        else:
            begin = (-1 - page) * _PAGE
            self._slots[1, begin : begin + _PAGE] = np.arange(first + _PAGE - 1, first - 1, -1)

    def merge(self, other: Histogram) -> None:
        """Add the counts of another."""
        self._zero += other._zero
        for page, counts in zip(other._pages, other._counts, strict=True):
            if page not in self._pages:
                self._add_page(page)
            self._counts[self._pages.index(page)] += counts

    def following(self) -> Histogram:
        """An empty summary for further images."""
        return Histogram(self._units)

    def arrays(self) -> Arrays:
        """`pages` in order, `counts` (page, unit, bucket) and `zero` (unit)."""
        order = np.argsort(self._pages)
        counts = [self._counts[place] for place in order]
        stacked = np.stack(counts) if counts else np.zeros((0, self._units, _PAGE), np.int64)
        return {"pages": np.array(self._pages, np.int64)[order], "counts": stacked, "zero": self._zero}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        fresh = Histogram(self._units)
        self._pages, self._counts, self._slots = fresh._pages, fresh._counts, fresh._slots
        for page, counts in zip(arrays["pages"].tolist(), arrays["counts"], strict=True):
            self._add_page(page)
            self._counts[-1] += counts
        self._zero = np.array(arrays["zero"])

    @property
    def total(self) -> Int64[np.ndarray, " unit"]:
        """How many activations were counted."""
        return self._zero + sum((counts.sum(axis=1) for counts in self._counts), np.zeros(self._units, np.int64))

    def buckets(
        self,
    ) -> tuple[Float[np.ndarray, " bucket"], Float[np.ndarray, " bucket"], Int64[np.ndarray, "unit bucket"]]:
        """The lower and upper edge of each bucket that occurred, in rising order, and every unit's counts in it.

        A bucket holds lower ≤ a < upper; those below 0 hold lower < a ≤ upper, and that of 0 has 0 for both.
        """
        arrays = self.arrays()
        counts = arrays["counts"].transpose(1, 0, 2).reshape(self._units, -1)
        numbers = (arrays["pages"][:, None] * _PAGE + np.arange(_PAGE)).ravel()
        place = int(np.searchsorted(numbers, 0))
        counts = np.insert(counts, place, self._zero, axis=1)
        lower, upper = (np.insert(edge, place, 0.0) for edge in (_edge(numbers), _edge(numbers + 1)))
        occurred = counts.any(axis=0)
        return lower[occurred], upper[occurred], counts[:, occurred]

    def thresholds(self, share: float) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
        """Every unit's least activation T such that at most `share` of all its activations are ≥ T, and how many are.

        T is an edge of a bucket that the unit reached, so that the second number, P(a ≥ T), is exact. Where its largest
        activations are more frequent than `share`, T lies above all of them.
        """
        lower, upper, counts = self.buckets()
        tails = counts[:, ::-1].cumsum(axis=1)[:, ::-1] / np.maximum(self.total, 1)[:, None]
        fits = (counts > 0) & (tails <= share)
        first, found = fits.argmax(axis=1), fits.any(axis=1)
        units = np.arange(self._units)
        above = np.maximum(upper.max(initial=0.0), _edge(np.array([1])))
        # Below 0 a bucket does not hold its lower edge.
        reached = np.where(lower < 0, np.nextafter(lower.astype(np.float32), np.float32(0)), lower)
        return np.where(found, reached[first], above), np.where(found, tails[units, first], 0.0)

    def quantiles(self, shares: Sequence[float]) -> Float[np.ndarray, "unit quantile"]:
        """The activations below which those shares of all activations lie: the middle of a bucket, right to 0.8 %."""
        lower, upper, counts = self.buckets()
        below = counts.cumsum(axis=1)
        wanted = np.ceil(np.asarray(shares)[None, :] * self.total[:, None]).clip(min=1)
        places = [np.searchsorted(one, those) for one, those in zip(below, wanted, strict=True)]
        middle = (lower + upper) / 2
        found: np.ndarray = middle[np.minimum(np.array(places).reshape(self._units, len(shares)), len(middle) - 1)]
        return found


def _edge(numbers: Int64[np.ndarray, " bucket"]) -> Float[np.ndarray, " bucket"]:
    """The lower edge of buckets by number: that of bucket −n is minus that of bucket n."""
    bits = np.minimum(np.abs(numbers) << _SHIFT, 0x7F7FFFFF).astype(np.int32)
    edges: np.ndarray = np.sign(numbers) * bits.view(np.float32).astype(np.float64)
    return edges
