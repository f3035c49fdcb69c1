"""Compiled: a network exported by torch.export, as ONNX, and run by ONNX Runtime on the processor."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.readout import Readout
from unitscope.engine.passes import ForwardPass, Watched, numbers_of, run_plain
from unitscope.errors import one_line
from unitscope.tracing.layers import parts_of

# Relative to the largest logit, activation of the map, and output of each layer: what
# compiling may change.
ALLOWED = 1e-5

# Photos run together while the largest tensor of the pass stays below this, so that it
# stays in the cache, and memory does not grow with the batch.
_CHUNK_BYTES = 16 << 20

_PACKAGES = ("onnxruntime", "onnx", "onnxscript")


class NotCompiledError(Exception):
    """The network cannot be compiled; the text says why, to follow "the network runs as it is, since"."""


def is_installed() -> bool:
    """Whether the packages of the extra `fast` that compile networks are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network compiled for inputs of one shape (channel, row, col), in batches of any size.

    It gives what `run_plain` gives, within `error` of the largest number of each
    output: measured on noise, against a plain pass, when it was compiled. Neither the
    number of threads nor what else is in the batch changes a bit of it. `readout` is
    the head's when it was compiled; `chunk` photos run at a time.
    """

    session: Any = field(repr=False)
    watched: Watched
    readout: Readout | None = field(repr=False)
    chunk: int
    error: float = math.nan

    def run(self, batch: Float[Tensor, "batch channel row col"]) -> ForwardPass:
        """One forward pass."""
        parts = [self._run(part) for part in torch.split(batch, self.chunk)]
        outputs = (
            parts[0]
            if len(parts) == 1
            else [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
        )
        head = 1 if self.watched.path is None else 2
        layers = dict(zip(self.watched.layers, outputs[head:], strict=True))
        return ForwardPass(
            outputs[0], layers, outputs[1] if head == 2 else None, self.readout
        )

    def _run(self, part: Tensor) -> list[Tensor]:
        given = part.detach().contiguous().numpy()
        found = self.session.run(None, {self.session.get_inputs()[0].name: given})
        return [torch.from_numpy(output) for output in found]


def compile_network(
    network: nn.Module, example: Float[Tensor, "1 channel row col"], watched: Watched
) -> Compiled:
    """Compile a network for inputs like `example`, and prove it on noise against the network as it is.

    The network must be in evaluation mode, without gradients. Raises NotCompiledError,
    saying why, where that cannot be, or where the result is not the same to `ALLOWED`.
    """
    _check(network, example)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(
        (3, *example.shape[1:]), generator=generator, dtype=torch.float32, device="cpu"
    )
    try:
        # Of one photo, of two and of three: some code asks how many there are.
        expected = [run_plain(network, noise[:count], watched) for count in (1, 2, 3)]
    except Exception as failure:  # it is the user's code, and may be anything
        raise NotCompiledError(
            f"it fails on a few photos of noise: {one_line(failure)}"
        ) from None
    missing = [name for name in watched.layers if name not in expected[0].outputs]
    if missing:
        raise NotCompiledError(f"its layer '{missing[0]}' does not always run")
    exported, any_batch = _exported(_Outputs(network, watched), noise[:2])
    session, largest = _session(exported)
    chunk = max(1, _CHUNK_BYTES // largest) if any_batch else 1
    compiled = Compiled(session, watched, expected[0].readout, chunk)
    try:
        error = max(
            compiled.run(noise[: len(one.logits)]).difference(one) for one in expected
        )
        # A network that mixes the photos of a batch gives other numbers in other
        # company.
        error = max(
            error,
            dataclasses.replace(compiled, chunk=1).run(noise).difference(expected[-1]),
        )
    except Exception as failure:  # the runtime's errors are of many kinds
        raise NotCompiledError(
            f"compiled it fails on some batches: {one_line(failure)}"
        ) from None
    if not error <= ALLOWED:
        raise NotCompiledError(
            f"compiled it would be off by {error:.1e} of its largest number"
        )
    return dataclasses.replace(compiled, error=error)


def _check(network: nn.Module, example: Tensor) -> None:
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
        raise NotCompiledError(
            f"its weights are {str(example.dtype).removeprefix('torch.')}, not float32"
        )
    everywhere = torch.nn.modules.module
    hooked = bool(
        everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks
    )
    if hooked or any(
        module._forward_hooks or module._forward_pre_hooks
        for module in parts_of(network)
    ):
        raise NotCompiledError("it has forward hooks, which would not be called")


class _Outputs(nn.Module):
    """The network, giving everything that is watched as one tuple of tensors."""

    def __init__(self, network: nn.Module, watched: Watched) -> None:
        super().__init__()
        self.network, self._watched = network, watched

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return numbers_of(self.network, x, self._watched)


def _exported(
    module: nn.Module, noise: Tensor
) -> tuple[torch.export.ExportedProgram, bool]:
    """The network as a graph, and whether that takes batches of any size: some code fixes it to the one it saw."""
    try:
        with _untouched(module), _quietly():
            exported = torch.export.export(
                module, (noise,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
            )
            if exported.range_constraints:
                return exported, True
            return torch.export.export(module, (noise[:1],)), False
    except Exception as error:  # it is the user's code, and may be anything
        raise NotCompiledError(
            f"torch.export failed on it: {one_line(error)}"
        ) from None


def _session(exported: torch.export.ExportedProgram) -> tuple[Any, int]:
    """An ONNX Runtime session of an exported network, and the bytes of its largest tensor for one photo."""
    import onnxruntime

    largest = max(_bytes_a_photo(node.meta.get("val")) for node in exported.graph.nodes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Threads that wait busily for the next pass would keep the processors from whatever
    # is computed between two.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with _quietly(), tempfile.TemporaryDirectory(prefix="unitscope-") as folder:
            program = torch.onnx.export(exported, dynamo=True, verbose=False)
            assert program is not None
            # Weights beside the graph: one file may hold no more than two gigabytes.
            program.save(Path(folder) / "network.onnx", external_data=True)
            path = str(Path(folder) / "network.onnx")
            return onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            ), largest
    except Exception as error:  # the exporter and the runtime have errors of many kinds
        raise NotCompiledError(
            f"ONNX Runtime does not take it: {one_line(error)}"
        ) from None


def _bytes_a_photo(value: Any) -> int:
    """The bytes of a traced tensor for one photo; 1 for what does not grow with the batch, whose length is unknown."""
    if not isinstance(value, Tensor) or all(
        isinstance(side, int) for side in value.shape
    ):
        return 1
    return value.element_size() * math.prod(
        side for side in value.shape if isinstance(side, int)
    )


@contextlib.contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Give all modules their attributes back: code that keeps tensors on itself would keep traced ones."""
    kept = [(vars(one), dict(vars(one))) for one in parts_of(module)]
    held: list[Any] = [
        value
        for _, before in kept
        for value in before.values()
        if isinstance(value, (list, dict))
    ]
    contents = [(value, value.copy()) for value in held]
    try:
        yield
    finally:
        for attributes, before in kept:
            if list(map(id, attributes.values())) != list(map(id, before.values())):
                attributes.clear()
                attributes.update(before)
        for value, content in contents:  # buffers among them
            if isinstance(value, list):
                value[:] = content
            elif list(map(id, value.values())) != list(map(id, content.values())):
                value.clear()
                value.update(content)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter's words on its own progress are not for the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
