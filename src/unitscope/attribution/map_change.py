"""MapChange: units of a feature map switched off or replaced, everywhere or in a region."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unitscope.attribution.region import Region, region_shares
from unitscope.attribution.value import ZERO, Value
from unitscope.tracing.axes import Axes


@dataclass(frozen=True, eq=False)
class MapChange:
    """What is done to units of a feature map: they get a `value`, by default zero.

    With a `region` (row, col) only its cells do, by their shares (0–1). Tokens that are no
    cells (a class token) belong to no region: they get the value where there is none.
    """

    value: Value = ZERO
    region: Float[Tensor, "row col"] | None = field(repr=False, default=None)

    @classmethod
    def of(
        cls,
        value: Value | float,
        region: Region | None,
        cells: tuple[int, ...],
    ) -> MapChange:
        """The change of a region of a map of `cells` (rows, cols); of all of it when None.

        Raises InputError for a value or a region that is none.
        """
        if not isinstance(value, Value):
            value = Value.of_number(value)
        if region is None:
            return cls(value)
        rows, cols = cells
        return cls(value, region_shares(region, (rows, cols)))

    @property
    def is_plain(self) -> bool:
        """Whether units are switched off in the whole map."""
        return self.value.is_zero and self.region is None

    @property
    def replaced(self) -> str:
        """What is put in place of units, in words; empty where they are off."""
        return "" if self.value.is_zero else self.value.words

    @property
    def where(self) -> str:
        """Which cells change, in words; empty for the whole map."""
        if self.region is None:
            return ""
        count = int((self.region > 0).sum())
        return f"{count} of {self.region.numel()} cells"

    def rows(self, start: int, stop: int) -> MapChange:
        """The change for photos from `start` to `stop`."""
        return dataclasses.replace(self, value=self.value.rows(start, stop))

    def of_map(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        units: Sequence[int],
    ) -> Float[Tensor, "batch unit row col"]:
        """A copy of a map with `units` changed."""
        chosen = list(units)
        changed = feature_map.clone()
        changed[:, chosen] = self._changed(feature_map)[:, chosen]
        return changed

    def of_tokens(
        self,
        tokens: Float[Tensor, "batch token unit"] | None,
        units: Sequence[int],
    ) -> Float[Tensor, "batch token unit"] | None:
        """A copy of the tokens that are no cells with `units` changed."""
        if tokens is None or self.region is not None:
            return tokens
        chosen = list(units)
        changed = tokens.clone()
        changed[..., chosen] = self._changed_tokens(tokens)[..., chosen]
        return changed

    def of_output(
        self, output: Tensor, axes: Axes, units: Sequence[int]
    ) -> Tensor:
        """The output of a layer with `units` changed, wherever its axes lie."""
        changed = self.of_map(axes.units_first(output), units)
        tokens = self.of_tokens(axes.other_tokens(output), units)
        return axes.laid_back(changed, tokens)

    def marks(
        self, off: Sequence[int], altered: Sequence[int], units: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which units of an explanation are off, and which altered, after this change."""
        grows, shrinks = (off, altered) if self.is_plain else (altered, off)
        grown = tuple(dict.fromkeys((*grows, *units)))
        rest = tuple(unit for unit in shrinks if unit not in units)
        return (grown, rest) if self.is_plain else (rest, grown)

    def each_of_map(
        self, feature_map: Float[Tensor, "unit row col"], units: Sequence[int]
    ) -> Float[Tensor, "variant unit row col"]:
        """One copy of a photo's map for each of `units`, with that unit changed."""
        chosen = list(units)
        maps = feature_map.expand(len(chosen), *feature_map.shape).clone()
        changed = self._changed(feature_map[None])[0]
        maps[range(len(chosen)), chosen] = changed[chosen]
        return maps

    def each_of_tokens(
        self, tokens: Float[Tensor, "1 token unit"], units: Sequence[int]
    ) -> Float[Tensor, "variant token unit"]:
        """The same for the tokens that are no cells."""
        chosen = list(units)
        variants = tokens.expand(len(chosen), *tokens.shape[1:]).clone()
        if self.region is None:
            changed = self._changed_tokens(tokens)[0]
            variants[range(len(chosen)), :, chosen] = changed[:, chosen].T
        return variants

    def changes_anything(
        self,
        feature_map: Float[Tensor, "unit row col"],
        tokens: Float[Tensor, "1 token unit"] | None,
    ) -> Bool[Tensor, " unit"]:
        """Which units differ afterwards at all: a unit that is silent on a photo does not."""
        changed = self._changed(feature_map[None])[0]
        differs = (changed != feature_map).flatten(1).any(dim=1)
        if tokens is not None and self.region is None:
            changed_tokens = self._changed_tokens(tokens)
            differs |= (changed_tokens != tokens).flatten(0, 1).any(dim=0)
        return differs

    def _changed(
        self, feature_map: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch unit row col"]:
        """All units of a map changed."""
        new = self.value.to(feature_map).maps.expand_as(feature_map)
        if self.region is None:
            return new
        share = self.region.to(feature_map)
        # Whole cells become the value itself, without rounding.
        mixed = feature_map * (1 - share) + new * share
        return torch.where(share == 1, new, mixed)

    def _changed_tokens(
        self, tokens: Float[Tensor, "batch token unit"]
    ) -> Float[Tensor, "batch token unit"]:
        return self.value.to(tokens).tokens.expand_as(tokens)


OFF = MapChange()
"""Units are switched off in the whole map."""
