"""Calls: the graph of the function calls of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from unitscope.geometry import Grid
from unitscope.tracing.arguments import (
    WithArguments,
    tensors_in,
    without_numbers,
)
from unitscope.tracing.axes import Axes, axes_of, grid_of
from unitscope.tracing.axis_rules import followed
from unitscope.tracing.blame import called
from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.functions import (
    DIVIDERS,
    METADATA_QUERIES,
)
from unitscope.tracing.mode import Mode
from unitscope.tracing.roles import IMAGE, LOST, SOMEWHERE, Layout, TracedTensor

# The index of calls that are not counted: hooks make such calls too.
_UNCOUNTED = -1


@dataclass(eq=False, slots=True)
class Call(WithArguments):
    """One call of a torch function: a node of the graph that leads to the logits.

    `index` counts the calls of the pass, so that the same call can be found in the next
    pass. `inputs` are the calls that made its tensor arguments; `args` and `kwargs`
    hold these with a shape only. Of a call that gives
    several tensors, `place` says which one this is. `layout` is None where it could not
    be followed.
    """

    name: str
    index: int
    inputs: tuple[Call, ...]
    shape: tuple[int, ...]
    layout: Layout | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    place: int = 0

    @property
    def tensor(self) -> TracedTensor:
        """What is known of the result."""
        return TracedTensor(self.layout, self.shape)

    @property
    def axes(self) -> Axes | None:
        """How a map lies in the result; None where there is none, or it is unknown."""
        return axes_of(self.layout, self.shape)

    @property
    def grid(self) -> Grid | None:
        """Where the result's cells lie on the network's input; None where unknown."""
        return grid_of(self.layout)


class Recorder(Mode):
    """Records the calls made inside it as a graph.

    It keeps all tensors alive, so that their identities stay unique.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._alive: list[Tensor] = []
        self._made_by: dict[int, Call] = {}
        self._count = 0

        layout = IMAGE if x.ndim == 4 else None
        call = Call(
            name="input",
            index=_UNCOUNTED,
            inputs=(),
            shape=tuple(x.shape),
            layout=layout,
        )
        self._assign(x, call)

    def watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See Mode."""
        name = getattr(func, "__name__", "")
        # Reading .shape, .data, .T and the like. Hooks do it too, so it does not count.
        if name == "__get__":
            value = called(func, args, kwargs)
            self._record_attribute(func, args, kwargs, value)
            return value

        # The function may write to its arguments, so their makers are noted first.
        inputs = tuple(
            self.call_of(tensor) for tensor in tensors_in((args, kwargs))
        )
        result = called(func, args, kwargs)
        self._count += 1
        self._record_call(FunctionCall(name, args, kwargs), inputs, result)
        return result

    def call_of(self, tensor: Tensor) -> Call:
        """The call that last wrote a tensor; a parameter or constant has its own."""
        call = self._made_by.get(id(tensor))
        if call is None:
            call = Call(
                name="constant",
                index=_UNCOUNTED,
                inputs=(),
                shape=tuple(tensor.shape),
            )
            self._assign(tensor, call)
        return call

    def _record_attribute(
        self,
        getter: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        value: Any,
    ) -> None:
        """Record the reading of an attribute such as `.T` that made a new tensor."""
        if not isinstance(value, Tensor) or id(value) in self._made_by:
            return
        attribute = getattr(getter, "__self__", None)
        name = str(getattr(attribute, "__name__", getter.__name__))
        source = self.call_of(args[0])
        function_call = FunctionCall(
            name=name,
            args=args,
            kwargs=kwargs,
            inputs=[source.tensor],
            shape=tuple(value.shape),
        )
        call = Call(
            name=name,
            index=_UNCOUNTED,
            inputs=(source,),
            shape=function_call.shape,
            layout=followed(function_call),
        )
        self._assign(value, call)

    def _record_call(
        self, function_call: FunctionCall, inputs: tuple[Call, ...], result: Any
    ) -> None:
        """Record a counted call, once for each tensor that it made or wrote."""
        if inputs and function_call.reads_map:
            _mark_as_map(inputs[0])

        name = function_call.name
        if name == "__setitem__":
            result = function_call.args[0]
        results = list(tensors_in(result))
        layouts = _layouts(function_call, inputs, results)
        args = without_numbers(function_call.args)
        kwargs = without_numbers(function_call.kwargs)
        pairs = zip(results, layouts, strict=True)
        for place, (tensor, layout) in enumerate(pairs):
            call = Call(
                name=name,
                index=self._count,
                inputs=inputs,
                shape=tuple(tensor.shape),
                layout=layout,
                args=args,
                kwargs=kwargs,
                place=place,
            )
            self._assign(tensor, call)

        # A call that gives no tensor takes numbers out of torch, for Python to read.
        if not results and name not in METADATA_QUERIES:
            call = Call(
                name=name,
                index=self._count,
                inputs=inputs,
                shape=(),
            )
            self.calls.append(call)

    def _assign(self, tensor: Tensor, call: Call) -> None:
        self._alive.append(tensor)
        self._made_by[id(tensor)] = call
        self.calls.append(call)


def _layouts(
    function_call: FunctionCall,
    inputs: Sequence[Call],
    results: Sequence[Tensor],
) -> list[Layout | None]:
    """The layouts of all results of a call."""
    tensors = [call.tensor for call in inputs]
    layouts: list[Layout | None] = []
    offset = 0
    for result in results:
        call = replace(
            function_call,
            inputs=tensors,
            shape=tuple(result.shape),
            offset=offset,
        )
        try:
            layout = followed(call)
            if call.name in DIVIDERS:
                offset += call.shape[call.divided_axis]
        except (IndexError, KeyError, TypeError, ValueError):
            # The arguments are spelled in a way that no rule knows.
            layout = LOST
        layouts.append(layout)
    return layouts


def _mark_as_map(call: Call) -> None:
    """Note that a tensor is a map (batch, unit, row, col), since a function reads one.

    That holds for a tensor of unknown layout and for those of its shape that led to it.
    """
    while _is_unknown(call) and len(call.shape) == 4:
        call.layout = SOMEWHERE
        if call.name in ("permute", "transpose"):
            return
        shape = call.shape
        same_shape = [before for before in call.inputs if before.shape == shape]
        if not same_shape:
            return
        call = same_shape[0]


def _is_unknown(call: Call) -> bool:
    if call.layout is None or call.layout is LOST:
        return True
    return not any(call.layout)
