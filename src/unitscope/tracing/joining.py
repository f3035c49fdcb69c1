"""Joining: the rule of functions that put tensors one behind the other."""

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
    common_role,
)


def joined(call: FunctionCall) -> Layout | None:
    """The roles of a concatenation."""
    dimensions = len(call.shape)
    axis = call.axis(dimensions)
    known = [tensor for tensor in call.inputs if _has_layout(tensor)]
    holders = [tensor for tensor in known if _has_tokens(tensor, axis)]

    joined_role: Role = None
    if len(holders) == 1:
        # A class token stands before the cells, or registers behind them.
        joined_role = _tokens_among(call, holders[0], axis)
        known = holders

    layouts = [tensor.layout for tensor in known if tensor.layout]
    if not layouts:
        return LOST
    roles: list[Role] = []
    for place in range(dimensions):
        if place == axis:
            role = joined_role
        else:
            role = _shared_role([layout[place] for layout in layouts])
        roles.append(role)
    return tuple(roles)


def _has_layout(tensor: TracedTensor) -> bool:
    if not tensor.layout:
        return False
    return len(tensor.layout) == len(tensor.shape)


def _has_tokens(tensor: TracedTensor, axis: int) -> bool:
    assert tensor.layout is not None
    return isinstance(tensor.layout[axis], Tokens)


def _tokens_among(call: FunctionCall, holder: TracedTensor, axis: int) -> Role:
    """The role of joined tokens where one tensor alone, the holder, has cells."""
    assert holder.layout is not None
    role = holder.layout[axis]
    assert isinstance(role, Tokens)

    before = role.before
    for tensor in call.inputs:
        if tensor is holder:
            break
        if len(tensor.shape) > axis:
            before += tensor.shape[axis]
    return replace(role, before=before)


def _shared_role(roles: Sequence[Role]) -> Role:
    """The role of an axis that joined tensors share.

    Their units may look at the same cells, or at neighbours, as in merged patches: then
    they lie in the middle.
    """

    def merged(one: Role, other: Role) -> Role:
        return common_role(one, other, _with_same_step)

    role = reduce(merged, roles)
    if isinstance(role, Tokens):
        return reduce(common_role, roles)
    if not isinstance(role, Side) or role.axis is None:
        return role

    axis = _middle(roles, role.axis.step)
    return Side(role.which, axis)


def _middle(roles: Sequence[Role], step: float) -> Axis | None:
    """The axis in the middle of sides with one step; None where they look elsewhere."""
    starts = []
    for role in roles:
        if isinstance(role, Side) and role.axis:
            starts.append(role.axis.start)

    first = min(starts)
    last = max(starts)
    # Neighbours are less than a step apart.
    if last - first >= abs(step) - 1e-6:
        return None
    middle = (first + last) / 2
    return Axis(middle, step)


def _with_same_step(one: Axis | None, other: Axis | None) -> Axis | None:
    if one is None or other is None:
        return None
    if abs(one.step - other.step) >= 1e-6:
        return None
    return one
