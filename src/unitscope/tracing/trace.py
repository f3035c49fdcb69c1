"""Trace: one forward pass, watched: which functions ran on what, which modules gave what, and where cells lie."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode

from unitscope.errors import ModelError
from unitscope.geometry import Grid
from unitscope.tracing.arguments import tensors_in
from unitscope.tracing.axes import (
    IMAGE,
    LOST,
    SOMEWHERE,
    Axes,
    Known,
    Layout,
    axes_of,
    divided_axis,
    followed,
    grid_of,
    reads_map,
)
from unitscope.tracing.functions import DIVIDERS, HEAD_FUNCTIONS, METADATA_QUERIES
from unitscope.tracing.outputs import first_tensor, logits_of


@dataclass(eq=False, slots=True)
class Call:
    """One call of a torch function in a forward pass: a node of the graph that leads to the logits.

    `index` counts all calls of the pass, so that the same call can be found again in
    the next one; `inputs` are the calls that made its tensor arguments; `args` and
    `kwargs` are kept only for the functions a head is made of. `layout` is None where
    it could not be followed.
    """

    name: str
    index: int
    inputs: tuple[Call, ...]
    shape: tuple[int, ...]
    layout: Layout | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> Axes | None:
        """How a map lies in the result; None where there is none, or it could not be followed."""
        return axes_of(self.layout, self.shape)

    @property
    def grid(self) -> Grid | None:
        """Where the cells of the result lie on the network's input; None where that could not be followed."""
        return grid_of(self.layout)

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument of the call, given by position or by keyword."""
        return (
            self.args[position]
            if len(self.args) > position
            else self.kwargs.get(keyword, default)
        )


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """One run of a named module: its output's shape and the call that made the output."""

    name: str
    kind: str
    shape: tuple[int, ...]
    call: Call
    leaf: bool


@dataclass
class Trace:
    """What one forward pass did: all `calls`, `runs` of modules in the order they finished, and the `output` call."""

    input_size: tuple[int, int]
    calls: list[Call] = field(default_factory=list)
    runs: list[ModuleRun] = field(default_factory=list)
    output: Call | None = None
    logits: Tensor | None = None

    def names(self) -> list[str]:
        """The names of the runs: the module's, with `:2` behind it for the second run where it runs several times."""
        times = Counter(run.name for run in self.runs)
        seen: Counter[str] = Counter()
        names = []
        for run in self.runs:
            seen[run.name] += 1
            names.append(
                f"{run.name}:{seen[run.name]}" if times[run.name] > 1 else run.name
            )
        return names


def kind_of(module: nn.Module) -> str:
    """The name of a module's class, as it was before its weights were parametrised."""
    return type_before_parametrizations(module).__name__


def trace(module: nn.Module, x: Tensor) -> Trace:
    """Run one forward pass and record it; the module must already be in evaluation mode, without gradients."""
    result = Trace((int(x.shape[-2]), int(x.shape[-1])))
    x = x.clone()  # some networks normalise their input in place
    recorder = _Recorder(x)
    with _module_hooks(module, recorder, result), recorder:
        output = module(x)
    result.calls = recorder.calls
    logits = first_tensor(output)
    if logits is not None:
        result.output = recorder.call_of(logits)
        result.logits = logits_of(output, len(x)).to(torch.float32).clone()
    return result


@contextlib.contextmanager
def _module_hooks(
    module: nn.Module, recorder: _Recorder, result: Trace
) -> Iterator[None]:
    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(submodule: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                leaf = all(
                    name == _PARAMETRIZATIONS for name, _ in submodule.named_children()
                )
                run = ModuleRun(
                    name,
                    kind_of(submodule),
                    tuple(tensor.shape),
                    recorder.call_of(tensor),
                    leaf,
                )
                result.runs.append(run)

        return hook

    with contextlib.ExitStack() as stack:
        for name, submodule in module.named_modules():
            if isinstance(submodule, torch.jit.ScriptModule) and not isinstance(
                module, torch.jit.ScriptModule
            ):
                raise ModelError(
                    f"its part '{name}' is TorchScript, which cannot be watched: put "
                    "the Python module there that it "
                    "was made from"
                )
            if name and _PARAMETRIZATIONS not in name.split("."):
                stack.callback(submodule.register_forward_hook(hook_for(name)).remove)
        yield


class _Recorder(TorchFunctionMode):
    """Builds the graph of calls; tensors are kept alive while it runs so that their identities stay unique."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._alive: list[Tensor] = []
        self._made_by: dict[int, Call] = {}
        self._count = 0
        self._assign(
            x, Call("input", -1, (), tuple(x.shape), IMAGE if x.ndim == 4 else None)
        )

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (
            name == "__get__"
        ):  # Reading .shape, .data, .T and the like; hooks do it too, so it must not count.
            value = func(*args, **kwargs)
            if isinstance(value, Tensor) and id(value) not in self._made_by:
                read = str(getattr(getattr(func, "__self__", None), "__name__", name))
                source = self.call_of(args[0])
                layout = followed(
                    read,
                    args,
                    kwargs,
                    [Known(source.layout, source.shape)],
                    tuple(value.shape),
                )
                self._assign(
                    value, Call(read, -1, (source,), tuple(value.shape), layout)
                )
            return value
        inputs = tuple(self.call_of(tensor) for tensor in tensors_in((args, kwargs)))
        result = func(*args, **kwargs)
        self._count += 1
        made = list(tensors_in(result))
        if name == "__setitem__":
            made = [args[0]]
        kept = (args, kwargs) if name in HEAD_FUNCTIONS else ((), {})
        if inputs and reads_map(name, args, kwargs):
            _settle(inputs[0])
        known, offset = [Known(call.layout, call.shape) for call in inputs], 0
        for tensor in made:
            shape = tuple(tensor.shape)
            try:
                layout = followed(name, args, kwargs, known, shape, offset)
                if name in DIVIDERS:
                    offset += shape[divided_axis(args, kwargs, len(shape))]
            except (
                IndexError,
                KeyError,
                TypeError,
                ValueError,
            ):  # arguments in a spelling that is not known
                layout = LOST
            self._assign(tensor, Call(name, self._count, inputs, shape, layout, *kept))
        if not made and name not in METADATA_QUERIES:
            self.calls.append(
                Call(name, self._count, inputs, ())
            )  # numbers leave torch: somebody reads them
        return result

    def call_of(self, tensor: Tensor) -> Call:
        """The call that last wrote a tensor; parameters and constants are leaves of their own."""
        call = self._made_by.get(id(tensor))
        if call is None:
            call = Call("constant", -1, (), tuple(tensor.shape))
            self._assign(tensor, call)
        return call

    def _assign(self, tensor: Tensor, call: Call) -> None:
        self._alive.append(tensor)
        self._made_by[id(tensor)] = call
        self.calls.append(call)


# The child under which torch.nn.utils.parametrize keeps what makes a module's weights;
# it is no layer.
_PARAMETRIZATIONS = "parametrizations"


def _settle(call: Call) -> None:
    """Note, now that a convolution has read it, that a tensor of unknown layout is (batch, unit, row, col)."""
    while (call.layout is LOST or not any(call.layout or ())) and len(call.shape) == 4:
        call.layout = SOMEWHERE
        alike = [before for before in call.inputs if before.shape == call.shape]
        if alike and call.name not in ("permute", "transpose"):
            call = alike[0]
