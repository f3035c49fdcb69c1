"""Intervention: what is done to units of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.effects import (
    Effect,
    check_effect,
)
from unitscope.attribution.explanation import Units
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.region import Region
from unitscope.attribution.value import UnitMeans, Value
from unitscope.errors import InputError, NonFiniteError
from unitscope.model.explaining import Asked
from unitscope.residual.replacement import HeadMeans

# What is put in place of units: a number, means over a data set, or other photos.
Put: TypeAlias = "float | UnitMeans | HeadMeans | list[Asked]"

# A photo, some units, and the logits (unit, class) with each of them changed.
Piece: TypeAlias = tuple[int, tuple[list[int], Tensor]]


@dataclass(frozen=True)
class Intervention:
    """What is done to a layer: to which units, where, and what is put in their place.

    `layer` None is the explained one; `units` None are all, `region` None the whole map.
    """

    layer: str | None
    units: Units | None
    region: Region | None = None
    put: Put = 0.0
    effect: Effect = "total"

    def __post_init__(self) -> None:
        check_effect(self.effect)

    @property
    def is_plain(self) -> bool:
        """Whether units are switched off in the whole map."""
        is_number = isinstance(self.put, float)
        return self.region is None and is_number and not self.put

    def change_of(
        self, layer: str, shape: tuple[int, ...], photos: Value | None
    ) -> MapChange:
        """The change of a layer's map of a shape; `photos` is what it is on other photos.

        Raises InputError for a region or a value that does not fit the layer.
        """
        if isinstance(self.put, HeadMeans):
            raise InputError(
                f"value has the means of attention heads, and layer '{layer}' has units: take "
                f"Atlas.unit_means(model, {layer!r})"
            )
        if isinstance(self.put, UnitMeans):
            value = Value.of_means(self.put, layer, shape)
        else:
            value = photos or Value.of_number(self.put)
        return MapChange.of(value, self.region, shape[1:])


def another_size(other: Any, own: Any) -> InputError:
    """The error where the maps (…, unit, row, col) of other photos are of another size."""
    shape, wanted = (
        "×".join(map(str, tuple(each.shape)[-3:])) for each in (other, own)
    )
    return InputError(
        f"the maps of the other photo are {shape}, and those of this one {wanted}: give "
        "photos that go into the network in the same size"
    )


def check_count(others: int, photos: int) -> None:
    """Raise InputError unless there is one other photo, or one for each."""
    if others not in (1, photos):
        wanted = (
            "one" if photos == 1 else f"one, or one for each of the {photos}"
        )
        raise InputError(
            f"value has {others} photos to take the values from: give {wanted}"
        )


def check_changed(logits: Tensor, layer: str, replaced: str) -> None:
    """Raise NonFiniteError where changed units gave logits that are not finite.

    `replaced` is what was put in their place, in words.
    """
    if bool(torch.isfinite(logits).all()):
        return
    remedy = "run the network in float32, module.float()"
    if replaced:
        remedy = f"put something nearer 0 in their place than {replaced}"
    raise NonFiniteError(
        f"the logits with units of '{layer}' changed are NaN or infinite: {remedy}"
    )


def blank_table(
    logits: Tensor, units: Sequence[int]
) -> Float[Tensor, "photo unit class"]:
    """NaN for every photo, unit and class."""
    photos, classes = logits.shape
    return torch.full((photos, len(units), classes), torch.nan)
