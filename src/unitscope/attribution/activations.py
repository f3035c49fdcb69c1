"""Activations: what layers of a network did on a batch, all from one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.readout import Readout


@dataclass(frozen=True, eq=False)
class HeadActivity:
    """What heads of attention did on a batch, beside the attention that they paid.

    `contributions` is what every head gives to the logits, all other things held.
    `outputs` are what all tokens take from the heads: (batch, head, token, width), block by
    block.
    """

    contributions: Float[Tensor, "batch class unit"]
    outputs: tuple[Float[Tensor, "batch _ _ _"], ...]


@dataclass(frozen=True, eq=False)
class Activations:
    """The logits of a batch, and the maps of layers, float32 and signed.

    `layers` has maps (batch, unit, row, col) by name, in the order they were asked for;
    `pooled` has their means over the cells (batch, unit). `feature_map` is the map that
    the head reads, `units` its means over the cells, and `readout` how they become
    logits; all are None where no head is exact. Where the head's pools are no means, the
    feature map holds what each cell gives of the pooled unit: `before_pools` is then what the
    units did, on the same cells, and else None. `heads` is what heads of attention did,
    where "attention heads" were asked for.
    """

    logits: Float[Tensor, "batch class"]
    layers: Mapping[str, Float[Tensor, "batch _ _ _"]]
    pooled: Mapping[str, Float[Tensor, "batch _"]]
    feature_map: Float[Tensor, "batch unit row col"] | None = None
    units: Float[Tensor, "batch unit"] | None = None
    readout: Readout | None = None
    before_pools: Float[Tensor, "batch unit row col"] | None = None
    heads: HeadActivity | None = None

    @property
    def of_units(self) -> Float[Tensor, "batch unit row col"] | None:
        """What the units of the feature map did, None where no head is exact."""
        if self.before_pools is None:
            return self.feature_map
        return self.before_pools
