"""Heads: what attention heads gave to one class of one photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitscope.attribution.unit_maps import UnitMaps
from unitscope.residual.explanation import ResidualExplanation


@dataclass(frozen=True, eq=False)
class HeadsStory:
    """What attention heads gave to one class of one photo.

    `maps` are what the patches gave through single heads, signed, in logits: the mean of
    a map is the head's part from the patches. `by_block` is what all heads of every block
    gave, through all tokens; `mlps_by_block` what its MLPs wrote.
    """

    maps: UnitMaps
    by_block: tuple[float, ...]
    mlps_by_block: tuple[float, ...]

    @classmethod
    def of(
        cls, explanation: ResidualExplanation, index: int, units: Sequence[int]
    ) -> HeadsStory:
        """The story of some heads, for a class of the first photo. One forward pass."""
        photo = explanation[0]
        assert isinstance(photo, ResidualExplanation)
        chosen = list(dict.fromkeys(units))
        head = photo.head
        maps = UnitMaps(
            head.map_name,
            tuple(chosen),
            photo.head_maps(chosen, index)[:, :, 0],
            photo.grid,
            photo.input_size,
            photo.subjects,
            hold="evidence",
            noun=head.unit_noun,
            names=tuple(map(head.unit_name, chosen)),
        )
        blocks = photo.block_contributions_of(index)[0, 0]
        mlps = photo.block_writes_of(index)[0, 0]
        return cls(maps, tuple(blocks.tolist()), tuple(mlps.tolist()))

    def from_patches(self, unit: int) -> float:
        """What a head gave through the patches, in logits."""
        position = self.maps.units.index(unit)
        return float(self.maps.maps[0, position].mean())
