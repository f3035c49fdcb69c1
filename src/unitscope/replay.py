"""Replay: the calls of a forward pass, written down to be made again without the code that made them."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from unitscope.trace import ASKERS, Tap

# What a call may be given beside tensors: numbers and names, which are always the same.
_CONSTANTS = (
    bool, int, float, complex, str, type(None), type(...), slice, torch.dtype, torch.device, torch.layout,
    torch.memory_format,
)  # fmt: skip


@runtime_checkable
class Fused(Protocol):
    """A call that computes several of torch's at once."""

    def __call__(self, x: Tensor, other: Tensor | None) -> Tensor:
        """Compute them."""

    def spelled(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The same in torch's own functions."""


class NotReplayableError(Exception):
    """A pass cannot be written down: numbers leave torch, or come from elsewhere."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor of the pass stands."""

    number: int


@dataclass(frozen=True, slots=True)
class _Parts:
    """A list or tuple with tensors of the pass in it."""

    kind: type
    parts: tuple[Any, ...]


@dataclass(slots=True)
class _Step:
    """One call: what it is given, where and of which kinds the tensors are that it gives, which are read here last.

    Without `kinds` it may give others.
    """

    index: int
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: int | tuple[int | None, ...] | None
    kinds: tuple[tuple[torch.Size, torch.dtype], ...] | None
    last: tuple[int, ...] = ()


class Recording:
    """Notes the calls of a pass on `x`.

    `constants` are the tensors that are the network's own, by identity; `kept` the calls whose results somebody waits
    for, by index.

    Where the pass cannot be made again from its calls alone, no more is noted, and `ended` says why.
    """

    def __init__(self, x: Tensor, constants: Mapping[int, Tensor], kept: Container[int]) -> None:
        self._constants, self._kept = constants, kept
        self._places: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._count = 0
        self._steps: list[_Step] = []
        self._why: NotReplayableError | None = None
        self._place(x)

    def same(self, index: int, name: str, tensor: Tensor, other: Tensor) -> None:
        """Note a call that gave another tensor, or a stand-in for it."""
        if self._why is None:
            with self._noticed():
                self._same(index, name, tensor, other)

    def call(self, index: int, name: str, function: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Note a call and what it gave."""
        if self._why is None:
            with self._noticed():
                self._call(index, name, function, args, kwargs, result)

    @contextlib.contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except NotReplayableError as why:
            self._why = why

    def _same(self, index: int, name: str, tensor: Tensor, other: Tensor) -> None:
        place = self._known(other)
        self._places[id(tensor)] = weakref.ref(tensor), place
        if index in self._kept:
            self._steps.append(_Step(index, name, _itself, (_Place(place),), {}, place, _kinds(tensor)))

    def _call(self, index: int, name: str, function: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        if name in ASKERS or name == "_assert":  # what was asserted of numbers would have left torch first
            return
        given = tuple(map(self._noted, args))
        named = {key: self._noted(value) for key, value in kwargs.items()}
        made: int | tuple[int | None, ...] | None = None
        if isinstance(result, Tensor):
            made = self._place(result)
        elif isinstance(result, (tuple, list)) and any(isinstance(one, Tensor) for one in result):
            if not all(one is None or isinstance(one, Tensor) for one in result):
                raise NotReplayableError(f"{name} gives more than tensors")
            made = tuple(None if one is None else self._place(one) for one in result)
        elif name != "__setitem__":
            raise NotReplayableError(f"{name} gives {type(result).__name__}, no tensor")
        self._steps.append(_Step(index, name, function, given, named, made, _kinds(result)))

    def ended(self, output: Tensor) -> Replay:
        """The pass as a replay that gives the tensor `output`; raises NotReplayableError where there is none."""
        if self._why is not None:
            raise self._why
        final, seen = self._known(output), {self._known(output)}
        for step in reversed(self._steps):
            touched = {place.number for part in (*step.args, *step.kwargs.values()) for place in _places(part)}
            made = step.made if isinstance(step.made, tuple) else (step.made,)
            touched |= {place for place in made if place is not None}
            step.last = tuple(touched - seen)
            seen |= touched
        return Replay(tuple(self._steps), self._count, final)

    def _noted(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._constants[id(value)] if id(value) in self._constants else _Place(self._known(value))
        if isinstance(value, (tuple, list)):
            parts = tuple(map(self._noted, value))
            # A list may be changed later: a copy.
            whole = any(isinstance(part, (_Place, _Parts, Tensor)) for part in parts) or isinstance(value, list)
            return _Parts(list if isinstance(value, list) else tuple, parts) if whole else value
        bounds = (value.start, value.stop, value.step) if isinstance(value, slice) else ()
        if not isinstance(value, _CONSTANTS) or any(isinstance(part, Tensor) for part in bounds):
            raise NotReplayableError(f"a call is given a {type(value).__name__}")
        return value

    def _known(self, tensor: Tensor) -> int:
        reference, place = self._places.get(id(tensor), (None, -1))
        if reference is None or reference() is not tensor:
            raise NotReplayableError("a tensor comes from elsewhere")
        return place

    def _place(self, tensor: Tensor) -> int:
        reference, place = self._places.get(id(tensor), (None, -1))
        if reference is None or reference() is not tensor:
            place, self._count = self._count, self._count + 1
            self._places[id(tensor)] = weakref.ref(tensor), place
        return place


@dataclass(frozen=True, eq=False)
class Replay:
    """The calls of a pass, in order; calling it on an input makes them again and gives the output.

    Raises NotReplayableError where a call gives another shape than it gave: the code may have asked for it.
    """

    _steps: tuple[_Step, ...] = field(repr=False)
    _count: int
    _output: int

    def __call__(self, x: Tensor, tap: Tap) -> Tensor:
        """Make the calls, and show `tap` those that it waits for."""
        places: list[Any] = [None] * self._count
        places[0] = x
        for step in self._steps:
            args = [
                places[part.number] if type(part) is _Place else _filled(part, places) if type(part) is _Parts else part
                for part in step.args
            ]
            kwargs = {name: _filled(part, places) for name, part in step.kwargs.items()} if step.kwargs else {}
            tap.meet(step.index, step.name, tuple(args), kwargs)
            result = step.function(*args, **kwargs)
            if step.kinds is not None and _kinds(result) != step.kinds:
                raise NotReplayableError(f"{step.name} gives another shape")
            tap.made(step.index, step.name, result)
            if isinstance(step.made, tuple):
                for place, one in zip(step.made, result, strict=True):
                    if place is not None:
                        places[place] = one
            elif step.made is not None:
                places[step.made] = result
            for place in step.last:
                places[place] = None
        output: Tensor = places[self._output]
        return output

    def names(self) -> set[str]:
        """What the functions that are called are named; a choice by a tensor has a name of its own."""
        return {
            "a choice by a tensor" if step.name == "__getitem__" and _holds_a_tensor(step.args[1]) else step.name
            for step in self._steps
        }

    def spelled(self) -> tuple[Replay, dict[int, Tensor]]:
        """The same in torch's own functions, and the tensors of the network in it.

        Its calls are given tensors that share their numbers and ask for no gradients, as a compiler wants its
        constants: by the identity of these the network's own are told.
        """
        constants: dict[int, Tensor] = {}
        own: dict[int, Tensor] = {}

        def constant(value: Any) -> Any:
            if isinstance(value, _Parts):
                return _Parts(value.kind, tuple(map(constant, value.parts)))
            if not isinstance(value, Tensor):
                return value
            found = constants.setdefault(id(value), value.detach())
            own[id(found)] = value
            return found

        steps = []
        for step in self._steps:
            function = step.function.spelled() if isinstance(step.function, Fused) else step.function
            function = _apart(_strided(function) if step.name in _POOLS else function)
            args, kwargs = tuple(map(constant, step.args)), {name: constant(one) for name, one in step.kwargs.items()}
            steps.append(replace(step, function=function, args=args, kwargs=kwargs, kinds=None))
        return replace(self, _steps=tuple(steps)), own


# Where these are given no stride, the graph compiler finds none.
_POOLS = frozenset({"max_pool2d", "avg_pool2d"})


def _holds_a_tensor(part: Any) -> bool:
    inner = part.parts if isinstance(part, _Parts) else part if isinstance(part, (tuple, list)) else ()
    return isinstance(part, (Tensor, _Place)) or any(map(_holds_a_tensor, inner))


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives tensors that share the numbers of what it computed: no compiler fuses across them.

    (oneDNN's writes past the end of memory where two sums follow a convolution.)
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, Tensor):
            return result.detach()
        return [one.detach() if isinstance(one, Tensor) else one for one in result] if result is not None else None

    return run


def _strided(pool: Callable[..., Any]) -> Callable[..., Any]:
    """A pooling function that says its stride: where none is given, its kernel's size."""

    def run(*args: Any, **kwargs: Any) -> Any:
        size = args[1] if len(args) > 1 else kwargs["kernel_size"]
        if len(args) > 2:
            return pool(*args[:2], args[2] or size, *args[3:], **kwargs)
        return pool(*args, **{**kwargs, "stride": kwargs.get("stride") or size})

    return run


def _kinds(result: Any) -> tuple[tuple[torch.Size, torch.dtype], ...]:
    if isinstance(result, Tensor):
        return ((result.shape, result.dtype),)
    if isinstance(result, (tuple, list)):
        return tuple((one.shape, one.dtype) for one in result if isinstance(one, Tensor))
    return ()


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _filled(part: Any, places: list[Any]) -> Any:
    if type(part) is _Place:
        return places[part.number]
    return part.kind(_filled(one, places) for one in part.parts) if type(part) is _Parts else part


def _places(part: Any) -> Iterator[_Place]:
    if isinstance(part, _Place):
        yield part
    elif isinstance(part, _Parts):
        for one in part.parts:
            yield from _places(one)
