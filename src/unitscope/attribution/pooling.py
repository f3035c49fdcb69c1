"""Pooling: recognise a global average pool, and what is affine behind it, in a trace."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from unitscope.tracing.axes import Axes
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import CARRIERS, UNIT_REORDERINGS

_MAP_POOLS = ("adaptive_avg_pool2d", "avg_pool2d")
_REDUCTIONS = ("mean", "sum")


class Pool(NamedTuple):
    """A global average pool: the call that reads the map, the one that made it, its axes."""

    call: Call
    source: Call
    axes: Axes


def pool_at(call: Call, input_size: tuple[int, int]) -> Pool | None:
    """The global average pool that a call is, or ends; None where it is none."""
    if not call.inputs:
        return None
    source = call.inputs[0]
    sides = len(source.shape)
    if call.name in _MAP_POOLS:
        if sides == 4 and call.shape[2:] == (1, 1):
            return Pool(call, source, Axes())
        return None
    if call.name == "adaptive_avg_pool1d":
        if sides == 3 and call.shape[2:] == (1,):
            return _pool_of_tokens(call, source, 2, input_size)
        return None
    if call.name in _REDUCTIONS:
        return _pool_by_reduction(call, source, input_size)
    return None


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
    axes = _reduced_axes(call, sides)
    if sides == 4 and axes == {2, 3}:
        return Pool(call, source, Axes())
    if sides == 4 and axes == {1, 2}:
        return Pool(call, source, Axes("units last"))

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
        first = _reduced_axes(source, 4)
        if len(source.shape) == 4:  # the first side was kept, with length one
            covers_both = first | axes == {2, 3}
        else:
            covers_both = first < {2, 3} and axes == {2}
        if covers_both:
            return Pool(source, map_call, Axes())

    is_flattened = source.name in ("flatten", "view", "reshape")
    if is_flattened and len(source.shape) == 3 and axes == {2}:
        if source.shape[:2] == map_call.shape[:2]:
            return Pool(source, map_call, Axes())
    return None


def _pool_of_tokens(
    call: Call, source: Call, axis: int, input_size: tuple[int, int]
) -> Pool | None:
    order = "tokens" if axis == 1 else "units, tokens"
    axes = source.axes or Axes.tiling(order, source.shape[axis], input_size)
    if axes is None or axes.order != order or axes.others:
        return None
    return Pool(call, source, axes)


def _reduced_axes(call: Call, dimensions: int) -> set[int]:
    axis = call.argument(1, "axis")
    axes = call.argument(1, "dim", axis)
    if axes is None:
        return set()
    several = axes if isinstance(axes, (tuple, list)) else [axes]
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
