"""Taps: catch or change the arguments of chosen calls of a forward pass.

A call is known by its index and name, as they were when the pass was traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unitscope.tracing.arguments import WithArguments, tensors_in


@dataclass(frozen=True, slots=True)
class Caught(WithArguments):
    """One caught call: its arguments, and a copy of the first one.

    `first` is the first tensor argument as it was before the call ran.
    """

    first: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _CallCounter(TorchFunctionMode):
    """Numbers the calls of a forward pass as a trace does, and shows each to `meet`."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def meet(
        self,
        index: int,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, ...]:
        """Look at a call before it runs; return its positional arguments.

        Keyword arguments may be changed in place.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return func(*args, **kwargs)

        self._count += 1
        args = self.meet(self._count, name, args, kwargs)
        return func(*args, **kwargs)


class Tap(_CallCounter):
    """Catches the arguments of the `wanted` calls: their names by index."""

    def __init__(self, wanted: Mapping[int, str]) -> None:
        super().__init__()
        self._wanted = wanted
        self.caught: dict[int, Caught] = {}

    def meet(
        self,
        index: int,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, ...]:
        """Catch the call where it is wanted."""
        if self._wanted.get(index) != name:
            return args

        first = args[0] if args else kwargs.get("input")
        if not isinstance(first, Tensor):  # a list, as of `cat`
            first = next(tensors_in((args, kwargs)))
        # Cloned at once: a later in-place operation may overwrite it.
        if not torch.is_grad_enabled():
            first = first.detach()
        copy = first.clone()
        self.caught[index] = Caught(copy, args, kwargs)
        return args


class Switch(_CallCounter):
    """Replaces the first argument of chosen calls: a real pass with changed feature maps.

    `changes` are what is done to it, by the index and name of the call. `fired` says
    whether all of the calls were met.
    """

    def __init__(
        self, changes: Mapping[tuple[int, str], Callable[[Tensor], Tensor]]
    ) -> None:
        super().__init__()
        self._changes = changes
        self._met = 0

    @property
    def fired(self) -> bool:
        """Whether all of the calls were met."""
        return self._met == len(self._changes)

    def meet(
        self,
        index: int,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, ...]:
        """Change the first argument where the call is a chosen one."""
        change = self._changes.get((index, name))
        if change is None:
            return args

        self._met += 1
        if not args:
            kwargs["input"] = change(kwargs["input"])
            return args
        first, *others = args
        return change(first), *others
