"""Token axis: follow the axis of tokens back to where the patches were made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import torch

from unitscope.residual.rows import MOVING, moved
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ATTENTIONS,
    CELLWISE,
    CHANNELS_FIRST,
    CONCATENATIONS,
    LINEAR_FUNCTIONS,
    MATRIX_PRODUCTS,
    REDUCTIONS,
)
from unitscope.tracing.roles import Tokens

# A call, one of its axes, and whether that is the whole of an axis that was followed.
_Place: TypeAlias = tuple[Call, int, bool]

# How many calls are looked at before the search is given up.
_MOST_CALLS = 500


class AxisOfUnits(Exception):
    """The axis holds units, as a linear layer makes them, not tokens."""


def tokens_along(call: Call, axis: int) -> Tokens | None:
    """The patches and other tokens along an axis of a call's result; None where unknown.

    The order of tokens is known only where every call on the way back keeps it. Raises
    AxisOfUnits where the axis holds units.
    """
    waiting: list[_Place] = [(call, axis, True)]
    seen: set[tuple[int, int, bool]] = set()
    found_units = False
    while waiting and len(seen) < _MOST_CALLS:
        call, axis, is_whole = waiting.pop(0)
        if (id(call), axis, is_whole) in seen:
            continue
        seen.add((id(call), axis, is_whole))
        layout = call.layout or ()
        if is_whole and len(layout) == len(call.shape):
            role = layout[axis]
            if isinstance(role, Tokens):
                return role
        if call.name in CONCATENATIONS and axis == joined_axis(call):
            role = _joined(call, axis)
            if role is not None and is_whole:
                return role
            continue
        if _makes_units(call, axis):
            found_units = True
            continue
        waiting += _before(call, axis, is_whole)
    if found_units:
        raise AxisOfUnits
    return None


def joined_axis(call: Call) -> int:
    """The axis along which a concatenation joins."""
    axis: int = call.argument(1, "dim", call.kwargs.get("axis", 0))
    return axis % len(call.shape)


def _makes_units(call: Call, axis: int) -> bool:
    """Whether the axis of the result is a layer's output."""
    if call.name == "conv2d":
        return axis == 1
    return call.name in ("linear", "addmm") and axis == len(call.shape) - 1


def _joined(call: Call, axis: int) -> Tokens | None:
    """The role of joined tokens, where one of the tensors has the patches."""
    found: Tokens | None = None
    before = 0
    for each in call.inputs:
        try:
            role = tokens_along(each, axis)
        except AxisOfUnits:
            return None
        if role is not None:
            if found is not None:
                return None
            found = replace(role, before=role.before + before)
        before += each.shape[axis]
    return found


def _before(call: Call, axis: int, is_whole: bool) -> Iterator[_Place]:
    """Axes of earlier calls that hold the same tokens in the same order."""
    for place in _sources(call, axis):
        yield *place[:2], is_whole and place[2]


def _sources(call: Call, axis: int) -> Iterator[_Place]:
    name, inputs = call.name, call.inputs
    if not inputs:
        return
    dimensions = len(call.shape)
    if name in MOVING:
        earlier = _unmoved(call, axis)
        if earlier is not None:
            yield inputs[0], *earlier
    elif name in ATTENTIONS:
        yield inputs[0], axis, True
    elif name in MATRIX_PRODUCTS | LINEAR_FUNCTIONS:
        one, other = inputs[-2:] if "addmm" in name else inputs[:2]
        source = other if axis == dimensions - 1 else one
        if len(source.shape) == dimensions:
            yield source, axis, True
    elif name in CHANNELS_FIRST:
        if axis == 0:
            yield inputs[0], 0, True
    elif name in CELLWISE | CONCATENATIONS:
        for each in inputs:
            if _shares(call, each, axis):
                yield each, axis, True


def _shares(call: Call, before: Call, axis: int) -> bool:
    """Whether a call that leaves cells where they are has an axis of its argument."""
    if len(before.shape) != len(call.shape):
        return False
    length = call.shape[axis]
    if before.shape[axis] != length:
        return False
    return length > 1 or call.name not in REDUCTIONS


def _unmoved(call: Call, axis: int) -> tuple[int, bool] | None:
    """The axis of the first argument that an axis of the result is, or is a part of."""
    shape, count = call.inputs[0].shape, call.shape[axis]
    places = moved(call, torch.arange(math.prod(shape)).view(shape))
    if places is None:
        return None
    line = places.movedim(axis, 0).reshape(count, -1)[:, 0]
    where = torch.stack(torch.unravel_index(line, shape))
    varies = [
        place for place, row in enumerate(where) if bool((row != row[0]).any())
    ]
    if len(varies) != 1:
        return None
    (earlier,) = varies
    return earlier, torch.equal(where[earlier], torch.arange(shape[earlier]))
