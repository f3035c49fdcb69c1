"""Layer choice: the layers of a network that a scan records, and their scales."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unitscope.atlas.storage import AtlasHeads, AtlasLayer
from unitscope.atlas.summaries.head_sums import HeadShape
from unitscope.attribution.activations import HeadActivity
from unitscope.attribution.exact_heads import ExactHead
from unitscope.errors import InputError
from unitscope.model import Classifier
from unitscope.residual.head import HEADS, ResidualHead
from unitscope.tracing.layers import Layer, find_layer, find_map_layer

_SEED = 3


def exact_head(model: Classifier) -> ExactHead | None:
    """The head of a model, None where it is not exact, or more than an atlas can keep."""
    head = model.head_or_refusal()[0]
    if isinstance(head, ExactHead) and head.has_table:
        return head
    return None


def chosen_layers(
    model: Classifier, names: Sequence[str] | None
) -> list[AtlasLayer]:
    """The layers to scan.

    The feature map of an exact head is always among them. Raises LayerError for a layer
    that does not exist, and InputError where names are needed.
    """
    layers = model.layers()
    head = exact_head(model)
    if names is None:
        names = _default_names(model)

    chosen: dict[str, AtlasLayer] = {}
    for name in names:
        heads = _heads_named(model, name)
        if heads is not None:
            chosen[name] = heads
            continue
        layer = find_map_layer(layers, name)
        units, rows, cols = layer.shape
        chosen[name] = AtlasLayer(
            name=name,
            kind=layer.kind,
            units=units,
            cells=(rows, cols),
            grid=layer.grid,
            is_head=_is_map_of(head, layer, layers),
            scale=1.0,
        )
    if head is not None and not any(layer.is_head for layer in chosen.values()):
        of_head = _layer_of(head, layers)
        chosen[of_head.name] = of_head
    return list(chosen.values())


def _default_names(model: Classifier) -> list[str]:
    """The layers to scan where none is named, except that of an exact head."""
    head, reason = model.head_or_refusal()
    if head is None:
        raise InputError(
            "the network has no layer that a scan could choose by itself "
            f"({reason}): name layers (--layer)"
        )
    return [] if head.has_table else [head.layer]


def _heads_named(model: Classifier, name: str) -> AtlasLayer | None:
    """The heads of attention as a layer, where that is what a name means."""
    head = model.head_or_refusal()[0]
    if name != HEADS or not isinstance(head, ResidualHead):
        return None
    units, rows, cols = head.map_shape
    return AtlasLayer(
        name=name,
        kind="attention",
        units=units,
        cells=(rows, cols),
        grid=head.grid,
        is_head=False,
        scale=1.0,
        heads=AtlasHeads(head.unit_names, HeadShape((), 1.0, 1.0)),
    )


def _is_map_of(
    head: ExactHead | None, layer: Layer, layers: Sequence[Layer]
) -> bool:
    """Whether a layer's output is the feature map that an exact head reads."""
    if head is None or not head.layer_is_map:
        return False
    # A container's map is that of its last layer, so the head's layer may have several
    # names.
    return find_layer(layers, head.layer).call == layer.call


def _layer_of(head: ExactHead, layers: Sequence[Layer]) -> AtlasLayer:
    """The feature map of an exact head."""
    # Where a function follows the layer, the head reads another map than the layer's
    # own.
    name = head.layer if head.layer_is_map else f"{head.map_name}+"
    if len(head.sources) > 1:
        name = head.map_name
    kinds = (layer.kind for layer in layers if layer.name == head.layer)
    units, rows, cols = head.map_shape
    return AtlasLayer(
        name=name,
        kind=next(kinds, ""),
        units=units,
        cells=(rows, cols),
        grid=head.grid,
        is_head=True,
        scale=1.0,
    )


def with_scales(
    model: Classifier, layers: Sequence[AtlasLayer]
) -> tuple[list[AtlasLayer], list[float]]:
    """The layers with their scales, and the logits, both measured on noise.

    A layer's scale is the power of two nearest to its largest activation.
    """
    names = [layer.name for layer in layers if not layer.is_head]
    noise = torch.randn(
        (2, *model.input_shape),
        generator=torch.Generator().manual_seed(_SEED),
        device="cpu",
    )
    activations = model.activations(model.as_input(noise), names)

    scaled = []
    for layer in layers:
        maps = activations.of_units
        if not layer.is_head:
            maps = activations.layers[layer.name]
        assert maps is not None
        heads = layer.heads
        if heads is not None and activations.heads is not None:
            shape = _shape_of(activations.heads)
            heads = dataclasses.replace(heads, shape=shape)
        scaled.append(
            dataclasses.replace(layer, scale=_scale_of([maps]), heads=heads)
        )
    logits = activations.logits[0].tolist()
    return scaled, [float(f"{logit:.6g}") for logit in logits]


def _shape_of(heads: HeadActivity) -> HeadShape:
    """The sizes of what heads give, and their scales."""
    sizes = (tuple(map(int, output.shape[1:])) for output in heads.outputs)
    return HeadShape(
        tuple((head, token, width) for head, token, width in sizes),
        _scale_of(heads.outputs),
        _scale_of([heads.contributions]),
    )


def _scale_of(numbers: Sequence[Tensor]) -> float:
    """The power of two nearest to the largest of some numbers; 1 for 0."""
    value = max(float(each.abs().max()) for each in numbers)
    if not 0 < value < math.inf:
        return 1.0
    return 2.0 ** round(math.log2(value))
