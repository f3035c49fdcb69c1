"""Value: what is put in place of what a unit did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import InputError


@dataclass(frozen=True, eq=False)
class UnitMeans:
    """The mean activation of every unit of a layer over the `images` of a data set.

    `Atlas.unit_means` makes it.
    """

    layer: str
    means: Float[Tensor, " unit"] = field(repr=False)
    images: int


@dataclass(frozen=True, eq=False)
class Value:
    """What is put in place of the map of a unit, and of its tokens that are no cells.

    `maps` is (photo, unit, row, col) and `tokens` (photo, token, unit); along every axis
    there is one number for all, or one for each.
    """

    maps: Float[Tensor, "photo unit row col"] = field(repr=False)
    tokens: Float[Tensor, "photo token unit"] = field(repr=False)
    words: str
    is_zero: bool = False

    @classmethod
    def of_number(cls, number: Any) -> Value:
        """The same number everywhere. Raises InputError where it is none, or not finite."""
        if not is_number(number):
            raise InputError(
                f"an explanation puts a number in place of units, not {_kind(number)}: "
                "photos and the means of an atlas go to model.ablate(x, units=…, value=…)"
            )
        value = as_float(number)
        if not abs(value) <= torch.finfo(torch.float32).max:
            raise InputError(
                "what is put in place of units is a finite number of float32 (up to "
                f"3.4e+38), not {value:g}"
            )
        maps = torch.full((1, 1, 1, 1), value)
        return cls(maps, maps[0], f"{value:g}", value == 0)

    @classmethod
    def of_means(
        cls, means: UnitMeans, layer: str, shape: tuple[int, ...]
    ) -> Value:
        """One number a unit: its mean over a data set; `shape` is the map's.

        Raises InputError for means of another layer.
        """
        if means.layer != layer or len(means.means) != shape[0]:
            raise InputError(
                f"the means are those of {len(means.means)} units of layer '{means.layer}', and "
                f"layer '{layer}' has {shape[0]} units: take Atlas.unit_means(model, {layer!r})"
            )
        numbers = means.means.to(torch.float32)
        words = f"their means over {means.images:,} images"
        return cls(numbers[None, :, None, None], numbers[None, None], words)

    @classmethod
    def of_photos(
        cls,
        maps: Float[Tensor, "photo unit row col"],
        tokens: Float[Tensor, "photo token unit"] | None,
        names: list[str],
    ) -> Value:
        """What the unit did on other photos: one for all, or one for each."""
        if tokens is None:
            tokens = maps.new_zeros((len(maps), 1, maps.shape[1]))
        words = names[0] if len(names) == 1 else f"{len(names)} other photos"
        return cls(maps, tokens, f"their values on {words}")

    def __len__(self) -> int:
        """For how many photos there are numbers; 1 where these are for all photos."""
        return len(self.maps)

    def rows(self, start: int, stop: int) -> Value:
        """The value for photos from `start` to `stop`."""
        if len(self) == 1:
            return self
        return replace(
            self, maps=self.maps[start:stop], tokens=self.tokens[start:stop]
        )

    def to(self, like: Tensor) -> Value:
        """The same in the dtype and on the device of a tensor."""
        return replace(
            self, maps=self.maps.to(like), tokens=self.tokens.to(like)
        )


def is_number(value: Any) -> bool:
    """Whether a value is one number: Python's, numpy's, or a tensor's."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        return False
    if str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        return False
    return math.prod(getattr(value, "shape", ())) == 1 and not getattr(
        value, "ndim", 0
    )


def as_float(number: Any) -> float:
    """A number as a float; infinite where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _kind(value: Any) -> str:
    """What a value is, in a word: itself where it is short, else its type."""
    if value is None or isinstance(value, (bool, str)):
        return repr(value)
    return f"a value of type {type(value).__name__}"


ZERO = Value.of_number(0)
"""Units are switched off."""
