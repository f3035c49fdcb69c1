"""Network contents: what the pages are told of the network and of its filters, as plain data."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from unitscope.kernels import Filters, find_convolution, normalised
from unitscope.kernels import filters as filters_of
from unitscope.model import Classifier
from unitscope.network_facts import NetworkFacts
from unitscope.render import diagram
from unitscope.render.words import number, percent, plural, power
from unitscope.tracing.layers import Layer, evaluating
from unitscope.tracing.stages import Stage

Plain = dict[str, Any]

# How many volumes of the diagram stand side by side: on a wide page, a narrower one, a
# telephone's.
_ACROSS = (8, 5, 3)

# Bytes of a document of filters before they are written as letters, which makes a third
# more of them.
_MOST = 6_000_000


def network(model: Classifier) -> Plain:
    """The network: its head in words, the diagram of its stages, and all layers stage by stage.

    `diagram.plans` are the same diagram with at most eight, five and three volumes side
    by side, in pixels. A part's `stage` is a place in `stages`; `layers` are in order
    of execution, a container after what it contains. `filters` are the convolutions
    whose kernels can be looked at.
    """
    facts = NetworkFacts.of(model)
    stages = list(_stages(facts, dict(model.network.named_modules())))
    kernels = [
        layer["filters"]["layer"]
        for stage in stages
        for layer in stage["layers"]
        if layer["filters"]
    ]
    return {
        "summary": diagram.summary(facts),
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "classes": facts.classes,
        "input": list(facts.input_shape),
        "head": _head(facts),
        "diagram": {
            "key": diagram.KEY,
            "description": diagram.plan(facts).description,
            "plans": [_plan(diagram.plan(facts, across)) for across in _ACROSS],
        },
        "stages": stages,
        "filters": list(dict.fromkeys(kernels)),
    }


def filters(model: Classifier, layer: str, begin: int = 0) -> Plain:
    """The kernels of a convolution as pictures of a byte a weight, and the least and greatest weight of each.

    A picture (`of`) is a "kernel", a filter's three input channels as colours ("rgb"),
    or, where kernels are single weights, the whole "filter": one weight for every input
    channel. `pixels` are the pictures one after the other, 0–255 from `low` to `high`
    of each (float32, little-endian); both are base64. A layer of more than 8 MB is told
    in parts: `count` filters from `begin`, `most` in a part; `least` and `greatest` are
    those of the whole layer.

    Raises LayerError for what is no convolution that can be drawn, UnitError where no
    filter `begin` exists.
    """
    name, convolution = find_convolution(model.network, layer)
    total = int(convolution.out_channels)
    channels, weights = (
        int(convolution.in_channels) // int(convolution.groups),
        math.prod(convolution.kernel_size),
    )
    most = max(1, _MOST // max(1, channels * (weights + 8)))
    whole = total <= most and begin == 0
    found = filters_of(
        model, name, filters=None if whole else range(begin, min(begin + most, total))
    )
    of, pictures, low, high = _pictures(found)
    if whole:
        least, greatest = float(low.min()), float(high.max())
    else:
        with evaluating(convolution):
            everything = convolution.weight.detach()
        least, greatest = float(everything.min()), float(everything.max())
    channels_first = found.weights.shape
    return {
        "layer": name,
        "kind": found.kind,
        "words": _convolution_words(found, convolution),
        "filters": found.filters_in_layer,
        "channels": found.channels_in_kernel,
        "rows": channels_first[2],
        "cols": channels_first[3],
        "groups": found.groups,
        "begin": begin,
        "count": channels_first[0],
        "most": most,
        "of": of,
        "pixels": _base64(np.round(255 * pictures).astype(np.uint8)),
        "low": _base64(low.astype("<f4")),
        "high": _base64(high.astype("<f4")),
        "least": least,
        "greatest": greatest,
        "scales": _scale_words(of, least, greatest),
    }


def _pictures(found: Filters) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """What one picture is of, the pictures in 0–1, and low and high of each."""
    if found.rgb:
        return "rgb", found.images, found.low, found.high
    if found.weights.shape[2:] == (1, 1) and found.channels_in_kernel > 1:
        return "filter", *normalised(found.weights, (1, 2, 3), shared=False)
    return "kernel", found.images, found.low, found.high


def _scale_words(of: str, least: float, greatest: float) -> dict[str, str]:
    return {
        "kernel": f"each {'kernel' if of == 'kernel' else 'filter'} on a scale of its own",
        "shared": f"all on the scale of the whole layer, weights from {number(least, 4)} to {number(greatest, 4)}",
    }


def _convolution_words(found: Filters, convolution: nn.modules.conv._ConvNd) -> str:
    """Shapes and how the convolution goes about: "64 filters of 3 × 7 × 7 weights, stride 2"."""
    sides = " × ".join(map(str, (found.channels_in_kernel, *convolution.kernel_size)))
    parts = [f"{plural(found.filters_in_layer, 'filter')} of {sides} weights"]
    if found.groups > 1:
        parts.append(
            f"in {found.groups} groups: each filter reads {found.channels_in_kernel} "
            "of the input channels"
        )
    parts += [
        f"{name} {' × '.join(map(str, values)) if len(set(values)) > 1 else values[0]}"
        for name, values in (
            ("stride", convolution.stride),
            ("dilation", convolution.dilation),
        )
        if set(values) != {1}
    ]
    if convolution.transposed:
        parts.append("transposed")
    return ", ".join(parts)


def _head(facts: NetworkFacts) -> Plain:
    """The head in words, how well it was verified or what it leaves out, and why it is not exact."""
    head, reason = facts.head, facts.refusal
    if head is None:
        return {
            "exact": False,
            "kind": "none",
            "layer": None,
            "words": "none",
            "checked": "",
            "reason": reason,
        }
    on = f"on {plural(head.probes, 'random input')}"
    if head.exact:
        size = (
            f"to {power(head.error)} of the largest logit" if head.error else "exactly"
        )
        checked = f"mean of every map + bias = logit {size}, {on}"
    else:
        checked = (
            f"its maps leave out up to {percent(head.error)} of the largest logit, {on}"
        )
    return {
        "exact": head.exact,
        "kind": head.kind,
        "layer": head.layer,
        "words": head.describe(),
        "checked": checked,
        "reason": reason,
    }


def _plan(plan: diagram.Plan) -> Plain:
    return {
        "width": round(plan.width, 1),
        "height": round(plan.height, 1),
        "arrows": [
            [round(number, 1) for point in arrow for number in point]
            for arrow in plan.arrows
        ],
        "parts": [
            {
                "kind": part.kind,
                "stage": part.stage,
                "title": part.title,
                "faces": {
                    name: [round(number, 1) for point in points for number in point]
                    for name, points in part.faces()
                },
                "lines": [
                    [round(x, 1), round(y, 1), line]
                    for (x, y), line in part.texts()
                    if line
                ],
            }
            for part in plan.parts
        ],
    }


def _stages(facts: NetworkFacts, modules: Mapping[str, nn.Module]) -> Iterator[Plain]:
    """The stages as they are drawn, each with the layers from its first one to that of the next."""
    stages: list[Stage | None] = [*diagram.drawn_stages(facts)]
    layers = facts.layers
    places = {layer.name: place for place, layer in enumerate(layers)}
    # What runs before the first stage's first layer changes nothing (dropout); and
    # there may be no stage at all.
    begins = [0, *(places[stage.first] for stage in stages[1:] if stage)]
    for begin, end, stage in zip(
        begins, [*begins[1:], len(layers)], stages or [None], strict=True
    ):
        yield {
            **_stage(stage),
            "layers": [_layer(layer, facts, modules) for layer in layers[begin:end]],
        }


def _stage(stage: Stage | None) -> Plain:
    if stage is None:
        return {"shape": [], "convolutions": 0, "first": "", "last": ""}
    return {
        "shape": list(stage.shape),
        "convolutions": stage.convolutions,
        "first": stage.first,
        "last": stage.last,
    }


def _layer(
    layer: Layer, facts: NetworkFacts, modules: Mapping[str, nn.Module]
) -> Plain:
    name = layer.name if layer.name in modules else layer.name.rpartition(":")[0]
    module = modules[name]
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": layer.describe_shape(),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "leaf": layer.leaf,
        "map": layer.is_map,
        "head": facts.head is not None and layer.name == facts.head.layer,
        "filters": _kernel(name, module),
    }


def _kernel(name: str, module: nn.Module) -> Plain | None:
    """The convolution's name and the shape of its kernels, None for what has none that can be drawn."""
    if not isinstance(module, nn.modules.conv._ConvNd) or len(module.kernel_size) > 2:
        return None
    sides: Sequence[int] = module.kernel_size
    return {
        "layer": name,
        "size": list(sides),
        "groups": module.groups,
        "channels": module.in_channels // module.groups,
    }


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
