"""Passes: one forward pass of a network as it is, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unitscope.attribution.head import HeadPath, run_tapped, run_watched
from unitscope.attribution.readout import Readout, cell_means, relative_difference
from unitscope.tracing.layers import captured
from unitscope.tracing.outputs import logits_of

# What bfloat16, with its eight digits, may do to a sound network: relative to the
# largest logit and activation.
ROUNDED = 0.05


@dataclass(frozen=True)
class Watched:
    """What a pass hands out beside the logits: the head's input along a `path`, and the outputs of named `layers`."""

    path: HeadPath | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What one forward pass gave.

    `logits` (batch, class) are float32. `outputs` are those of the watched layers, by
    name, as the modules gave them; a layer that did not run is missing. `feature_map`
    (batch, unit, row, col) is the head's input, float32, and `readout` how it becomes
    logits; both are None without an exact head.
    """

    logits: Float[Tensor, "batch class"]
    outputs: Mapping[str, Shaped[Tensor, "batch ..."]]
    feature_map: Float[Tensor, "batch unit row col"] | None = None
    readout: Readout | None = None

    def tensors(self) -> list[Tensor]:
        """All tensors in a fixed order: logits, feature map, outputs of layers."""
        head = [] if self.feature_map is None else [self.feature_map]
        return [self.logits, *head, *self.outputs.values()]

    def difference(self, expected: ForwardPass) -> float:
        """How far the numbers are from another pass's: photo by photo, relative to the largest of each tensor."""
        pairs = [
            (one.to(torch.float32).flatten(1), other.to(torch.float32).flatten(1))
            for one, other in zip(self.tensors(), expected.tensors(), strict=True)
        ]
        return max(float(relative_difference(*pair).max()) for pair in pairs)


def run_plain(
    network: nn.Module, batch: Float[Tensor, "batch channel row col"], watched: Watched
) -> ForwardPass:
    """Run the network as it is; it must be in evaluation mode, without gradients.

    Raises ModelError where it gives no logits, HeadError where it takes another path
    than the head was found on.
    """
    with captured(network, watched.layers) as outputs:
        if watched.path is None:
            # A copy, since some networks normalise their input in place.
            logits = (
                logits_of(network(batch.clone()), len(batch)).to(torch.float32).clone()
            )
            return ForwardPass(logits, _ordered(outputs, watched))
        logits, feature_map, readout = run_tapped(network, batch, watched.path)
    return ForwardPass(logits, _ordered(outputs, watched), feature_map, readout)


def numbers_of(
    network: nn.Module, batch: Tensor, watched: Watched
) -> tuple[Tensor, ...]:
    """The tensors of a plain pass alone, in the order of `ForwardPass.tensors`: what can be exported as a graph."""
    with captured(network, watched.layers) as outputs:
        if watched.path is None:
            logits = logits_of(network(batch.clone()), batch.shape[0])
            return (logits, *_ordered(outputs, watched).values())
        logits, feature_map, _ = run_watched(network, batch, watched.path)
    return (logits, feature_map, *_ordered(outputs, watched).values())


def _ordered(outputs: Mapping[str, Tensor], watched: Watched) -> dict[str, Tensor]:
    return {name: outputs[name] for name in watched.layers if name in outputs}


def run_bfloat16(
    network: nn.Module, batch: Float[Tensor, "batch channel row col"], watched: Watched
) -> ForwardPass:
    """Run the network in bfloat16, by torch's autocast, with units last in memory as its kernels prefer.

    The logits are the head's algebra in float32, so that they are not rounded once
    more.
    """
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        found = run_plain(
            network, batch.contiguous(memory_format=torch.channels_last), watched
        )
    assert found.feature_map is not None and found.readout is not None
    logits = found.readout.logits(cell_means(found.feature_map))
    return ForwardPass(logits, found.outputs, found.feature_map, found.readout)
