"""Removals: what remains of a class when many units are off, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unitscope.atlas.ablation.confusion import Confusion
from unitscope.atlas.intervals import Estimate
from unitscope.errors import ClassError


class Row(NamedTuple):
    """A row of a class's table: which units were off, how many, and what remained.

    `removed` is "none", "most important", "least important", "random" or "chance". The
    estimates lie in 0 to 1. Their ends are 95 % intervals; for random units they are
    the lowest and the highest of the draws, and the value is the mean.
    """

    removed: str
    units: int
    balanced_accuracy: Estimate
    accuracy: Estimate


@dataclass(frozen=True, eq=False)
class Removals:
    """The counts with the most, the least important or random units of a class off.

    All are on the reporting split. The layer has `units` units, `sizes` are the numbers
    of units off, and `classes` those whose units were ranked. `all_on` has no ablation
    axis, `most` and `least` are (size, chosen class, class), and `random` is (size,
    draw, class), which is the same for every chosen class.
    """

    units: int
    sizes: tuple[int, ...]
    classes: tuple[int, ...]
    all_on: Confusion
    most: Confusion
    least: Confusion
    random: Confusion

    def own(self, counts: Confusion) -> Estimate:
        """The balanced accuracy of each chosen class without its own units.

        `counts` are `most` or `least`; the arrays are (size, chosen class).
        """
        classes = list(self.classes)
        chosen = np.arange(len(classes))
        balanced = counts.balanced_accuracy
        return Estimate(*(array[:, chosen, classes] for array in balanced))

    def table(self, index: int) -> list[Row]:
        """The table of a class, as in Bau et al. 2020 (PNAS).

        It has rows for the least important and for random units as well. Raises
        ClassError for a class that is not among the chosen ones.
        """
        if index not in self.classes:
            raise ClassError(
                f"class {index} was not ablated: choose it among the classes of "
                "`removals`"
            )
        return [
            Row("none", 0, *self.all_on.of_class(index)),
            *self._ranked_rows("most important", self.most, index),
            *self._ranked_rows("least important", self.least, index),
            *self._random_rows(index),
            Row(
                removed="chance",
                units=self.units,
                balanced_accuracy=_exactly(0.5),
                accuracy=_exactly(1 / len(self.all_on.positives)),
            ),
        ]

    def _ranked_rows(
        self, removed: str, counts: Confusion, index: int
    ) -> list[Row]:
        chosen = self.classes.index(index)
        return [
            Row(removed, size, *counts[place, chosen].of_class(index))
            for place, size in enumerate(self.sizes)
        ]

    def _random_rows(self, index: int) -> Iterator[Row]:
        draws = self.random.tp.shape[1]
        if not draws:
            return
        for place, size in enumerate(self.sizes):
            balanced, accuracy = self.random[place].of_class(index)
            yield Row(
                removed="random",
                units=size,
                balanced_accuracy=_mean_and_range(balanced.value),
                accuracy=_mean_and_range(accuracy.value),
            )


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _mean_and_range(draws: Float[np.ndarray, " draw"]) -> Estimate:
    return Estimate(draws.mean(), draws.min(), draws.max())
