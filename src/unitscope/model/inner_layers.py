"""Inner layers: maps of units, and what layers did, at any layer of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.activations import Activations, HeadActivity
from unitscope.attribution.arrays import cell_means
from unitscope.attribution.explanation import Units
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.engine.passes import ForwardPass
from unitscope.errors import HeadError
from unitscope.inputs.subjects import Subject
from unitscope.model.checks import check_adds_up, check_same_size, map_of
from unitscope.model.explaining import (
    Asked,
    Explainer,
    explained,
    size_of,
)
from unitscope.model.question import Question
from unitscope.residual.account import StreamAccount
from unitscope.residual.head import HEADS
from unitscope.residual.path import StreamPass, StreamPath
from unitscope.tracing.layers import (
    Layer,
    captured,
    check_units,
    find_map_layer,
)


def unit_maps(
    batches: Iterable[Asked],
    layer: str,
    units: Units,
) -> UnitMaps:
    """The maps of chosen units of a layer, one forward pass a batch."""
    if layer == HEADS:
        return explained(batches, Question(layer)).unit_maps(units)
    parts = []
    for explainer, batch, subjects in batches:
        found, chosen = layer_and_units(explainer, batch, layer, units)
        passed = explainer.forward.run(batch, (layer,), with_head=False)

        maps = map_of(found, passed)
        maps = maps[:, chosen].contiguous()
        what = f"the maps of layer '{layer}'"
        explainer.network.check_finite(maps, batch, what)
        parts.append(maps_of_units(found, chosen, maps, batch, subjects))
    return joined_maps(parts)


def activations(asked: Asked, layers: Sequence[str]) -> Activations:
    """Maps of layers with logits and the head's feature map, from one forward pass."""
    explainer, batch, _ = asked
    network = explainer.network
    structure = explainer.structures.at(tuple(batch.shape[1:]))
    names = tuple(dict.fromkeys(layers))
    path = structure.stream if HEADS in names else None
    if HEADS in names and path is None:
        raise structure.without_heads()
    modules = tuple(name for name in names if path is None or name != HEADS)
    chosen = [find_map_layer(structure.layers, name) for name in modules]
    heads: HeadActivity | None = None
    maps: dict[str, Tensor] = {}
    if path is None:
        passed = _passed(explainer, batch, modules)
    else:
        passed, maps[HEADS], heads = _passed_by_stream(
            explainer, path, batch, modules
        )

    for layer in chosen:
        maps[layer.name] = map_of(layer, passed).contiguous()
    maps = {name: maps[name] for name in names}
    pooled = {name: cell_means(map_) for name, map_ in maps.items()}
    for name, means in pooled.items():
        # The mean of numbers that are not finite is not finite: the map itself is looked
        # at only then.
        if not bool(torch.isfinite(means).all()):
            what = f"the maps of layer '{name}'"
            network.check_finite(maps[name], batch, what)

    if passed.feature_map is None:
        network.check_finite(passed.logits, batch, "the logits")
        return Activations(passed.logits, maps, pooled, heads=heads)
    units = cell_means(passed.feature_map)
    check_adds_up(network, passed, batch, units)
    return Activations(
        passed.logits,
        maps,
        pooled,
        passed.feature_map,
        units,
        passed.readout,
        passed.activations,
    )


def _passed(
    explainer: Explainer, batch: Tensor, layers: tuple[str, ...]
) -> ForwardPass:
    """One forward pass with the outputs of layers, and the head's input."""
    try:
        return explainer.forward.run(batch, layers)
    except HeadError:
        if not explainer.network.further:
            raise
        # Further inputs make another head for each photo.
        return explainer.forward.run(batch, layers, with_head=False)


def _passed_by_stream(
    explainer: Explainer,
    path: StreamPath,
    batch: Tensor,
    layers: tuple[str, ...],
) -> tuple[ForwardPass, Float[Tensor, "batch unit row col"], HeadActivity]:
    """One pass of the network as it is, with the attention and the writes of its heads.

    Raises HeadError where the parts of the stream do not add up to the logits.
    """
    network = explainer.network

    def run() -> tuple[StreamPass, dict[str, Tensor]]:
        with captured(network.module, layers) as outputs:
            passed = path.run(network.module, batch, with_outputs=True)
        return passed, outputs

    with network.running():
        passed, outputs = network.guarded(run, tuple(batch.shape[1:]))
        account = StreamAccount.of(path, passed)
    network.check_finite(passed.logits, batch, "the logits")
    try:
        account.check(passed.logits, batch.dtype)
    except HeadError as error:
        raise HeadError(
            f"{error}; name layers other than '{HEADS}' (--layer)"
        ) from None
    heads = HeadActivity(account.contributions, passed.outputs)
    return ForwardPass(passed.logits, outputs), account.attention, heads


def layer_and_units(
    explainer: Explainer, batch: Tensor, layer: str, units: Units | None
) -> tuple[Layer, list[int]]:
    """The layer of a name, and the numbers of some of its units; of all when None.

    Raises LayerError and UnitError.
    """
    structure = explainer.structures.at(tuple(batch.shape[1:]))
    found = find_map_layer(structure.layers, layer)
    if units is None:
        return found, list(range(found.shape[0]))
    return found, check_units(units, found.shape[0], f"layer '{layer}'")


def maps_of_units(
    layer: Layer,
    units: list[int],
    maps: Tensor,
    batch: Tensor,
    subjects: tuple[Subject, ...],
) -> UnitMaps:
    """The maps of units of a layer."""
    return UnitMaps(
        layer.name, tuple(units), maps, layer.grid, size_of(batch), subjects
    )


def joined_maps(parts: list[UnitMaps]) -> UnitMaps:
    """The maps of several batches as one."""
    check_same_size(part.input_size for part in parts)
    if len(parts) == 1:
        return parts[0]
    return dataclasses.replace(
        parts[0],
        maps=torch.cat([part.maps for part in parts]),
        subjects=tuple(subject for part in parts for subject in part.subjects),
    )
