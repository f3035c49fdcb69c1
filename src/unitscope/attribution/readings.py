"""Readings: what pools make of feature maps, as maps whose mean is the pooled unit.

An average pool reads the map as it is. A maximum, or a generalised mean, is homogeneous
of degree one: by Euler's theorem a pooled unit is Σ cell · ∂unit/∂cell. Those products,
times the number of cells, are a map with the pooled unit as its mean, and of zeros where
the unit's map is zero. All that follows is the same for every kind of pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import recorded
from unitscope.attribution.map_change import MapChange
from unitscope.geometry import Grid, spread_weights
from unitscope.tracing.axes import Axes
from unitscope.tracing.taps import Caught

AVERAGE = "average"
MAXIMUM = "maximum"
POWER_MEAN = "generalised mean"


@dataclass(frozen=True, eq=False)
class Spread:
    """How the cells of a map are spread over those of a finer one, along either side."""

    down: Float[Tensor, "row2 row"] = field(repr=False)
    across: Float[Tensor, "col2 col"] = field(repr=False)

    @classmethod
    def between(
        cls,
        source: Grid,
        cells: tuple[int, int],
        target: Grid,
        target_cells: tuple[int, int],
    ) -> Spread | None:
        """From one grid of cells (rows, cols) to another; None where they are the same."""
        is_same = source.rows == target.rows and source.cols == target.cols
        if is_same and cells == target_cells:
            return None
        (rows, cols), (target_rows, target_cols) = cells, target_cells
        down = spread_weights(source.rows, rows, target.rows, target_rows)
        across = spread_weights(source.cols, cols, target.cols, target_cols)
        return cls(
            torch.from_numpy(down).to(torch.float32),
            torch.from_numpy(across).to(torch.float32),
        )

    def __call__(
        self, map_: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit row2 col2"]:
        """The map on the other grid, with the same mean."""
        down = self.down.to(map_)
        across = self.across.to(map_)
        return down @ map_ @ across.T

    def weighted(
        self, map_: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit row2 col2"]:
        """The map on the other grid, with the same numbers: 0 where it has no cells."""
        down, across = _averaging(self.down), _averaging(self.across)
        return down.to(map_) @ map_ @ across.T.to(map_)


@dataclass(frozen=True, eq=False)
class Reading:
    """How pools read one feature map: by which calls, along which axes, and what they take.

    `kinds` are "average", "maximum" and "generalised mean"; of several the sum is taken.
    `calls` are as many, by index and name; each of them has the map as its first
    argument. `shape` is the map's (unit, row, col). Its cells are laid on those of the
    finest map that the head reads by `spread`.
    """

    calls: tuple[tuple[int, str], ...]
    kinds: tuple[str, ...]
    axes: Axes
    shape: tuple[int, int, int]
    spread: Spread | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the map is read as it is."""
        return self.kinds == (AVERAGE,) and self.spread is None

    @property
    def cells(self) -> int:
        """How many cells the pool reads."""
        return math.prod(self.shape[1:])

    def map_of(
        self, caught: Mapping[int, Caught]
    ) -> Float[Tensor, "batch unit row col"]:
        """The feature map itself, float32."""
        first = caught[self.calls[0][0]].first
        return self.axes.units_first(first).to(torch.float32).contiguous()

    def read(
        self, caught: Mapping[int, Caught]
    ) -> Float[Tensor, "batch unit row2 col2"]:
        """The map whose means over the cells are the pooled units."""
        map_ = self.map_of(caught)
        if self.is_plain:
            return map_
        calls = [caught[index] for index, _ in self.calls]
        parts = [
            _weighted(map_, kind, call)
            for kind, call in zip(self.kinds, calls, strict=True)
        ]
        total = torch.stack(parts).sum(dim=0)
        return total if self.spread is None else self.spread(total)

    def activations(
        self, caught: Mapping[int, Caught]
    ) -> Float[Tensor, "batch unit row2 col2"]:
        """What the units did, laid on the same cells: not what pools make of it."""
        map_ = self.map_of(caught)
        return map_ if self.spread is None else self.spread.weighted(map_)

    def changes(
        self, units: Sequence[int], change: MapChange
    ) -> dict[tuple[int, str], Callable[[Tensor], Tensor]]:
        """What changes units in a forward pass: a change of every call's map."""

        def changed(map_: Tensor) -> Tensor:
            return change.of_output(map_, self.axes, units)

        return dict.fromkeys(self.calls, changed)


def slices_of(counts: Iterable[int]) -> list[slice]:
    """Where the units of every part stand among those of all: `counts` are the parts'."""
    bounds = accumulate(counts, initial=0)
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def _averaging(
    spread: Float[Tensor, "cell2 cell"],
) -> Float[Tensor, "cell2 cell"]:
    """The weights by which a cell is a mean of those under it."""
    sums = spread.sum(dim=1, keepdim=True)
    return spread / torch.where(sums == 0, 1, sums)


def _weighted(
    map_: Float[Tensor, "batch unit row col"], kind: str, call: Caught
) -> Float[Tensor, "batch unit row col"]:
    """Cell · ∂unit/∂cell · number of cells."""
    if kind == MAXIMUM:
        is_largest = map_ == map_.amax(dim=(2, 3), keepdim=True)
        share = is_largest / is_largest.to(map_).mean(dim=(2, 3), keepdim=True)
        return map_ * share
    if kind == POWER_MEAN:
        exponent = call.argument(1, "exponent")
        if isinstance(exponent, Tensor):
            exponent = recorded(exponent).to(map_)
        powers = map_.pow(exponent)
        mean = powers.mean(dim=(2, 3), keepdim=True)
        # Of a map of zeros the mean is zero too.
        tiny = torch.finfo(mean.dtype).tiny
        return powers * mean.clamp(min=tiny).pow(1 / exponent - 1)
    return map_
