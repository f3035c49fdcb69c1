"""Graphs: the calls of a replay as one graph, which the library behind convolutions compiles as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitscope.head import HeadPath
from unitscope.readout import unrounded
from unitscope.replay import NotReplayableError, Replay
from unitscope.trace import Caught, Tap

# Functions that make finite numbers of finite ones, as long as these are not immense. What others give is looked at:
# the library's rectifiers make numbers of NaN.
_TAME = frozenset(
    "conv1d conv2d conv_transpose2d linear matmul __matmul__ bmm addmm baddbmm einsum scaled_dot_product_attention "
    "softmax batch_norm instance_norm group_norm layer_norm rms_norm normalize local_response_norm relu relu_ relu6 "
    "hardtanh hardtanh_ leaky_relu leaky_relu_ elu elu_ selu prelu gelu silu mish hardswish hardsigmoid sigmoid tanh "
    "softplus clamp clamp_ add add_ __add__ __radd__ __iadd__ sub __sub__ __rsub__ rsub mul mul_ __mul__ __rmul__ "
    "__imul__ neg abs cat concat stack split chunk unbind flatten unflatten reshape view view_as permute transpose t "
    "contiguous clone detach expand expand_as repeat squeeze unsqueeze narrow select index_select roll flip "
    "__getitem__ pad pixel_shuffle pixel_unshuffle unfold fold interpolate dropout dropout2d max_pool2d avg_pool2d "
    "adaptive_avg_pool2d adaptive_max_pool2d mean sum amax amin maximum minimum to float type_as".split()
)


@dataclass(frozen=True, slots=True)
class _Given:
    """Which of the tensors that the graph gives."""

    number: int


class Graph:
    """The calls of a replay, compiled by oneDNN's graph compiler for inputs like the one they are tried on.

    They compute the same, but the compiler puts calls together, keeps what lies between them as the processor likes it,
    and is not asked anew at each of them. The network's numbers in the calls, `constants`, are copied into it.

    Raises NotReplayableError where this torch has no such compiler or where it found nothing to compile, and whatever
    torch raises of a call that it cannot trace.
    """

    def __init__(self, replay: Replay, x: Tensor, path: HeadPath) -> None:
        spelled, own = replay.spelled()
        self.constants = tuple(own.values())
        self._threads = torch.get_num_threads()
        # What is tapped (of calls a copy of what they are given first, and all arguments), `_Given` for tensors of it.
        self._caught: dict[int, tuple[Any, Any, dict[str, Any]]] = {}
        self._results: dict[int, Any] = {}

        def calls(x: Tensor) -> tuple[Tensor, ...]:
            ear = _Ear(path.calls(), path.results())
            given = [spelled(x, ear)]

            def place(value: Any) -> Any:
                if not isinstance(value, Tensor) or id(value) in own:
                    return own.get(id(value), value)
                given.append(value)
                return _Given(len(given) - 1)

            for index, caught in ear.caught.items():
                first = place(caught.first)
                # What such a call is given first is what was caught of it.
                args = tuple(_mapped(place, one) if at else first for at, one in enumerate(caught.args))
                kwargs = {key: first if key == "input" else _mapped(place, one) for key, one in caught.kwargs.items()}
                self._caught[index] = first, args, kwargs
            self._results = {index: place(result) for index, result in ear.results.items()}
            return (*given, torch.stack([x.sum(dtype=torch.float32), *ear.sums]))

        self._run = _compiled(calls, x)

    def __call__(self, x: Tensor, tap: Tap) -> Tensor:
        """Make the calls, and show `tap` those that it waits for.

        Raises NotReplayableError where a number came up that is not finite, and in another number of threads.
        """
        if torch.get_num_threads() != self._threads:
            raise NotReplayableError("compiled for another number of threads")
        with unrounded(x):
            *given, sums = self._run(x)
        if not bool(torch.isfinite(sums).all()):
            raise NotReplayableError("a number is not finite")

        def filled(value: Any) -> Any:
            return given[value.number] if isinstance(value, _Given) else value

        for index, (first, args, kwargs) in self._caught.items():
            named = {key: _mapped(filled, one) for key, one in kwargs.items()}
            tap.caught[index] = Caught(filled(first), _mapped(filled, args), named)
        for index, result in self._results.items():
            tap.results[index] = filled(result)
        output: Tensor = given[0]
        return output


class _Ear(Tap):
    """A tap that also hears what calls give that could give more than finite numbers: `sums`, a number for each."""

    def __init__(self, wanted: Mapping[int, str], given: Mapping[int, str]) -> None:
        super().__init__(wanted, given)
        self.sums: list[Tensor] = []

    def made(self, index: int, name: str, result: Any) -> None:
        """See Tap."""
        super().made(index, name, result)
        if name not in _TAME:
            for one in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(one, Tensor) and (one.is_floating_point() or one.is_complex()):
                    self.sums.append(one.abs().sum(dtype=torch.float32))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """A value, or the parts of a list or tuple, changed."""
    return type(value)(_mapped(change, one) for one in value) if type(value) in (list, tuple) else change(value)


def _compiled(calls: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The calls traced and compiled; raises NotReplayableError where none of them are."""
    try:
        set_enabled, enabled = torch._C._jit_set_llga_enabled, torch._C._jit_llga_enabled()
        trace, function = torch._C._create_graph_by_tracing, torch._C._create_function_from_graph
    except AttributeError:
        raise NotReplayableError("this torch has no graph compiler") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Not torch.jit.trace: what that makes is never given back.
        graph, _ = trace(calls, (x,), lambda _: "", False, False, None, ["x"])
    run: Any = function("calls", graph)
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
