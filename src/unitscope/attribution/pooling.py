"""Pooling: recognise global pools, and what is affine behind them, in a trace."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from unitscope.attribution.readings import (
    AVERAGE,
    MAXIMUM,
    POWER_MEAN,
    Reading,
    Spread,
)
from unitscope.geometry import Grid
from unitscope.tracing.axes import Axes
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import ADDITIONS, CARRIERS, UNIT_REORDERINGS

_MAP_POOLS = (
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "adaptive_max_pool2d",
    "max_pool2d",
)
_TOKEN_POOLS = ("adaptive_avg_pool1d", "adaptive_max_pool1d")
_REDUCTIONS = ("mean", "sum", "amax", "max")
_MAXIMA = (
    "adaptive_max_pool2d",
    "max_pool2d",
    "adaptive_max_pool1d",
    "amax",
    "max",
)
_POWERS = ("pow", "__pow__")


class Pool(NamedTuple):
    """A global pool: the calls that read the map, the one that made it, its axes.

    `kinds` says what each of the calls takes (see `readings`); of several, their sum is
    the pooled unit. `input_size` is (rows, cols).
    """

    calls: tuple[Call, ...]
    source: Call
    axes: Axes
    kinds: tuple[str, ...] = (AVERAGE,)
    input_size: tuple[int, int] = (1, 1)

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(unit, row, col) of the map."""
        return self.axes.map_shape(self.source.shape)

    @property
    def cells(self) -> tuple[int, int]:
        """(row, col) of the map."""
        _, rows, cols = self.map_shape
        return rows, cols

    @property
    def grid(self) -> Grid:
        """Where the map's cells lie, or may be taken to lie, on the network's input."""
        return self.source.grid or Grid.tiling(self.input_size, self.cells)

    def reading(self, spread: Spread | None = None) -> Reading:
        """The same without the traced calls."""
        calls = tuple((call.index, call.name) for call in self.calls)
        return Reading(calls, self.kinds, self.axes, self.map_shape, spread)


def pool_at(call: Call, input_size: tuple[int, int]) -> Pool | None:
    """The global pool that a call is, or ends; None where it is none."""
    pool = _pool_at(call, input_size)
    return None if pool is None else pool._replace(input_size=input_size)


def _pool_at(call: Call, input_size: tuple[int, int]) -> Pool | None:
    if not call.inputs:
        return None
    if call.name in ADDITIONS:
        return _sum_of_pools(call, input_size)
    if call.name in _POWERS:
        return _power_mean(call, input_size)

    source = call.inputs[0]
    sides = len(source.shape)
    kinds = (MAXIMUM,) if call.name in _MAXIMA else (AVERAGE,)
    if call.name in _MAP_POOLS:
        if sides == 4 and call.shape[2:] == (1, 1):
            return Pool((call,), source, Axes(), kinds)
        return None
    pool = None
    if call.name in _TOKEN_POOLS:
        if sides == 3 and call.shape[2:] == (1,):
            pool = _pool_of_tokens(call, source, 2, input_size)
    elif call.name in _REDUCTIONS:
        pool = _pool_by_reduction(call, source, input_size)
    return None if pool is None else pool._replace(kinds=kinds)


def _sum_of_pools(call: Call, input_size: tuple[int, int]) -> Pool | None:
    """The sum of two pools of one map, as of its mean and its maximum."""
    if len(call.inputs) != 2 or call.kwargs.get("alpha", 1) != 1:
        return None
    pools = []
    for term in call.inputs:
        term = carried_from(term)
        is_mean_or_maximum = term.name not in (*ADDITIONS, *_POWERS, "sum")
        pool = pool_at(term, input_size) if is_mean_or_maximum else None
        if pool is None:
            return None
        pools.append(pool)

    one, other = pools
    if one.source is not other.source or one.axes != other.axes:
        return None
    if one.calls == other.calls:
        return None
    return one._replace(
        calls=one.calls + other.calls, kinds=one.kinds + other.kinds
    )


def _power_mean(call: Call, input_size: tuple[int, int]) -> Pool | None:
    """A generalised mean: the root of the mean of powers (GeM, Radenović et al. 2018)."""
    mean = carried_from(call.inputs[0])
    if mean.name in _POWERS or mean.name == "sum":
        return None
    pool = pool_at(mean, input_size)
    if pool is None or pool.kinds != (AVERAGE,):
        return None
    powers = pool.source
    if powers.name not in _POWERS:
        return None
    return pool._replace(
        calls=(powers,), source=powers.inputs[0], kinds=(POWER_MEAN,)
    )


def carried_from(call: Call) -> Call:
    """The call that computed the numbers, behind calls that only carry them along."""
    while call.inputs:
        before = call.inputs[0]
        if math.prod(before.shape) != math.prod(call.shape):
            break
        is_carrier = call.name in CARRIERS
        if not is_carrier and not (
            call.name in UNIT_REORDERINGS and _keeps_order(call)
        ):
            break
        call = before
    return call


def is_linear(call: Call) -> bool:
    """Whether a call is a linear layer of pooled units."""
    if call.name == "conv2d":
        # On a map of one cell a 1×1 convolution is a linear layer. On a larger map it
        # belongs to the feature map.
        before = call.inputs[0]
        one_cell = call.shape[2:] == (1, 1) and before.shape[2:] == (1, 1)
        return one_cell and is_pointwise(call)
    if call.name in ("matmul", "__matmul__", "mm"):
        return len(call.shape) <= 2
    return call.name in ("linear", "addmm")


def is_pointwise(call: Call) -> bool:
    """Whether a convolution is 1×1, of stride 1, without padding and groups."""
    weight = call.argument(1, "weight")
    neutral = ((3, "stride", 1), (4, "padding", 0), (6, "groups", 1))
    is_plain = all(
        _all_equal(call.argument(position, keyword, value), value)
        for position, keyword, value in neutral
    )
    return tuple(weight.shape[2:]) == (1, 1) and is_plain


def input_position(call: Call) -> int:
    """Which argument of a linear call is its input."""
    return 1 if call.name == "addmm" else 0


def _pool_by_reduction(
    call: Call, source: Call, input_size: tuple[int, int]
) -> Pool | None:
    sides = len(source.shape)
    axes = reduced_axes(call, sides)
    if sides == 4 and axes == {2, 3}:
        return Pool((call,), source, Axes())
    if sides == 4 and axes == {1, 2}:
        return Pool((call,), source, Axes("units last"))

    if source.inputs and len(source.inputs[0].shape) == 4:
        pool = _pool_by_steps(call, source, axes)
        if pool is not None:
            return pool
    if sides == 3 and axes in ({1}, {2}):
        (axis,) = axes
        return _pool_of_tokens(call, source, axis, input_size)
    return None


def _pool_by_steps(call: Call, source: Call, axes: set[int]) -> Pool | None:
    """A pool over one side and then the other, or over the cells of a flattened map."""
    map_call = source.inputs[0]
    if source.name == call.name and axes < {2, 3}:
        first = reduced_axes(source, 4)
        if len(source.shape) == 4:  # the first side was kept, with length one
            covers_both = first | axes == {2, 3}
        else:
            covers_both = first < {2, 3} and axes == {2}
        if covers_both:
            return Pool((source,), map_call, Axes())

    is_flattened = source.name in ("flatten", "view", "reshape")
    if is_flattened and len(source.shape) == 3 and axes == {2}:
        if source.shape[:2] == map_call.shape[:2]:
            return Pool((source,), map_call, Axes())
    return None


def _pool_of_tokens(
    call: Call, source: Call, axis: int, input_size: tuple[int, int]
) -> Pool | None:
    order = "tokens" if axis == 1 else "units, tokens"
    axes = source.axes or Axes.tiling(order, source.shape[axis], input_size)
    if axes is None or axes.order != order or axes.others:
        return None
    return Pool((call,), source, axes)


def reduced_axes(call: Call, dimensions: int) -> set[int]:
    """The axes, from 0, that a call such as `mean` reduces; none where it names none."""
    axis = call.argument(1, "axis")
    axes = call.argument(1, "dim", axis)
    if axes is None:
        return set()
    several = axes if isinstance(axes, (tuple, list)) else [axes]
    if not all(isinstance(axis, int) for axis in several):
        return set()  # two tensors are compared
    return {axis % dimensions for axis in several}


def _keeps_order(call: Call) -> bool:
    """Whether at most one axis beside the batch is longer than one."""
    sides = call.inputs[0].shape[1:]
    longer = [side for side in sides if side > 1]
    return len(longer) <= 1


def _all_equal(value: Any, neutral: int) -> bool:
    if isinstance(value, (tuple, list)):
        return all(item == neutral for item in value)
    # A kernel of 1×1 has no padding, neither when it is "same" nor when it is "valid".
    return value in (neutral, "valid", "same")
