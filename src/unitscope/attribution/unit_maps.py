"""Unit maps: the feature maps of chosen units, and where they lie on the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor

from unitscope.drawable import Drawable
from unitscope.geometry import Grid, lay_on_photo
from unitscope.inputs.subjects import Subject
from unitscope.plurals import plural

Held: TypeAlias = Literal["activations", "shares", "attention", "evidence"]
"""What the cells of a unit's map hold."""


@dataclass(frozen=True, eq=False)
class UnitMaps(Drawable):
    """What chosen units of a layer did on some photos.

    `maps` (batch, unit, row, col) are the activations as the network computed them,
    signed, in the order of `units`. Where they `hold` "shares", as of a maximum pool, they
    are what every cell gives of the pooled unit, times the number of cells. Those of an
    attention head hold "attention", its share at every patch times the number of patches,
    or "evidence", what every patch gives to a class through the head, in logits. `grid` says
    where the cells lie on the network's input, which has `input_size` (rows, cols). `noun`
    and `names` are what the units are called where they have more than numbers.
    """

    layer: str
    units: tuple[int, ...]
    maps: Float[Tensor, "batch unit row col"]
    grid: Grid
    input_size: tuple[int, int]
    subjects: tuple[Subject, ...]
    hold: Held = "activations"
    noun: str = "unit"
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows, cols = self.maps.shape[2:]
        units = plural(len(self.units), self.noun)
        photos = plural(len(self.maps), "photo")
        return (
            f"<UnitMaps of {units} of '{self.layer}' on {photos}: "
            f"{rows}×{cols} cells>"
        )

    @property
    def are_shares(self) -> bool:
        """Whether cells hold shares of the pooled unit, and not activations."""
        return self.hold == "shares"

    @property
    def unit_names(self) -> tuple[str, ...]:
        """What every unit is called: its number, where it has no name."""
        return self.names or tuple(map(str, self.units))

    @property
    def titles(self) -> tuple[str, ...]:
        """The same with their noun: "unit 41", "head 3.5"."""
        return tuple(f"{self.noun} {name}" for name in self.unit_names)

    def called(self, most: int) -> str:
        """All units in words, of more than `most` the first: "units 3, 5 and 8"."""
        names = self.unit_names
        noun = self.noun if len(names) == 1 else f"{self.noun}s"
        if len(names) > most:
            return f"{noun} {', '.join(names[:most])} …"
        *others, last = names
        return (
            f"{noun} {', '.join(others)} and {last}"
            if others
            else f"{noun} {last}"
        )

    def first(self, count: int) -> UnitMaps:
        """The maps of the first `count` units."""
        return self.of(self.units[:count])

    def of(self, units: Sequence[int]) -> UnitMaps:
        """The maps of some of the units."""
        places = [self.units.index(unit) for unit in units]
        return replace(
            self,
            units=tuple(units),
            maps=self.maps[:, places],
            names=tuple(self.names[place] for place in places if self.names),
        )

    def on_photo(
        self,
        image: int = 0,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> Float[np.ndarray, "unit height width"]:
        """The maps of one photo laid where they belong on it; NaN outside the crop.

        `size` is (width, height).
        """
        maps = self.maps[image].cpu().numpy()
        placement = self.subjects[image].placement(self.input_size)
        return lay_on_photo(maps, self.grid, placement, size, interpolation)
