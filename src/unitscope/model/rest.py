"""Rest: what follows a layer of a network, and the layer's maps on some photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.map_change import MapChange
from unitscope.attribution.suffix import Suffix, suffix_after
from unitscope.engine.passes import ForwardPass
from unitscope.model.checks import check_ran
from unitscope.model.forward import Forward
from unitscope.model.network import Network
from unitscope.model.structure import Structures
from unitscope.tracing.layers import Layer, find_map_layer


@dataclass(frozen=True, eq=False)
class Rest:
    """The maps of a layer on some photos, float32, and what makes logits of them."""

    passed: ForwardPass
    feature_map: Float[Tensor, "batch unit row col"]
    suffix: Suffix

    def each_changed(
        self, image: int, units: list[int], change: MapChange
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """The logits of one photo with each of `units` changed in turn, some at a time."""
        return self.suffix[image].logits_of_each(
            self.feature_map[image], self.passed.logits[image], units, change
        )


def rest_after(
    network: Network,
    structures: Structures,
    forward: Forward,
    batch: Float[Tensor, "batch channel row col"],
    layer: Layer,
    start: Layer | None,
    differentiable: bool = False,
) -> Rest:
    """The rest after a layer from one forward pass; it is run from `start` on.

    Raises LayerError where the layer did not run, and NonFiniteError.
    """
    structure = structures.at(tuple(batch.shape[1:]))
    needed = [layer] if start in (None, layer) else [layer, start]
    names = tuple(each.name for each in needed)
    passed = forward.run(
        batch, names, with_head=False, differentiable=differentiable
    )
    network.check_finite(passed.logits, batch, "the logits")
    for each in needed:
        check_ran(each, passed)

    feature_map, suffix = suffix_after(
        network.module,
        layer,
        passed.outputs,
        batch,
        start,
        structure.ending,
        structure.layers,
        differentiable,
    )
    what = f"the feature maps of layer '{layer.name}'"
    network.check_finite(feature_map, batch, what)
    suffix = dataclasses.replace(suffix, calling=network.calling)
    return Rest(passed, feature_map, suffix)


def rest_at(
    network: Network,
    structures: Structures,
    forward: Forward,
    batch: Float[Tensor, "batch channel row col"],
    name: str,
) -> Rest:
    """The rest after the layer of a name, run from as late as possible.

    That is from the last layer that nothing bypasses. Where it does not give the logits
    by itself, the whole network runs.
    """
    shape = tuple(batch.shape[1:])
    layers = structures.at(shape).layers
    layer = find_map_layer(layers, name)
    start_name = structures.start_of(shape, layer)
    start = find_map_layer(layers, start_name) if start_name else None

    rest = rest_after(network, structures, forward, batch, layer, start)
    if start is None:
        return rest
    if rest.suffix.runs_alone(rest.feature_map, rest.passed.logits):
        layers = [layer] if start == layer else [layer, start]
        compiled = forward.compiled_rest(shape, layers)
        if compiled is None:
            return rest
        suffix = dataclasses.replace(rest.suffix, compiled=compiled.logits)
        return dataclasses.replace(rest, suffix=suffix)
    return rest_after(network, structures, forward, batch, layer, None)
