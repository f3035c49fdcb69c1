"""Region: some of the cells of a feature map."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import InputError

Region: TypeAlias = Sequence[Any] | np.ndarray | Tensor
"""Cells of a map: a cell `(row, col)`; rows and columns, `(slice(2, 5), slice(0, 3))`; or a
(row, col) array that holds 1 where a cell belongs to the region, 0 where not, or its share."""

_FORMS = (
    "give a cell (row, col), slices (slice(2, 5), slice(0, 3)), or an array of 0 and 1 with "
    "the map's cells"
)


# Characters of a wrong region that an error repeats.
_MOST_SHOWN = 80


def region_shares(
    region: Region, cells: tuple[int, int]
) -> Float[Tensor, "row col"]:
    """How much of every cell belongs to a region of a map of `cells` (rows, cols): 0 to 1.

    Raises InputError for anything that is no region of such a map, and for slices without
    a cell.
    """
    if isinstance(region, tuple) and _is_a_pair(region):
        rows, cols = (
            _marked(side, count, name)
            for side, count, name in zip(
                region, cells, ("row", "column"), strict=True
            )
        )
        shares = torch.outer(rows, cols)
        if not bool(shares.any()):
            raise InputError(
                f"the region {region!r} holds none of the map's {cells[0]}×{cells[1]} cells: "
                f"{_FORMS}"
            )
        return shares
    return _shares_of_array(region, cells)


def area_of(
    region: Region, maps: Float[Tensor, "*axes rows cols"]
) -> Float[Tensor, "rows cols"]:
    """The share of maps that every cell of a region is; all cells together are 1.

    Raises InputError as `region_shares` does.
    """
    rows, cols = maps.shape[-2:]
    return region_shares(region, (rows, cols)).to(maps) / (rows * cols)


def region_in_text(text: str) -> tuple[int | slice, int | slice]:
    """The region that a text names: "2,3" is a cell, "2:5,0:3" rows 2–4 and columns 0–2.

    Raises InputError for other texts.
    """
    sides = text.split(",")
    if len(sides) != 2:
        raise _no_region(text)
    rows, cols = (_side_in_text(side.strip(), text) for side in sides)
    return rows, cols


def _side_in_text(side: str, text: str) -> int | slice:
    begin, colon, end = side.partition(":")
    numbers = [number for number in (begin, end) if number]
    if not all(number.isdecimal() for number in numbers):
        raise _no_region(text)
    if colon:
        start = int(begin) if begin else None
        stop = int(end) if end else None
        if stop is not None and stop <= (start or 0):
            raise _no_region(text)
        return slice(start, stop)
    if not begin:
        raise _no_region(text)
    return int(begin)


def _no_region(text: str) -> InputError:
    return InputError(
        f"'{text}' is no region: give a cell (2,3 is row 2, column 3) or ranges (2:5,0:3 is "
        "rows 2 to 4 and columns 0 to 2), counted from 0"
    )


def _is_a_pair(region: tuple[Any, ...]) -> bool:
    """Whether a tuple is a pair of numbers or slices, and not rows of an array."""
    return len(region) == 2 and all(map(_is_a_side, region))


def _is_a_side(side: Any) -> bool:
    if isinstance(side, slice):
        return True
    try:
        operator.index(side)
    except TypeError:
        return False
    return True


def _marked(side: Any, count: int, name: str) -> Float[Tensor, " row"]:
    """1 for the rows, or columns, of a map that a number or a slice names; 0 for others."""
    marks = torch.zeros(count)
    if isinstance(side, slice):
        try:
            chosen = range(count)[side]
        except (TypeError, ValueError):
            raise InputError(f"{side!r} is no slice: {_FORMS}") from None
        marks[list(chosen)] = 1
        return marks
    if isinstance(side, bool) or not 0 <= side < count:
        raise InputError(
            f"there is no {name} {side!r} in a map with {count} of them: they are numbered 0 "
            f"to {count - 1}"
        )
    marks[int(side)] = 1
    return marks


def _shares_of_array(
    region: Any, cells: tuple[int, int]
) -> Float[Tensor, "row col"]:
    try:
        shares = torch.as_tensor(region).detach().cpu().to(torch.float32)
    except (TypeError, ValueError, RuntimeError):
        words = " ".join(repr(region).split())[:_MOST_SHOWN]
        raise InputError(f"{words} is no region: {_FORMS}") from None
    if tuple(shares.shape) != cells:
        shape = "×".join(map(str, shares.shape)) or "one number"
        raise InputError(
            f"a region of this map has its {cells[0]}×{cells[1]} cells, not {shape}: {_FORMS}"
        )
    if not bool(((shares >= 0) & (shares <= 1)).all()):
        raise InputError(
            "the cells of a region hold 1 (in it), 0 (not), or a share between them, not "
            f"{float(shares.min()):g} to {float(shares.max()):g}"
        )
    return shares
