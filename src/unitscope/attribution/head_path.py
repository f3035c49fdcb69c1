"""HeadPath: where the numbers of an exact head pass in every forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.map_change import OFF, MapChange
from unitscope.attribution.readings import Reading, slices_of
from unitscope.attribution.readout import Readout
from unitscope.attribution.steps import Reader, Step
from unitscope.tracing.ending import IN_OUTPUT, Ending, another_path, check_rows
from unitscope.tracing.taps import Switch, Tap


@dataclass(frozen=True)
class HeadPath:
    """Which calls to tap in a forward pass, and how to read maps and weights there.

    Calls are known by (index, name): none of the traced tensors is kept. `readings` are
    how pools read feature maps, whose units stand one behind the other; `last` is the
    step that makes the logits. `ending` says where the logits are.
    """

    readings: tuple[Reading, ...]
    last: Step
    ending: Ending = IN_OUTPUT

    def tap(self) -> Tap:
        """A fresh tap for one forward pass."""
        return Tap(self.calls())

    def calls(self) -> dict[int, str]:
        """The calls that are tapped: index and name."""
        read = [call for reading in self.readings for call in reading.calls]
        return dict([*read, *self.last.calls()])

    def changing(self, units: Sequence[int], change: MapChange = OFF) -> Switch:
        """What watches a forward pass to run it with the feature maps of `units` changed.

        Whatever function makes the map, it is changed where the pool reads it.
        """
        changes: dict[tuple[int, str], Callable[[Tensor], Tensor]] = {}
        slices = slices_of(reading.shape[0] for reading in self.readings)
        for reading, part in zip(self.readings, slices, strict=True):
            own = [u - part.start for u in units if part.start <= u < part.stop]
            changes |= reading.changes(own, change)
        return Switch(changes)

    def feature_map(self, tap: Tap) -> Float[Tensor, "batch unit row col"]:
        """The feature map, float32, from a tapped forward pass.

        Of several maps, or of pools other than the mean, it is what the pools make of
        them (see `readings`).
        """
        if any(index not in tap.caught for index in self.calls()):
            raise another_path()
        maps = [reading.read(tap.caught) for reading in self.readings]
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)

    def activations(
        self, tap: Tap
    ) -> Float[Tensor, "batch unit row col"] | None:
        """What the units did, from the same pass; None where the feature map holds that."""
        if all(reading.is_plain for reading in self.readings):
            return None
        maps = [reading.activations(tap.caught) for reading in self.readings]
        return torch.cat(maps, dim=1)

    def readout(
        self,
        tap: Tap,
        logits: Float[Tensor, "batch class"],
        feature_map: Float[Tensor, "batch unit row col"],
    ) -> Readout:
        """The readout, from a tapped forward pass that gave these."""
        reader = Reader(tap.caught, self.readings, feature_map)
        with without_autocast(feature_map):
            readout = reader.readout_of(self.last)
        if readout.weight.shape != (logits.shape[1], feature_map.shape[1]):
            raise another_path()
        return readout


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
    check_rows(feature_map, photos)
    if feature_map.shape[0] != photos:
        raise another_path()
    return logits, feature_map, tap


def run_tapped(module: nn.Module, x: Tensor, path: HeadPath) -> TappedPass:
    """One forward pass with the readout of this very pass."""
    logits, feature_map, tap = run_with_tap(module, x, path)
    return TappedPass(
        logits, feature_map, path.readout(tap, logits, feature_map)
    )
