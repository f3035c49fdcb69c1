"""Exact sums: sums of floating-point numbers that do not depend on the order in which they are added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.summaries.base import Arrays
from unitscope.errors import NonFiniteError

# A number is split into whole multiples of 2⁻⁴ and of 2⁻⁴⁴; a digit of 40 bits leaves
# room for 2²³ of them.
_HIGH, _LOW = 4, 44
_LARGEST = 2.0**35


class ExactSums:
    """Sums of rows of numbers, in two integers each: exact to 2⁻⁴⁴ of `unit` a number, whatever the order.

    `unit` is a power of two about as large as the numbers that come; they may be up to
    2³⁵ times as large.
    """

    def __init__(self, rows: int, columns: int, unit: float) -> None:
        self._digits = np.zeros((2, rows, columns), np.int64)
        self._unit = unit

    @property
    def values(self) -> Float[np.ndarray, "row column"]:
        """The sums, float64."""
        high, low = self._digits
        total: np.ndarray = (high * 2.0**-_HIGH + low * 2.0**-_LOW) * self._unit
        return total

    def add(
        self,
        rows: Int64[np.ndarray, " number"],
        numbers: Float[np.ndarray, "number column"],
    ) -> None:
        """Add each row of numbers to one of the sums; raises NonFiniteError for numbers too large to be exact."""
        scaled = numbers.astype(np.float64) / self._unit
        if scaled.size and not float(np.abs(scaled).max()) < _LARGEST:
            raise NonFiniteError(
                f"activations of up to {float(np.abs(numbers).max()):.1e} cannot be "
                "summed beside those on noise, "
                f"which are about {self._unit:.0e}: check the weights and the "
                "preprocessing"
            )
        high = np.floor(scaled * 2.0**_HIGH)
        low = np.rint((scaled * 2.0**_HIGH - high) * 2.0 ** (_LOW - _HIGH))
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")
        present, starts = np.unique(rows[order], return_index=True)
        # Whole numbers, of which floating-point numbers hold the sums of a batch
        # exactly.
        for digits, numbers in zip(self._digits, (high, low), strict=True):
            digits[present] += np.add.reduceat(numbers[order], starts, axis=0).astype(
                np.int64
            )

    def merge(self, other: ExactSums) -> None:
        """Add the sums of another."""
        self._digits += other._digits

    def arrays(self, name: str) -> Arrays:
        """The digits, under a name."""
        return {name: self._digits}

    def restore(self, arrays: Mapping[str, Any], name: str) -> None:
        """Hold what `arrays` gave."""
        self._digits = np.array(arrays[name])
