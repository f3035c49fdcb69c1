"""Outputs: the tensor in a forward's result, and the logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unitscope.errors import ModelError


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that a forward's result stands for; None where it holds none.

    That is the result itself, the `logits` of a model output, or the first tensor of a
    tuple, a list or a mapping.
    """
    if isinstance(value, Tensor):
        return value

    logits = _logits_entry(value)
    if logits is not None:
        return logits

    for item in _items(value):
        tensor = first_tensor(item)
        if tensor is not None:
            return tensor
    return None


def _logits_entry(value: Any) -> Tensor | None:
    if isinstance(value, Mapping):
        logits = value.get("logits")
    else:
        logits = getattr(value, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (tuple, list)):
        return value
    return ()


def logits_of(
    output: Any, batch: int, *, detach: bool = True
) -> Float[Tensor, "batch class"]:
    """The logits in a forward's result for `batch` inputs.

    Raises ModelError where there are none.
    """
    tensor = first_tensor(output)
    if tensor is None:
        raise ModelError(
            "the network gave no tensor, not logits (batch, class): wrap a module that "
            "classifies images"
        )
    _check_one_tensor(output)
    if not _are_logits(tensor, batch):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(
            f"the network gave a {kind} tensor of shape {tuple(tensor.shape)} "
            f"for a batch of {batch}, not logits (batch, class): wrap a module that "
            "classifies images"
        )

    if detach:
        tensor = tensor.detach()
    return tensor.reshape(batch, -1)


def _check_one_tensor(output: Any) -> None:
    """Raise ModelError for a mapping of several tensors of which none is `logits`."""
    if not isinstance(output, Mapping) or _logits_entry(output) is not None:
        return
    names = [str(name) for name, value in output.items() if isinstance(value, Tensor)]
    if len(names) > 1:
        raise ModelError(
            f"the network gave a dict of tensors {', '.join(map(repr, names))}, "
            "and none is called 'logits': wrap a module that gives the logits alone"
        )


def _are_logits(tensor: Tensor, batch: int) -> bool:
    # A network that squeezes too much gives (class) for a batch of one.
    if batch == 1 and tensor.ndim == 1:
        rows = 1
    else:
        rows = tensor.shape[0] if tensor.ndim else 0

    is_flat = math.prod(tensor.shape[2:]) == 1
    has_numbers = tensor.is_floating_point() and bool(tensor.numel())
    return rows == batch and is_flat and has_numbers
