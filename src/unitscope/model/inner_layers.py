"""Inner layers: maps of units, and ablations, at any layer of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.activations import Activations, HeadActivity
from unitscope.attribution.arrays import cell_means
from unitscope.attribution.effects import (
    Effect,
    check_effect,
    no_direct_effect,
)
from unitscope.attribution.exact_heads import ExactHead
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
from unitscope.residual.head import HEADS, ResidualHead
from unitscope.residual.path import Change, StreamPass, StreamPath
from unitscope.tracing.ending import another_path
from unitscope.tracing.layers import (
    Layer,
    captured,
    check_units,
    find_map_layer,
    without_units,
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
        found, chosen = _layer_and_units(explainer, batch, layer, units)
        passed = explainer.forward.run(batch, (layer,), with_head=False)

        maps = map_of(found, passed)
        maps = maps[:, chosen].contiguous()
        what = f"the maps of layer '{layer}'"
        explainer.network.check_finite(maps, batch, what)
        parts.append(_unit_maps(found, chosen, maps, batch, subjects))
    return _joined(parts)


def ablation(
    batches: Iterator[Asked],
    layer: str | None,
    units: Units,
    effect: Effect = "total",
) -> Ablation:
    """The ablation of units of a layer, or of the explained map where it is None."""
    check_effect(effect)
    if layer not in (None, HEADS):
        first = next(batches)
        batches = chain([first], batches)
        if not first.is_head_layer(layer):
            if effect == "direct":
                raise no_direct_effect(layer)
            return _measured_ablation(batches, layer, units)
    explanation = explained(
        batches, Question(layer if layer == HEADS else None)
    )
    return Ablation.of(explanation, units, effect)


def _measured_ablation(
    batches: Iterable[Asked],
    layer: str,
    units: Units,
) -> Ablation:
    """The ablation of units of a layer, measured by a second forward pass."""
    before, after, parts = [], [], []
    for explainer, batch, subjects in batches:
        network = explainer.network
        found, chosen = _layer_and_units(explainer, batch, layer, units)
        passed = explainer.forward.run(batch, (layer,), with_head=False)
        with (
            network.running(),
            without_units(network.module, found, chosen),
        ):
            ending = explainer.ending_at(batch)
            ablated = network.logits(batch.clone(), ending)
        what = f"the logits with units of '{layer}' off"
        network.check_finite(passed.logits, batch, "the logits")
        network.check_finite(ablated, batch, what)

        before.append(passed.logits)
        after.append(ablated)
        maps = map_of(found, passed)
        maps = maps[:, chosen].contiguous()
        parts.append(_unit_maps(found, chosen, maps, batch, subjects))

    maps_before = _joined(parts)
    logits = torch.cat(before)
    return Ablation(
        layer,
        maps_before.units,
        logits,
        torch.cat(after),
        maps_before,
        explainer.scoring.labels_for(logits.shape[1]),
        exact=False,
        scores=explainer.structures.scores_at(tuple(batch.shape[1:])).scores,
    )


def logits_without(
    asked: Asked, units: Units, layer: str | None
) -> Float[Tensor, "batch class"]:
    """Logits of a real forward pass with units of the explained map at zero."""
    explainer, batch, _ = asked
    shape = tuple(batch.shape[1:])
    network, structures = explainer.network, explainer.structures
    if layer in (None, HEADS) or structures.is_head_layer(layer, shape):
        head = structures.head(shape)
        if isinstance(head, ExactHead):
            return _logits_without_head_units(explainer, head, batch, units)
        if isinstance(head, ResidualHead):
            return _logits_without_heads(explainer, head, batch, units)
        layer = head.layer

    ending = structures.at(shape).ending
    found, chosen = _layer_and_units(explainer, batch, layer, units)
    with network.running(), without_units(network.module, found, chosen):
        return network.logits(batch.clone(), ending)


def _logits_without_head_units(
    explainer: Explainer, head: ExactHead, batch: Tensor, units: Units
) -> Float[Tensor, "batch class"]:
    """The same at the maps that an exact head reads, where its pools read them."""
    structure = explainer.structures.at(tuple(batch.shape[1:]))
    assert structure.path is not None
    chosen = check_units(units, head.map_shape[0], "the feature map")
    network = explainer.network
    fresh = batch.clone()  # before the switch, which counts calls
    switch = structure.path.without_units(chosen)
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


def _layer_and_units(
    explainer: Explainer, batch: Tensor, layer: str, units: Units
) -> tuple[Layer, list[int]]:
    structure = explainer.structures.at(tuple(batch.shape[1:]))
    found = find_map_layer(structure.layers, layer)
    return found, check_units(units, found.shape[0], f"layer '{layer}'")


def _unit_maps(
    layer: Layer,
    units: list[int],
    maps: Tensor,
    batch: Tensor,
    subjects: tuple[Subject, ...],
) -> UnitMaps:
    return UnitMaps(
        layer.name, tuple(units), maps, layer.grid, size_of(batch), subjects
    )


def _joined(parts: list[UnitMaps]) -> UnitMaps:
    check_same_size(part.input_size for part in parts)
    if len(parts) == 1:
        return parts[0]
    return dataclasses.replace(
        parts[0],
        maps=torch.cat([part.maps for part in parts]),
        subjects=tuple(subject for part in parts for subject in part.subjects),
    )
