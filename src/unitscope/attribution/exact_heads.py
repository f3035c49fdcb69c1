"""Exact heads: the kinds whose maps and contributions add up to the logits."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import blank, without_autocast
from unitscope.attribution.head import Head
from unitscope.attribution.head_path import HeadPath
from unitscope.attribution.pooling import Pool, is_pointwise
from unitscope.attribution.readings import AVERAGE, Spread, slices_of
from unitscope.attribution.readout import Readout
from unitscope.attribution.steps import POOLED, Step
from unitscope.geometry import Grid
from unitscope.tracing.axes import Axes

# Indices of classes. None stands for all of them, and needs no copy of the weights.
ClassIndices: TypeAlias = list[int] | None

# So many maps are named where a head reads several.
_MOST_NAMES = 3


class Found(NamedTuple):
    """Where a kind of head applies: its path, and the pools of the maps that it reads."""

    path: HeadPath
    pools: tuple[Pool, ...]


class Source(NamedTuple):
    """One pool of a feature map: the name of this part of the head, the units, in words.

    `is_plain` says whether its map holds activations, or else shares of pooled units.
    """

    name: str
    units: int
    words: str
    is_plain: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactHead(Head):
    """Feature map → global average pool → affine layers, proved on numbers.

    `readout` is how pooled units become logits, with float32 copies of the weights. What
    else is affine between the pool and the logits (a batch normalisation, a temperature,
    the sum of two linear layers) is part of its weight and bias. `sources` are the pools
    that the units come from, in their order. `error` is the largest violation of
    readout(mean over cells of the feature map) = logits.

    In the methods `pooled` is the mean of every unit's map over its cells. Each kind says
    when it applies and what it is called; the algebra is here, for a kind to override.
    """

    exact = True
    adds_up = True

    readout: Readout = field(repr=False)
    sources: tuple[Source, ...]

    @classmethod
    @abstractmethod
    def path_to(cls, last: Step, pools: Sequence[Pool]) -> Found | None:
        """The head's path and the pools of its maps, if this kind applies.

        `last` is the step that makes the logits, `pools` are those that it goes back to.
        """

    @property
    def weight(self) -> Float[Tensor, "class unit"]:
        """What a logit gains per unit's pooled activation, before a norm's divisor."""
        return self.readout.weight

    @property
    def bias(self) -> Float[Tensor, "class"]:
        """The logits when all units are at zero."""
        return self.readout.bias

    @property
    def pooled_channels(self) -> int:
        """How many channels the pool averages."""
        return self.map_shape[0]

    @property
    def has_table(self) -> bool:
        """See Head: not with a projection before the norm."""
        return self.readout.embedding is None

    def gives_activations(self, units: Sequence[int]) -> bool:
        """See Head."""
        of_units = [
            source for source in self.sources for _ in range(source.units)
        ]
        return all(of_units[unit].is_plain for unit in units)

    def cams(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        pooled: Float[Tensor, "batch unit"],
        classes: ClassIndices,
    ) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps, in logits.

        cam[c] = Σ_u W[c,u] · A[u] / divisor (Zhou et al., CVPR 2016).
        """
        weight = self.weight if classes is None else self.weight[classes]
        with without_autocast(feature_map):
            maps = torch.einsum("cu,buyx->bcyx", weight, feature_map)
        if self.readout.norm is None:
            return maps
        divisor = self.readout.divisor(pooled)
        return maps / divisor[:, :, None, None]

    def contributions(
        self, pooled: Float[Tensor, "batch unit"], classes: ClassIndices
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the logits: W[c,u] · mean(A[u]) / divisor."""
        weight = self.weight if classes is None else self.weight[classes]
        divisor = self.readout.divisor(pooled)
        shares = pooled / divisor
        shares = shares[:, None, :]
        if shares.requires_grad or weight.requires_grad:
            return shares * weight
        out = blank((len(pooled), *weight.shape), shares)
        return torch.mul(shares, weight, out=out)

    def parts(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> dict[str, Float[Tensor, "batch class"]]:
        """What every pool gives of the logits, and the bias: they add up to the logits."""
        shares = pooled / self.readout.divisor(pooled)
        parts = {}
        for source, units in self._slices():
            with without_autocast(pooled):
                parts[source.name] = shares[:, units] @ self.weight[:, units].T
        parts["bias"] = self.left_out(pooled, None)
        return parts

    def left_out(
        self, pooled: Float[Tensor, "batch unit"], classes: ClassIndices
    ) -> Float[Tensor, "batch class"]:
        """What maps and contributions leave out of the logits: the constants of the head."""
        left_out = self.readout.left_out(pooled)
        return left_out if classes is None else left_out[:, classes]

    def weights_of_class(
        self, pooled: Float[Tensor, "batch unit"], index: int
    ) -> Float[Tensor, "batch unit"]:
        """What the class's logit gains when a unit's mean activation grows by one."""
        divisor = self.readout.divisor(pooled)
        return self.weight[index] / divisor

    def logits(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch class"]:
        """The logits of pooled units, some of which may be switched off."""
        return self.readout.logits(pooled)

    def logits_without_each(
        self,
        pooled: Float[Tensor, "batch unit"],
        logits: Float[Tensor, "batch class"],
        classes: ClassIndices,
    ) -> Float[Tensor, "batch unit chosen"]:
        """The logits with every unit off in turn; `logits` are those with all units on."""
        return self.readout.logits_without_each(pooled, logits, classes)

    def logits_without_few(
        self,
        pooled: Float[Tensor, "batch unit"],
        logits: Float[Tensor, "batch class"],
        classes: ClassIndices,
        units: list[int],
        at_once: int | None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few chosen"]]]:
        """The same for chosen units, a few at a time: the units and their logits."""
        return self.readout.logits_without_few(
            pooled, logits, classes, units, at_once
        )

    def describe(self) -> str:
        """One line in words."""
        after = "" if self.layer_is_map else " and the function after it"
        return (
            f"{self._shape()}; the map is the output of '{self.layer}'{after}"
        )

    def sources_in_words(self) -> str:
        """See Head."""
        if len(self.sources) == 1:
            return ""
        return ", ".join(
            f"{units.start}–{units.stop - 1} from the {source.words}"
            for source, units in self._slices()
        )

    def as_json(self) -> dict[str, Any]:
        """The head as plain data: the "answer" of docs/json.md."""
        norm = self.readout.norm
        sources = [
            {
                "name": source.name,
                "units": source.units,
                "activations": source.is_plain,
            }
            for source in self.sources
        ]
        return {
            **super().as_json(),
            "norm": norm.kind if norm else None,
            "sources": sources,
        }

    def _slices(self) -> list[tuple[Source, slice]]:
        """Every pool, and where its units stand among those of all."""
        units = slices_of(source.units for source in self.sources)
        return list(zip(self.sources, units, strict=True))

    @abstractmethod
    def _shape(self) -> str:
        """The layers of the head in words."""

    def _feature_map(self) -> str:
        units, rows, cols = self.map_shape
        return f"feature map {units}×{rows}×{cols}"


class GapLinear(ExactHead):
    """Pooled units, then a linear layer (ResNet)."""

    kind = "gap-linear"
    has_linear_layer = True

    @classmethod
    def path_to(cls, last: Step, pools: Sequence[Pool]) -> Found | None:
        """See ExactHead."""
        return _path(last, pools) if last.has("linear") else None

    def _shape(self) -> str:
        linear = f"linear layer of {len(self.bias)} classes"
        return f"{self._feature_map()} → global average pool → {linear}"


class GapNormLinear(ExactHead):
    """Pooled units, a normalisation of them, then a linear layer (ConvNeXt)."""

    kind = "gap-norm-linear"
    has_linear_layer = True

    @classmethod
    def path_to(cls, last: Step, pools: Sequence[Pool]) -> Found | None:
        """See ExactHead."""
        divides = last.has("norm") or last.has("cosine")
        return _path(last, pools) if divides else None

    def _shape(self) -> str:
        linear = f"linear layer of {len(self.bias)} classes"
        steps = [self._feature_map(), "global average pool"]
        return " → ".join([*steps, *_norms_of(self.readout), linear])


class ConvGap(ExactHead):
    """A 1×1 convolution, then the pool: the two commute, so its weights are the head's."""

    kind = "conv-gap"

    @property
    def pooled_channels(self) -> int:
        """How many channels the pool averages: one a class."""
        return len(self.bias)

    @classmethod
    def path_to(cls, last: Step, pools: Sequence[Pool]) -> Found | None:
        """See ExactHead; the convolution's input is the feature map."""
        if not _is_one_mean(pools) or pools[0].axes != Axes():
            return None
        source = pools[0].source
        if source.name != "conv2d" or not is_pointwise(source):
            return None
        linear = Step("linear", source.index, source.name, (POOLED,))
        steps = _with_ground(last, linear)
        before = pools[0]._replace(calls=(source,), source=source.inputs[0])
        return Found(HeadPath((before.reading(),), steps), (before,))

    def _shape(self) -> str:
        classes = f"global average pool: {len(self.bias)} classes"
        return f"{self._feature_map()} → 1×1 convolution → {classes}"


class Gap(ExactHead):
    """The pooled maps are the logits themselves, so a unit is a class (SqueezeNet)."""

    kind = "gap"
    units_are_classes = True

    @classmethod
    def path_to(cls, last: Step, pools: Sequence[Pool]) -> Found | None:
        """See ExactHead."""
        return _path(last, pools)

    def _shape(self) -> str:
        units, rows, cols = self.map_shape
        return f"one map an output, {units}×{rows}×{cols} → global average pool"


class PoolsLinear(ExactHead):
    """Several pools, of one map or of many, or a pool that is no mean; then linear layers.

    Units are those that the pools give, one behind the other.
    """

    kind = "pools-linear"
    has_linear_layer = True

    @classmethod
    def path_to(cls, last: Step, pools: Sequence[Pool]) -> Found | None:
        """See ExactHead. Maps are laid on one grid: see `common_grid`."""
        grid, cells = common_grid(pools)
        readings = []
        for pool in pools:
            spread = Spread.between(pool.grid, pool.cells, grid, cells)
            readings.append(pool.reading(spread))
        return Found(HeadPath(tuple(readings), last), tuple(pools))

    @property
    def map_name(self) -> str:
        """See Head: of several maps, the names of the first ones."""
        names = [source.name for source in self.sources]
        more = len(names) - _MOST_NAMES
        if more > 0:
            names[_MOST_NAMES:] = [f"{more} more"]
        return " + ".join(names)

    def describe(self) -> str:
        """One line in words."""
        return self._shape()

    def _shape(self) -> str:
        pools = " and ".join(source.words for source in self.sources)
        linear = f"linear readout of {len(self.bias)} classes"
        return " → ".join([pools, *_norms_of(self.readout), linear])


# The first that applies is taken.
EXACT_KINDS: tuple[type[ExactHead], ...] = (
    GapNormLinear,
    GapLinear,
    ConvGap,
    Gap,
    PoolsLinear,
)


def _norms_of(readout: Readout) -> list[str]:
    """The normalisations before the classes in words, and the projections before them."""
    if readout.norm is None:
        return []
    before = []
    if readout.embedding is not None:
        inner = readout.embedding.readout
        before = [*_norms_of(inner), f"projection to {len(inner.bias)}"]
    return [*before, f"{readout.norm.kind} normalisation"]


def finest_of(pools: Sequence[Pool]) -> Pool:
    """The pool of the map with the most cells."""
    return max(pools, key=lambda pool: math.prod(pool.cells))


def common_grid(pools: Sequence[Pool]) -> tuple[Grid, tuple[int, int]]:
    """The grid on which the maps of all pools are laid, and its cells (rows, cols).

    It is that of the finest map, made so large that it covers the maps of all: they may
    be of several crops of the photo.
    """
    finest = finest_of(pools)
    grid, (rows, cols) = finest.grid, finest.cells
    in_rows = [pool.grid.rows.centres(pool.cells[0]) for pool in pools]
    in_cols = [pool.grid.cols.centres(pool.cells[1]) for pool in pools]
    down, rows = grid.rows.covering(rows, np.concatenate(in_rows))
    across, cols = grid.cols.covering(cols, np.concatenate(in_cols))
    traced = all(pool.grid.traced for pool in pools)
    return Grid(down, across, traced), (rows, cols)


def _path(last: Step, pools: Sequence[Pool]) -> Found | None:
    if not _is_one_mean(pools):
        return None
    return Found(HeadPath((pools[0].reading(),), last), tuple(pools))


def _is_one_mean(pools: Sequence[Pool]) -> bool:
    return len(pools) == 1 and pools[0].kinds == (AVERAGE,)


def _with_ground(step: Step, ground: Step) -> Step:
    """The same steps, with `ground` in the place of the pooled units."""
    if step.kind == "pooled":
        return ground
    before = tuple(_with_ground(earlier, ground) for earlier in step.before)
    return replace(step, before=before)
