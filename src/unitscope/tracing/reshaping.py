"""Reshaping: rules of functions that merge, divide, add or remove axes.

Numbers stay in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import Layout, Role, Side, Tokens


class _Group(NamedTuple):
    """The places of old axes and of the new axes that hold the same numbers."""

    old: list[int]
    new: list[int]


def reshaped(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after a reshape, as by `flatten` or `unsqueeze`."""
    before, after = call.first.shape, call.shape
    groups = _groups(before, after)
    if groups is None:
        return None

    roles: list[Role] = [None] * len(after)
    for group in groups:
        new_roles = _regrouped(
            roles=[layout[place] for place in group.old],
            old_lengths=[before[place] for place in group.old],
            new_lengths=[after[place] for place in group.new],
        )
        for place, role in zip(group.new, new_roles, strict=True):
            roles[place] = role
    return tuple(roles)


def _groups(
    before: tuple[int, ...], after: tuple[int, ...]
) -> list[_Group] | None:
    """The groups of axes; None where the shapes hold different counts of numbers.

    An axis of length one is in no group, unless it meets another in the other shape.
    """
    groups: list[_Group] = []
    old = new = 0
    while old < len(before) or new < len(after):
        old_is_one = before[old : old + 1] == (1,)
        new_is_one = after[new : new + 1] == (1,)
        if old_is_one and new_is_one:
            group = _Group([old], [new])
            groups.append(group)
        if old_is_one or new_is_one:
            old += old_is_one
            new += new_is_one
            continue

        ends = _group_ends(before, after, old, new)
        if ends is None:
            return None
        old_end, new_end = ends
        group = _Group(
            old=_longer_than_one(before, old, old_end),
            new=_longer_than_one(after, new, new_end),
        )
        groups.append(group)
        old, new = ends
    return groups


def _longer_than_one(shape: tuple[int, ...], begin: int, end: int) -> list[int]:
    places = range(begin, end)
    return [place for place in places if shape[place] > 1]


def _group_ends(
    before: tuple[int, ...], after: tuple[int, ...], old: int, new: int
) -> tuple[int, int] | None:
    """Where the shortest group that begins at two places ends."""
    if old >= len(before) or new >= len(after):
        return None

    old_numbers = before[old]
    new_numbers = after[new]
    old += 1
    new += 1
    while old_numbers != new_numbers:
        if old_numbers < new_numbers and old < len(before):
            old_numbers *= before[old]
            old += 1
        elif new_numbers < old_numbers and new < len(after):
            new_numbers *= after[new]
            new += 1
        else:
            return None
    return old, new


def _regrouped(
    roles: list[Role], old_lengths: list[int], new_lengths: list[int]
) -> Sequence[Role]:
    """The roles of new axes that hold the numbers of old ones, by their lengths."""
    counts = (len(roles), len(new_lengths))
    if counts == (1, 1):
        return roles
    if counts == (2, 1):
        return [_merged(roles, old_lengths)]
    if len(roles) == 1:
        return _divided(roles[0], new_lengths)
    return [None] * len(new_lengths)


def _merged(roles: list[Role], lengths: list[int]) -> Role:
    """The role of two axes merged: tokens, where they are rows and columns."""
    match roles:
        case [Side("row", row_axis), Side("col", col_axis)]:
            rows, cols = lengths
            return Tokens(rows, cols, 0, row_axis, col_axis)
    return None


def _divided(role: Role, lengths: list[int]) -> Sequence[Role]:
    """The roles of the axes that one axis was divided into."""
    if len(lengths) != 2:
        return [None] * len(lengths)

    if isinstance(role, Side):
        _, patch = lengths
        return _cut_into_patches(role, patch), None
    if isinstance(role, Tokens) and role.before == 0:
        if lengths == [role.rows, role.cols]:
            rows = Side("row", role.row_axis)
            cols = Side("col", role.col_axis)
            return rows, cols
    return None, None


def _cut_into_patches(side: Side, patch: int) -> Side:
    """The role of patches of so many cells, which lie in the middle of their cells."""
    if side.axis is None:
        return side
    axis = side.axis.windowed(kernel=patch, stride=patch, padding=0)
    return Side(side.which, axis)
