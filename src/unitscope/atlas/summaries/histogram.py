"""Histogram: how often every unit has which activation, in buckets of the logarithm, and the quantiles from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from unitscope.atlas.summaries.base import Arrays, Observed, Summary

# A bucket is a float32's exponent and the first six bits of its mantissa: at most 1/64
# wide, relative to its values.
_SHIFT = 17
_PAGE = 64
_BITS = 14
_BUCKETS = 1 << _BITS
_MAGNITUDE = 0x7FFFFFFF
_LEAST = 1 << _SHIFT
_MOST_WAITING = 1 << 19


class Histogram(Summary):
    """Counts of activations over all cells of all images: deterministic, exact to 0.8 % of a value, merged by addition.

    Bucket b ≥ 0 holds the values whose float32 bits begin with b, bucket −1 − b their
    negatives; 0 and what is next to it are in bucket 0. Buckets are kept in pages of
    one power of two, of those powers that occurred.
    """

    def __init__(self, units: int) -> None:
        self._units = units
        self._cells = 0
        self._pages: list[int] = []
        self._counts: list[np.ndarray] = []
        self._slots = np.full((2, _BUCKETS), -1, np.int32)
        # Values that are not counted yet, by sign: to count few of them would cost as
        # much as to count many.
        self._waiting: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._waits = 0

    def update(self, observed: Observed) -> None:
        """Count all cells."""
        images, units, rows, cols = observed.maps.shape
        self._cells += images * rows * cols
        # One unit after the other: its counts then stay in the cache while its values
        # are counted.
        by_unit = (
            observed.maps.view(np.int32)
            .reshape(images, units, rows * cols)
            .transpose(1, 0, 2)
        )
        bits = np.ascontiguousarray(by_unit).reshape(units, -1)
        owners = np.arange(units, dtype=np.int32)[:, None] << _BITS
        self._wait(0, bits >= _LEAST, owners | (bits >> _SHIFT))
        if int(bits.min(initial=0)) < 0:
            magnitudes = bits & _MAGNITUDE
            self._wait(
                1, (bits < 0) & (magnitudes >= _LEAST), owners | (magnitudes >> _SHIFT)
            )
        if self._waits > _MOST_WAITING:
            self._count_waiting()

    def _wait(
        self,
        sign: int,
        those: Bool[np.ndarray, "unit value"],
        values: Int32[np.ndarray, "unit value"],
    ) -> None:
        kept = np.compress(those.ravel(), values.ravel())
        if len(kept):
            self._waiting[sign].append(kept)
            self._waits += len(kept)

    def _count_waiting(self) -> None:
        for sign, waiting in enumerate(self._waiting):
            if waiting:
                self._count(sign, np.concatenate(waiting))
                waiting.clear()
        self._waits = 0

    def _count(self, sign: int, values: Int32[np.ndarray, " value"]) -> None:
        """Count values of one sign, each its unit and its bucket."""
        buckets = values & (_BUCKETS - 1)
        slots = self._slots[sign].take(buckets)
        if int(slots.min()) < 0:
            for page in np.unique(buckets[slots < 0] // _PAGE):
                self._add_page(-1 - int(page) if sign else int(page))
            slots = self._slots[sign].take(buckets)
        width = len(self._pages) * _PAGE
        slots += (np.arange(self._units, dtype=np.int32) * np.int32(width)).take(
            values >> _BITS
        )
        found = np.bincount(slots, minlength=self._units * width).reshape(
            self._units, width
        )
        for page, counts in zip(
            self._counts, np.split(found, len(self._pages), 1), strict=True
        ):
            page += counts

    def _add_page(self, page: int) -> None:
        first = len(self._pages) * _PAGE
        self._pages.append(page)
        self._counts.append(np.zeros((self._units, _PAGE), np.int64))
        if page >= 0:
            self._slots[0, page * _PAGE : (page + 1) * _PAGE] = np.arange(
                first, first + _PAGE
            )
        else:
            begin = (-1 - page) * _PAGE
            self._slots[1, begin : begin + _PAGE] = np.arange(
                first + _PAGE - 1, first - 1, -1
            )

    def merge(self, other: Histogram) -> None:
        """Add the counts of another."""
        other._count_waiting()
        self._cells += other._cells
        for page, counts in zip(other._pages, other._counts, strict=True):
            if page not in self._pages:
                self._add_page(page)
            self._counts[self._pages.index(page)] += counts

    def following(self) -> Histogram:
        """An empty summary for further images."""
        return Histogram(self._units)

    def arrays(self) -> Arrays:
        """`pages` in order, `counts` (page, unit, bucket), and `cells`, how many of every unit were seen in all."""
        self._count_waiting()
        order = np.argsort(self._pages)
        counts = [self._counts[place] for place in order]
        stacked = (
            np.stack(counts) if counts else np.zeros((0, self._units, _PAGE), np.int64)
        )
        pages = np.array(self._pages, np.int64)[order]
        return {
            "pages": pages,
            "counts": stacked,
            "cells": np.array([self._cells], np.int64),
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        fresh = Histogram(self._units)
        self._pages, self._counts, self._slots = (
            fresh._pages,
            fresh._counts,
            fresh._slots,
        )
        for page, counts in zip(
            arrays["pages"].tolist(), arrays["counts"], strict=True
        ):
            self._add_page(page)
            self._counts[-1] += counts
        self._cells = int(arrays["cells"][0])

    @property
    def total(self) -> Int64[np.ndarray, " unit"]:
        """How many activations were counted: of every unit as many."""
        return np.full(self._units, self._cells, np.int64)

    def buckets(
        self,
    ) -> tuple[
        Float[np.ndarray, " bucket"],
        Float[np.ndarray, " bucket"],
        Int64[np.ndarray, "unit bucket"],
    ]:
        """The lower and upper edge of each bucket that occurred, in rising order, and every unit's counts in it.

        A bucket holds lower ≤ a < upper; those below 0 hold lower < a ≤ upper, and that
        of 0 has 0 for both.
        """
        arrays = self.arrays()
        counts = arrays["counts"].transpose(1, 0, 2).reshape(self._units, -1)
        numbers = (arrays["pages"][:, None] * _PAGE + np.arange(_PAGE)).ravel()
        place = int(np.searchsorted(numbers, 0))
        # What is in no bucket is 0, or next to it.
        counts = np.insert(counts, place, self._cells - counts.sum(axis=1), axis=1)
        lower, upper = (
            np.insert(edge, place, 0.0) for edge in (_edge(numbers), _edge(numbers + 1))
        )
        occurred = counts.any(axis=0)
        return lower[occurred], upper[occurred], counts[:, occurred]

    def thresholds(
        self, share: float
    ) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
        """Every unit's least activation T such that at most `share` of all its activations are ≥ T, and how many are.

        T is an edge of a bucket that the unit reached, so that the second number, P(a ≥
        T), is exact. Where its largest activations are more frequent than `share`, T
        lies above all of them.
        """
        lower, upper, counts = self.buckets()
        tails = counts[:, ::-1].cumsum(axis=1)[:, ::-1] / max(self._cells, 1)
        fits = (counts > 0) & (tails <= share)
        first, found = fits.argmax(axis=1), fits.any(axis=1)
        units = np.arange(self._units)
        # Above the last bucket that the unit reached, and above 0.
        last = (counts > 0) * np.arange(1, len(upper) + 1)
        above = np.maximum(
            np.append(0.0, upper)[last.max(axis=1, initial=0)], _edge(np.array([1]))
        )
        # Below 0 a bucket does not hold its lower edge.
        reached = np.where(
            lower < 0, np.nextafter(lower.astype(np.float32), np.float32(0)), lower
        )
        return np.where(found, reached[first], above), np.where(
            found, tails[units, first], 0.0
        )

    def quantiles(self, shares: Sequence[float]) -> Float[np.ndarray, "unit quantile"]:
        """The activations below which those shares of all activations lie: the middle of a bucket, right to 0.8 %."""
        lower, upper, counts = self.buckets()
        below = counts.cumsum(axis=1)
        wanted = np.ceil(np.asarray(shares) * self._cells).clip(min=1)
        places = [np.searchsorted(one, wanted) for one in below]
        middle = (lower + upper) / 2
        found: np.ndarray = middle[
            np.minimum(
                np.array(places).reshape(self._units, len(shares)), len(middle) - 1
            )
        ]
        return found


def _edge(numbers: Int64[np.ndarray, " bucket"]) -> Float[np.ndarray, " bucket"]:
    """The lower edge of buckets by number: that of bucket −n is minus that of bucket n."""
    bits = np.minimum(np.abs(numbers) << _SHIFT, 0x7F7FFFFF).astype(np.int32)
    edges: np.ndarray = np.sign(numbers) * bits.view(np.float32).astype(np.float64)
    return edges
