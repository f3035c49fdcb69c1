"""Ablation study: what switching units off does to accuracy over a data set, from pooled features without photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from unitscope.atlas.intervals import (
    Estimate,
    balanced_accuracy_drop,
    balanced_accuracy_interval,
    proportion,
)
from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.readout import Readout
from unitscope.errors import ClassError, InputError, NonFiniteError

# How many photos are scored at once, and how many numbers a block of logits may hold:
# little enough for the cache, and enough that threads do not mostly wait for each
# other.
_PHOTOS_AT_ONCE = 1024
_NUMBERS_AT_ONCE = 1_000_000

_FLOAT = torch.finfo(torch.float32)


class PooledFeatures(NamedTuple):
    """What a study needs of some photos: their pooled units, their classes, and which split they are in.

    `target` is the index of the photo's class among the logits, −1 without one: such a
    photo does not count. On photos of the `ranking` split units are put in order, on
    the others results are reported.
    """

    pooled: Float32[np.ndarray, "photo unit"]
    target: Int64[np.ndarray, " photo"]
    ranking: Bool[np.ndarray, " photo"]


Which: TypeAlias = Literal["ranking", "reporting", "all"]

# Called once for every pass over the data set, which is never held whole.
PooledSource: TypeAlias = Callable[[], Iterable[PooledFeatures]]


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many photos of every class were found, and how many taken for it wrongly, under one or many ablations.

    `tp` and `fp` (…, class) with an axis for every way in which the ablations differ,
    none for a single one; `positives` (class) are the photos of each class. The
    prediction is the argmax of the logits, the lowest class where several are largest.
    """

    tp: Int64[np.ndarray, "*ablation class"]
    fp: Int64[np.ndarray, "*ablation class"]
    positives: Int64[np.ndarray, " class"]

    @property
    def photos(self) -> int:
        """How many photos were counted."""
        return int(self.positives.sum())

    @property
    def negatives(self) -> Int64[np.ndarray, " class"]:
        """How many photos are of other classes."""
        others: np.ndarray = self.photos - self.positives
        return others

    @property
    def accuracy(self) -> Estimate:
        """The share of photos whose class was found, 0 to 1, with Wilson intervals: arrays (…)."""
        return proportion(self.tp.sum(axis=-1), self.photos)

    @property
    def balanced_accuracy(self) -> Estimate:
        """(TPR + TNR) / 2 of every class, 0 to 1, 0.5 is chance: arrays (…, class); nan for a class without photos."""
        return balanced_accuracy_interval(
            self.tp, self.positives, self.fp, self.negatives
        )

    def __getitem__(self, ablation: int | slice | tuple[int | slice, ...]) -> Confusion:
        """The counts under some of the ablations."""
        return Confusion(self.tp[ablation], self.fp[ablation], self.positives)

    def __add__(self, other: Confusion) -> Confusion:
        """The counts over the photos of both, under the same ablations."""
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.positives + other.positives
        )


@dataclass(frozen=True, eq=False)
class Split:
    """The counts on one split of the photos: with all units on, and with every unit off in turn (unit, class).

    `tp_gained` and `fp_gained` (unit, class) are the photos of the class, and of
    others, that are taken for it only without the unit.
    """

    all_on: Confusion
    each_off: Confusion
    tp_gained: Int64[np.ndarray, "unit class"]
    fp_gained: Int64[np.ndarray, "unit class"]

    def __add__(self, other: Split) -> Split:
        """The counts over the photos of both."""
        return Split(
            self.all_on + other.all_on,
            self.each_off + other.each_off,
            self.tp_gained + other.tp_gained,
            self.fp_gained + other.fp_gained,
        )

    @property
    def importance(self) -> Estimate:
        """Balanced accuracy of every class less that with the unit off (Bau et al. 2020), −1 to 1: (unit, class).

        Positive where the class is told apart worse without the unit; nan for a class
        without photos, or of all photos. The intervals are those of a change on the
        same photos.
        """
        before, without = self.all_on, self.each_off
        return balanced_accuracy_drop(
            before.tp - without.tp + self.tp_gained,
            self.tp_gained,
            before.positives,
            self.fp_gained,
            before.fp - without.fp + self.fp_gained,
            before.negatives,
        )

    def _scaled_importance(self, index: int) -> Int64[np.ndarray, " unit"]:
        """The importance for a class times 2 · positives · negatives: integers, in which equal is equal."""
        before, without = self.all_on, self.each_off
        found = (before.tp[index] - without.tp[:, index]) * before.negatives[index]
        scaled: np.ndarray = (
            found + (without.fp[:, index] - before.fp[index]) * before.positives[index]
        )
        return scaled


class Row(NamedTuple):
    """A line of the table of a class: how many units were off, which, and how well it is told apart without them.

    `removed` is "none", "most important", "least important", "random" or "chance". The
    estimates are of 0 to 1 with their intervals; at random, the mean over the draws and
    the lowest and highest of them.
    """

    removed: str
    units: int
    balanced_accuracy: Estimate
    accuracy: Estimate


@dataclass(frozen=True, eq=False)
class Removals:
    """What is left when the most, the least important or random units of a class are off, on the reporting split.

    The layer has `units` units; `sizes` are the numbers of units off, `classes` those
    whose units they were. Counts: `all_on` without ablation axes, `most` and `least`
    (size, chosen, class), `random` (size, draw, class), which is the same for every
    class.
    """

    units: int
    sizes: tuple[int, ...]
    classes: tuple[int, ...]
    all_on: Confusion
    most: Confusion
    least: Confusion
    random: Confusion

    def own(self, counts: Confusion) -> Estimate:
        """Balanced accuracy of each chosen class without its own units, (size, chosen), of `most` or `least`."""
        chosen = np.arange(len(self.classes))
        return Estimate(
            *(ends[:, chosen, list(self.classes)] for ends in counts.balanced_accuracy)
        )

    def table(self, index: int) -> list[Row]:
        """The table of a class, as Bau et al. 2020 (PNAS) print it, with the least important and random units beside.

        Raises ClassError for a class that was not among the chosen ones.
        """
        if index not in self.classes:
            raise ClassError(
                f"class {index} was not ablated: choose it among the classes of "
                "`removals`"
            )
        place = self.classes.index(index)
        rows = [Row("none", 0, *_of_class(self.all_on, index))]
        for kind, counts in (
            ("most important", self.most),
            ("least important", self.least),
        ):
            for position, size in enumerate(self.sizes):
                rows.append(Row(kind, size, *_of_class(counts[position, place], index)))
        for position, size in enumerate(self.sizes if self.random.tp.shape[1] else ()):
            draws = (
                estimate.value for estimate in _of_class(self.random[position], index)
            )
            rows.append(
                Row(
                    "random",
                    size,
                    *(Estimate(d.mean(), d.min(), d.max()) for d in draws),
                )
            )
        chances = (0.5, 1 / len(self.all_on.positives))
        return [
            *rows,
            Row(
                "chance",
                self.units,
                *(Estimate(chance, chance, chance) for chance in chances),
            ),
        ]


@dataclass(frozen=True, eq=False)
class AblationStudy:
    """What every unit of the last feature map is to every class, over a data set (Bau et al. 2020, PNAS).

    `ranking` and `reporting` are the two splits. `contribution` (unit, class), in
    logits, is the mean contribution of the unit to the class's logit over the class's
    photos of the ranking split; 0 for a class without photos there.
    """

    ranking: Split
    reporting: Split
    contribution: Float[np.ndarray, "unit class"]

    @classmethod
    def measure(cls, readout: Readout, source: PooledSource) -> AblationStudy:
        """Switch every unit off in turn on every photo that has a class, in one pass over the pooled features.

        The counts are those of the argmax of `Readout.logits_without_each`. Raises
        InputError for features that do not fit the readout, NonFiniteError for nan or
        infinite ones.
        """
        readout = _plain(readout)
        classes, units = readout.weight.shape
        each = (
            _LinearEach(readout) if readout.norm is None else _NormalisedEach(readout)
        )
        # One row for the reporting split, one for the ranking split.
        tp, fp, positives = (np.zeros((2, classes), dtype=np.int64) for _ in range(3))
        lost, gained = (
            np.zeros((2, 2 * units * classes), dtype=np.int64) for _ in range(2)
        )  # of tp, and of fp
        sums = torch.zeros(classes, units, dtype=torch.float64)
        for block in _blocks(readout, source, "all"):
            target, split = block.target, block.ranking.astype(np.int64)
            first = block.logits.numpy().argmax(axis=1)
            found = first == target
            np.add.at(positives, (split, target), 1)
            np.add.at(tp, (split[found], first[found]), 1)
            np.add.at(fp, (split[~found], first[~found]), 1)
            shares = (block.pooled / readout.divisor(block.pooled))[
                torch.from_numpy(block.ranking)
            ]
            sums.index_add_(
                0, torch.from_numpy(target[block.ranking]), shares.to(torch.float64)
            )
            for photo, unit, now in each.turned(block.pooled, block.logits, first):
                place = (split[photo] * units + unit) * classes
                for predicted, counts in ((first[photo], lost), (now, gained)):
                    right = predicted == target[photo]
                    np.add.at(counts[0], (place + predicted)[right], 1)
                    np.add.at(counts[1], (place + predicted)[~right], 1)
        new = gained.reshape(2, 2, units, classes)
        change = new - lost.reshape(new.shape)
        reporting, ranking = (
            Split(
                Confusion(tp[row], fp[row], positives[row]),
                Confusion(
                    tp[row] + change[0, row], fp[row] + change[1, row], positives[row]
                ),
                new[0, row],
                new[1, row],
            )
            for row in range(2)
        )
        means = sums.numpy() / np.maximum(positives[1], 1)[:, None]
        return cls(ranking, reporting, (readout.weight.numpy() * means).T)

    @property
    def overall(self) -> Split:
        """The counts over both splits."""
        return self.ranking + self.reporting

    def order(self, index: int) -> Int64[np.ndarray, " unit"]:
        """All units, the most important for a class first, by the ranking split alone.

        Among equally important ones the larger mean contribution comes first, then the
        lower unit. Raises ClassError for a class that does not exist, or cannot be told
        apart there: no photo is its own, or all are.
        """
        positives, negatives = (
            self.ranking.all_on.positives,
            self.ranking.all_on.negatives,
        )
        if not 0 <= index < len(positives):
            raise ClassError(
                f"there is no class {index}: expected 0 to {len(positives) - 1}"
            )
        if not (positives[index] and negatives[index]):
            raise ClassError(
                f"class {index} has {positives[index]} of {self.ranking.all_on.photos} "
                "photos of the ranking split: "
                "put photos of it and of others there"
            )
        importance, contribution = (
            self.ranking._scaled_importance(index),
            self.contribution[:, index],
        )
        return np.lexsort((np.arange(len(importance)), -contribution, -importance))

    def removals(
        self,
        readout: Readout,
        source: PooledSource,
        sizes: Sequence[int] | None = None,
        classes: Sequence[int] | None = None,
        draws: int = 10,
        seed: int = 0,
    ) -> Removals:
        """Switch off the n most and the n least important units of every class, and n random ones, for several n.

        `sizes` are 4, 20 and all but 20, as far as there are as many units, or given;
        `classes` all that have photos on both splits and are not alone there, or given.
        Which units those are is told by the ranking split, what is left is counted on
        the reporting split, in one pass. The random sets are `draws` orders of the
        units by `seed`, cut at each size.
        """
        units = len(self.contribution)
        sizes = tuple(
            _default_sizes(units) if sizes is None else _checked_sizes(sizes, units)
        )
        if classes is None:
            counts = (self.ranking.all_on, self.reporting.all_on)
            told = [(split.positives > 0) & (split.negatives > 0) for split in counts]
            classes = np.flatnonzero(told[0] & told[1]).tolist()
        orders = [self.order(index) for index in classes]
        generator = np.random.default_rng(seed)
        shuffled = [generator.permutation(units) for _ in range(draws)]
        most = [order[:size] for size in sizes for order in orders]
        least = [order[units - size :] for size in sizes for order in orders]
        random = [order[:size] for size in sizes for order in shuffled]
        counts_off = confusion_without(readout, source, [*most, *least, *random])
        parts = []
        for begin, sets in (
            (0, most),
            (len(most), least),
            (len(most) + len(least), random),
        ):
            part = counts_off[begin : begin + len(sets)]
            shape = (len(sizes), len(sets) // max(len(sizes), 1), len(part.positives))
            parts.append(
                Confusion(
                    part.tp.reshape(shape), part.fp.reshape(shape), part.positives
                )
            )
        return Removals(units, sizes, tuple(classes), self.reporting.all_on, *parts)


def confusion_without(
    readout: Readout,
    source: PooledSource,
    sets: Sequence[Sequence[int] | Int64[np.ndarray, " _"]],
    on: Which = "reporting",
) -> Confusion:
    """The counts with each of several sets of units off, (set, class), in one pass over the photos of a split, or all.

    For a linear readout a set costs photos × classes × as many units as are off, or on,
    whichever are fewer. Raises InputError for units that do not exist.
    """
    readout = _plain(readout)
    classes, units = readout.weight.shape
    masks = [_mask(off, units) for off in sets]
    tp, fp = (np.zeros((len(sets), classes), dtype=np.int64) for _ in range(2))
    positives = np.zeros(classes, dtype=np.int64)
    for block in _blocks(readout, source, on):
        positives += np.bincount(block.target, minlength=classes)
        for place, logits in enumerate(_logits_without(readout, block, masks)):
            first = logits.numpy().argmax(axis=1)
            found = np.bincount(first[first == block.target], minlength=classes)
            tp[place] += found
            fp[place] += np.bincount(first, minlength=classes) - found
    return Confusion(tp, fp, positives)


def curve(
    readout: Readout,
    source: PooledSource,
    order: Sequence[int] | Int64[np.ndarray, " unit"],
    sizes: Sequence[int],
    on: Which = "reporting",
) -> Confusion:
    """The counts with the first n units of an order off, for every n of `sizes`: (size, class)."""
    sizes = _checked_sizes(sizes, len(order))
    return confusion_without(readout, source, [order[:size] for size in sizes], on)


def _of_class(counts: Confusion, index: int) -> tuple[Estimate, Estimate]:
    """The balanced accuracy of one class and the accuracy of all."""
    return Estimate(
        *(ends[..., index] for ends in counts.balanced_accuracy)
    ), counts.accuracy


def _default_sizes(units: int) -> list[int]:
    return sorted({size for size in (4, 20, units - 20) if 0 < size < units})


def _checked_sizes(sizes: Sequence[int], units: int) -> Sequence[int]:
    for size in sizes:
        if not 0 <= size <= units:
            raise InputError(f"{size} units cannot be off: expected 0 to {units}")
    return sizes


class _Block(NamedTuple):
    """Photos that have a class, few enough to be scored at once, with their logits."""

    pooled: Float32[Tensor, "photo unit"]
    logits: Float32[Tensor, "photo class"]
    target: Int64[np.ndarray, " photo"]
    ranking: Bool[np.ndarray, " photo"]


def _plain(readout: Readout) -> Readout:
    """The readout on the processor, in float32, without gradients."""
    weight, bias = (
        values.detach().to("cpu", torch.float32)
        for values in (readout.weight, readout.bias)
    )
    return Readout(weight, bias, readout.norm)


def _blocks(readout: Readout, source: PooledSource, on: Which) -> Iterator[_Block]:
    classes, units = readout.weight.shape
    for features in source():
        _check(features, classes, units)
        counts = features.target >= 0
        if on != "all":
            counts &= features.ranking if on == "ranking" else ~features.ranking
        rows = np.flatnonzero(counts)
        for begin in range(0, len(rows), _PHOTOS_AT_ONCE):
            few = rows[begin : begin + _PHOTOS_AT_ONCE]
            pooled = torch.from_numpy(features.pooled[few])
            yield _Block(
                pooled,
                readout.logits(pooled),
                features.target[few],
                features.ranking[few],
            )


def _check(features: PooledFeatures, classes: int, units: int) -> None:
    if features.pooled.shape[1] != units:
        raise InputError(
            f"the pooled features are of {features.pooled.shape[1]} units, the head "
            f"reads {units}"
        )
    if (
        features.target.max(initial=-1) >= classes
        or features.target.min(initial=-1) < -1
    ):
        wrong = features.target[(features.target >= classes) | (features.target < -1)][
            0
        ]
        raise InputError(
            f"a photo is of class {wrong}: expected 0 to {classes - 1}, or −1 without "
            "a class"
        )
    if not np.isfinite(features.pooled).all():
        raise NonFiniteError(
            "the pooled features hold nan or infinite numbers: compute them anew in "
            "float32"
        )


def _mask(
    off: Sequence[int] | Int64[np.ndarray, " _"], units: int
) -> Bool[np.ndarray, " unit"]:
    indices = np.asarray(off, dtype=np.int64)
    if indices.size and not (0 <= indices.min() and indices.max() < units):
        raise InputError(
            f"there is no unit {indices.min() if indices.min() < 0 else indices.max()}: the head reads {units}"
        )
    mask = np.zeros(units, dtype=bool)
    mask[indices] = True
    return mask


def _logits_without(
    readout: Readout, block: _Block, masks: Sequence[Bool[np.ndarray, " unit"]]
) -> Iterator[Float32[Tensor, "photo class"]]:
    """The logits of a block with every set of units off in turn."""
    if readout.norm is not None:
        for mask in masks:
            yield readout.logits(block.pooled * torch.from_numpy(~mask))
        return
    # Laid out so that a unit's values lie side by side.
    columns, by_unit = block.pooled.T.contiguous(), readout.weight.T.contiguous()
    for mask in masks:
        subtract = 2 * int(mask.sum()) <= len(mask)
        chosen = torch.from_numpy(np.flatnonzero(mask if subtract else ~mask))
        few, rows = columns.index_select(0, chosen).T, by_unit.index_select(0, chosen)
        with without_autocast(few):
            yield (
                torch.addmm(block.logits, few, rows, alpha=-1)
                if subtract
                else torch.addmm(readout.bias, few, rows)
            )


Turned: TypeAlias = tuple[
    Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]
]  # photo, unit, and the class that comes first without it


class _LinearEach:
    """Which first classes change with every unit off in turn, where the logits change by −p[u] · W[c,u]."""

    def __init__(self, readout: Readout) -> None:
        self.weight, self.by_unit = readout.weight, readout.weight.T.contiguous()
        self.least, self.most = self.weight.amin(dim=0), self.weight.amax(dim=0)
        self.largest = self.weight.abs().amax(dim=0)

    def turned(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        first: Int64[np.ndarray, " photo"],
    ) -> Iterator[Turned]:
        """The pairs of a photo and a unit in which another class comes first."""
        if logits.shape[1] < 2:
            return
        photos, units = self._may_turn(pooled, logits, torch.from_numpy(first)).nonzero(
            as_tuple=True
        )
        size = max(_NUMBERS_AT_ONCE // logits.shape[1], 1)
        for begin in range(0, len(photos), size):
            photo, unit = photos[begin : begin + size], units[begin : begin + size]
            # As in Readout.logits_without_each, rounding and all.
            off = torch.addcmul(
                logits[photo],
                pooled[photo, unit][:, None],
                self.by_unit[unit],
                value=-1,
            )
            now = off.numpy().argmax(axis=1)
            changed = now != first[photo.numpy()]
            yield photo.numpy()[changed], unit.numpy()[changed], now[changed]

    def _may_turn(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        first: Int64[Tensor, " photo"],
    ) -> Bool[Tensor, "photo unit"]:
        """Where the first class may fall behind another, at the most that it loses against any: all, and a few more.

        Class c overtakes class y where p[u] (W[y,u] − W[c,u]) ≥ logit[y] − logit[c],
        and the right side is at least the margin of y over the second class.
        """
        two = logits.topk(2, dim=1).values
        margin = (two[:, 0] - two[:, 1])[:, None]
        own = self.weight[first]
        loss = torch.maximum(pooled * (own - self.least), pooled * (own - self.most))
        # Either side, and the logits with the unit off, are rounded by a few units in
        # the last place of their terms.
        terms = pooled.abs() * self.largest + logits.abs().amax(dim=1, keepdim=True)
        # Said so that pairs whose numbers overflow are looked at too.
        return ~(loss + 8 * _FLOAT.eps * terms + _FLOAT.tiny < margin)


class _NormalisedEach:
    """Which first classes change with every unit off in turn, where a normalisation changes every logit."""

    def __init__(self, readout: Readout) -> None:
        self.readout = readout

    def turned(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        first: Int64[np.ndarray, " photo"],
    ) -> Iterator[Turned]:
        """The pairs of a photo and a unit in which another class comes first."""
        size = max(4 * _NUMBERS_AT_ONCE // self.readout.weight.numel(), 1)
        for begin in range(0, len(pooled), size):
            few = slice(begin, begin + size)
            # Of equal ones torch takes the first, as numpy does.
            now = (
                self.readout.logits_without_each(pooled[few], logits[few], None)
                .argmax(dim=2)
                .numpy()
            )
            photo, unit = (now != first[few, None]).nonzero()
            yield photo + begin, unit, now[photo, unit]
