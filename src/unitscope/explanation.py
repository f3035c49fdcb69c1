"""Explanation: logits, class activation maps, contributions and ablation, as exact algebra on one forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unitscope.classes import Classes, Prediction, class_index, class_indices, ranked
from unitscope.drawable import Drawable
from unitscope.errors import InputError
from unitscope.geometry import lay_on_photo
from unitscope.head import Head, relative_difference
from unitscope.layers import check_units
from unitscope.photos import PhotoSource
from unitscope.subjects import Subject
from unitscope.unit_maps import UnitMaps


class UnitContribution(NamedTuple):
    """What one unit adds to one logit: `contribution` = `weight` · `mean_activation`."""

    unit: int
    contribution: float
    weight: float
    mean_activation: float


@dataclass(frozen=True, eq=False)
class Explanation(Drawable):
    """Why a classifier gave its logits, for a batch of photos.

    For a network that ends in *feature map A → global average pool → linear layer (W, b)*, everything here is exact
    algebra on numbers of one forward pass: class activation maps (Zhou et al., CVPR 2016), contributions of units, and
    the logits with any units switched off. `off` lists the units that were switched off; `logits` are the network's own
    where it is empty, and the algebra's otherwise.

    `logits` (batch, class); `feature_map` (batch, unit, row, col); `input_size` (rows, cols) of the network's input.
    """

    logits: Float[Tensor, "batch class"]
    feature_map: Float[Tensor, "batch unit row col"]
    head: Head
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    input_size: tuple[int, int]
    off: tuple[int, ...] = ()

    def __repr__(self) -> str:
        units, rows, cols = self.feature_map.shape[1:]
        off = f", {len(self.off)} units off" if self.off else ""
        maps = f"{units} units of {rows}×{cols} cells"
        return f"<Explanation of {len(self)} photos: {maps}, {len(self.labels)} classes{off}>"

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, image: int) -> Explanation:
        """The explanation of one photo of the batch, as a batch of one."""
        if not -len(self) <= image < len(self):
            raise IndexError(f"there is no photo {image} in an explanation of {len(self)}")
        chosen = slice(image % len(self), image % len(self) + 1)
        return dataclasses.replace(
            self, logits=self.logits[chosen], feature_map=self.feature_map[chosen], subjects=self.subjects[chosen]
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[image] for image in range(len(self)))

    @cached_property
    def pooled(self) -> Float[Tensor, "batch unit"]:
        """The mean of every unit's feature map over its cells."""
        return self.feature_map.mean(dim=(2, 3))

    @cached_property
    def cams(self) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps of all classes, in logits: cam[c] = Σ_u W[c,u] · A[u].

        mean(cam[c]) + b[c] = logit[c].
        """
        return self.cams_of(None)

    @property
    def contributions(self) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to every logit: W[c,u] · mean(A[u]); Σ_u contribution[c,u] + b[c] = logit[c].

        Computed when read and not kept: for 1000 classes and 2048 units it is 8 MB a photo.
        """
        return self.pooled[:, None, :] * self.head.weight

    @cached_property
    def completeness_error(self) -> Float[Tensor, " batch"]:
        """How far mean(cam) + b is from the logit: the largest difference over the classes / the largest |logit|."""
        return relative_difference(self.cams.mean(dim=(2, 3)) + self.head.bias, self.logits)

    def inputs(self) -> list[PhotoSource] | Tensor:
        """What was explained, to be explained again: the photos' sources, or the tensor (batch, channel, row, col)."""
        tensors = [subject.tensor for subject in self.subjects if subject.tensor is not None]
        return torch.stack(tensors) if tensors else [s.source for s in self.subjects if s.source is not None]

    def top(self, count: int = 5) -> list[list[Prediction]]:
        """For every photo, its `count` classes of the largest logits: label, index, logit, probability; best first."""
        return [ranked(logits, self.labels, count) for logits in self.logits.cpu()]

    def class_index(self, which: int | str) -> int:
        """The index of a class given by label or index; raises ClassError with near matches."""
        return class_index(self.labels, which)

    def cams_of(self, classes: Classes | None) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps of the named classes only, in logits (all classes when None)."""
        weight = self.head.weight if classes is None else self.head.weight[class_indices(self.labels, classes)]
        return torch.einsum("cu,buyx->bcyx", weight, self.feature_map)

    def cams_on_photo(
        self,
        image: int,
        classes: Classes,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> Float[np.ndarray, "class height width"]:
        """Maps of one photo laid where they belong on it, at `size` (width, height), in logits; NaN beyond the crop."""
        maps = self[image].cams_of(classes)[0].cpu().numpy()
        return lay_on_photo(maps, self.head.grid, self.subjects[image].placement(self.input_size), size, interpolation)

    def evidence(self, region: Shaped[Tensor, "row col"]) -> Float[Tensor, "batch class"]:
        """The evidence for every class from a region of the map, in logits.

        `region` (row, col) holds 1 where a cell belongs to the region, 0 where not, or its share. A cell gives
        (cam[c] + b[c]) / cells, so that regions which tile the map add up to the logit.
        """
        rows, cols = self.feature_map.shape[2:]
        if tuple(region.shape) != (rows, cols):
            raise InputError(f"a region has the map's {rows}×{cols} cells, not {tuple(region.shape)}")
        share = region.to(self.feature_map) / (rows * cols)
        seen = torch.einsum("buyx,yx->bu", self.feature_map, share)
        return seen @ self.head.weight.T + share.sum() * self.head.bias

    def ablate(self, units: int | Sequence[int] | Tensor) -> Explanation:
        """The explanation with `units` switched off (their maps zero), equal to a real forward pass without them.

        Raises UnitError for a unit that does not exist.
        """
        chosen = self._units(units)
        feature_map = self.feature_map.clone()
        feature_map[:, chosen] = 0
        logits = feature_map.mean(dim=(2, 3)) @ self.head.weight.T + self.head.bias
        off = tuple(dict.fromkeys((*self.off, *chosen)))
        return dataclasses.replace(self, logits=logits, feature_map=feature_map, off=off)

    def ablate_each(self, classes: Classes | None = None) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit off in turn, logit[c] − contribution[c,u], for the named classes or all."""
        if classes is None:
            return self.logits[:, None, :] - self.contributions.transpose(1, 2)
        chosen = class_indices(self.labels, classes)
        contributions = self.pooled[:, :, None] * self.head.weight[chosen].T
        return self.logits[:, None, chosen] - contributions

    def maximal_unit(self, which: int | str) -> int:
        """The unit with the largest weight for a class, argmax_u W[class, u]: the same for every photo."""
        return int(self.head.weight[self.class_index(which)].argmax())

    def top_units(self, which: int | str, count: int = 8, image: int = 0) -> list[UnitContribution]:
        """The units that add most to a class on one photo, largest contribution first."""
        index = self.class_index(which)
        contribution = (self.pooled[image] * self.head.weight[index]).cpu()
        order = torch.argsort(contribution, descending=True, stable=True)[:count].tolist()
        weight, pooled = self.head.weight[index].cpu(), self.pooled[image].cpu()
        return [UnitContribution(u, float(contribution[u]), float(weight[u]), float(pooled[u])) for u in order]

    def classes_of_unit(self, unit: int, count: int = 3) -> list[tuple[str, float]]:
        """The classes that a unit speaks for: the labels with its largest weights, and those weights."""
        column = self.head.weight[:, self._units(unit)[0]].cpu()
        order = torch.argsort(column, descending=True, stable=True)[:count].tolist()
        return [(self.labels[index], float(column[index])) for index in order]

    def unit_maps(self, units: int | Sequence[int] | Tensor) -> UnitMaps:
        """The feature maps of chosen units of the last feature map."""
        chosen = self._units(units)
        return UnitMaps(
            self.head.layer, tuple(chosen), self.feature_map[:, chosen], self.head.grid, self.input_size, self.subjects
        )

    def _units(self, units: int | Sequence[int] | Tensor) -> list[int]:
        return check_units(units, self.feature_map.shape[1], "the last feature map")
