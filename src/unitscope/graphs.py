"""Graphs: the calls of a replay as one graph, which the library behind convolutions compiles as a whole."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitscope.head import HeadPath
from unitscope.readout import is_finite, unrounded
from unitscope.replay import NotReplayableError, Replay
from unitscope.trace import Caught, Tap

# What the networks are made of on which the compiler was tried. Others give it functions for which it has slow code, or
# make NaN of finite numbers (its rectifiers make numbers of that), or shapes that depend on values.
_KNOWN = frozenset(
    "conv2d linear batch_norm layer_norm group_norm relu relu_ relu6 hardtanh hardtanh_ leaky_relu leaky_relu_ elu "
    "gelu silu hardswish hardsigmoid sigmoid tanh add add_ __add__ __radd__ __iadd__ sub __sub__ __rsub__ rsub mul "
    "mul_ __mul__ __rmul__ __imul__ cat concat stack split chunk unbind flatten reshape view permute transpose "
    "contiguous clone detach expand expand_as squeeze unsqueeze narrow select __getitem__ pad interpolate dropout "
    "dropout2d max_pool2d avg_pool2d adaptive_avg_pool2d mean".split()
)

# Whether the compiler is on is one switch of the whole process.
_SWITCH = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Given:
    """Which of the tensors that the graph gives."""

    number: int


class Graph:
    """The calls of a replay, compiled by oneDNN's graph compiler for inputs like the one they are tried on.

    Every call is compiled on its own, what was fused as one; they are then run in a row without Python, and nothing is
    asked anew at each of them. The network's numbers in the calls, `constants`, are copied into it.

    Raises NotReplayableError where this torch has no such compiler, where it found nothing to compile, and where calls
    are not of the known kinds; and whatever torch raises of a call that it cannot trace or compile.
    """

    def __init__(self, replay: Replay, x: Tensor, path: HeadPath) -> None:
        unknown = sorted(replay.names() - _KNOWN)
        if unknown:
            raise NotReplayableError(f"the compiler was not tried on {', '.join(unknown)}")
        spelled, own = replay.spelled()
        self.constants = tuple(own.values())
        self._threads = torch.get_num_threads()
        # What is tapped (of calls a copy of what they are given first, and all arguments), `_Given` for tensors of it.
        self._caught: dict[int, tuple[Any, Any, dict[str, Any]]] = {}
        self._results: dict[int, Any] = {}

        def calls(x: Tensor) -> tuple[Tensor, ...]:
            tap = path.tap()
            given = [spelled(x, tap)]

            def place(value: Any) -> Any:
                if not isinstance(value, Tensor) or id(value) in own:
                    return own.get(id(value), value)
                given.append(value)
                return _Given(len(given) - 1)

            for index, caught in tap.caught.items():
                first = place(caught.first)
                # What such a call is given first is what was caught of it.
                args = tuple(_mapped(place, one) if at else first for at, one in enumerate(caught.args))
                kwargs = {key: first if key == "input" else _mapped(place, one) for key, one in caught.kwargs.items()}
                self._caught[index] = first, args, kwargs
            self._results = {index: place(result) for index, result in tap.results.items()}
            return tuple(given)

        self._run = _compiled(calls, x)

    def __call__(self, x: Tensor, tap: Tap) -> Tensor:
        """Make the calls, and show `tap` those that it waits for.

        Raises NotReplayableError for numbers that are not finite, and in another number of threads.
        """
        if torch.get_num_threads() != self._threads:
            raise NotReplayableError("compiled for another number of threads")
        if not is_finite(x):
            raise NotReplayableError("an input is not finite")
        with unrounded(x):
            given = self._run(x)

        def filled(value: Any) -> Any:
            return given[value.number] if isinstance(value, _Given) else value

        for index, (first, args, kwargs) in self._caught.items():
            named = {key: _mapped(filled, one) for key, one in kwargs.items()}
            tap.caught[index] = Caught(filled(first), _mapped(filled, args), named)
        for index, result in self._results.items():
            tap.results[index] = filled(result)
        output: Tensor = given[0]
        return output


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """A value, or the parts of a list or tuple, changed."""
    return type(value)(_mapped(change, one) for one in value) if type(value) in (list, tuple) else change(value)


def _compiled(calls: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The calls traced and compiled; raises NotReplayableError where none of them are."""
    try:
        set_enabled, is_enabled = torch._C._jit_set_llga_enabled, torch._C._jit_llga_enabled
        trace, function = torch._C._create_graph_by_tracing, torch._C._create_function_from_graph
    except AttributeError:
        raise NotReplayableError("this torch has no graph compiler") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Not torch.jit.trace: what that makes is never given back.
        graph, _ = trace(calls, (x,), lambda _: "", False, False, None, ["x"])
    run: Any = function("calls", graph)
    with _SWITCH:
        enabled = is_enabled()
        set_enabled(True)
        try:
            with unrounded(x):  # what autocasting does is among the calls already
                for _ in range(2):  # once to see the shapes, once to compile for them
                    run(x.clone())
        finally:
            set_enabled(enabled)
    if not any("oneDNN" in node.kind() for node in torch._C._last_executed_optimized_graph().nodes()):
        raise NotReplayableError("nothing was compiled")
    made: Callable[[Tensor], tuple[Tensor, ...]] = run
    return made
