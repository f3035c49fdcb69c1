"""Combining: rules of functions that compute a tensor from several."""

from __future__ import annotations

from functools import reduce

from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import Layout, Role, TracedTensor, common_layout


def summed(call: FunctionCall) -> Layout | None:
    """The roles of a sum, whose terms must agree on where their cells lie."""
    layouts = []
    for tensor in call.inputs:
        if tensor.layout and tensor.has_cells_of(call.shape):
            layouts.append(tensor.layout)
    if not layouts:
        return None
    return reduce(common_layout, layouts)


def stacked(call: FunctionCall) -> Layout | None:
    """The roles of tensors that were put along a new axis, as by `stack`."""
    dimensions = len(call.shape)
    layouts = []
    for tensor in call.inputs:
        if tensor.layout and len(tensor.layout) == dimensions - 1:
            layouts.append(tensor.layout)
    if not layouts:
        return None

    new_axis = call.axis(dimensions)
    layout = reduce(common_layout, layouts)
    before = layout[:new_axis]
    behind = layout[new_axis:]
    return *before, None, *behind


def multiplied(call: FunctionCall) -> Layout | None:
    """The roles of a matrix product: the rows of one and the columns of the other."""
    dimensions = len(call.shape)
    if dimensions < 2:
        return None

    one, other = call.inputs[-2:]
    left = _layout_of_rank(one, dimensions)
    right = _layout_of_rank(other, dimensions)
    roles: list[Role] = []
    for left_role, right_role in zip(left, right, strict=True):
        role = left_role or right_role
        roles.append(role)
    # The columns of one and the rows of the other are summed over.
    roles[-2] = left[-2]
    roles[-1] = right[-1]
    return tuple(roles)


def _layout_of_rank(tensor: TracedTensor, rank: int) -> Layout:
    if tensor.layout and len(tensor.layout) == rank:
        return tensor.layout
    return (None,) * rank


def mixed(call: FunctionCall) -> Layout | None:
    """The roles after `linear` or `conv1d` mixed the units."""
    layout = call.first.layout
    dimensions = len(call.shape)
    if not layout or len(layout) != dimensions:
        return None

    units = dimensions - 1
    if call.name == "conv1d":
        units = 1
    shape = list(call.shape)
    shape[units] = call.first.shape[units]
    if not call.first.has_cells_of(tuple(shape)):
        return None

    roles = list(layout)
    roles[units] = None
    return tuple(roles)


def attended(call: FunctionCall) -> Layout | None:
    """The roles after attention: those of the queries."""
    layout = call.first.layout
    if layout and len(layout) == len(call.shape):
        return layout
    return None
