"""Reordering: rules of functions that reorder, merge, divide or cut axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unitscope.geometry import Axis
from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import Layout, Role, Side, Tokens, without_place


def reordered(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after axes changed places, as by `permute`."""
    order = _order(call, len(layout))
    if len(order) != len(call.shape):
        return None
    return tuple(layout[axis] for axis in order)


def _order(call: FunctionCall, count: int) -> list[int]:
    """The old axis at each place of the result."""
    keywords = [value for name, value in call.kwargs.items() if name != "input"]
    arguments = [*call.args[1:], *keywords]
    order = list(range(count))

    if call.name == "permute":
        is_sequence = len(arguments) == 1 and not isinstance(arguments[0], int)
        axes = list(arguments[0]) if is_sequence else arguments
        return [int(axis) % count for axis in axes]

    if call.name in ("movedim", "moveaxis"):
        source, target = (_axes(value, count) for value in arguments[:2])
        others = iter([axis for axis in order if axis not in source])
        return [
            source[target.index(place)] if place in target else next(others)
            for place in order
        ]

    if call.name == "T":
        order.reverse()
    elif count >= 2:
        one, other = (-2, -1) if call.name in ("mT", "t") else arguments[:2]
        order[one], order[other] = order[other], order[one]
    return order


def _axes(value: Any, count: int) -> list[int]:
    axes = [value] if isinstance(value, int) else list(value)
    return [axis % count for axis in axes]


def scrambled(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after cells moved to other places of the map, as by `flip`."""
    if call.shape != call.first.shape:
        return None
    return tuple(map(without_place, layout))


# Reshapes. ---------------------------------------------------------------------------


def reshaped(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after axes were merged, divided, removed or added, in row-major order."""
    before, after = call.first.shape, call.shape
    groups = _groups(before, after)
    if groups is None:
        return None

    roles: list[Role] = [None] * len(after)
    for old_places, new_places in groups:
        old_axes = [(layout[place], before[place]) for place in old_places]
        lengths = [after[place] for place in new_places]
        new_roles = _regrouped(old_axes, lengths)
        for place, role in zip(new_places, new_roles, strict=True):
            roles[place] = role
    return tuple(roles)


def _groups(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[list[int], list[int]]] | None:
    """The places of old axes and of the new axes that hold the same numbers.

    Axes of length one belong to no group, unless one stands in both shapes. None where
    the shapes do not hold equally many numbers.
    """
    groups = []
    old = new = 0
    while old < len(before) or new < len(after):
        old_is_one = old < len(before) and before[old] == 1
        new_is_one = new < len(after) and after[new] == 1
        if old_is_one or new_is_one:
            if old_is_one and new_is_one:
                groups.append(([old], [new]))
                old, new = old + 1, new + 1
            elif old_is_one:
                old += 1
            else:
                new += 1
            continue

        ends = _group_ends(before, after, old, new)
        if ends is None:
            return None
        old_end, new_end = ends
        old_places = [place for place in range(old, old_end) if before[place] > 1]
        new_places = [place for place in range(new, new_end) if after[place] > 1]
        groups.append((old_places, new_places))
        old, new = old_end, new_end
    return groups


def _group_ends(
    before: Sequence[int], after: Sequence[int], old: int, new: int
) -> tuple[int, int] | None:
    """Where the shortest group of old and new axes from here on ends."""
    if old >= len(before) or new >= len(after):
        return None

    old_cells, new_cells = before[old], after[new]
    old, new = old + 1, new + 1
    while old_cells != new_cells:
        if old_cells < new_cells and old < len(before):
            old_cells *= before[old]
            old += 1
        elif new_cells < old_cells and new < len(after):
            new_cells *= after[new]
            new += 1
        else:
            return None
    return old, new


def _regrouped(old_axes: list[tuple[Role, int]], lengths: list[int]) -> list[Role]:
    """The roles of axes of these lengths, made of old axes (role, length) in order."""
    roles = [role for role, _ in old_axes]
    if len(roles) == len(lengths) == 1:
        return roles
    if len(roles) == 2 and len(lengths) == 1:
        return [_merged(*old_axes)]
    if len(roles) == 1:
        return _divided(roles[0], lengths)
    return [None] * len(lengths)


def _merged(one: tuple[Role, int], other: tuple[Role, int]) -> Role:
    """The role of two axes merged: tokens, where they are rows and columns."""
    match one, other:
        case (Side("row", row_axis), rows), (Side("col", col_axis), cols):
            return Tokens(rows, cols, 0, row_axis, col_axis)
    return None


def _divided(role: Role, lengths: list[int]) -> list[Role]:
    """The roles of the axes that one axis was divided into."""
    if isinstance(role, Tokens) and role.before == 0:
        if lengths == [role.rows, role.cols]:
            return [Side("row", role.row_axis), Side("col", role.col_axis)]

    if isinstance(role, Side) and len(lengths) == 2:
        # The side was cut into patches, each of which lies in their middle.
        patch = lengths[1]
        axis = role.axis.windowed(patch, patch, 0) if role.axis else None
        return [Side(role.which, axis), None]

    return [None] * len(lengths)


# Parts. ------------------------------------------------------------------------------


def selected(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after a part was taken, as by `x[:, 1:]`, `select` or `narrow`."""
    return _indexed(_index(call), layout, call.first.shape)


def _index(call: FunctionCall) -> Any:
    """What a call takes from a tensor, as the index of `x[…]`."""
    if call.name == "__getitem__":
        return call.args[1]

    every = slice(None)
    axis = call.axis(len(call.first.shape))
    if call.name == "narrow":
        start, length = call.required(2, "start"), call.required(3, "length")
        return (*[every] * axis, slice(start, start + length))
    # All that `unbind` and `select` return lies the same, so any index will do.
    return (*[every] * axis, 0)


def divided(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles of one part of a tensor that was divided along an axis."""
    axis = call.divided_axis
    part = slice(call.offset, call.offset + call.shape[axis])
    return _indexed((*[slice(None)] * axis, part), layout, call.first.shape)


def _indexed(index: Any, layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The roles after an index of numbers and slices; None after any other choice."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(_is_plain(part) for part in parts):
        return None

    # `...` stands for as many full slices as are missing.
    used = sum(part is not None and part is not Ellipsis for part in parts)
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    start = dots[0] if dots else len(parts)
    parts[start : start + 1] = [slice(None)] * (len(layout) - used)

    roles: list[Role] = []
    axes = iter(zip(layout, shape, strict=True))
    for part in parts:
        if part is None or isinstance(part, bool):
            roles.append(None)
            continue
        role, length = next(axes)
        if isinstance(part, slice):
            roles.append(_cut(role, *part.indices(length)))
    return tuple(roles)


def _is_plain(part: Any) -> bool:
    return part is None or part is Ellipsis or isinstance(part, (int, slice))


def _cut(role: Role, begin: int, end: int, stride: int) -> Role:
    """The role of an axis after a slice."""
    if isinstance(role, Side):
        return Side(role.which, role.axis and _sliced(role.axis, begin, stride))
    if isinstance(role, Tokens):
        has_all = begin <= role.before and end >= role.before + role.cells
        if stride == 1 and has_all:
            return replace(role, before=role.before - begin)
    return None


def _sliced(axis: Axis, begin: int, stride: int) -> Axis:
    return Axis(axis.start + axis.step * begin, axis.step * stride)
