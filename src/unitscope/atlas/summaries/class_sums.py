"""Class sums: how strongly every unit answers to every class of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.exact_sums import ExactSums


class ClassSums(Summary):
    """Per class of images the number of them, and sums and sums of squares of each unit's mean activation.

    Images without a class are counted in a row of their own, the last. `unit` is what
    `ExactSums` takes.
    """

    def __init__(self, units: int, classes: int, unit: float) -> None:
        self._shape = units, classes, unit
        self._counts = np.zeros(classes + 1, np.int64)
        self._sums = ExactSums(classes + 1, units, unit)
        self._squares = ExactSums(classes + 1, units, unit * unit)

    def update(self, observed: Observed) -> None:
        """Add the images of a batch."""
        rows = np.where(observed.classes < 0, len(self._counts) - 1, observed.classes)
        self._counts += np.bincount(rows, minlength=len(self._counts))
        means = observed.mean.astype(np.float64)
        self._sums.add(rows, means)
        self._squares.add(rows, means * means)

    def merge(self, other: ClassSums) -> None:
        """Add the images of another."""
        self._counts += other._counts
        self._sums.merge(other._sums)
        self._squares.merge(other._squares)

    def following(self) -> ClassSums:
        """An empty summary for further images."""
        return ClassSums(*self._shape)

    def arrays(self) -> Arrays:
        """`counts` (class), and the digits of `sums` and `squares` (digit, class, unit)."""
        return {
            "counts": self._counts,
            **self._sums.arrays("sums"),
            **self._squares.arrays("squares"),
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        self._counts = np.array(arrays["counts"])
        self._sums.restore(arrays, "sums")
        self._squares.restore(arrays, "squares")

    @property
    def counts(self) -> Int64[np.ndarray, " class"]:
        """How many images of each class were seen."""
        return self._counts[:-1]

    @property
    def sums(self) -> Float[np.ndarray, "class unit"]:
        """Σ of the mean activation over the images of a class."""
        return self._sums.values[:-1]

    @property
    def squares(self) -> Float[np.ndarray, "class unit"]:
        """Σ of the squared mean activation over the images of a class."""
        return self._squares.values[:-1]

    @property
    def overall_mean(self) -> Float[np.ndarray, " unit"]:
        """The mean activation over all images, with a class or without."""
        mean: np.ndarray = self._sums.values.sum(axis=0) / max(
            1, int(self._counts.sum())
        )
        return mean
