"""Explanation: logits, class activation maps, contributions and ablation of a batch of photos, whatever the head."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unitscope.attribution.classes import (
    Classes,
    Prediction,
    class_index,
    class_indices,
    ranked,
)
from unitscope.attribution.head import Head
from unitscope.attribution.local import LocalHead, Suffix
from unitscope.attribution.readout import (
    blank,
    cell_means,
    relative_difference,
    rounding_allowance,
    rounding_error,
    unrounded,
)
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.drawable import Drawable
from unitscope.errors import InputError
from unitscope.geometry import Grid, lay_on_photo
from unitscope.inputs.photos import PhotoSource
from unitscope.inputs.subjects import Subject
from unitscope.tracing.layers import check_units

# How many units' real forward passes are told of together.
_UNITS_AT_ONCE = 16

AnyHead: TypeAlias = Head | LocalHead
Units: TypeAlias = int | Sequence[int] | Tensor


class UnitContribution(NamedTuple):
    """What one unit adds to one logit.

    `weight` is what the logit gains when the unit's mean activation grows by one,
    everywhere alike. With an exact head `contribution` = `weight` · `mean_activation`.
    """

    unit: int
    contribution: float
    weight: float
    mean_activation: float


@dataclass(frozen=True, eq=False)
class Explanation(Drawable, ABC):
    """Why a classifier gave its logits, for a batch of photos.

    An `ExactExplanation` is algebra: maps and contributions add up to the logits, and
    ablation needs no forward pass. A `LocalExplanation`, of a network or a layer
    without an exact head, is gradient × activation, which says what the logits would
    gain from a little more of what is there; `left_out` is the measured gap between the
    two, and its ablations are real forward passes. `exact` says which it is, `head` how
    it was found and at which layer. `off` lists the units that were switched off.

    `logits` (batch, class); `feature_map` (batch, unit, row, col); `input_size` (rows,
    cols) of the network's input. `rounded` is how far logits and feature map were from
    those in float32 where they were computed in bfloat16, relative to the largest of
    each, measured on the first photos; 0 where nothing was rounded.
    """

    logits: Float[Tensor, "batch class"]
    feature_map: Float[Tensor, "batch unit row col"]
    head: AnyHead
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    input_size: tuple[int, int]
    off: tuple[int, ...] = ()
    rounded: float = 0.0

    def __repr__(self) -> str:
        units, rows, cols = self.feature_map.shape[1:]
        off = f", {len(self.off)} units off" if self.off else ""
        maps = f"{units} units of {rows}×{cols} cells"
        kind = "" if self.exact else f", local at '{self.layer}'"
        return f"<Explanation of {len(self)} photos: {maps}, {len(self.labels)} classes{off}{kind}>"

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, image: int) -> Explanation:
        """The explanation of one photo of the batch, as a batch of one."""
        if not -len(self) <= image < len(self):
            raise IndexError(
                f"there is no photo {image} in an explanation of {len(self)}"
            )
        return self._cut(image % len(self))

    def __iter__(self) -> Iterator[Explanation]:
        return (self[image] for image in range(len(self)))

    @abstractmethod
    def _cut(self, image: int) -> Explanation:
        """The explanation of one photo."""

    @abstractmethod
    def joined(self, others: Sequence[Explanation]) -> Explanation:
        """One explanation of these photos and, behind them, of those of others by the same network."""

    @abstractmethod
    def cams_of(self, classes: Classes | None) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps of the named classes only, in logits (all classes when None)."""

    @abstractmethod
    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the logits of the named classes (all when None): sums to the mean of their maps."""

    @abstractmethod
    def left_out_of(self, classes: Classes | None) -> Float[Tensor, "batch class"]:
        """What the maps of the named classes (all when None) leave out: logit − mean of the map.

        With an exact head it is the bias; with a local answer, everything that gradient
        × activation does not account for.
        """

    @abstractmethod
    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """What a class's logit gains, on every photo, when a unit's mean activation grows by one everywhere alike."""

    @abstractmethod
    def ablate(self, units: Units) -> Explanation:
        """The explanation with `units` switched off (their maps zero), equal to a real forward pass without them.

        Raises UnitError for a unit that does not exist.
        """

    @abstractmethod
    def ablate_each(
        self, classes: Classes | None = None, units: Units | None = None
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit (or each of `units`) off in turn, for the named classes or all."""

    def ablations(
        self,
        classes: Classes | None = None,
        units: Units | None = None,
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few class"]]]:
        """What `ablate_each` gives, a few units at a time: which units, and the logits with each of them off in turn.

        Memory is that of `at_once` units (by default a few megabytes' worth), however
        many there are.
        """
        chosen, count = self._every(units), _checked_count(at_once) or _UNITS_AT_ONCE
        parts = (
            chosen[begin : begin + count] for begin in range(0, len(chosen), count)
        )
        return ((part, self.ablate_each(classes, part)) for part in parts)

    @abstractmethod
    def maximal_unit(self, which: int | str) -> int:
        """The unit that counts most for a class, by its weight: the same for every photo with an exact head."""

    @abstractmethod
    def classes_of_unit(self, unit: int, count: int = 3) -> list[tuple[str, float]]:
        """The classes that a unit speaks for: the labels with its largest weights, and those weights."""

    @abstractmethod
    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding in a network of this dtype may do to the logits, relative to the largest: 1e-5 or more."""

    @property
    def exact(self) -> bool:
        """Whether maps and contributions add up to the logits and ablation needs no forward pass."""
        return self.head.exact

    @property
    def layer(self) -> str:
        """The layer whose output is the feature map."""
        return self.head.layer

    @property
    def grid(self) -> Grid:
        """Where the cells of the feature map lie on the network's input."""
        return self.head.grid

    @cached_property
    def pooled(self) -> Float[Tensor, "batch unit"]:
        """The mean of every unit's feature map over its cells."""
        return cell_means(self.feature_map)

    @cached_property
    def cams(self) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps of all classes, in logits; mean(cam[c]) + left_out[c] = logit[c]."""
        return self.cams_of(None)

    @property
    def contributions(self) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to every logit; Σ_u contribution[c,u] + left_out[c] = logit[c].

        Computed when read and not kept: for 1000 classes and 2048 units it is 8 MB a
        photo.
        """
        return self.contributions_of(None)

    @property
    def left_out(self) -> Float[Tensor, "batch class"]:
        """What the maps leave out of every logit: the bias of an exact head, the gap of a local answer."""
        return self.left_out_of(None)

    @cached_property
    def completeness_error(self) -> Float[Tensor, " batch"]:
        """How far mean(cam) + bias is from the logit: the largest difference over the classes / the largest |logit|.

        A local answer has no bias: the same figure is then the share of the largest
        logit that its maps leave out.
        """
        bias = self.head.bias if isinstance(self.head, Head) else 0
        return relative_difference(self.cams.mean(dim=(2, 3)) + bias, self.logits)

    def inputs(self) -> list[PhotoSource] | Tensor:
        """What was explained, to be explained again: the photos' sources, or the tensor (batch, channel, row, col)."""
        tensors = [
            subject.tensor for subject in self.subjects if subject.tensor is not None
        ]
        return (
            torch.stack(tensors)
            if tensors
            else [s.source for s in self.subjects if s.source is not None]
        )

    def top(self, count: int = 5) -> list[list[Prediction]]:
        """For every photo, its `count` classes of the largest logits: label, index, logit, probability; best first."""
        return [ranked(logits, self.labels, count) for logits in self.logits.cpu()]

    def class_index(self, which: int | str) -> int:
        """The index of a class given by label or index; raises ClassError with near matches."""
        return class_index(self.labels, which)

    def cams_on_photo(
        self,
        image: int,
        classes: Classes,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> Float[np.ndarray, "class height width"]:
        """Maps of one photo laid where they belong on it, at `size` (width, height), in logits; NaN beyond the crop."""
        maps = self[image].cams_of(classes)[0].cpu().numpy()
        return lay_on_photo(
            maps,
            self.grid,
            self.subjects[image].placement(self.input_size),
            size,
            interpolation,
        )

    def evidence(
        self, region: Shaped[Tensor, "row col"], classes: Classes | None = None
    ) -> Float[Tensor, "batch class"]:
        """The evidence for every class (or the named ones) from a region of the map, in logits.

        `region` (row, col) holds 1 where a cell belongs to the region, 0 where not, or
        its share. A cell gives (cam[c] + left_out[c]) / cells, so that regions which
        tile the map add up to the logit.
        """
        rows, cols = self.feature_map.shape[2:]
        if tuple(region.shape) != (rows, cols):
            raise InputError(
                f"a region has the map's {rows}×{cols} cells, not {tuple(region.shape)}"
            )
        share = region.to(self.feature_map) / (rows * cols)
        cams = self.cams if classes is None else self.cams_of(classes)
        with unrounded(cams):
            return torch.einsum(
                "bcyx,yx->bc", cams, share
            ) + share.sum() * self.left_out_of(classes)

    def top_units(
        self, which: int | str, count: int = 8, image: int = 0
    ) -> list[UnitContribution]:
        """The units that add most to a class on one photo, largest contribution first."""
        one = self[image]
        contribution = one.contributions_of(which)[0, 0].cpu()
        order = torch.argsort(contribution, descending=True, stable=True)[
            :count
        ].tolist()
        weight, pooled = one.weights_of(which)[0].cpu(), one.pooled[0].cpu()
        return [
            UnitContribution(
                u, float(contribution[u]), float(weight[u]), float(pooled[u])
            )
            for u in order
        ]

    def unit_maps(self, units: Units) -> UnitMaps:
        """The feature maps of chosen units of the feature map."""
        chosen = self._units(units)
        return UnitMaps(
            self.layer,
            tuple(chosen),
            self.feature_map[:, chosen],
            self.grid,
            self.input_size,
            self.subjects,
        )

    def _units(self, units: Units) -> list[int]:
        where = "the last feature map" if self.exact else f"layer '{self.layer}'"
        return check_units(units, self.feature_map.shape[1], where)

    def _every(self, units: Units | None) -> list[int]:
        return (
            list(range(self.feature_map.shape[1]))
            if units is None
            else self._units(units)
        )

    def _without(self, units: list[int]) -> Float[Tensor, "batch unit row col"]:
        feature_map = self.feature_map.clone()
        feature_map[:, units] = 0
        return feature_map


@dataclass(frozen=True, eq=False, repr=False)
class ExactExplanation(Explanation):
    """Why a classifier that ends in feature map → global average pool → (normalisation →) linear layer gave its logits.

    Everything is exact algebra on numbers of one forward pass: class activation maps
    (Zhou et al., CVPR 2016), contributions of units, and the logits with any units
    switched off. `logits` are the network's own while no unit is off, and the algebra's
    otherwise.
    """

    head: Head

    @cached_property
    def _divisor(self) -> Float[Tensor, "batch 1"]:
        return self.head.readout.divisor(self.pooled)

    def cams_of(self, classes: Classes | None) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps, in logits: cam[c] = Σ_u W[c,u] · A[u] (/ the normalisation's divisor)."""
        with unrounded(self.feature_map):
            maps = torch.einsum(
                "cu,buyx->bcyx", self._weight(classes), self.feature_map
            )
        return (
            maps
            if self.head.readout.norm is None
            else maps / self._divisor[:, :, None, None]
        )

    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the logits: W[c,u] · mean(A[u]) (/ the normalisation's divisor)."""
        weight = self._weight(classes)
        shares = (self.pooled / self._divisor)[:, None, :]
        return torch.mul(shares, weight, out=blank((len(self), *weight.shape), shares))

    def left_out_of(self, classes: Classes | None) -> Float[Tensor, "batch class"]:
        """The head's bias, for every photo."""
        bias = (
            self.head.bias
            if classes is None
            else self.head.bias[class_indices(self.labels, classes)]
        )
        return bias.expand(len(self), -1)

    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """The head's weights of a class (/ the normalisation's divisor)."""
        return self.head.weight[self.class_index(which)] / self._divisor

    def ablate(self, units: Units) -> ExactExplanation:
        """The explanation with `units` switched off (their maps zero), equal to a real forward pass without them.

        Raises UnitError for a unit that does not exist.
        """
        chosen = self._units(units)
        feature_map = self._without(chosen)
        logits = self.head.readout.logits(cell_means(feature_map))
        off = tuple(dict.fromkeys((*self.off, *chosen)))
        return dataclasses.replace(
            self, logits=logits, feature_map=feature_map, off=off
        )

    def ablate_each(
        self, classes: Classes | None = None, units: Units | None = None
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit (or each of `units`) off in turn: logit[c] − contribution[c,u], in closed form."""
        chosen = None if classes is None else class_indices(self.labels, classes)
        if units is None:
            return self.head.readout.logits_without_each(
                self.pooled, self.logits, chosen
            )
        parts = [each for _, each in self.ablations(classes, units)]
        count = len(self.labels) if chosen is None else len(chosen)
        return (
            torch.cat(parts, dim=1)
            if parts
            else self.logits.new_empty((len(self), 0, count))
        )

    def ablations(
        self,
        classes: Classes | None = None,
        units: Units | None = None,
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few class"]]]:
        """See Explanation."""
        chosen = None if classes is None else class_indices(self.labels, classes)
        return self.head.readout.logits_without_few(
            self.pooled,
            self.logits,
            chosen,
            self._every(units),
            _checked_count(at_once),
        )

    def maximal_unit(self, which: int | str) -> int:
        """The unit with the largest weight for a class, argmax_u W[class, u]: the same for every photo."""
        return int(self.head.weight[self.class_index(which)].argmax())

    def classes_of_unit(self, unit: int, count: int = 3) -> list[tuple[str, float]]:
        """The classes that a unit speaks for: the labels with its largest weights, and those weights."""
        column = self.head.weight[:, self._units(unit)[0]].cpu()
        order = torch.argsort(column, descending=True, stable=True)[:count].tolist()
        return [(self.labels[index], float(column[index])) for index in order]

    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding may do to sums of contributions, relative to the largest logit."""
        return float(
            rounding_error(
                self.logits, self.feature_map, self.head.readout, dtype
            ).max()
        )

    def joined(self, others: Sequence[Explanation]) -> ExactExplanation:
        """One explanation of these photos and, behind them, of those of others."""
        logits, feature_map, subjects = _joined([self, *others])
        return dataclasses.replace(
            self, logits=logits, feature_map=feature_map, subjects=subjects
        )

    def _cut(self, image: int) -> ExactExplanation:
        logits, feature_map, subjects = _one(self, image)
        return dataclasses.replace(
            self, logits=logits, feature_map=feature_map, subjects=subjects
        )

    def _weight(self, classes: Classes | None) -> Float[Tensor, "class unit"]:
        return (
            self.head.weight
            if classes is None
            else self.head.weight[class_indices(self.labels, classes)]
        )


@dataclass(frozen=True, eq=False, repr=False)
class LocalExplanation(Explanation):
    """Gradient × activation at a layer of any network: a local answer, with what it leaves out measured.

    For HiResCAM (Draelos & Carin 2020), the default, cam[c] = cells · Σ_u
    ∂logit[c]/∂A[u] · A[u], cell by cell, so that mean(cam[c]) = Σ ∂logit[c]/∂A · A: all
    that a first-order account of the rest of the network can say. Grad-CAM (Selvaraju
    et al. 2017), `head.method` "gradcam", averages the gradients over the cells first,
    cam[c] = Σ_u (Σ_cells ∂logit[c]/∂A[u]) · A[u]; where pooling follows at once the two
    are the same, elsewhere its cells do not add up to anything. Both are signed here,
    and both equal the exact maps where the head is exact.

    The gradients are of the rest of the network only (`suffix`), and ablations are real
    forward passes of it.
    """

    head: LocalHead
    suffix: Suffix = dataclasses.field(kw_only=True)

    @cached_property
    def _gradients(self) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """Of the classes asked for so far: maps (batch, row, col), contributions and weights (batch, unit)."""
        return {}

    def cams_of(self, classes: Classes | None) -> Float[Tensor, "batch class row col"]:
        """Signed maps of gradient × activation, in logits."""
        return torch.stack([maps for maps, _, _ in self._of(classes)], dim=1)

    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the mean of the maps: Σ over cells of gradient · activation."""
        return torch.stack(
            [contributions for _, contributions, _ in self._of(classes)], dim=1
        )

    def left_out_of(self, classes: Classes | None) -> Float[Tensor, "batch class"]:
        """The measured gap: logit − mean of the map."""
        chosen = self._classes(classes)
        return self.logits[:, chosen] - self.cams_of(chosen).mean(dim=(2, 3))

    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """The gradient of the logit for every unit, summed over the cells."""
        return self._of(which)[0][2]

    def ablate(self, units: Units) -> LocalExplanation:
        """The explanation with `units` switched off, by a real forward pass of the rest of the network.

        Raises UnitError for a unit that does not exist.
        """
        chosen = self._units(units)
        self.suffix.check_unchanged(self.feature_map, self.logits)
        feature_map, suffix = self._without(chosen), self.suffix.without(chosen)
        off = tuple(dict.fromkeys((*self.off, *chosen)))
        return dataclasses.replace(
            self,
            logits=suffix.logits(feature_map),
            feature_map=feature_map,
            suffix=suffix,
            off=off,
        )

    def ablate_each(
        self, classes: Classes | None = None, units: Units | None = None
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit (or each of `units`) off in turn: one real forward of the rest for each."""
        chosen = self._every(units)
        self.suffix.check_unchanged(self.feature_map, self.logits)
        if not chosen:
            return self.logits.new_empty((len(self), 0, len(self._classes(classes))))
        each = torch.stack(
            [
                self.suffix[image].logits_without_each(one, self.logits[image], chosen)
                for image, one in enumerate(self.feature_map)
            ]
        )
        return (
            each if classes is None else each[:, :, class_indices(self.labels, classes)]
        )

    def maximal_unit(self, which: int | str) -> int:
        """The unit that adds most to a class, on average over the photos."""
        return int(self.contributions_of(which)[:, 0].mean(dim=0).argmax())

    def classes_of_unit(self, unit: int, count: int = 3) -> list[tuple[str, float]]:
        """The classes whose logits gain most from a unit, on average over the photos, with the gain (see `weight`).

        One backward pass of the rest of the network for every class.
        """
        chosen = self._units(unit)[0]
        column = torch.stack(
            [weights[:, chosen].mean() for _, _, weights in self._of(None)]
        ).cpu()
        order = torch.argsort(column, descending=True, stable=True)[:count].tolist()
        return [(self.labels[index], float(column[index])) for index in order]

    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding in a network of this dtype may do to its logits, relative to the largest."""
        return float(
            rounding_allowance(
                16 * self.logits.abs().amax(dim=1), self.logits, dtype
            ).max()
        )

    def joined(self, others: Sequence[Explanation]) -> LocalExplanation:
        """One explanation of these photos and, behind them, of those of others."""
        parts = [
            self,
            *(other for other in others if isinstance(other, LocalExplanation)),
        ]
        suffix = self.suffix.joined([part.suffix for part in parts[1:]])
        logits, feature_map, subjects = _joined(parts)
        return dataclasses.replace(
            self,
            logits=logits,
            feature_map=feature_map,
            subjects=subjects,
            suffix=suffix,
        )

    def _cut(self, image: int) -> LocalExplanation:
        logits, feature_map, subjects = _one(self, image)
        one = dataclasses.replace(
            self,
            logits=logits,
            feature_map=feature_map,
            subjects=subjects,
            suffix=self.suffix[image],
        )
        chosen = slice(image, image + 1)
        for index, (maps, contributions, weights) in self._gradients.items():
            one._gradients[index] = maps[chosen], contributions[chosen], weights[chosen]
        return one

    def _classes(self, classes: Classes | None) -> list[int]:
        return (
            list(range(len(self.labels)))
            if classes is None
            else class_indices(self.labels, classes)
        )

    def _of(self, classes: Classes | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        chosen = self._classes(classes)
        missing = [
            index for index in dict.fromkeys(chosen) if index not in self._gradients
        ]
        if missing:
            known = self._gradients

            def take(index: int, gradient: Tensor) -> None:
                known[index] = self._account(gradient)

            self.suffix.gradients(self.feature_map, self.logits, missing, take)
        return [self._gradients[index] for index in chosen]

    def _account(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map, contributions and weights from the gradient (batch, unit, row, col) of one class's logit."""
        weights = gradient.sum(dim=(2, 3))
        if self.head.method == "gradcam":
            with unrounded(weights):
                return (
                    torch.einsum("bu,buyx->byx", weights, self.feature_map),
                    weights * self.pooled,
                    weights,
                )
        product = gradient * self.feature_map
        return (
            product.sum(dim=1) * (product.shape[2] * product.shape[3]),
            product.sum(dim=(2, 3)),
            weights,
        )


def _checked_count(at_once: int | None) -> int | None:
    """The number of units to be told of together; raises InputError below one."""
    if at_once is not None and (
        isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1
    ):
        raise InputError(
            "at_once is how many units are told of together, 1 or more, not "
            f"{at_once!r}"
        )
    return at_once


_Parts: TypeAlias = tuple[Tensor, Tensor, tuple[Subject, ...]]


def _one(explanation: Explanation, image: int) -> _Parts:
    chosen = slice(image, image + 1)
    return (
        explanation.logits[chosen],
        explanation.feature_map[chosen],
        explanation.subjects[chosen],
    )


def _joined(parts: Sequence[Explanation]) -> _Parts:
    subjects = tuple(subject for part in parts for subject in part.subjects)
    return (
        torch.cat([part.logits for part in parts]),
        torch.cat([part.feature_map for part in parts]),
        subjects,
    )
