"""Replay: compute a part of a forward pass again, from other numbers than the network's.

A pass is run once more, in which the calls of that part are kept with their arguments.
They are then called again in float64, without the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitscope.attribution.constants import Constants
from unitscope.tracing.arguments import tensors_in
from unitscope.tracing.blame import called
from unitscope.tracing.calls import Call
from unitscope.tracing.sums import SAME_NUMBERS
from unitscope.tracing.taps import CallCounter, uncounted


@dataclass(frozen=True)
class Kept:
    """One kept call: its function, its arguments, and copies of the tensors that it gave."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Tensor, ...]


class Keeper(CallCounter):
    """Keeps calls of a pass: `wanted` are their names by index."""

    def __init__(self, wanted: Mapping[int, str]) -> None:
        super().__init__()
        self._wanted = wanted
        self.kept_calls: dict[int, Kept] = {}

    @property
    def missing(self) -> bool:
        """Whether the pass made other calls than those wanted."""
        return set(self.kept_calls) != set(self._wanted)

    def run(
        self,
        index: int,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a call, and keep it where it is wanted."""
        if self._wanted.get(index) != getattr(func, "__name__", ""):
            return called(func, args, kwargs)
        result = called(func, args, kwargs)
        results = args[0] if func.__name__ == "__setitem__" else result
        # The network may append to a list after it was given to a call.
        self.kept_calls[index] = Kept(
            func,
            mapped(args, _itself),
            mapped(kwargs, _itself),
            tuple(each.detach().clone() for each in tensors_in(results)),
        )
        return result


@dataclass
class Replay:
    """Computes calls again from given `values` (by the identity of the call), in float64.

    Calls in `passed` give their moving argument as it is: an activation is left out.
    """

    kept: Mapping[int, Kept]
    constants: Constants
    passed: Mapping[int, Call]
    values: dict[int, Tensor]

    def of(self, call: Call) -> Tensor:
        """What a call gives; everything that moves leads back to calls with values."""
        if id(call) not in self.values:
            self.values[id(call)] = self._made(call)
        return self.values[id(call)]

    def _made(self, call: Call) -> Tensor:
        if id(call) in self.passed:
            return self.of(self.passed[id(call)])
        if call.name in SAME_NUMBERS:
            return self.of(call.inputs[0])
        if call.index < 0:  # reading an attribute, such as .T
            attribute: Tensor = getattr(self.of(call.inputs[0]), call.name)
            return attribute
        return self._computed(call, self.kept[call.index])

    def _computed(self, call: Call, kept: Kept) -> Tensor:
        makers = iter(call.inputs)

        def replaced(tensor: Tensor) -> Tensor:
            maker = next(makers)
            if maker in self.constants:
                return precise(tensor)
            return self.of(maker)

        args = mapped(kept.args, replaced)
        kwargs = mapped(kept.kwargs, replaced)
        kwargs.pop("dtype", None)
        if is_in_place(call.name):
            args = (args[0].clone(), *args[1:])
        with uncounted():
            result = kept.function(*args, **kwargs)
        return list(tensors_in(result))[call.place]


def precise(tensor: Tensor) -> Tensor:
    """Numbers in float64, where the device has that; others as they are."""
    if not tensor.is_floating_point():
        return tensor
    precise_type = (
        torch.float32 if tensor.device.type == "mps" else torch.float64
    )
    return tensor.detach().to(precise_type)


def is_in_place(name: str) -> bool:
    """Whether a function writes into its first argument."""
    if name.startswith("__"):
        return name.startswith("__i") and name != "__invert__"
    return name.endswith("_")


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same arguments with every tensor changed, in the order of `tensors_in`."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(item, change) for item in value)
    return value
