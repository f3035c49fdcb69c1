"""Maps: what a method says of a batch of photos, one map of one class each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.geometry import Grid, interpolation_weights

_TIE_CELLS = 8


@dataclass(frozen=True, eq=False)
class Maps:
    """Signed maps of some photos: larger values speak more for the class explained.

    `grid` says where the cells lie on the network's input of `input_size` (rows, cols).
    `accounts_for` is how much of the class's logit each map accounts for, in logits;
    None for methods that promise no such thing. `contributions` are those of the units
    of `layer`, where the method gives any. `again` makes maps of another model, or of
    other photos, by the same method: (model, inputs, classes) → maps.
    """

    values: Float[np.ndarray, "photo row col"]
    grid: Grid
    input_size: tuple[int, int]
    accounts_for: Float[np.ndarray, " photo"] | None = None
    contributions: Float[np.ndarray, "photo unit"] | None = None
    layer: str | None = None
    again: Callable[[Any, Any, Any], Maps] | None = None

    @classmethod
    def tiling(
        cls,
        values: Float[np.ndarray, "photo row col"],
        input_size: tuple[int, int],
    ) -> Maps:
        """Maps whose cells tile the network's input evenly."""
        cells = (values.shape[1], values.shape[2])
        return cls(
            values.astype(np.float64),
            Grid.tiling(input_size, cells),
            input_size,
        )

    def __len__(self) -> int:
        return len(self.values)

    def on_input(self) -> Float[np.ndarray, "photo height width"]:
        """The maps at the resolution of the input, bilinear between centres of cells."""
        rows, cols = self.input_size
        cells = (self.values.shape[1], self.values.shape[2])
        down, across = interpolation_weights(
            self.grid, cells, self.input_size, (cols, rows)
        )
        laid: np.ndarray = down @ self.values @ across.T
        return laid

    def centres(
        self,
    ) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " col"]]:
        """Where the centres of the cells lie on the input, down and across, in pixels."""
        _, rows, cols = self.values.shape
        return self.grid.rows.centres(rows), self.grid.cols.centres(cols)


def ranks(
    values: Float[np.ndarray, "height width"], seed: int
) -> Int64[np.ndarray, "height width"]:
    """The place of every pixel when the largest value comes first, from 0.

    Equal values are ordered as a random map of 8×8 patches would order them, so that a
    constant map is worth what a random one is.
    """
    patches = np.random.default_rng(seed).random((_TIE_CELLS, _TIE_CELLS))
    random = Maps.tiling(patches[None], values.shape).on_input()[0]
    order = np.lexsort((random.ravel(), values.ravel()))[::-1]
    places = np.empty(values.size, dtype=np.int64)
    places[order] = np.arange(values.size)
    return places.reshape(values.shape)
