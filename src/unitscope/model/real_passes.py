"""Real passes: the slow way without units, which proves the fast ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Units
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.region import Region
from unitscope.errors import InputError
from unitscope.model.explaining import Asked, Explainer
from unitscope.model.inner_layers import (
    layer_and_units,
)
from unitscope.model.layer_ablations import rerun
from unitscope.residual.head import HEADS, ResidualHead
from unitscope.residual.path import Change
from unitscope.tracing.ending import another_path
from unitscope.tracing.layers import check_units


def logits_without(
    asked: Asked,
    units: Units,
    layer: str | None,
    region: Region | None = None,
) -> Float[Tensor, "batch class"]:
    """Logits of a real forward pass with units of the explained map at zero.

    With a `region` only its cells are. Raises InputError for one of attention heads.
    """
    explainer, batch, _ = asked
    shape = tuple(batch.shape[1:])
    structures = explainer.structures
    if layer in (None, HEADS) or structures.is_head_layer(layer, shape):
        head = structures.head(shape)
        if isinstance(head, ExactHead):
            change = MapChange.of(0, region, head.map_shape[1:])
            return _logits_at_pools(explainer, head, batch, units, change)
        if isinstance(head, ResidualHead):
            if region is not None:
                raise InputError(
                    "heads of attention are switched off as a whole: for a region, name a "
                    "layer"
                )
            return _logits_without_heads(explainer, head, batch, units)
        layer = head.layer

    found, chosen = layer_and_units(explainer, batch, layer, units)
    change = MapChange.of(0, region, found.shape[1:])
    return rerun(explainer, batch, found, chosen, change)


def _logits_at_pools(
    explainer: Explainer,
    head: ExactHead,
    batch: Tensor,
    units: Units,
    change: MapChange,
) -> Float[Tensor, "batch class"]:
    """The same at the maps that an exact head reads, where its pools read them."""
    structure = explainer.structures.at(tuple(batch.shape[1:]))
    assert structure.path is not None
    chosen = check_units(units, head.map_shape[0], "the feature map")
    network = explainer.network
    fresh = batch.clone()  # before the switch, which counts calls
    switch = structure.path.changing(chosen, change)
    with network.running():
        logits = network.logits(fresh, structure.ending, switch)
    if not switch.fired:
        raise another_path()
    return logits


def _logits_without_heads(
    explainer: Explainer,
    head: ResidualHead,
    batch: Tensor,
    units: Units,
) -> Float[Tensor, "batch class"]:
    """The same with heads of attention silent, wherever the network calls them."""
    path = explainer.structures.at(tuple(batch.shape[1:])).stream
    assert path is not None
    chosen = head.chosen(units)
    keep = torch.ones((1, head.map_shape[0]))
    keep[:, chosen] = 0
    network = explainer.network
    with network.running():
        return path.logits_with(network.module, batch, Change(keep))
