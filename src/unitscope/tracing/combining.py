"""Combining: rules of functions that compute a tensor from several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from unitscope.geometry import Axis
from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import (
    LOST,
    Layout,
    Role,
    Side,
    Tokens,
    TracedTensor,
    common_layout,
    common_role,
)


def summed(call: FunctionCall) -> Layout | None:
    """The roles of a sum, which must agree on where its terms' cells lie."""
    layouts = [
        tensor.layout
        for tensor in call.inputs
        if tensor.layout and tensor.has_cells_of(call.shape)
    ]
    return reduce(common_layout, layouts) if layouts else None


def stacked(call: FunctionCall) -> Layout | None:
    """The roles of tensors along a new axis, as by `stack`."""
    place = call.axis(len(call.shape))
    layouts = [
        tensor.layout
        for tensor in call.inputs
        if tensor.layout and len(tensor.layout) == len(call.shape) - 1
    ]
    if not layouts:
        return None
    layout = reduce(common_layout, layouts)
    return *layout[:place], None, *layout[place:]


# Mixtures. ---------------------------------------------------------------------------


def multiplied(call: FunctionCall) -> Layout | None:
    """The roles of a matrix product: the rows of one and the columns of the other."""
    if len(call.shape) < 2:
        return None
    left = _layout_of_rank(call.inputs[-2], len(call.shape))
    right = _layout_of_rank(call.inputs[-1], len(call.shape))
    outer = [a or b for a, b in zip(left[:-2], right[:-2], strict=True)]
    return *outer, left[-2], right[-1]


def _layout_of_rank(tensor: TracedTensor, rank: int) -> Layout:
    fits = tensor.layout and len(tensor.layout) == rank
    return tensor.layout if fits and tensor.layout else (None,) * rank


def mixed(call: FunctionCall) -> Layout | None:
    """The roles after a linear layer or `conv1d` mixed the units."""
    layout, shape = call.first.layout, call.shape
    if not layout or len(layout) != len(shape):
        return None

    units = 1 if call.name == "conv1d" else len(shape) - 1
    before, behind = slice(units), slice(units + 1, None)
    shape_before = (*shape[before], call.first.shape[units], *shape[behind])
    if not call.first.has_cells_of(shape_before):
        return None
    return *layout[before], None, *layout[behind]


def attended(call: FunctionCall) -> Layout | None:
    """The roles after attention: those of the queries."""
    layout = call.first.layout
    return layout if layout and len(layout) == len(call.shape) else None


# Concatenations. ---------------------------------------------------------------------


def joined(call: FunctionCall) -> Layout | None:
    """The roles after tensors were put one behind the other along an axis."""
    axis = call.axis(len(call.shape))
    known = [
        tensor
        for tensor in call.inputs
        if tensor.layout and len(tensor.layout) == len(tensor.shape)
    ]
    holders = [tensor for tensor in known if _has_tokens(tensor, axis)]

    joined_role: Role = None
    if len(holders) == 1:
        # A class token before the cells, or registers behind them.
        joined_role = _tokens_among(call, holders[0], axis)
        known = holders

    layouts = [tensor.layout for tensor in known if tensor.layout]
    if not layouts:
        return LOST
    places = range(len(layouts[0]))
    return tuple(
        joined_role if place == axis else _shared([layout[place] for layout in layouts])
        for place in places
    )


def _has_tokens(tensor: TracedTensor, axis: int) -> bool:
    return isinstance((tensor.layout or ())[axis], Tokens)


def _tokens_among(call: FunctionCall, holder: TracedTensor, axis: int) -> Role:
    """The role of joined tokens, of which one tensor holds the cells."""
    role = (holder.layout or ())[axis]
    assert isinstance(role, Tokens)

    before = 0
    for tensor in call.inputs:
        if tensor is holder:
            break
        if len(tensor.shape) > axis:
            before += tensor.shape[axis]
    return replace(role, before=role.before + before)


def _shared(roles: Sequence[Role]) -> Role:
    """The role of an axis whose joined units look at the same cells or at neighbours.

    Units that look at neighbours, as in merged patches, lie in their middle.
    """
    role = reduce(lambda one, other: common_role(one, other, _with_same_step), roles)
    if isinstance(role, Tokens):
        return reduce(common_role, roles)
    if not isinstance(role, Side) or role.axis is None:
        return role

    starts = [side.axis.start for side in roles if isinstance(side, Side) and side.axis]
    # Neighbours are less than one of their steps apart. Units further apart look
    # elsewhere.
    are_near = max(starts) - min(starts) < role.axis.step - 1e-6
    middle = Axis((min(starts) + max(starts)) / 2, role.axis.step)
    return Side(role.which, middle if are_near else None)


def _with_same_step(one: Axis | None, other: Axis | None) -> Axis | None:
    if one is None or other is None:
        return None
    return one if abs(one.step - other.step) < 1e-6 else None
