"""Histogram: how often every unit has which activation, and the quantiles from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from unitscope.atlas.summaries.base import Arrays, Observed, Summary

# A bucket is a float32's exponent and the first six bits of its mantissa. Its width is
# at most 1/64 of its values.
_SHIFT = 17
_PAGE = 64
_BITS = 14
_BUCKETS = 1 << _BITS
_MAGNITUDE = 0x7FFFFFFF
_LARGEST_FINITE = 0x7F7FFFFF
# The bits of the smallest value outside bucket 0.
_LEAST = 1 << _SHIFT
# The number of values that may wait to be counted.
_MOST_WAITING = 1 << 19


class Histogram(Summary):
    """Counts of activations over all cells of all images, in buckets of the logarithm.

    Deterministic, accurate to 0.8 % of a value, merged by addition. Bucket b ≥ 0 holds
    the values whose float32 bits begin with b, bucket −1 − b their negatives; 0 and the
    values next to it are in bucket 0. A page holds the buckets of one power of two;
    only pages that occurred are stored.
    """

    def __init__(self, units: int) -> None:
        self._units = units
        self._cells = 0
        self._pages: list[int] = []
        self._counts: list[np.ndarray] = []
        # The place of every bucket among those of the stored pages, by sign.
        self._slots = np.full((2, _BUCKETS), -1, np.int32)
        # Values that are not counted yet, by sign. Counting a few costs as much as
        # counting many.
        self._waiting: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._waiting_values = 0

    def update(self, observed: Observed) -> None:
        """Count all cells."""
        images, units, rows, cols = observed.maps.shape
        cells = rows * cols
        self._cells += images * cells

        # Unit by unit: the counts of a unit then stay in the cache while its values are
        # counted.
        as_integers = observed.maps.view(np.int32)
        by_image = as_integers.reshape(images, units, cells)
        by_unit = np.ascontiguousarray(by_image.transpose(1, 0, 2))
        bits = by_unit.reshape(units, -1)
        owners = np.arange(units, dtype=np.int32) << _BITS
        owners = owners[:, None]

        positive = bits >= _LEAST
        buckets = bits >> _SHIFT
        self._wait(0, positive, owners | buckets)
        if int(bits.min(initial=0)) < 0:
            magnitudes = bits & _MAGNITUDE
            negative = (bits < 0) & (magnitudes >= _LEAST)
            buckets = magnitudes >> _SHIFT
            self._wait(1, negative, owners | buckets)

        if self._waiting_values > _MOST_WAITING:
            self._count_waiting()

    def _wait(
        self,
        sign: int,
        selected: Bool[np.ndarray, "unit value"],
        values: Int32[np.ndarray, "unit value"],
    ) -> None:
        chosen = np.compress(selected.ravel(), values.ravel())
        if len(chosen):
            self._waiting[sign].append(chosen)
            self._waiting_values += len(chosen)

    def _count_waiting(self) -> None:
        for sign, waiting in enumerate(self._waiting):
            if waiting:
                self._count(sign, np.concatenate(waiting))
                waiting.clear()
        self._waiting_values = 0

    def _count(self, sign: int, values: Int32[np.ndarray, " value"]) -> None:
        """Count values of one sign, each given as its unit and its bucket."""
        buckets = values & (_BUCKETS - 1)
        slots = self._slots[sign].take(buckets)
        if int(slots.min()) < 0:
            new_pages = np.unique(buckets[slots < 0] // _PAGE)
            for page in new_pages.tolist():
                self._add_page(-1 - page if sign else page)
            slots = self._slots[sign].take(buckets)

        width = len(self._pages) * _PAGE
        units = values >> _BITS
        first_slots = np.arange(self._units, dtype=np.int32)
        first_slots *= np.int32(width)
        slots += first_slots.take(units)
        counts = np.bincount(slots, minlength=self._units * width)
        by_unit = counts.reshape(self._units, width)
        by_page = np.split(by_unit, len(self._pages), axis=1)
        for total, added in zip(self._counts, by_page, strict=True):
            total += added

    def _add_page(self, page: int) -> None:
        first = len(self._pages) * _PAGE
        slots = np.arange(first, first + _PAGE)
        counts = np.zeros((self._units, _PAGE), np.int64)
        self._pages.append(page)
        self._counts.append(counts)

        sign = 0
        if page < 0:
            # Negative buckets are −1 − b, so they fill the page from its end.
            sign = 1
            page = -1 - page
            slots = slots[::-1]
        begin = page * _PAGE
        self._slots[sign, begin : begin + _PAGE] = slots

    def merge(self, other: Histogram) -> None:
        """Add the counts of another."""
        other._count_waiting()
        self._cells += other._cells
        for page, counts in zip(other._pages, other._counts, strict=True):
            if page not in self._pages:
                self._add_page(page)
            place = self._pages.index(page)
            self._counts[place] += counts

    def following(self) -> Histogram:
        """An empty summary for further images."""
        return Histogram(self._units)

    def arrays(self) -> Arrays:
        """`pages` in order, `counts` (page, unit, bucket), and `cells` of a unit."""
        self._count_waiting()
        order = np.argsort(self._pages)
        pages = np.array(self._pages, np.int64)
        counts = np.zeros((0, self._units, _PAGE), np.int64)
        if self._pages:
            counts = np.stack([self._counts[place] for place in order])
        return {
            "pages": pages[order],
            "counts": counts,
            "cells": np.array([self._cells], np.int64),
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
        fresh = Histogram(self._units)
        self._pages = fresh._pages
        self._counts = fresh._counts
        self._slots = fresh._slots
        pages = arrays["pages"].tolist()
        for page, counts in zip(pages, arrays["counts"], strict=True):
            self._add_page(page)
            self._counts[-1] += counts
        self._cells = int(arrays["cells"][0])

    @property
    def total(self) -> Int64[np.ndarray, " unit"]:
        """The number of activations that were counted, the same for every unit."""
        return np.full(self._units, self._cells, np.int64)

    def buckets(
        self,
    ) -> tuple[
        Float[np.ndarray, " bucket"],
        Float[np.ndarray, " bucket"],
        Int64[np.ndarray, "unit bucket"],
    ]:
        """The lower and upper edges of all buckets that occurred, and their counts.

        The counts are (unit, bucket), and the edges rise. A bucket holds
        lower ≤ a < upper; a bucket below 0 holds lower < a ≤ upper, and bucket 0 has 0
        for both.
        """
        arrays = self.arrays()
        by_unit = arrays["counts"].transpose(1, 0, 2)
        counts = by_unit.reshape(self._units, -1)
        first = arrays["pages"][:, None] * _PAGE
        numbers = (first + np.arange(_PAGE)).ravel()

        # Values in no bucket are 0, or next to it.
        zero = int(np.searchsorted(numbers, 0))
        zeros = self._cells - counts.sum(axis=1)
        counts = np.insert(counts, zero, zeros, axis=1)
        lower = np.insert(_edges(numbers), zero, 0.0)
        upper = np.insert(_edges(numbers + 1), zero, 0.0)

        occurred = counts.any(axis=0)
        return (
            lower[occurred],
            upper[occurred],
            counts[:, occurred],
        )

    def thresholds(
        self, share: float
    ) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
        """Every unit's least threshold T with P(a ≥ T) ≤ `share`, and that P(a ≥ T).

        T is an edge of a bucket that the unit reached, so that P(a ≥ T) is exact. Where
        the unit's largest activations are more frequent than `share`, T lies above all
        of them.
        """
        lower, upper, counts = self.buckets()
        descending = counts[:, ::-1]
        at_least = descending.cumsum(axis=1)[:, ::-1]
        tails = at_least / max(self._cells, 1)
        occurred = counts > 0
        fits = occurred & (tails <= share)
        exists = fits.any(axis=1)
        first = fits.argmax(axis=1)
        first_tails = np.take_along_axis(tails, first[:, None], axis=1)[:, 0]

        # Above the last bucket that the unit reached, and above 0.
        places = occurred * np.arange(1, len(upper) + 1)
        last = places.max(axis=1, initial=0)
        tops = np.append(0.0, upper)[last]
        above_all = np.maximum(tops, _edges(np.array([1])))

        # Below 0 a bucket does not hold its lower edge.
        single = lower.astype(np.float32)
        next_values = np.nextafter(single, np.float32(0))
        least = np.where(lower < 0, next_values, lower)
        return (
            np.where(exists, least[first], above_all),
            np.where(exists, first_tails, 0.0),
        )

    def quantiles(
        self, shares: Sequence[float]
    ) -> Float[np.ndarray, "unit quantile"]:
        """The activations below which those shares of all activations lie.

        Each is the middle of a bucket, accurate to 0.8 %.
        """
        lower, upper, counts = self.buckets()
        middle = (lower + upper) / 2
        below = counts.cumsum(axis=1)
        ranks = np.ceil(np.asarray(shares) * self._cells)
        ranks = ranks.clip(min=1)
        places = [np.searchsorted(unit_counts, ranks) for unit_counts in below]
        table = np.array(places).reshape(self._units, len(shares))
        table = np.minimum(table, len(middle) - 1)
        quantiles: np.ndarray = middle[table]
        return quantiles


def _edges(
    numbers: Int64[np.ndarray, " bucket"],
) -> Float[np.ndarray, " bucket"]:
    """The lower edges of buckets; that of bucket −n is minus that of bucket n."""
    bits = np.abs(numbers) << _SHIFT
    bits = np.minimum(bits, _LARGEST_FINITE).astype(np.int32)
    magnitudes = bits.view(np.float32)
    edges: np.ndarray = np.sign(numbers) * magnitudes.astype(np.float64)
    return edges
