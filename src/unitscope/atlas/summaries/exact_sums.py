"""Exact sums: sums of numbers that do not depend on the order of addition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.summaries.base import Arrays
from unitscope.errors import NonFiniteError

# A number is split into whole multiples of 2⁻⁴ and of 2⁻⁴⁴. A digit has 40 bits, so an
# int64 has room for 2²³ of them.
_HIGH_BITS = 4
_LOW_BITS = 44
_LARGEST = 2.0**35


class ExactSums:
    """Sums of rows of numbers, each sum held in two integers.

    A number is rounded to 2⁻⁴⁴ of `scale`; everything after that is exact, in any
    order. `scale` is a power of two near the size of the numbers, which may be up to
    2³⁵ times as large.
    """

    def __init__(self, rows: int, columns: int, scale: float) -> None:
        self._digits = np.zeros((2, rows, columns), np.int64)
        self._scale = scale

    @property
    def values(self) -> Float[np.ndarray, "row column"]:
        """The sums, float64."""
        high, low = self._digits
        high_part = high * 2.0**-_HIGH_BITS
        low_part = low * 2.0**-_LOW_BITS
        total: np.ndarray = high_part + low_part
        return total * self._scale

    def add(
        self,
        rows: Int64[np.ndarray, " number"],
        numbers: Float[np.ndarray, "number column"],
    ) -> None:
        """Add each row of numbers to one of the sums.

        Raises NonFiniteError for numbers that are too large to be summed exactly.
        """
        scaled = numbers.astype(np.float64) / self._scale
        if not scaled.size:
            return
        largest = float(np.abs(scaled).max())
        # Not `>=`: nan must be refused too.
        if not largest < _LARGEST:
            raise NonFiniteError(
                f"activations of up to {largest * self._scale:.1e} cannot be "
                "summed exactly, since those on noise are about "
                f"{self._scale:.0e}: check the weights and the preprocessing"
            )

        shifted = scaled * 2.0**_HIGH_BITS
        high = np.floor(shifted)
        rest = shifted - high
        low = np.rint(rest * 2.0 ** (_LOW_BITS - _HIGH_BITS))

        order = np.argsort(rows, kind="stable")
        present, starts = np.unique(rows[order], return_index=True)
        self._add_digits(0, present, starts, high[order])
        self._add_digits(1, present, starts, low[order])

    def _add_digits(
        self,
        place: int,
        rows: Int64[np.ndarray, " row"],
        starts: Int64[np.ndarray, " row"],
        digits: Float[np.ndarray, "number column"],
    ) -> None:
        # The digits are whole numbers, so floats hold the sums of a batch exactly.
        sums = np.add.reduceat(digits, starts, axis=0)
        self._digits[place, rows] += sums.astype(np.int64)

    def merge(self, other: ExactSums) -> None:
        """Add the sums of another."""
        self._digits += other._digits

    def arrays(self, name: str) -> Arrays:
        """The digits, under a name."""
        return {name: self._digits}

    def restore(self, arrays: Mapping[str, Any], name: str) -> None:
        """Replace the digits by those that `arrays` returned."""
        self._digits = np.array(arrays[name])
