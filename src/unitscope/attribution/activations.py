"""Activations: what chosen layers of a network did on a batch, all from one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.readout import Readout


@dataclass(frozen=True, eq=False)
class Activations:
    """One batch: its logits, and the maps of layers as the network computed them, float32 and signed.

    `layers` (batch, unit, row, col) are by name, in the order they were asked for, and
    `pooled` (batch, unit) their means over the cells. `feature_map` is the map that the
    head reads, `units` its means, and `readout` how it makes logits of them; all are
    None where no head is exact.
    """

    logits: Float[Tensor, "batch class"]
    layers: Mapping[str, Float[Tensor, "batch _ _ _"]]
    pooled: Mapping[str, Float[Tensor, "batch _"]]
    feature_map: Float[Tensor, "batch unit row col"] | None = None
    units: Float[Tensor, "batch unit"] | None = None
    readout: Readout | None = None
