"""Reordering: rules of functions that reorder axes or the cells of a map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unitscope.geometry import Axis
from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.roles import Layout, Role, Side, Tokens, without_place


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


def is_permutation(call: FunctionCall) -> bool:
    """Whether a call is an einsum that only reorders the axes of one tensor."""
    return call.name == "einsum" and _spelled(call) is not None


def respelled(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after such an einsum, as `nchw->nhwc`."""
    spelled = _spelled(call)
    if spelled is None:
        return None
    before, after = spelled
    return tuple(layout[before.index(name)] for name in after)


def _spelled(call: FunctionCall) -> tuple[str, str] | None:
    """The axes before and after, by letters; None where it does more than reorder them."""
    equation = call.argument(0, "equation")
    if not isinstance(equation, str) or len(call.inputs) != 1:
        return None
    before, _, after = equation.replace(" ", "").partition("->")
    is_plain = before.isalpha() and len(set(before)) == len(before)
    return (
        (before, after)
        if is_plain and sorted(before) == sorted(after)
        else None
    )


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


def flipped(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after `flip`: cells of a flipped axis lie in the opposite order."""
    axes = _arguments(call)
    if call.name in ("fliplr", "flipud"):
        axes = [1 if call.name == "fliplr" else 0]
    if len(axes) == 1 and not isinstance(axes[0], int):
        (axes,) = axes

    roles = list(layout)
    for axis in _axes(tuple(axes), len(layout)):
        roles[axis] = _mirrored(layout[axis], call.shape[axis])
    return tuple(roles)


def rotated(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after `rot90`: of an odd number of turns, the axes change places."""
    turns = int(call.argument(1, "k", 1)) % 4
    one, other = call.argument(2, "dims", (0, 1))
    shape = call.first.shape
    mirrored_one = _mirrored(layout[one], shape[one])
    mirrored_other = _mirrored(layout[other], shape[other])

    roles = list(layout)
    if turns == 1:
        roles[one], roles[other] = mirrored_other, layout[one]
    elif turns == 2:
        roles[one], roles[other] = mirrored_one, mirrored_other
    elif turns == 3:
        roles[one], roles[other] = layout[other], mirrored_one
    return tuple(roles)


def rolled(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles after `roll`: on the axes that it changes, the places of cells are unknown."""
    axes = call.argument(2, "dims")
    if axes in (None, ()):
        axes = range(len(layout))

    roles = list(layout)
    for axis in _axes(axes, len(layout)):
        # Which tokens are cells is unknown, too.
        role = layout[axis]
        roles[axis] = None if isinstance(role, Tokens) else without_place(role)
    return tuple(roles)


def _mirrored(role: Role, length: int) -> Role:
    if isinstance(role, Side):
        return Side(role.which, _mirrored_axis(role.axis, length))
    if isinstance(role, Tokens):
        if role.cells != length:
            return without_place(role)
        return replace(
            role,
            row_axis=_mirrored_axis(role.row_axis, role.rows),
            col_axis=_mirrored_axis(role.col_axis, role.cols),
        )
    return None


def _mirrored_axis(axis: Axis | None, length: int) -> Axis | None:
    return None if axis is None else axis.sliced(length - 1, -1)


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
