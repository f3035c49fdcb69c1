"""Reordering: rules of functions that reorder axes or the cells of a map."""

from __future__ import annotations

from typing import Any

from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import Layout, without_place


def permuted(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after `permute`, whose axes may come in a tuple."""
    axes = _arguments(call)
    if len(axes) == 1 and not isinstance(axes[0], int):
        (axes,) = axes
    if len(axes) != len(call.shape):
        return None

    roles = []
    for axis in axes:
        roles.append(layout[int(axis)])
    return tuple(roles)


def moved(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after `movedim`: the axes that did not move fill up."""
    source, target, *_ = _arguments(call)
    count = len(layout)
    old_axes = _axes(source, count)
    new_axes = _axes(target, count)
    others = (axis for axis in range(count) if axis not in old_axes)

    roles = []
    for place in range(count):
        if place in new_axes:
            moved_from = new_axes.index(place)
            axis = old_axes[moved_from]
        else:
            axis = next(others)
        roles.append(layout[axis])
    return tuple(roles)


def swapped(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after two axes changed places, as by `transpose`."""
    if len(layout) < 2:
        return layout

    one = -2
    other = -1
    if call.name not in ("t", "mT"):
        one, other, *_ = _arguments(call)
    roles = list(layout)
    roles[one] = layout[other]
    roles[other] = layout[one]
    return tuple(roles)


def reversed_axes(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after `T`."""
    return layout[::-1]


def scrambled(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after cells moved to other places of the map, as by `flip`."""
    if call.shape != call.first.shape:
        return None
    return tuple(map(without_place, layout))


def _arguments(call: FunctionCall) -> list[Any]:
    """The arguments behind the tensor."""
    arguments = list(call.args[1:])
    for name, value in call.kwargs.items():
        if name != "input":
            arguments.append(value)
    return arguments


def _axes(value: Any, count: int) -> list[int]:
    if isinstance(value, int):
        return [value % count]
    return [axis % count for axis in value]
