"""Outputs: the tensor in a module's output, and the logits in a network's."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
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


def logits_of(output: Any, batch: int) -> Float[Tensor, "batch class"]:
    """The logits in a forward's result for `batch` inputs.

    They carry gradients where gradients are recorded. Raises ModelError where there are none.
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

    if not torch.is_grad_enabled():
        tensor = tensor.detach()
    return tensor.reshape(batch, -1)


def _check_one_tensor(output: Any) -> None:
    """Raise ModelError for a mapping of several tensors of which none is `logits`."""
    if not isinstance(output, Mapping) or _logits_entry(output) is not None:
        return
    names = []
    for name, value in output.items():
        if isinstance(value, Tensor):
            names.append(repr(str(name)))
    if len(names) > 1:
        raise ModelError(
            f"the network gave a dict of tensors {', '.join(names)}, and none is "
            "called 'logits': wrap a module that gives the logits alone"
        )


def _are_logits(tensor: Tensor, batch: int) -> bool:
    if not tensor.ndim or not tensor.numel():
        return False
    if not tensor.is_floating_point():
        return False
    # A network that squeezes too much gives (class) for a batch of one.
    if batch == 1 and tensor.ndim == 1:
        return True
    rows = tensor.shape[0]
    further = tensor.shape[2:]
    return rows == batch and math.prod(further) == 1


def with_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """The same output with one tensor replaced; None where it does not hold the tensor.

    It may hold it in tuples, lists and mappings.
    """
    if output is old:
        return new
    if isinstance(output, (tuple, list)):
        return _sequence_with_tensor(output, old, new)
    if isinstance(output, MutableMapping):
        return _mapping_with_tensor(output, old, new)
    return None


def _sequence_with_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    items = []
    has_tensor = False
    for item in output:
        changed = with_tensor(item, old, new)
        if changed is not None:
            has_tensor = True
            item = changed
        items.append(item)

    if not has_tensor:
        return None
    is_named_tuple = hasattr(output, "_fields")
    return type(output)(*items) if is_named_tuple else type(output)(items)


def _mapping_with_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    changes = {}
    for key, item in output.items():
        changed = with_tensor(item, old, new)
        if changed is not None:
            changes[key] = changed
    if not changes:
        return None

    # A shallow copy keeps the class and the fields of the model outputs of
    # transformers.
    rebuilt = copy.copy(output)
    for key, item in changes.items():
        rebuilt[key] = item
    return rebuilt
