"""Class sums: how strongly every unit responds to every class of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.exact_sums import ExactSums


class ClassSums(Summary):
    """The number of images of every class, and sums over them for every unit.

    Summed are the unit's mean activation on an image, and its square. Images without a
    class are counted in an extra last row. `scale` is that of `ExactSums`.
    """

    def __init__(self, units: int, classes: int, scale: float) -> None:
        self._shape = units, classes, scale
        self._counts = np.zeros(classes + 1, np.int64)
        self._sums = ExactSums(classes + 1, units, scale)
        self._squares = ExactSums(classes + 1, units, scale * scale)

    def update(self, observed: Observed) -> None:
        """Add the images of a batch."""
        no_class = len(self._counts) - 1
        rows = np.where(observed.classes < 0, no_class, observed.classes)
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
        """`counts` (class), and digits of `sums` and `squares` (digit, class, unit)."""
        return {
            "counts": self._counts,
            **self._sums.arrays("sums"),
            **self._squares.arrays("squares"),
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
        self._counts = np.array(arrays["counts"])
        self._sums.restore(arrays, "sums")
        self._squares.restore(arrays, "squares")

    @property
    def counts(self) -> Int64[np.ndarray, " class"]:
        """The number of images of each class."""
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
    def means(self) -> Float[np.ndarray, "class unit"]:
        """Each unit's mean activation on the images of a class; nan without images."""
        sums = self.sums
        counts = self._column_of_counts
        means: np.ndarray = np.divide(
            sums,
            counts,
            out=np.full(sums.shape, np.nan),
            where=counts > 0,
        )
        return means

    @property
    def variances(self) -> Float[np.ndarray, "class unit"]:
        """The sample variance of the mean activation; nan for fewer than two images."""
        counts = self._column_of_counts
        means = np.nan_to_num(self.means)
        spread = self.squares - counts * means**2
        variances: np.ndarray = np.divide(
            spread.clip(min=0),
            counts - 1,
            out=np.full(spread.shape, np.nan),
            where=counts > 1,
        )
        return variances

    @property
    def _column_of_counts(self) -> Float[np.ndarray, "class 1"]:
        return self._counts[:-1, None].astype(np.float64)

    @property
    def overall_mean(self) -> Float[np.ndarray, " unit"]:
        """The mean activation over all images, with a class or without."""
        images = max(1, int(self._counts.sum()))
        total = self._sums.values.sum(axis=0)
        mean: np.ndarray = total / images
        return mean
