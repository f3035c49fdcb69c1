"""HeadPath: where the numbers of an exact head pass in every forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.readout import Readout
from unitscope.attribution.steps import Step, readout_of
from unitscope.tracing.axes import Axes
from unitscope.tracing.ending import IN_OUTPUT, Ending, another_path
from unitscope.tracing.taps import Switch, Tap


@dataclass(frozen=True)
class HeadPath:
    """Which calls to tap in a forward pass, and how to read map and weights there.

    Calls are known by (index, name): none of the traced tensors is kept. `last` is the
    step that makes the logits. `assumed` says that the places of tokens could not be
    followed, and were taken for those of squares that tile the input. `ending` says where
    the logits are.
    """

    map_call: tuple[int, str]
    last: Step
    axes: Axes
    assumed: bool = False
    ending: Ending = IN_OUTPUT

    def tap(self) -> Tap:
        """A fresh tap for one forward pass."""
        return Tap(self.calls())

    def calls(self) -> dict[int, str]:
        """The calls that are tapped: index and name."""
        return dict([self.map_call, *self.last.calls()])

    def without_units(self, units: Sequence[int]) -> Switch:
        """What watches a forward pass to run it with the feature maps of `units` at zero.

        Whatever function makes the map, it is changed where the pool reads it.
        """
        return Switch(
            *self.map_call, lambda map_: self.axes.without(map_, units)
        )

    def feature_map(self, tap: Tap) -> Float[Tensor, "batch unit row col"]:
        """The feature map, float32, from a tapped forward pass."""
        if any(index not in tap.caught for index in self.calls()):
            raise another_path()
        caught = tap.caught[self.map_call[0]].first
        return self.axes.units_first(caught).to(torch.float32).contiguous()

    def readout(
        self, tap: Tap, feature_map: Float[Tensor, "batch unit row col"]
    ) -> Readout:
        """The readout, from a tapped forward pass that gave this feature map."""
        return readout_of(self.last, tap.caught, feature_map)


class TappedPass(NamedTuple):
    """One forward pass, float32: logits, feature map, and the readout of this very pass."""

    logits: Float[Tensor, "batch class"]
    feature_map: Float[Tensor, "batch unit row col"]
    readout: Readout


def run_with_tap(
    module: nn.Module, x: Tensor, path: HeadPath
) -> tuple[Tensor, Tensor, Tap]:
    """One forward pass: logits (batch, class), feature map, both float32, and the tap."""
    # Not len(x), which would become a fixed number where the pass is exported as a graph.
    photos = x.shape[0]
    # Some networks normalise their input in place. The copy comes before the tap, which
    # counts calls.
    x = x.clone()
    tap = path.tap()
    logits = path.ending.logits(lambda: module(x), photos, tap)
    feature_map = path.feature_map(tap)
    if feature_map.shape[0] != photos:
        raise another_path()
    return logits, feature_map, tap


def run_tapped(module: nn.Module, x: Tensor, path: HeadPath) -> TappedPass:
    """One forward pass with the readout of this very pass."""
    logits, feature_map, tap = run_with_tap(module, x, path)
    readout = path.readout(tap, feature_map)
    if readout.weight.shape != (logits.shape[1], feature_map.shape[1]):
        raise another_path()
    return TappedPass(logits, feature_map, readout)
