"""Row: which numbers of a tensor belong to the token that is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    AXIS_REORDERINGS,
    CASTS,
    COPIES,
    DIVIDERS,
    DROPOUTS,
    RESHAPES,
    SELECTIONS,
)

PHOTO = -1
UNITS = -2

# Give the very numbers that they are given, each in its place.
_SAME = CASTS | COPIES | DROPOUTS
# Give numbers that they are given, in other places.
MOVING = RESHAPES | AXIS_REORDERINGS | SELECTIONS | DIVIDERS

# Two photos, so that their axis can be told from axes of length one.
PHOTOS = 2


@dataclass(frozen=True)
class Row:
    """The numbers of one token in a tensor: one vector for each photo.

    `axes` says of every axis of the tensor whether it holds the photos (PHOTO), the
    vector (UNITS; of several such axes, row by row), or else which index is taken.
    """

    axes: tuple[int, ...]

    @property
    def units_are_last(self) -> bool:
        """Whether the vector lies along the last axis, and along no other."""
        return self.axes[-1] == UNITS and self.axes.count(UNITS) == 1

    def of(self, tensor: Tensor) -> Tensor:
        """The vectors in a tensor, (photo, unit)."""
        index = tuple(slice(None) if axis < 0 else axis for axis in self.axes)
        left = [axis for axis in self.axes if axis < 0]
        vectors = tensor[index]
        return vectors.movedim(left.index(PHOTO), 0).flatten(1)

    def of_all(
        self, tensor: Tensor, others: list[Tensor]
    ) -> Float[Tensor, "photo unit"]:
        """The vectors, float32, in a tensor that is broadcast with others."""
        shape = np.broadcast_shapes(
            tensor.shape, *(each.shape for each in others)
        )
        return self.of(tensor.expand(shape)).to(torch.float32)

    def before(self, call: Call) -> Row | None:
        """Where the same numbers lie in the first argument of a call.

        None where the call is none that only moves numbers along, or moves those of a
        token apart. The call was traced with two photos.
        """
        if not call.inputs:
            return None
        shape = call.inputs[0].shape
        if call.name in _SAME:
            return self if shape == call.shape else None
        if call.name not in MOVING:
            return None
        return self.before_all([call], shape)

    def before_all(
        self, moves: Sequence[Call], shape: tuple[int, ...]
    ) -> Row | None:
        """The same for calls that only move numbers, the last one first.

        In the first argument of the first one, when it has this shape.
        """
        first = moves[-1].inputs[0].shape
        places: Tensor | None = torch.arange(math.prod(first)).view(first)
        for call in reversed(moves):
            places = None if places is None else moved(call, places)
        if places is None or places.ndim != len(self.axes):
            return None
        return self.found(self.of(places), shape)

    @classmethod
    def found(cls, places: Tensor, shape: tuple[int, ...]) -> Row | None:
        """The row of these places (photo, unit) in a tensor; None where they are none."""
        where = torch.stack(torch.unravel_index(places, shape), dim=-1)
        differs = (where[0] != where[1]).any(dim=0)
        varies = (where[0] != where[0, :1]).any(dim=0)
        axes = [
            PHOTO if differs[axis] else UNITS if varies[axis] else index
            for axis, index in enumerate(where[0, 0].tolist())
        ]
        if axes.count(PHOTO) != 1 or UNITS not in axes:
            return None
        row = cls(tuple(axes))
        all_places = torch.arange(math.prod(shape)).view(shape)
        return row if torch.equal(row.of(all_places), places) else None


def moved(call: Call, places: Tensor) -> Tensor | None:
    """What a call that only moves numbers makes of a tensor of places.

    None where its arguments are spelled in a way that is not known.
    """
    name = call.name
    arguments: dict[str, Any] = dict(call.kwargs)
    arguments.pop("input", None)
    try:
        if name in ("T", "mT"):
            made = getattr(places, name)
        else:
            function = getattr(torch.Tensor, name)
            made = function(places, *call.args[1:], **arguments)
        return made if isinstance(made, Tensor) else made[call.place]
    except (IndexError, RuntimeError, TypeError, ValueError):
        return None
