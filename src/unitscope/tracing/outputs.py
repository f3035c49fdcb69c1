"""Outputs: the tensors in a module's output, and the one that holds the logits."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.errors import HeadError, ModelError

# Objects may hold each other in circles.
_DEEPEST = 8


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that a layer's result stands for; None where it holds none.

    That is the result itself, the `logits` of a model output, or the first tensor of a
    tuple, a list or a mapping: layers return their map first, and what belongs to it
    (attention weights, states) after it. For a network's logits see `OutputChoice`.
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


@dataclass(frozen=True, eq=False)
class Leaf:
    """A tensor in a forward's result, and the keys that lead to it from the outside in."""

    keys: tuple[str | int, ...]
    tensor: Tensor

    @property
    def path(self) -> str:
        """Its name: "logits", "0", "features[0]", "0.out"; "" for the result itself."""
        path = ""
        for key in self.keys:
            if not path:
                path = str(key)
            elif isinstance(key, int):
                path += f"[{key}]"
            else:
                path += f".{key}"
        return path


def leaves_of(result: Any) -> list[Leaf]:
    """All dense tensors of floating-point numbers in a forward's result, in its order."""
    return [
        leaf
        for leaf in tensors_of(result)
        if leaf.tensor.is_floating_point()
        and leaf.tensor.layout is torch.strided
    ]


def tensors_of(result: Any) -> list[Leaf]:
    """All tensors in a forward's result, in its order.

    It may hold them in tuples, lists, mappings, dataclasses and other plain objects.
    """
    return list(_tensors_in(result, ()))


def _tensors_in(value: Any, keys: tuple[str | int, ...]) -> Iterator[Leaf]:
    if isinstance(value, Tensor):
        yield Leaf(keys, value)
    elif len(keys) < _DEEPEST:
        for key, item in _named_items(value):
            yield from _tensors_in(item, (*keys, key))


def _named_items(value: Any) -> list[tuple[str | int, Any]]:
    """What a container holds, by name or number; nothing where it is none."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if isinstance(value, (str, bytes, type, nn.Module, ModuleType)):
        return []
    return list(_attributes(value).items())


def _attributes(value: Any) -> dict[str | int, Any]:
    """The public attributes of a plain object; also `logits` where it is computed."""
    attributes: dict[str | int, Any] = {}
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            attributes[field.name] = getattr(value, field.name, None)
    slots = [
        name
        for each in type(value).__mro__
        for name in _slots_of(each)
        if hasattr(value, name)
    ]
    for name in [*slots, *getattr(value, "__dict__", {})]:
        if not name.startswith("_"):
            attributes.setdefault(name, getattr(value, name))

    logits = _logits_entry(value)
    if logits is not None:
        attributes["logits"] = logits
    return attributes


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


@dataclass(frozen=True)
class OutputChoice:
    """Which tensor of a network's result holds the logits.

    `path` is the tensor's, "" where it is the result itself. `among` are the paths of all
    tensors that it was chosen from; where they change it is to be chosen anew, unless the
    user chose it (`is_wanted`) or their number depends on the number of photos (then it
    is empty).
    """

    path: str = ""
    among: tuple[str, ...] = ()
    is_wanted: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether the network gives nothing else that could have been meant."""
        return len(self.among) == 1 or self.path == ""

    def tensor(self, result: Any) -> Tensor:
        """The tensor in a result; HeadError where the network gives other ones now."""
        if self.path == "" and isinstance(result, Tensor):
            return result

        leaves = {leaf.path: leaf.tensor for leaf in leaves_of(result)}
        is_same = self.is_wanted or self.among in ((), tuple(leaves))
        if self.path in leaves and is_same:
            return leaves[self.path]
        given = ", ".join(map(repr, leaves)) or "no tensor"
        raise HeadError(
            f"the network gave {given}, and not {self.path!r} as when its logits were "
            "found: wrap it again, or choose with output= (--output)"
        )

    def logits(self, result: Any, batch: int) -> Float[Tensor, "batch class"]:
        """The logits in a forward's result for `batch` inputs.

        They carry gradients where gradients are recorded.
        Raises ModelError where the tensor has another shape, HeadError where it is missing.
        """
        tensor = self.tensor(result)
        if not is_table(tensor, batch):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(
                f"the network gave a {kind} tensor of shape {tuple(tensor.shape)} "
                f"for a batch of {batch}, not logits (batch, class): wrap a module that "
                "classifies images"
            )
        if not torch.is_grad_enabled():
            tensor = tensor.detach()
        return tensor.reshape(batch, -1)


THE_RESULT = OutputChoice()
"""The result itself, which is a tensor."""


def is_table(tensor: Tensor, batch: int) -> bool:
    """Whether a tensor has one row of numbers for each of `batch` inputs."""
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    # A network that squeezes gives (class), or a lone logit, for a batch of one.
    if batch == 1 and tensor.ndim <= 1:
        return True
    if not tensor.ndim:
        return False
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
