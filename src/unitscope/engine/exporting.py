"""Exporting: a network as a graph of torch.export, and as a session of ONNX Runtime."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unitscope.errors import one_line
from unitscope.interrupts import undone
from unitscope.tracing.layers import parts_of


class NotCompiledError(Exception):
    """The network cannot be compiled; the text is a clause that says why."""


def exported(
    module: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[torch.export.ExportedProgram, bool]:
    """The network as a graph, and whether the graph takes batches of any size.

    Each of `inputs` holds two photos' numbers. Some code fixes the batch to the size that
    it sees: such a network is exported for one photo.
    """
    any_batch = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    try:
        with _unchanged(module), quietly():
            _without_inference_tensors(module)
            graph = torch.export.export(
                module, inputs, dynamic_shapes=any_batch
            )
            if graph.range_constraints:
                return graph, True
            alone = tuple(each[:1] for each in inputs)
            return torch.export.export(module, alone), False
    except Exception as error:  # it is the user's code, and may raise anything
        raise NotCompiledError(
            f"torch.export failed on it: {one_line(error)}"
        ) from None


def session_of(graph: torch.export.ExportedProgram) -> tuple[Any, int]:
    """An ONNX Runtime session, and the bytes of its largest tensor for one photo."""
    import onnxruntime

    largest = max(
        _bytes_per_photo(node.meta.get("val")) for node in graph.graph.nodes
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Threads that wait busily for the next pass would keep the processor from the work
    # between two passes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        with (
            quietly(),
            tempfile.TemporaryDirectory(prefix="unitscope-") as folder,
        ):
            path = Path(folder) / "network.onnx"
            program = torch.onnx.export(graph, dynamo=True, verbose=False)
            assert program is not None
            # Weights beside the graph: a graph file may hold at most two gigabytes.
            program.save(path, external_data=True)
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
    except (
        Exception
    ) as error:  # the exporter and the runtime have errors of many kinds
        raise NotCompiledError(
            f"ONNX Runtime does not take it: {one_line(error)}"
        ) from None
    return session, largest


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence what the exporter says about its own progress."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _bytes_per_photo(value: Any) -> int:
    """The bytes of a traced tensor per photo; 1 for one that the batch does not grow.

    The length of the batch is the one side that is no number.
    """
    if not isinstance(value, Tensor):
        return 1
    fixed = [side for side in value.shape if isinstance(side, int)]
    if len(fixed) == value.ndim:
        return 1
    return value.element_size() * math.prod(fixed)


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Give all modules their attributes back.

    Code that keeps tensors on its module would otherwise keep traced ones.
    """
    attributes = [(vars(part), dict(vars(part))) for part in parts_of(module)]
    containers: list[Any] = [
        value
        for _, before in attributes
        for value in before.values()
        if isinstance(value, (list, dict))
    ]
    contents = [(value, value.copy()) for value in containers]

    def restore() -> None:
        for now, before in attributes:
            _restore_dict(now, before)
        for container, before in contents:  # buffers among them
            if isinstance(container, list):
                container[:] = before
            else:
                _restore_dict(container, before)

    with undone(lambda: restore):
        yield


def _without_inference_tensors(module: nn.Module) -> None:
    """Put copies in place of weights made in inference mode: torch.export refuses those."""
    for part in parts_of(module):
        for name, weight in list(part.named_parameters(recurse=False)):
            if weight.is_inference():
                copied = nn.Parameter(weight.clone(), requires_grad=False)
                setattr(part, name, copied)
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_inference():
                setattr(part, name, buffer.clone())


def _restore_dict(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    if list(map(id, now.values())) != list(map(id, before.values())):
        now.clear()
        now.update(before)
