"""Axes: where units, rows, columns and tokens lie in a tensor that holds a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.geometry import Grid
from unitscope.tracing.roles import Layout, Role, Side, Tokens


@dataclass(frozen=True)
class Axes:
    """Where units, rows and columns lie in a tensor that holds a feature map.

    `order` is "units first" (batch, unit, row, col), "units last" (batch, row, col,
    unit), "tokens" (batch, token, unit) or "units, tokens" (batch, unit, token). In the
    last two, rows · cols tokens are the map's cells, row by row, `prefix` tokens stand
    before them (a class token) and `suffix` behind them (registers).
    """

    order: str = "units first"
    rows: int = 0
    cols: int = 0
    prefix: int = 0
    suffix: int = 0

    @classmethod
    def tiling(
        cls, order: str, tokens: int, input_size: tuple[int, int]
    ) -> Axes | None:
        """Tokens as squares that tile an input (rows, cols); None where none do."""
        input_rows, input_cols = input_size
        squared_rows = tokens * input_rows / input_cols
        rows = round(squared_rows**0.5)
        cols = tokens // max(rows, 1)

        if tokens <= 1 or rows * cols != tokens:
            return None
        if rows * input_cols != cols * input_rows:
            return None
        return cls(order, rows, cols)

    @property
    def others(self) -> int:
        """How many tokens are no cells of the map."""
        return self.prefix + self.suffix

    def map_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(unit, row, col) of the map in a tensor of this shape."""
        rows = self.rows
        cols = self.cols
        if self.order == "units first":
            _, units, rows, cols = shape
        elif self.order == "units last":
            _, rows, cols, units = shape
        elif self.order == "tokens":
            _, _, units = shape
        else:
            _, units, _ = shape
        return units, rows, cols

    def units_first(
        self, tensor: Tensor
    ) -> Float[Tensor, "batch unit row col"]:
        """The tensor as a feature map."""
        if self.order == "units first":
            return tensor
        if self.order == "units last":
            return tensor.permute(0, 3, 1, 2)

        tokens = tensor
        if self.order == "tokens":
            tokens = tensor.transpose(1, 2)
        batch, units, _ = tokens.shape
        count = self.rows * self.cols
        suffix_start = self.prefix + count
        cells = tokens[:, :, self.prefix : suffix_start]
        return cells.reshape(batch, units, self.rows, self.cols)

    def other_tokens(
        self, tensor: Tensor
    ) -> Float[Tensor, "batch token unit"] | None:
        """A copy of the tokens that are no cells; None where there are none."""
        if not self.others:
            return None
        tokens = tensor
        if self.order == "units, tokens":
            tokens = tensor.transpose(1, 2)
        suffix_start = tokens.shape[1] - self.suffix
        before = tokens[:, : self.prefix]
        behind = tokens[:, suffix_start:]
        return torch.cat([before, behind], dim=1)

    def laid_back(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        others: Float[Tensor, "batch token unit"] | None,
    ) -> Tensor:
        """The tensor of this order that holds a feature map and the tokens `others`."""
        if self.order == "units first":
            return feature_map
        if self.order == "units last":
            return feature_map.permute(0, 2, 3, 1)

        tokens = feature_map.flatten(2).transpose(1, 2)
        if others is not None:
            before = others[:, : self.prefix]
            behind = others[:, self.prefix :]
            tokens = torch.cat([before, tokens, behind], dim=1)
        if self.order == "tokens":
            return tokens
        return tokens.transpose(1, 2)


def axes_of(layout: Layout | None, shape: tuple[int, ...]) -> Axes | None:
    """How a map lies in a tensor of a layout and shape; None where none does."""
    if layout is None or len(layout) != len(shape):
        return None

    kinds = [_kind_of(role) for role in layout]
    match kinds:
        # A transposed map is one too, though its grid is not known.
        case ["", "", "row", "col"] | ["", "", "col", "row"]:
            return Axes()
        case ["", "row", "col", ""]:
            return Axes("units last")
        case ["", "token", ""]:
            return _axes_of_tokens("tokens", layout[1], shape[1])
        case ["", "", "token"]:
            return _axes_of_tokens("units, tokens", layout[2], shape[2])
        case _:
            return None


def _kind_of(role: Role) -> str:
    if isinstance(role, Side):
        return role.which
    return "token" if isinstance(role, Tokens) else ""


def _axes_of_tokens(order: str, role: Role, tokens: int) -> Axes | None:
    assert isinstance(role, Tokens)
    behind = tokens - role.before - role.cells
    if behind < 0:
        return None
    return Axes(
        order=order,
        rows=role.rows,
        cols=role.cols,
        prefix=role.before,
        suffix=behind,
    )


def grid_of(layout: Layout | None) -> Grid | None:
    """Where the cells of a map lie on the network's input; None where unknown."""
    match [role for role in layout or () if role is not None]:
        case [Tokens(row_axis=rows, col_axis=cols)]:
            pass
        case [Side("row", rows), Side("col", cols)]:
            pass
        case _:
            return None
    return Grid(rows, cols) if rows and cols else None
