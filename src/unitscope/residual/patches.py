"""Patches: where the patches of a photo lie, and what they give as one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.readings import Spread
from unitscope.geometry import Grid
from unitscope.residual.sums import Vectors


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches that are read: where each set of (rows, cols) lies, and the finest set."""

    grids: Mapping[tuple[int, int], Grid]

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, cols) of the finest set, on which maps are laid."""
        return max(self.grids, key=lambda cells: cells[0] * cells[1])

    @property
    def grid(self) -> Grid:
        """Where the patches of the finest set lie on the network's input."""
        return self.grids[self.cells]

    def map_of(
        self, parts: Mapping[tuple[int, int], Vectors]
    ) -> Float[Tensor, "photo class row col"]:
        """What patches give (photo, patch, class), as one map whose mean is their sum."""
        total: Tensor | None = None
        for cells, part in parts.items():
            photos, count, classes = part.shape
            maps = part.transpose(1, 2).reshape(photos, classes, *cells) * count
            spread = Spread.between(
                self.grids[cells], cells, self.grid, self.cells
            )
            maps = maps if spread is None else spread(maps)
            total = maps if total is None else total + maps
        assert total is not None
        return total
