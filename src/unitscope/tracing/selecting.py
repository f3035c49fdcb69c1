"""Selecting: rules of functions that take a part of a tensor or divide it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.functions import DEFAULT_IS_LAST
from unitscope.tracing.roles import LOST, Layout, Role, Side, Tokens


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


def chosen_along(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after an axis was reordered or chosen from, as by `index_select` or `sort`.

    Cells stay in place where that axis holds none; None where it holds some.
    """
    default = -1 if call.name in DEFAULT_IS_LAST else 0
    axis = call.axis(len(layout), default=default)
    if layout[axis] is not None or len(call.shape) != len(layout):
        return None
    for place, role in enumerate(layout):
        if role is not None and call.shape[place] != call.first.shape[place]:
            return None
    return layout


def written(call: FunctionCall) -> Layout | None:
    """The roles after `x[index] = value`; LOST where cells of the value may lie elsewhere."""
    target = call.first
    value = call.inputs[-1]
    index = call.args[1]
    if len(call.inputs) == 1 or value.layout is None:
        return target.layout
    if target.layout is LOST or value.layout is LOST:
        return LOST

    blank: Layout = (None,) * len(target.shape)
    kept = _indexed(index, target.layout or blank, target.shape)
    if kept is None or len(kept) != len(value.layout):
        return LOST
    if target.layout is not None and any(target.layout):
        return target.layout if kept == value.layout else LOST
    return _laid_into(index, value.layout, target.shape)


def _laid_into(index: Any, layout: Layout, shape: tuple[int, ...]) -> Layout:
    """The roles of a tensor without any, after one of a layout was written into it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = _without_ellipsis(parts, len(shape))
    roles: list[Role] = []
    given = iter(layout)
    for part, length in zip(parts, shape, strict=True):
        if isinstance(part, int):
            roles.append(None)
            continue
        role = next(given)
        is_whole = isinstance(part, slice) and part.indices(length) == (
            0,
            length,
            1,
        )
        if role is not None and not is_whole:
            return LOST
        roles.append(role)
    return tuple(roles)


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
    """The roles after an index; None where it may choose or reorder cells.

    It may hold numbers, slices, and one list of places along an axis without cells.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    lists = [part for part in parts if _is_list_of_places(part)]
    if len(lists) > 1 or not all(map(_is_known, parts)):
        return None
    if lists and any(_is_number(part) for part in parts):
        # A number beside a list counts as a list, which may move the axis.
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
        elif not isinstance(part, int):
            if layout[axis] is not None:
                return None
            roles.append(None)
        axis += 1
    return tuple(roles)


def _is_known(part: Any) -> bool:
    if part is None or part is Ellipsis:
        return True
    return isinstance(part, (int, slice)) or _is_list_of_places(part)


def _is_number(part: Any) -> bool:
    return isinstance(part, int) and not isinstance(part, bool)


def _is_list_of_places(part: Any) -> bool:
    """Whether a part of an index is a list of places along one axis, or a mask of them."""
    if isinstance(part, (list, tuple, range, np.ndarray)):
        part = torch.as_tensor(part)
    return isinstance(part, Tensor) and part.ndim == 1


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
