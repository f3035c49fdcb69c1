"""Network contents: the network, its stages and its layers, as plain data for pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from unitscope.model import Classifier
from unitscope.network_facts import NetworkFacts
from unitscope.render import diagram
from unitscope.render.words import percent, power
from unitscope.tracing.layers import Layer
from unitscope.tracing.stages import Stage

Plain = dict[str, Any]

# Volumes of the diagram side by side: on wide pages, narrower ones and telephones.
_ACROSS = (8, 5, 3)


def network(model: Classifier) -> Plain:
    """The network: its head in words, a diagram of its stages, and all its layers.

    `diagram.plans` are the same diagram with at most eight, five and three volumes side
    by side, in pixels. A part's `stage` is a place in `stages`; `layers` are in order
    of execution, a container after its contents. `filters` are the convolutions whose
    kernels can be drawn.
    """
    facts = NetworkFacts.of(model)
    stages = list(_stages(facts, dict(model.network.named_modules())))
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
        "filters": _drawable_convolutions(stages),
    }


def _drawable_convolutions(stages: Sequence[Plain]) -> list[str]:
    names = (
        layer["filters"]["layer"]
        for stage in stages
        for layer in stage["layers"]
        if layer["filters"]
    )
    # A module that runs several times is listed once.
    return list(dict.fromkeys(names))


def _head(facts: NetworkFacts) -> Plain:
    """The head in words, its error or remainder, and why it is not exact."""
    head = facts.head
    if head is None:
        return {
            "exact": False,
            "kind": "none",
            "layer": None,
            "words": "none",
            "checked": "",
            "reason": facts.refusal,
        }

    on = f"on {head.tried_on()}"
    if not head.adds_up:
        remainder = f"up to {percent(head.error)} of the largest logit"
        checked = f"its maps leave out {remainder}, {on}"
    else:
        error = (
            f"to {power(head.error)} of the largest logit"
            if head.error
            else "exactly"
        )
        sum_ = "mean of every map + bias" if head.exact else "sum of all parts"
        checked = f"{sum_} = logit {error}, {on}"
    return {
        "exact": head.exact,
        "kind": head.kind,
        "layer": head.layer,
        "words": head.describe(),
        "checked": checked,
        "reason": facts.refusal,
    }


def _plan(plan: diagram.Plan) -> Plain:
    return {
        "width": round(plan.width, 1),
        "height": round(plan.height, 1),
        "arrows": [_coordinates(arrow) for arrow in plan.arrows],
        "parts": [_part(part) for part in plan.parts],
    }


def _part(part: diagram.Part) -> Plain:
    return {
        "kind": part.kind,
        "stage": part.stage,
        "title": part.title,
        "faces": {name: _coordinates(points) for name, points in part.faces()},
        "lines": [
            [round(x, 1), round(y, 1), line]
            for (x, y), line in part.texts()
            if line
        ],
    }


def _coordinates(points: Sequence[Sequence[float]]) -> list[float]:
    """The x and y of points, one after the other, to a tenth of a pixel."""
    return [round(number, 1) for point in points for number in point]


def _stages(
    facts: NetworkFacts, modules: Mapping[str, nn.Module]
) -> Iterator[Plain]:
    """The stages of the diagram, each with its layers up to those of the next stage."""
    layers = facts.layers
    places = {layer.name: place for place, layer in enumerate(layers)}
    stages = list(diagram.drawn_stages(facts))

    # The first stage gets the layers before it too, which change nothing (dropout).
    begins = [0]
    begins += [places[stage.first] for stage in stages[1:]]
    ends = [*begins[1:], len(layers)]

    drawn: list[Stage | None] = [*stages] or [None]
    for begin, end, stage in zip(begins, ends, drawn, strict=True):
        within = layers[begin:end]
        contents = _stage(stage)
        contents["layers"] = [_layer(layer, facts, modules) for layer in within]
        yield contents


def _stage(stage: Stage | None) -> Plain:
    # Some networks have no stages.
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
    # A module that runs several times has layers "name:1", "name:2" and so on.
    name = (
        layer.name if layer.name in modules else layer.name.rpartition(":")[0]
    )
    module = modules[name]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": layer.describe_shape(),
        "parameters": parameters,
        "leaf": layer.leaf,
        "map": layer.is_map,
        "head": facts.head is not None and layer.name == facts.head.layer,
        "filters": _kernel(name, module),
    }


def _kernel(name: str, module: nn.Module) -> Plain | None:
    """A convolution's name and kernel shape; None for layers that cannot be drawn."""
    if (
        not isinstance(module, nn.modules.conv._ConvNd)
        or len(module.kernel_size) > 2
    ):
        return None
    return {
        "layer": name,
        "size": list(module.kernel_size),
        "groups": module.groups,
        "channels": module.in_channels // module.groups,
    }
