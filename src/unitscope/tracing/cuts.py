"""Cuts: the layers through which everything passes on the way to the logits."""

from __future__ import annotations

from collections.abc import Sequence

from unitscope.tracing.calls import Call
from unitscope.tracing.layers import Layer, nesting
from unitscope.tracing.trace import Trace


class Cuts:
    """The layers with maps of a traced pass, and which of them nothing bypasses."""

    def __init__(self, traced: Trace, layers: Sequence[Layer]) -> None:
        self._traced = traced
        self._calls = {
            layer.name: run.call
            for run, layer in zip(traced.runs, layers, strict=True)
        }
        self.maps = self._outermost_maps(layers)

    def is_cut(self, layer: Layer) -> bool:
        """Whether everything that leads to the logits passes through a layer."""
        return is_cut(self._traced, self._calls[layer.name])

    def start_for(self, layer: Layer) -> Layer | None:
        """The last layer, this one or before it, that nothing bypasses."""
        if self.is_cut(layer):
            return layer
        index = self._calls[layer.name].index
        for earlier in reversed(self.maps):
            is_before = self._calls[earlier.name].index < index
            if is_before and self.is_cut(earlier):
                return earlier
        return None

    def _outermost_maps(self, layers: Sequence[Layer]) -> list[Layer]:
        """The layers with a map, in order; of several with one output the outermost."""
        outermost: dict[int, Layer] = {}
        for layer in layers:
            if layer.is_map:
                call = id(self._calls[layer.name])
                known = outermost.get(call, layer)
                outermost[call] = min(
                    known, layer, key=lambda each: nesting(each.name)
                )
        return sorted(
            outermost.values(), key=lambda each: self._calls[each.name].index
        )


def is_cut(traced: Trace, call: Call) -> bool:
    """Whether everything that leads from the input to the logits passes through a call."""
    assert traced.output is not None
    seen: set[int] = set()
    frontier = [traced.output]
    while frontier:
        each = frontier.pop()
        if each is call or id(each) in seen:
            continue
        if each.name == "input":
            return False
        seen.add(id(each))
        frontier += each.inputs
    return True
