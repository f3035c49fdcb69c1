"""Passes: one forward pass of a network as it is, and what it gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unitscope.attribution.arrays import cell_means
from unitscope.attribution.head_path import HeadPath, run_with_tap
from unitscope.attribution.readout import Readout
from unitscope.attribution.rounding import relative_difference
from unitscope.tracing.ending import IN_OUTPUT, Ending
from unitscope.tracing.layers import captured

# What bfloat16, with its eight binary digits, may do to a sound network: relative to the
# largest logit and activation.
ROUNDED = 0.05


@dataclass(frozen=True)
class Watched:
    """What a pass gives beside logits: the input of the head on `path`, and `layers`.

    `ending` says where the logits are.
    """

    path: HeadPath | None = None
    layers: tuple[str, ...] = ()
    ending: Ending = IN_OUTPUT


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What one forward pass gave.

    `logits` (batch, class) are float32. `outputs` has the outputs of the watched layers by
    name, as the modules gave them; a layer that did not run is missing. `feature_map`
    (batch, unit, row, col), float32, is the head's input, and `readout` is how it becomes
    logits. Both are None without an exact head. `activations` is what the units of the
    feature map did, where that holds what pools make of it, and else None.
    """

    logits: Float[Tensor, "batch class"]
    outputs: Mapping[str, Shaped[Tensor, "batch ..."]]
    feature_map: Float[Tensor, "batch unit row col"] | None = None
    readout: Readout | None = None
    activations: Float[Tensor, "batch unit row col"] | None = None

    def tensors(self) -> list[Tensor]:
        """All tensors in a fixed order: logits, the head's maps, outputs of layers."""
        maps = (self.feature_map, self.activations)
        head = [map_ for map_ in maps if map_ is not None]
        return [self.logits, *head, *self.outputs.values()]

    def difference(self, expected: ForwardPass) -> float:
        """The largest difference to another pass's numbers, over photos and tensors.

        Relative to the largest number of the photo in each tensor.
        """
        pairs = zip(self.tensors(), expected.tensors(), strict=True)
        differences = [
            relative_difference(_flat(numbers), _flat(wanted))
            for numbers, wanted in pairs
        ]
        # torch's maximum is NaN where one of them is.
        return float(torch.cat(differences).max())


def run_plain(
    network: nn.Module,
    batch: Float[Tensor, "batch channel row col"],
    watched: Watched,
    *,
    with_readout: bool = True,
) -> ForwardPass:
    """Run the network as it is; it must be in evaluation mode, without gradients.

    Without the readout nothing depends on the values of tensors, so the pass can be
    exported as a graph. Raises ModelError where the network gives no logits, HeadError
    where it takes another path than the one that the head was found on.
    """
    feature_map: Tensor | None = None
    activations: Tensor | None = None
    readout: Readout | None = None
    with captured(network, watched.layers) as outputs:
        if watched.path is None:
            # A copy, since some networks normalise their input in place.
            fresh = batch.clone()
            logits = watched.ending.logits(
                lambda: network(fresh), batch.shape[0]
            )
        else:
            path = watched.path
            logits, feature_map, tap = run_with_tap(network, batch, path)
            activations = path.activations(tap)
            if with_readout:
                readout = path.readout(tap, logits, feature_map)
    ordered = {
        name: outputs[name] for name in watched.layers if name in outputs
    }
    return ForwardPass(logits, ordered, feature_map, readout, activations)


def run_bfloat16(
    network: nn.Module,
    batch: Float[Tensor, "batch channel row col"],
    watched: Watched,
) -> ForwardPass:
    """Run the network in bfloat16, by torch's autocast, with units last in memory.

    The logits are the head's algebra in float32: they are not rounded once more.
    """
    units_last = batch.contiguous(memory_format=torch.channels_last)
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        passed = run_plain(network, units_last, watched)
    assert passed.feature_map is not None and passed.readout is not None
    logits = passed.readout.logits(cell_means(passed.feature_map))
    return dataclasses.replace(passed, logits=logits)


def _flat(numbers: Tensor) -> Float[Tensor, "batch number"]:
    return numbers.to(torch.float32).flatten(1)
