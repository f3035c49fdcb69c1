"""Layer ablations: units of an inner layer, by real passes of the network or its rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.unit_ablations import (
    UnitAblations,
)
from unitscope.attribution.value import Value
from unitscope.model.checks import check_same_size, map_of
from unitscope.model.explaining import Asked, Explainer, size_of
from unitscope.model.inner_layers import (
    joined_maps,
    layer_and_units,
    maps_of_units,
)
from unitscope.model.intervention import (
    Intervention,
    Piece,
    another_size,
    blank_table,
    check_changed,
    check_count,
)
from unitscope.model.rest import rest_at
from unitscope.tracing.layers import Layer, changing_output


def measured(batches: Sequence[Asked], wanted: Intervention) -> Ablation:
    """The ablation of units of an inner layer, measured by a second forward pass."""
    check_same_size(size_of(asked.inputs) for asked in batches)
    found, units, change = _layer_units_and_change(batches, wanted)
    before, after, maps = [], [], []
    done = 0
    for explainer, batch, subjects in batches:
        passed = explainer.forward.run(batch, (found.name,), with_head=False)
        explainer.network.check_finite(passed.logits, batch, "the logits")
        own = change.rows(done, done + len(batch))
        before.append(passed.logits)
        after.append(rerun(explainer, batch, found, units, own))

        chosen = map_of(found, passed)[:, units].contiguous()
        maps.append(maps_of_units(found, units, chosen, batch, subjects))
        done += len(batch)

    unit_maps = joined_maps(maps)
    logits = torch.cat(before)
    return Ablation(
        found.name,
        unit_maps.units,
        logits,
        torch.cat(after),
        unit_maps,
        explainer.scoring.labels_for(logits.shape[1]),
        exact=False,
        scores=explainer.structures.scores_at(tuple(batch.shape[1:])).scores,
        replaced=change.replaced,
        where=change.where,
    )


def rerun(
    explainer: Explainer,
    batch: Tensor,
    layer: Layer,
    units: list[int],
    change: MapChange,
) -> Float[Tensor, "batch class"]:
    """Logits of a real forward pass with units of a layer changed. Raises NonFiniteError."""
    network, axes = explainer.network, layer.axes
    assert axes is not None

    def changed(output: Tensor) -> Tensor:
        return change.of_output(output, axes, units)

    with network.running(), changing_output(network.module, layer, changed):
        logits = network.logits(batch.clone(), explainer.ending_at(batch))
    check_changed(logits, layer.name, change.replaced)
    return logits


def each_of_layer(
    batches: list[Asked], wanted: Intervention
) -> tuple[UnitAblations, Iterator[Piece]]:
    """An empty table of an inner layer's units, and what fills it."""
    layer, units, change = _layer_units_and_change(batches, wanted)
    if not change.is_plain:
        check_same_size(size_of(asked.inputs) for asked in batches)
    rests = [
        rest_at(
            asked.explainer.network,
            asked.explainer.structures,
            asked.explainer.forward,
            asked.inputs,
            layer.name,
        )
        for asked in batches
    ]
    logits = torch.cat([rest.passed.logits for rest in rests])
    explainer, shape = batches[0].explainer, tuple(batches[0].inputs.shape[1:])
    table = UnitAblations(
        layer=layer.name,
        units=tuple(units),
        before=logits,
        after=blank_table(logits, units),
        done=torch.zeros((len(logits), len(units)), dtype=torch.bool),
        labels=explainer.scoring.labels_for(logits.shape[1]),
        subjects=tuple(chain(*(asked.subjects for asked in batches))),
        scores=explainer.structures.scores_at(shape).scores,
        exact=False,
        replaced=change.replaced,
        where=change.where,
    )

    def pieces() -> Iterator[Piece]:
        image = 0
        for rest in rests:
            for row in range(len(rest.feature_map)):
                own = change.rows(image, image + 1)
                for piece in rest.each_changed(row, units, own):
                    yield image, piece
                image += 1

    return table, pieces()


def _layer_units_and_change(
    batches: Sequence[Asked], wanted: Intervention
) -> tuple[Layer, list[int], MapChange]:
    """An inner layer, its units, and what is done to them on all photos."""
    explainer, batch, _ = batches[0]
    assert wanted.layer is not None
    layer, units = layer_and_units(explainer, batch, wanted.layer, wanted.units)

    photos = None
    if isinstance(wanted.put, list):
        photos = _values_of(wanted.put, layer)
    change = wanted.change_of(layer.name, layer.shape, photos)
    check_count(len(change.value), sum(len(each.inputs) for each in batches))
    return layer, units, change


def _values_of(others: Sequence[Asked], layer: Layer) -> Value:
    """What a layer gives on other photos."""
    maps, tokens, names = [], [], []
    for explainer, batch, subjects in others:
        there, _ = layer_and_units(explainer, batch, layer.name, None)
        passed = explainer.forward.run(batch, (layer.name,), with_head=False)
        own = map_of(there, passed)
        if tuple(own.shape[1:]) != layer.shape:
            raise another_size(own, layer)
        what = f"the maps of layer '{layer.name}'"
        explainer.network.check_finite(own, batch, what)
        maps.append(own)
        assert there.axes is not None
        beside = there.axes.other_tokens(passed.outputs[layer.name])
        if beside is not None:
            tokens.append(beside)
        names += [subject.name for subject in subjects]
    together = torch.cat(tokens) if tokens else None
    return Value.of_photos(torch.cat(maps), together, names)
