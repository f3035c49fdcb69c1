"""Ablation study: what every unit is worth to accuracy, from pooled features alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64

from unitscope.atlas.ablation.confusion import Confusion, Split
from unitscope.atlas.ablation.pooled_features import (
    Block,
    PooledSource,
    blocks,
    on_processor,
)
from unitscope.atlas.ablation.prediction_changes import (
    NUMBERS_AT_ONCE,
    Changes,
    changes_of,
)
from unitscope.atlas.ablation.removals import Removals
from unitscope.atlas.ablation.unit_sets import check_sizes, confusion_without
from unitscope.attribution.readout import Readout
from unitscope.errors import ClassError


@dataclass(frozen=True, eq=False)
class AblationStudy:
    """What every unit of the last feature map is worth to every class.

    The study of Bau et al. 2020 (PNAS) over a data set. `ranking` and `reporting` are
    the two splits. `contribution` (unit, class), in logits, is the unit's mean
    contribution to the class's logit over the class's photos of the ranking split, 0
    for a class without photos there.
    """

    ranking: Split
    reporting: Split
    contribution: Float[np.ndarray, "unit class"]

    @classmethod
    def measure(
        cls,
        readout: Readout,
        source: PooledSource,
        numbers_at_once: int = NUMBERS_AT_ONCE,
    ) -> AblationStudy:
        """Switch every unit off in turn on every photo that has a class, in one pass.

        The counts are those of the argmax of `Readout.logits_without_each`. Raises
        InputError for features that do not fit the readout, NonFiniteError for nan or
        infinite ones.
        """
        readout = on_processor(readout)
        changes = changes_of(readout, numbers_at_once)
        counts = _Counts(readout)
        for block in blocks(readout, source):
            predicted = block.logits.numpy().argmax(axis=1)
            counts.add(block, predicted)
            for changed in changes.of(block.pooled, block.logits, predicted):
                counts.add_changes(block, predicted, changed)
        return cls(
            ranking=counts.split(1),
            reporting=counts.split(0),
            contribution=counts.contribution(),
        )

    @property
    def overall(self) -> Split:
        """The counts over both splits."""
        return self.ranking + self.reporting

    def order(self, index: int) -> Int64[np.ndarray, " unit"]:
        """All units by their importance for a class, largest first.

        The importance is that on the ranking split. Among equally important units the
        larger mean contribution comes first, then the lower unit. Raises ClassError for
        a class that does not exist, or that has no photo or every photo of the split.
        """
        all_on = self.ranking.all_on
        classes = len(all_on.positives)
        if not 0 <= index < classes:
            raise ClassError(
                f"there is no class {index}: expected 0 to {classes - 1}"
            )
        positives = all_on.positives[index]
        if positives == 0 or positives == all_on.photos:
            raise ClassError(
                f"class {index} has {positives} of {all_on.photos} photos of the "
                "ranking split: put photos of it and of others there"
            )

        importance = self.ranking.scaled_importance(index)
        contribution = self.contribution[:, index]
        units = np.arange(len(importance))
        return np.lexsort((units, -contribution, -importance))

    def removals(
        self,
        readout: Readout,
        source: PooledSource,
        sizes: Sequence[int] | None = None,
        classes: Sequence[int] | None = None,
        draws: int = 10,
        seed: int = 0,
    ) -> Removals:
        """Switch off the n most, least important and random units of every class.

        `sizes` are the values of n, by default 4, 20 and all but 20, where there are
        that many units. `classes` are by default all that have photos, and are not
        alone, on both splits. Units are ranked on the ranking split and the counts are
        those of the reporting split, in one pass. The random sets are the first n units
        of `draws` orders by `seed`.
        """
        units = len(self.contribution)
        sizes = _default_sizes(units) if sizes is None else sizes
        check_sizes(sizes, units)
        if classes is None:
            classes = self._rankable_classes()

        orders = [self.order(index) for index in classes]
        generator = np.random.default_rng(seed)
        shuffled = [generator.permutation(units) for _ in range(draws)]
        most = [order[:size] for size in sizes for order in orders]
        least = [order[units - size :] for size in sizes for order in orders]
        random = [order[:size] for size in sizes for order in shuffled]

        # All sets in one pass over the photos.
        sets = [*most, *least, *random]
        counts = confusion_without(readout, source, sets)
        least_begin = len(most)
        random_begin = len(most) + len(least)
        return Removals(
            units=units,
            sizes=tuple(sizes),
            classes=tuple(classes),
            all_on=self.reporting.all_on,
            most=_by_size(counts[:least_begin], len(sizes)),
            least=_by_size(counts[least_begin:random_begin], len(sizes)),
            random=_by_size(counts[random_begin:], len(sizes)),
        )

    def _rankable_classes(self) -> list[int]:
        """The classes with photos of their own and of others on both splits."""
        rankable = np.ones(len(self.ranking.all_on.positives), dtype=bool)
        for split in (self.ranking, self.reporting):
            rankable &= split.all_on.positives > 0
            rankable &= split.all_on.negatives > 0
        classes: list[int] = np.flatnonzero(rankable).tolist()
        return classes


class _Counts:
    """The counts of a study while blocks are added.

    Arrays by split have the reporting split at 0 and the ranking split at 1.
    """

    def __init__(self, readout: Readout) -> None:
        classes, units = readout.weight.shape
        self._readout = readout
        self._shape = 2, units, classes
        self._tp = np.zeros((2, classes), dtype=np.int64)
        self._fp = np.zeros((2, classes), dtype=np.int64)
        self._positives = np.zeros((2, classes), dtype=np.int64)

        # Photos that are taken for a class only with all units on (lost), or only
        # without the unit (gained). They are flat, as numpy adds at one index fastest.
        size = 2 * units * classes
        self._tp_lost = np.zeros(size, dtype=np.int64)
        self._fp_lost = np.zeros(size, dtype=np.int64)
        self._tp_gained = np.zeros(size, dtype=np.int64)
        self._fp_gained = np.zeros(size, dtype=np.int64)
        self._shares = torch.zeros(classes, units, dtype=torch.float64)

    def add(self, block: Block, predicted: Int64[np.ndarray, " photo"]) -> None:
        """Count the predictions with all units on, and add up the contributions."""
        split = block.ranking.astype(np.int64)
        hit = predicted == block.target
        miss = ~hit
        np.add.at(self._positives, (split, block.target), 1)
        np.add.at(self._tp, (split[hit], predicted[hit]), 1)
        np.add.at(self._fp, (split[miss], predicted[miss]), 1)

        divisor = self._readout.divisor(block.pooled)
        normalised = block.pooled / divisor
        ranking = torch.from_numpy(block.ranking)
        shares = normalised[ranking].to(torch.float64)
        target = torch.from_numpy(block.target)[ranking]
        self._shares.index_add_(0, target, shares)

    def add_changes(
        self,
        block: Block,
        predicted: Int64[np.ndarray, " photo"],
        changes: Changes,
    ) -> None:
        """Count the predictions that change without a unit."""
        photo, unit, new = changes
        _, units, classes = self._shape
        split = block.ranking[photo].astype(np.int64)
        first_class = (split * units + unit) * classes
        target = block.target[photo]

        old = predicted[photo]
        lost = first_class + old
        hit = old == target
        np.add.at(self._tp_lost, lost[hit], 1)
        np.add.at(self._fp_lost, lost[~hit], 1)

        gained = first_class + new
        hit = new == target
        np.add.at(self._tp_gained, gained[hit], 1)
        np.add.at(self._fp_gained, gained[~hit], 1)

    def split(self, row: int) -> Split:
        """The counts of one split."""
        tp = self._tp[row]
        fp = self._fp[row]
        tp_gained = self._tp_gained.reshape(self._shape)[row]
        fp_gained = self._fp_gained.reshape(self._shape)[row]
        tp_lost = self._tp_lost.reshape(self._shape)[row]
        fp_lost = self._fp_lost.reshape(self._shape)[row]
        positives = self._positives[row]

        all_on = Confusion(
            tp=tp,
            fp=fp,
            positives=positives,
        )
        each_off = Confusion(
            tp=tp + tp_gained - tp_lost,
            fp=fp + fp_gained - fp_lost,
            positives=positives,
        )
        return Split(
            all_on=all_on,
            each_off=each_off,
            tp_gained=tp_gained,
            fp_gained=fp_gained,
        )

    def contribution(self) -> Float[np.ndarray, "unit class"]:
        """The mean contributions on the ranking split."""
        photos = np.maximum(self._positives[1], 1)[:, None]
        means = self._shares.numpy() / photos
        weight = self._readout.weight.numpy()
        contribution: np.ndarray = weight * means
        return contribution.T


def _default_sizes(units: int) -> list[int]:
    usual = {4, 20, units - 20}
    return sorted(size for size in usual if 0 < size < units)


def _by_size(counts: Confusion, sizes: int) -> Confusion:
    """The counts of (size · set, class) as (size, set, class)."""
    sets, classes = counts.tp.shape
    shape = sizes, sets // max(sizes, 1), classes
    return Confusion(
        tp=counts.tp.reshape(shape),
        fp=counts.fp.reshape(shape),
        positives=counts.positives,
    )
