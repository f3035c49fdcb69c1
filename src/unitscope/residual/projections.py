"""Projections: linear layers and means of the token that is read, in all spellings."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from unitscope.attribution.constants import Constants
from unitscope.attribution.pooling import input_position, reduced_axes
from unitscope.residual.mixing import EINSUM, terms_of
from unitscope.residual.places import Places
from unitscope.residual.rows import PHOTO, UNITS, Row
from unitscope.tracing.calls import Call
from unitscope.tracing.roles import Side, Tokens


class Projection(NamedTuple):
    """Which tensor of a call is the input, and the token's row in it.

    Of an einsum, `axes` are those of the weights as (class, unit…); else there are none.
    """

    input: int
    row: Row
    axes: tuple[int, ...] = ()


def projection_at(
    call: Call, row: Row, constants: Constants
) -> Projection | None:
    """The linear layer that a call is, for a row of its result; None where it is none."""
    if call.name == EINSUM:
        return _of_einsum(call, row, constants)
    position = input_position(call)
    others = [
        each for place, each in enumerate(call.inputs) if place != position
    ]
    if not all(each in constants for each in others):
        return None
    source = call.inputs[position]
    if source.shape[:-1] != call.shape[:-1]:
        return None
    is_product = call.name not in ("linear", "addmm")
    if is_product and len(others[0].shape) != 2:
        return None
    return Projection(position, row)


def _of_einsum(call: Call, row: Row, constants: Constants) -> Projection | None:
    terms = terms_of(call)
    if terms is None or row.axes.count(UNITS) != 1:
        return None
    *operands, result = terms
    moving = [each not in constants for each in call.inputs]
    if moving.count(True) != 1:
        return None
    position = moving.index(True)
    source, weights = operands[position], operands[1 - position]
    places = dict(zip(result, row.axes, strict=True))
    unit = next(name for name, axis in places.items() if axis == UNITS)
    if unit in source or set(weights) & set(result) != {unit}:
        return None
    summed = [name for name in source if name not in result]
    if set(weights) != {unit, *summed}:
        return None
    axes = tuple(places.get(name, UNITS) for name in source)
    if PHOTO not in axes:
        return None
    order = (unit, *summed)
    return Projection(
        position, Row(axes), tuple(weights.index(name) for name in order)
    )


def averaged_rows(call: Call, row: Row, places: Places) -> list[Row]:
    """The rows that a mean or sum of some axes reads, of a row of its result.

    None where it reduces the cells of a map: that is a pool.
    """
    (source,) = call.inputs
    reduced = sorted(reduced_axes(call, len(source.shape)))
    keeps = len(call.shape) == len(source.shape)
    given = iter(row.axes)
    axes = []
    for axis in range(len(source.shape)):
        is_reduced = axis in reduced
        axes.append(0 if is_reduced else next(given))
        if is_reduced and keeps:
            next(given)
        if is_reduced and _holds_cells(source, axis, places):
            return []
    if not reduced or math.prod(source.shape[axis] for axis in reduced) > 64:
        return []
    rows = []
    for taken in itertools.product(
        *(range(source.shape[axis]) for axis in reduced)
    ):
        for axis, place in zip(reduced, taken, strict=True):
            axes[axis] = place
        rows.append(Row(tuple(axes)))
    return rows


def _holds_cells(call: Call, axis: int, places: Places) -> bool:
    """Whether an axis holds the cells of a map."""
    single = places.of(call)
    layout = () if single is None else single.layout or ()
    if len(layout) != len(call.shape) or call.shape[axis] == 1:
        return False
    return isinstance(layout[axis], (Side, Tokens))
