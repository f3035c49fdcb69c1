"""Taps: catch or change the arguments and results of chosen calls of a forward pass.

A call is known by its index and name, as they were when the pass was traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitscope.tracing.arguments import WithArguments, tensors_in
from unitscope.tracing.blame import called
from unitscope.tracing.mode import Mode


@dataclass(frozen=True, slots=True)
class Caught(WithArguments):
    """One caught call: its arguments, and a copy of the first one.

    `first` is the first tensor argument as it was before the call ran.
    """

    first: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arguments(WithArguments):
    """The arguments of one call of a pass."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class CallCounter(Mode):
    """Numbers the calls of a forward pass as a trace does, and shows each to `meet`.

    One of them watches a pass at a time: the work of a second one would be counted. So
    each can also keep a copy of what one call gave: `keep` names the call by index and
    name, and `kept` is the copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self.keep: tuple[int, str] | None = None
        self.kept: Tensor | None = None

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
        return args

    def made(self, index: int, name: str, result: Any) -> Any:
        """Look at what a call gave; return it."""
        if (index, name) == self.keep and isinstance(result, Tensor):
            # Cloned at once: a later in-place operation may overwrite it.
            self.kept = result.clone()
        return result

    def watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See Mode."""
        kwargs = dict(kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return called(func, args, kwargs)

        self._count += 1
        index = self._count
        args = self.meet(index, name, args, kwargs)
        return self.made(index, name, self.run(index, func, args, kwargs))

    def run(
        self,
        index: int,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a call; return what it gives."""
        return called(func, args, kwargs)


def uncounted() -> AbstractContextManager[Any]:
    """Calls made inside are not counted with the network's own."""
    hidden: AbstractContextManager[Any]
    hidden = torch._C.DisableTorchFunction()
    return hidden


class Tap(CallCounter):
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


class Switch(CallCounter):
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


class Substitute(CallCounter):
    """Replaces what one call gives by other `numbers`, as many as there are."""

    def __init__(self, index: int, name: str, numbers: Tensor) -> None:
        super().__init__()
        self._chosen = (index, name)
        self._numbers = numbers

    def made(self, index: int, name: str, result: Any) -> Any:
        """Replace the result where the call is the chosen one."""
        if (index, name) != self._chosen or not isinstance(result, Tensor):
            return result
        numbers = self._numbers.to(result.device, result.dtype)
        # A copy, since what follows may write into it.
        numbers = numbers.reshape(result.shape).clone()
        if name.endswith("_") and not name.startswith("__"):
            # It was written in place, and what it gives may not be read.
            return result.copy_(numbers)
        return numbers
