"""Stand-in: run a network's prefix on shapes alone, without numbers.

The stand-in for the photos is a tensor on torch's meta device: it has a shape and no
numbers. Whatever the network computes from it has none either, and costs next to nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unitscope.interrupts import undone
from unitscope.tracing.blame import called
from unitscope.tracing.functions import SHAPE_KEEPERS
from unitscope.tracing.mode import Mode

_CONVERSIONS = ("to", "cpu", "cuda", "type_as")


class ShapesOnly(Mode):
    """Runs calls that involve a stand-in on shapes alone, and all others as they are."""

    def watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See Mode."""
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__") or not _has_stand_in((args, kwargs)):
            return called(func, args, kwargs)
        if name in _CONVERSIONS:
            return _converted(args, kwargs)
        if name in SHAPE_KEEPERS and isinstance(args[0], Tensor):
            # Torch would find the shape by running, without numbers, all the functions
            # that this one is made of: that takes longer than the network itself.
            return torch.empty_like(args[0], device="meta")
        args, kwargs = _map_tensors(_without_numbers, (args, kwargs))
        return called(func, args, kwargs)


@contextlib.contextmanager
def keeping_numbers(network: nn.Module) -> Iterator[None]:
    """Restore tensors of modules that a pass without numbers replaced by stand-ins."""
    before = [
        (attributes, dict(attributes))
        for module in network.modules()
        for attributes in (vars(module), module._buffers)
    ]

    def restore() -> None:
        for attributes, original in before:
            _restore(attributes, original)

    with undone(lambda: restore):
        yield


def _restore(attributes: dict[str, Any], original: dict[str, Any]) -> None:
    replaced = [
        name
        for name, value in attributes.items()
        if isinstance(value, Tensor) and value.is_meta
    ]
    for name in replaced:
        if name in original:
            attributes[name] = original[name]
        else:
            del attributes[name]


def _converted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A stand-in of another dtype; it stays on the meta device."""
    options = [
        item.dtype if isinstance(item, Tensor) else item
        for item in (*args[1:], *kwargs.values())
    ]
    dtypes = [item for item in options if isinstance(item, torch.dtype)]
    return torch.empty_like(
        args[0], dtype=dtypes[0] if dtypes else args[0].dtype
    )


def _has_stand_in(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    if isinstance(value, (tuple, list)):
        return any(map(_has_stand_in, value))
    return isinstance(value, dict) and any(map(_has_stand_in, value.values()))


def _map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to all tensors in nested containers, and send devices to meta."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_map_tensors(function, item) for item in value)
    if isinstance(value, dict):
        return {
            key: _map_tensors(function, item) for key, item in value.items()
        }
    return torch.device("meta") if isinstance(value, torch.device) else value


def _without_numbers(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")
