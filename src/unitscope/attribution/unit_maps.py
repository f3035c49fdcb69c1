"""Unit maps: the feature maps of chosen units, and where they lie on the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from unitscope.drawable import Drawable
from unitscope.geometry import Grid, lay_on_photo
from unitscope.inputs.subjects import Subject


@dataclass(frozen=True, eq=False)
class UnitMaps(Drawable):
    """What chosen units of a layer did on some photos.

    `maps` (batch, unit, row, col) are the activations as the network computed them,
    signed, in the order of `units`. Where `are_shares`, as of a maximum pool, they are what
    every cell gives of the pooled unit, times the number of cells. `grid` says where their
    cells lie on the network's input, which has `input_size` (rows, cols).
    """

    layer: str
    units: tuple[int, ...]
    maps: Float[Tensor, "batch unit row col"]
    grid: Grid
    input_size: tuple[int, int]
    subjects: tuple[Subject, ...]
    are_shares: bool = False

    def __repr__(self) -> str:
        rows, cols = self.maps.shape[2:]
        units, photos = len(self.units), len(self.maps)
        return (
            f"<UnitMaps of {units} units of '{self.layer}' on {photos} photos: "
            f"{rows}×{cols} cells>"
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
