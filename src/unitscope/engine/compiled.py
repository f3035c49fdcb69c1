"""Compiled: a network run by ONNX Runtime, proved against the network as it is."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.readout import Readout
from unitscope.engine.exporting import NotCompiledError, exported, session_of
from unitscope.engine.passes import ForwardPass, Watched, run_plain
from unitscope.errors import one_line
from unitscope.tracing.calling import Completion
from unitscope.tracing.layers import parts_of

# What compiling may change, relative to the largest number of each output.
ALLOWED = 1e-5

# As many photos run together as keep the largest tensor of the pass below this: it then
# stays in the cache, and memory does not grow with the batch.
_CHUNK_BYTES = 16 << 20

_PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def is_installed() -> bool:
    """Whether the packages of the extra `fast` that compile networks are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network compiled for inputs of one shape, in batches of any size.

    It gives what `run_plain` gives, within `error` of the largest number of each output:
    that was measured on noise when it was compiled. Neither the number of threads nor the
    rest of the batch changes a bit of the result. `readout` is the head's when it was
    compiled; `chunk` photos run at a time.
    """

    session: Any = field(repr=False)
    watched: Watched
    readout: Readout | None = field(repr=False)
    chunk: int
    error: float = math.nan

    def run(self, batch: Float[Tensor, "batch channel row col"]) -> ForwardPass:
        """One forward pass."""
        parts = [self._run(part) for part in torch.split(batch, self.chunk)]
        if len(parts) == 1:
            outputs = parts[0]
        else:
            outputs = [torch.cat(pieces) for pieces in zip(*parts, strict=True)]

        logits, *rest = outputs
        first_layer = len(rest) - len(self.watched.layers)
        names = self.watched.layers
        layers = dict(zip(names, rest[first_layer:], strict=True))
        feature_map, activations, *_ = *rest[:first_layer], None, None
        return ForwardPass(
            logits, layers, feature_map, self.readout, activations
        )

    def _run(self, part: Tensor) -> list[Tensor]:
        name = self.session.get_inputs()[0].name
        outputs = self.session.run(
            None, {name: part.detach().contiguous().numpy()}
        )
        return [torch.from_numpy(output) for output in outputs]


def compile_network(
    network: nn.Module,
    example: Float[Tensor, "1 channel row col"],
    watched: Watched,
) -> Compiled:
    """Compile a network for inputs like `example`, and prove it against the network.

    The network must be in evaluation mode, without gradients. Raises NotCompiledError,
    saying why, where it cannot be compiled, or where the result differs by more than
    `ALLOWED`.
    """
    check_can_compile(network, example)
    noise = _noise_like(example)
    expected = _plain_passes(network, noise, watched)
    graph, any_batch = exported(_Outputs(network, watched), (noise[:2],))
    session, largest = session_of(graph)

    chunk = max(1, _CHUNK_BYTES // largest) if any_batch else 1
    compiled = Compiled(session, watched, expected[0].readout, chunk)
    try:
        error = _largest_difference(compiled, noise, expected)
    except Exception as failure:  # the runtime's errors are of many kinds
        raise NotCompiledError(
            f"compiled it fails on some batches: {one_line(failure)}"
        ) from None
    if not error <= ALLOWED:
        raise NotCompiledError(
            f"compiled it would be off by {error:.1e} of its largest number"
        )
    return dataclasses.replace(compiled, error=error)


class _Outputs(nn.Module):
    """The network, giving everything that is watched as one tuple of tensors."""

    def __init__(self, network: nn.Module, watched: Watched) -> None:
        super().__init__()
        self.network, self._watched = network, watched

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        passed = run_plain(self.network, x, self._watched, with_readout=False)
        return tuple(passed.tensors())


def check_can_compile(network: nn.Module, example: Tensor) -> None:
    """Raise NotCompiledError where a network is none that ONNX Runtime could run here."""
    if not is_installed():
        raise NotCompiledError(
            "ONNX Runtime is not installed: pip install 'unitscope[fast]'"
        )
    if example.device.type != "cpu":
        raise NotCompiledError(
            f"it is on the device '{example.device}', and is compiled on the processor "
            "only"
        )
    if example.dtype is not torch.float32:
        dtype = str(example.dtype).removeprefix("torch.")
        raise NotCompiledError(f"its weights are {dtype}, not float32")
    if _has_hooks(network):
        raise NotCompiledError(
            "it has forward hooks, which would not be called"
        )


def _has_hooks(network: nn.Module) -> bool:
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return True
    hooks = [
        hook
        for module in parts_of(network)
        for each in (module._forward_hooks, module._forward_pre_hooks)
        for hook in each.values()
    ]
    # What completes the calls of the network is compiled with it.
    return not all(isinstance(hook, Completion) for hook in hooks)


def _noise_like(example: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (3, *example.shape[1:])
    return torch.randn(
        shape, generator=generator, dtype=torch.float32, device="cpu"
    )


def _plain_passes(
    network: nn.Module, noise: Tensor, watched: Watched
) -> list[ForwardPass]:
    """Passes of one, two and three photos: some code depends on how many there are."""
    try:
        passes = [
            run_plain(network, noise[:count], watched) for count in (1, 2, 3)
        ]
    except (
        Exception
    ) as failure:  # it is the user's code, and may raise anything
        raise NotCompiledError(
            f"it fails on a few photos of noise: {one_line(failure)}"
        ) from None
    for name in watched.layers:
        if name not in passes[0].outputs:
            raise NotCompiledError(f"its layer '{name}' does not always run")
    return passes


def _largest_difference(
    compiled: Compiled, noise: Tensor, expected: list[ForwardPass]
) -> float:
    differences = [
        compiled.run(noise[: len(wanted.logits)]).difference(wanted)
        for wanted in expected
    ]
    # A network that mixes the photos of a batch gives other numbers for each alone.
    one_by_one = dataclasses.replace(compiled, chunk=1).run(noise)
    return max(*differences, one_by_one.difference(expected[-1]))
