"""Confusion: how many photos of every class were found, under one or many ablations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from unitscope.atlas.intervals import (
    Estimate,
    balanced_accuracy_drop,
    balanced_accuracy_interval,
    proportion,
)


@dataclass(frozen=True, eq=False)
class Confusion:
    """True and false positives of every class, under one or many ablations.

    `tp` and `fp` (…, class) have an axis for every way in which the ablations differ,
    none for a single ablation. `positives` (class) are the photos of each class. The
    prediction is the argmax of the logits, the lowest class where several are largest.
    """

    tp: Int64[np.ndarray, "*ablation class"]
    fp: Int64[np.ndarray, "*ablation class"]
    positives: Int64[np.ndarray, " class"]

    @property
    def photos(self) -> int:
        """The number of photos."""
        return int(self.positives.sum())

    @property
    def negatives(self) -> Int64[np.ndarray, " class"]:
        """The number of photos of other classes, for every class."""
        others: np.ndarray = self.photos - self.positives
        return others

    @property
    def accuracy(self) -> Estimate:
        """The share of photos whose class was found, 0 to 1, arrays (…).

        The intervals are Wilson's.
        """
        return proportion(self.tp.sum(axis=-1), self.photos)

    @property
    def balanced_accuracy(self) -> Estimate:
        """(TPR + TNR) / 2 of every class, 0 to 1, arrays (…, class).

        Chance is 0.5. It is nan for a class without photos.
        """
        return balanced_accuracy_interval(
            self.tp,
            self.positives,
            self.fp,
            self.negatives,
        )

    def of_class(self, index: int) -> tuple[Estimate, Estimate]:
        """The balanced accuracy of one class, and the accuracy of all."""
        of_class = (array[..., index] for array in self.balanced_accuracy)
        return Estimate(*of_class), self.accuracy

    def __getitem__(
        self, ablation: int | slice | tuple[int | slice, ...]
    ) -> Confusion:
        """The counts under some of the ablations."""
        return Confusion(
            tp=self.tp[ablation],
            fp=self.fp[ablation],
            positives=self.positives,
        )

    def __add__(self, other: Confusion) -> Confusion:
        """The counts over the photos of both, under the same ablations."""
        return Confusion(
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            positives=self.positives + other.positives,
        )


@dataclass(frozen=True, eq=False)
class Split:
    """The counts on one split of the photos, with every unit off in turn.

    `all_on` has no ablation axis, `each_off` is (unit, class). `tp_gained` and
    `fp_gained` (unit, class) are the photos of the class, and of others, that are taken
    for the class only without the unit.
    """

    all_on: Confusion
    each_off: Confusion
    tp_gained: Int64[np.ndarray, "unit class"]
    fp_gained: Int64[np.ndarray, "unit class"]

    def __add__(self, other: Split) -> Split:
        """The counts over the photos of both."""
        return Split(
            all_on=self.all_on + other.all_on,
            each_off=self.each_off + other.each_off,
            tp_gained=self.tp_gained + other.tp_gained,
            fp_gained=self.fp_gained + other.fp_gained,
        )

    @property
    def importance(self) -> Estimate:
        """The drop in balanced accuracy without each unit, −1 to 1, (unit, class).

        Positive where the class is recognised worse without the unit (Bau et al. 2020);
        nan for a class without photos, or with all of them. The intervals are those of
        a change on the same photos.
        """
        before = self.all_on
        without = self.each_off
        return balanced_accuracy_drop(
            tp_lost=before.tp - without.tp + self.tp_gained,
            tp_gained=self.tp_gained,
            positives=before.positives,
            fp_gained=self.fp_gained,
            fp_lost=before.fp - without.fp + self.fp_gained,
            negatives=before.negatives,
        )

    def scaled_importance(self, index: int) -> Int64[np.ndarray, " unit"]:
        """The importance for a class, times 2 · positives · negatives.

        These are integers, so that equal importances compare as equal.
        """
        before = self.all_on
        without = self.each_off
        tp_drop = before.tp[index] - without.tp[:, index]
        fp_rise = without.fp[:, index] - before.fp[index]
        scaled: np.ndarray = (
            tp_drop * before.negatives[index]
            + fp_rise * before.positives[index]
        )
        return scaled
