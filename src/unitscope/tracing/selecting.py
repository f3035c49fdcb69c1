"""Selecting: rules of functions that take a part of a tensor or divide it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import Layout, Role, Side, Tokens


def selected(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after a part was taken, as by `x[:, 1:]`, `select` or `narrow`."""
    index = _index(call)
    return _indexed(index, layout, call.first.shape)


def divided(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles of one part of a tensor that was divided, as by `split`."""
    axis = call.divided_axis
    begin = call.offset
    end = begin + call.shape[axis]
    part = slice(begin, end)
    index = _index_along(axis, part)
    return _indexed(index, layout, call.first.shape)


def _index(call: FunctionCall) -> Any:
    """What a call takes from a tensor, as the index in `x[index]`."""
    if call.name == "__getitem__":
        return call.args[1]

    dimensions = len(call.first.shape)
    axis = call.axis(dimensions)
    if call.name == "narrow":
        start = call.required(2, "start")
        length = call.required(3, "length")
        part = slice(start, start + length)
        return _index_along(axis, part)
    # All that `unbind` and `select` return lies the same, whatever the index.
    return _index_along(axis, 0)


def _index_along(axis: int, part: int | slice) -> tuple[int | slice, ...]:
    """The index that takes a part along one axis."""
    index: list[int | slice] = [slice(None)] * axis
    index.append(part)
    return tuple(index)


def _indexed(
    index: Any, layout: Layout, shape: tuple[int, ...]
) -> Layout | None:
    """The roles after an index of numbers and slices; None after any other choice."""
    parts = [index]
    if isinstance(index, tuple):
        parts = list(index)
    if not all(map(_is_plain, parts)):
        return None
    parts = _without_ellipsis(parts, len(layout))

    roles: list[Role] = []
    axis = 0
    for part in parts:
        # `None` and booleans add an axis, numbers drop one.
        if part is None or isinstance(part, bool):
            roles.append(None)
            continue
        if isinstance(part, slice):
            role = _cut(layout[axis], part, shape[axis])
            roles.append(role)
        axis += 1
    return tuple(roles)


def _is_plain(part: Any) -> bool:
    if part is None or part is Ellipsis:
        return True
    return isinstance(part, (int, slice))


def _without_ellipsis(parts: list[Any], dimensions: int) -> list[Any]:
    """The parts of an index with as many full slices as `...` stands for.

    Without `...`, the full slices stand behind the other parts.
    """
    used = 0
    place = len(parts)
    for i, part in enumerate(parts):
        if part is Ellipsis:
            place = min(i, place)
        elif part is not None:
            used += 1

    full = [slice(None)] * (dimensions - used)
    before = parts[:place]
    behind = parts[place + 1 :]
    return before + full + behind


def _cut(role: Role, part: slice, length: int) -> Role:
    """The role of an axis of a length after a slice."""
    begin, end, stride = part.indices(length)
    if isinstance(role, Side):
        axis = role.axis
        if axis is not None:
            axis = axis.sliced(begin, stride)
        return Side(role.which, axis)

    if isinstance(role, Tokens):
        cells_end = role.before + role.cells
        if begin > role.before or end < cells_end:
            return None
        if stride != 1:
            return None
        return replace(role, before=role.before - begin)
    return None
