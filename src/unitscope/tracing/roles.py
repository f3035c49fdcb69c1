"""Roles: what every axis of a tensor holds, and where its cells lie on the input.

An axis may hold the rows, the columns or the tokens of a map. A tensor's layout is the
role of each of its axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import starmap
from typing import NamedTuple, TypeAlias

from unitscope.geometry import PIXELS, Axis

# How to tell where the cells of an axis lie that two tensors share.
AxisMerge: TypeAlias = Callable[[Axis | None, Axis | None], Axis | None]


@dataclass(frozen=True, slots=True)
class Side:
    """An axis of rows ("row") or columns ("col"), and where they lie, if known."""

    which: str
    axis: Axis | None

    def merged(self, other: Side, merge: AxisMerge) -> Side | None:
        """The role of an axis that two tensors share; None where it cannot be both."""
        if self.which != other.which:
            return None
        axis = merge(self.axis, other.axis)
        return Side(self.which, axis)


@dataclass(frozen=True, slots=True)
class Tokens:
    """An axis of tokens: the cells of a map, row by row, behind `before` others.

    `row_axis` and `col_axis` are None where the cells' places are unknown.
    """

    rows: int
    cols: int
    before: int
    row_axis: Axis | None
    col_axis: Axis | None

    @property
    def cells(self) -> int:
        """How many tokens are cells."""
        return self.rows * self.cols

    def merged(self, other: Tokens, merge: AxisMerge) -> Tokens | None:
        """The role of an axis that two tensors share; None where it cannot be both."""
        if (self.rows, self.cols) != (other.rows, other.cols):
            return None
        if self.before != other.before:
            return None
        return replace(
            self,
            row_axis=merge(self.row_axis, other.row_axis),
            col_axis=merge(self.col_axis, other.col_axis),
        )


# None is any other axis: the batch, units, heads, or an axis whose cells were mixed.
Role: TypeAlias = Side | Tokens | None
Layout: TypeAlias = tuple[Role, ...]

# The layout of a tensor whose cells were chosen, sorted or written in an unknown way.
# Its cells are in unknown places, and so are those of every tensor that it is added to.
# A tensor that does not depend on the photo's cells has the layout None instead.
LOST: Layout = (Side("lost", None),)

# The network's input: (batch, channel, row, col).
IMAGE: Layout = (None, None, Side("row", PIXELS), Side("col", PIXELS))

# A map (batch, unit, row, col) whose cells are in unknown places.
SOMEWHERE: Layout = (None, None, Side("row", None), Side("col", None))


class TracedTensor(NamedTuple):
    """A tensor of a trace; `layout` is None where the roles could not be followed."""

    layout: Layout | None
    shape: tuple[int, ...]

    def has_cells_of(self, shape: tuple[int, ...]) -> bool:
        """Whether it has the cells of a result of this shape.

        That is as many rows, columns or tokens, on the same axes.
        """
        assert self.layout is not None
        if len(self.layout) != len(self.shape):
            return False
        if len(self.shape) != len(shape):
            return False

        for role, own, other in zip(
            self.layout, self.shape, shape, strict=True
        ):
            if role is not None and own != other:
                return False
        return any(self.layout)


def without_place(role: Role) -> Role:
    """The role of an axis whose cells have moved to unknown places."""
    if isinstance(role, Side):
        return Side(role.which, None)
    if isinstance(role, Tokens):
        return replace(role, row_axis=None, col_axis=None)
    return None


def common_axis(one: Axis | None, other: Axis | None) -> Axis | None:
    """Where the cells of two tensors lie; None where they do not lie alike."""
    if one is None or other is None:
        return None
    if abs(one.start - other.start) >= 1e-6:
        return None
    if abs(one.step - other.step) >= 1e-6:
        return None
    return one


def common_role(one: Role, other: Role, merge: AxisMerge = common_axis) -> Role:
    """The role of an axis that two tensors share."""
    # An axis may have no role because attention mixed its cells: a shortcut around the
    # attention has one.
    if one is None:
        return other
    if other is None:
        return one

    if isinstance(one, Side) and isinstance(other, Side):
        return one.merged(other, merge)
    if isinstance(one, Tokens) and isinstance(other, Tokens):
        return one.merged(other, merge)
    return None


def common_layout(one: Layout, other: Layout) -> Layout:
    """The layout of a sum of two tensors of one shape."""
    pairs = zip(one, other, strict=True)
    return tuple(starmap(common_role, pairs))
