"""ResidualHead: the account of a network whose logits are read from one token's stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unitscope.attribution.head import Head
from unitscope.attribution.unit_maps import Held
from unitscope.tracing.layers import check_units

HEADS = "attention heads"
"""Stands for a layer: its units are the heads of all blocks. No module has a space."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ResidualHead(Head):
    """The token that is read is a sum: of what heads of attention moved to it, and MLPs wrote.

    Units are the heads of all blocks, block by block; `unit_names` calls them
    "block.head". `blocks` are the layers that hold the attention calls, `mlps`
    those that are MLPs. `reason` says why
    there is no exact head. `error` is the largest difference between the sum of all parts
    and the logits. `held` says that numbers that the photo sets multiply the stream:
    they count as constants.
    """

    kind = "residual"
    exact = False
    adds_up = True
    unit_noun = "head"

    reason: str
    blocks: tuple[str, ...]
    unit_names: tuple[str, ...] = field(repr=False)
    tokens: int
    mlps: tuple[str, ...] = ()
    held: bool = False

    def describe(self) -> str:
        """One line in words."""
        _, rows, cols = self.map_shape
        blocks = len(self.blocks)
        heads = len(self.unit_names)
        words = (
            "the token that is read"
            if self.tokens == 1
            else "the tokens that are read"
        )
        noun = "block" if blocks == 1 else "blocks"
        return (
            f"residual: {words} as the sum of what {heads} attention heads of {blocks} "
            f"{noun} took from {rows}×{cols} patches and other tokens, and of what MLPs "
            "wrote → normalisation → classes"
        )

    def unit_name(self, unit: int) -> str:
        """See Head."""
        return self.unit_names[unit]

    def chosen(
        self, units: int | str | Sequence[int | str] | Tensor
    ) -> list[int]:
        """The numbers of heads that are given by numbers or names, without repeats.

        Raises UnitError for a head that does not exist.
        """
        if isinstance(units, str):
            units = [units]
        if isinstance(units, Iterable) and not isinstance(units, Tensor):
            units = [
                self.unit_of(unit) if isinstance(unit, str) else unit
                for unit in units
            ]
        count = len(self.unit_names)
        return check_units(units, count, "the list of attention heads")

    def block_of(self, unit: int) -> int:
        """The block that a head is in, from 0: its place in `blocks`."""
        return int(self.unit_names[unit].partition(".")[0])

    def gives_activations(self, units: Sequence[int]) -> bool:
        """See Head: they hold attention."""
        return False

    def maps_hold(self, units: Sequence[int]) -> Held:
        """See Head."""
        return "attention"

    def as_json(self) -> dict[str, Any]:
        """The head as plain data: the "answer" of docs/json.md."""
        return {
            **super().as_json(),
            "reason": self.reason,
            "blocks": list(self.blocks),
            "unit_names": list(self.unit_names),
            "tokens": self.tokens,
            "held": self.held,
        }
