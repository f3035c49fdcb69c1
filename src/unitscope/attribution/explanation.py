"""Explanation: why a classifier gave its logits, for a batch of photos."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import cell_means, without_autocast
from unitscope.attribution.classes import (
    Classes,
)
from unitscope.attribution.contrast import Contrast
from unitscope.attribution.effects import Effect, check_effect
from unitscope.attribution.flip import Flip, Flipping
from unitscope.attribution.flip_search import find_flip
from unitscope.attribution.head import Head
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.predicted import Predicted
from unitscope.attribution.region import Region, area_of
from unitscope.attribution.rounding import relative_difference
from unitscope.attribution.scores import Scores
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.drawable import Drawable
from unitscope.geometry import Grid, lay_on_photo
from unitscope.inputs.subjects import Subject
from unitscope.plurals import plural
from unitscope.tracing.layers import check_units, checked_count, recording

# Units per chunk where each ablation is a real forward pass.
_UNITS_AT_ONCE = 16

Units: TypeAlias = int | str | Sequence[int | str] | Tensor
"""Numbers of units, or names of those that have them: attention heads ("3.5")."""

Kind = TypeVar("Kind", bound="Explanation")


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
class Explanation(Predicted, Drawable, ABC):
    """Why a classifier gave its logits, for a batch of photos.

    An `ExactExplanation` is algebra: maps and contributions add up to the logits, and
    ablation needs no forward pass. A `LocalExplanation`, for a network or a layer without
    an exact head, is gradient × activation: what the logits would gain from a little more
    of what is there. Its `left_out` is the measured gap between the two, and its
    ablations are real forward passes. `exact` says which it is, `head` how it was found
    and at which layer. `off` lists the units that are switched off, `altered` those that
    have another value, or have it in some cells.

    `logits` (batch, class); `feature_map` (batch, unit, row, col); `input_size` (rows,
    cols) of the network's input. `rounded` is how far logits and feature map are from
    those in float32 where they were computed in bfloat16, relative to the largest of
    each, measured on the first photos; 0 where nothing was rounded. `scores` says how
    logits become probabilities, or that they are such. What is `differentiable` carries
    gradients; all others are detached, and a loss made from them trains nothing.
    """

    logits: Float[Tensor, "batch class"]
    feature_map: Float[Tensor, "batch unit row col"]
    head: Head
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    input_size: tuple[int, int]
    off: tuple[int, ...] = ()
    altered: tuple[int, ...] = ()
    rounded: float = 0.0
    differentiable: bool = False
    scores: Scores = dataclasses.field(kw_only=True)

    def __repr__(self) -> str:
        units, rows, cols = self.feature_map.shape[1:]
        noun = self.head.unit_noun
        maps = f"{plural(units, noun)} of {rows}×{cols} cells"
        off = f", {plural(len(self.off), noun)} off" if self.off else ""
        if self.altered:
            off += f", {plural(len(self.altered), noun)} changed"
        kind = "" if self.exact else f", local at '{self.layer}'"
        if self.head.maps_are_a_part:
            kind = f", {self.head.kind}"
        photos = plural(len(self), "photo")
        classes = plural(len(self.labels), "class")
        return f"<Explanation of {photos}: {maps}, {classes}{off}{kind}>"

    def __getitem__(self, image: int) -> Explanation:
        """The explanation of one photo of the batch, as a batch of one."""
        if not -len(self) <= image < len(self):
            raise IndexError(
                f"there is no photo {image} in an explanation of {len(self)}"
            )
        return self._cut(image % len(self))

    def __iter__(self) -> Iterator[Explanation]:
        return (self[image] for image in range(len(self)))

    def joined(self, others: Sequence[Explanation]) -> Explanation:
        """One explanation of these photos and, behind them, those of `others`.

        All must come from the same network.
        """
        parts = [self, *others]
        return dataclasses.replace(
            self,
            logits=torch.cat([part.logits for part in parts]),
            feature_map=torch.cat([part.feature_map for part in parts]),
            subjects=tuple(
                subject for part in parts for subject in part.subjects
            ),
        )

    @abstractmethod
    def cams_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps of some classes, in logits; of all when None."""

    @abstractmethod
    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the logits of some classes; of all when None.

        The contributions of a class add up to the mean of its map.
        """

    @abstractmethod
    def left_out_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class"]:
        """What the maps of some classes leave out: logit − mean of the map.

        With an exact head it is the bias; with a local answer, everything that gradient
        × activation does not account for.
        """

    @abstractmethod
    def parts_of(
        self, classes: Classes | None
    ) -> dict[str, Float[Tensor, "batch class"]]:
        """What every part gives of some classes' logits, by name: see `parts`."""

    @property
    def parts(self) -> dict[str, Float[Tensor, "batch class"]]:
        """What every part gives of the logits, by name: all parts add up to the logits.

        With an exact head the parts are the pools of its feature maps (one for most
        networks, more for an ensemble or for pools beside each other) and "bias"; with a
        local answer the layer's map and what is "left out".
        """
        return self.parts_of(None)

    @abstractmethod
    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """What a class's logit gains when a unit's mean activation grows by one."""

    def ablate(
        self: Kind,
        units: Units | None,
        *,
        region: Region | None = None,
        value: float = 0.0,
    ) -> Kind:
        """The explanation with `units` off (None: all), equal to a real forward pass.

        Their maps are zero, or have another `value`, a number; with a `region` only its
        cells do.
        Raises UnitError for a unit that does not exist, InputError for a region or a value
        that is none.
        """
        chosen = self._units_or_all(units)
        cells = tuple(self.feature_map.shape[2:])
        changed = self.changed(chosen, MapChange.of(value, region, cells))
        assert isinstance(changed, type(self))
        return changed

    @abstractmethod
    def changed(self, units: list[int], change: MapChange) -> Explanation:
        """The explanation with units of the feature map changed."""

    @abstractmethod
    def each_changed(
        self, units: list[int], change: MapChange
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """Of one photo, the logits with each of `units` changed in turn.

        Some units come at a time, in any order.
        """

    def logits_without(
        self, units: Units, effect: Effect = "total"
    ) -> Float[Tensor, "batch class"]:
        """The logits with `units` off. With an exact head both effects are the same.

        Raises InputError for a direct effect of a local answer, which knows none.
        """
        check_effect(effect, self.head)
        return self.ablate(units).logits

    @abstractmethod
    def ablate_each(
        self, classes: Classes | None = None, units: Units | None = None
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit, or each of `units`, off in turn."""

    def ablations(
        self,
        classes: Classes | None = None,
        units: Units | None = None,
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few class"]]]:
        """What `ablate_each` gives, a few units at a time: the units, and the logits.

        Memory is that of `at_once` units, by default a few megabytes' worth, however many
        there are.
        """
        chosen = self._units_or_all(units)
        count = checked_count(at_once) or _UNITS_AT_ONCE
        starts = range(0, len(chosen), count)
        chunks = (chosen[start : start + count] for start in starts)
        return ((chunk, self.ablate_each(classes, chunk)) for chunk in chunks)

    @abstractmethod
    def maximal_unit(self, which: int | str) -> int:
        """The unit that counts most for a class.

        With an exact head it is the one of the largest weight, the same for every photo.
        """

    @abstractmethod
    def classes_of_unit(
        self, unit: int, count: int = 3
    ) -> list[tuple[str, float]]:
        """The classes that gain most from a unit: labels and weights, largest first."""

    @abstractmethod
    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding in a network of this dtype may do to the logits.

        Relative to the largest logit; 1e-5 or more.
        """

    def contrast(
        self, a: int | str | None = None, b: int | str | None = None
    ) -> Contrast:
        """Why class `a` and not `b`: logit a − logit b, taken apart.

        Each is a label or an index, by default the best class but the other. Raises
        ClassError for the same class twice, and where there is one class only.
        """
        with self._recording():
            return Contrast.of(self, a, b)

    def flip(
        self,
        to: int | str | None = None,
        *,
        of: Flipping = "units",
        most: int | None = None,
        image: int = 0,
    ) -> Flip:
        """The smallest set of units, "cells" or a "region" `of` a photo that flips it.

        `Flip` says when it is proved. Any class may overtake, or only `to`; the set has
        `most` members at most. Raises ClassError and InputError: see `find_flip`.
        """
        return find_flip(self[image].detach(), to, of, most)

    @property
    def exact(self) -> bool:
        """Whether maps add up to the logits and ablation needs no forward pass."""
        return self.head.exact

    @property
    def adds_up(self) -> bool:
        """Whether the parts add up to the logits by what they are, and nothing is left out."""
        return self.head.adds_up

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
        with self._recording():
            return cell_means(self.feature_map)

    @cached_property
    def cams(self) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps of all classes, in logits.

        mean(cam[c]) + left_out[c] = logit[c].
        """
        with self._recording():
            return self.cams_of(None)

    @property
    def contributions(self) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to every logit: Σ_u contribution[c,u] + left_out[c] = logit[c].

        Computed when read and not kept: for 1000 classes and 2048 units it is 8 MB a
        photo.
        """
        return self.contributions_of(None)

    @property
    def left_out(self) -> Float[Tensor, "batch class"]:
        """What the maps leave out: the bias of an exact head, the gap of a local answer."""
        return self.left_out_of(None)

    @cached_property
    def completeness_error(self) -> Float[Tensor, " batch"]:
        """How far mean(cam) + bias is from the logit, at most over the classes.

        Relative to the largest |logit|. A local answer has no bias: the figure is then the
        share of the largest logit that its maps leave out.
        """
        rebuilt = self.cams.mean(dim=(2, 3)) + self._bias()
        return relative_difference(rebuilt, self.logits)

    def detach(self) -> Explanation:
        """The same explanation without gradients."""
        return dataclasses.replace(
            self,
            logits=self.logits.detach(),
            feature_map=self.feature_map.detach(),
            differentiable=False,
        )

    def _drawn(self) -> Explanation:
        return self.detach() if self.differentiable else self

    def _recording(self) -> contextlib.AbstractContextManager[None]:
        """Numbers that are kept carry gradients, in whatever context they are first read."""
        return recording() if self.differentiable else contextlib.nullcontext()

    def cams_on_photo(
        self,
        image: int,
        classes: Classes,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> Float[np.ndarray, "class height width"]:
        """Maps of one photo laid where they belong on it, in logits; NaN beyond the crop.

        `size` is (width, height).
        """
        photo = self[image]
        maps = photo.cams_of(classes)[0].detach().cpu().numpy()
        placement = photo.subjects[0].placement(self.input_size)
        return lay_on_photo(maps, self.grid, placement, size, interpolation)

    def evidence(
        self, region: Region, classes: Classes | None = None
    ) -> Float[Tensor, "batch class"]:
        """The evidence for every class (or some) from a region of the map, in logits.

        `region` (row, col) holds 1 where a cell belongs to the region, 0 where not, or
        its share; see `Region` for shorter forms. A cell gives (cam[c] + left_out[c]) /
        cells, so regions that tile the map add up to the logit.
        """
        share = area_of(region, self.feature_map)
        cams = self.cams if classes is None else self.cams_of(classes)
        with without_autocast(cams):
            from_maps = torch.einsum("bcyx,yx->bc", cams, share)
            from_bias = share.sum() * self.left_out_of(classes)
            return from_maps + from_bias

    def top_units(
        self, which: int | str, count: int = 8, image: int = 0
    ) -> list[UnitContribution]:
        """The units that add most to a class on one photo, largest contribution first."""
        photo = self[image]
        contributions = photo.contributions_of(which)[0, 0].detach().cpu()
        weights = photo.weights_of(which)[0].detach().cpu()
        pooled = photo.pooled[0].detach().cpu()
        order = torch.argsort(contributions, descending=True, stable=True)
        return [
            UnitContribution(
                unit,
                float(contributions[unit]),
                float(weights[unit]),
                float(pooled[unit]),
            )
            for unit in order[:count].tolist()
        ]

    def unit_maps(self, units: Units) -> UnitMaps:
        """The feature maps of chosen units."""
        chosen = self._chosen_units(units)
        return UnitMaps(
            self.head.map_name,
            tuple(chosen),
            self.feature_map[:, chosen].detach(),
            self.grid,
            self.input_size,
            self.subjects,
            hold=self.head.maps_hold(chosen),
            noun=self.head.unit_noun,
            names=tuple(map(self.head.unit_name, chosen)),
        )

    @abstractmethod
    def _bias(self) -> Float[Tensor, "batch class"] | float:
        """What the logits are without any unit, where the head knows it."""

    def _cut(self, image: int) -> Explanation:
        """The explanation of one photo."""
        photo = slice(image, image + 1)
        return dataclasses.replace(
            self,
            logits=self.logits[photo],
            feature_map=self.feature_map[photo],
            subjects=self.subjects[photo],
        )

    def _chosen_units(self, units: Units) -> list[int]:
        where = (
            "the last feature map" if self.exact else f"layer '{self.layer}'"
        )
        return check_units(units, self.feature_map.shape[1], where)

    def _units_or_all(self, units: Units | None) -> list[int]:
        if units is None:
            return list(range(self.feature_map.shape[1]))
        return self._chosen_units(units)
