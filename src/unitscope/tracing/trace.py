"""Trace: one forward pass, watched: which functions ran on what, which modules gave what, and where cells lie."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode

from unitscope.errors import ModelError
from unitscope.geometry import Grid
from unitscope.tracing.axes import (
    DIVIDERS,
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

# The arguments of these calls are kept, because the head is read off them.
KEPT = frozenset(
    {
        "linear",
        "conv2d",
        "addmm",
        "matmul",
        "mm",
        "__matmul__",
        "mean",
        "sum",
        "adaptive_avg_pool2d",
        "avg_pool2d",
        "flatten",
    }
    | {
        "view",
        "reshape",
        "squeeze",
        "permute",
        "adaptive_avg_pool1d",
        "layer_norm",
        "group_norm",
        "rms_norm",
    }
    | {"normalize", "batch_norm", "add", "add_", "__add__", "__iadd__"}
)


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


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that a forward's result stands for: itself, `.logits` of a model output, or a tuple's first tensor."""
    if isinstance(value, Tensor):
        return value
    logits = (
        value.get("logits")
        if isinstance(value, Mapping)
        else getattr(value, "logits", None)
    )
    if isinstance(logits, Tensor):
        return logits
    values = (
        value.values()
        if isinstance(value, Mapping)
        else value
        if isinstance(value, (tuple, list))
        else ()
    )
    for item in values:
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def kind_of(module: nn.Module) -> str:
    """The name of a module's class, as it was before its weights were parametrised."""
    return type_before_parametrizations(module).__name__


def logits_of(
    output: Any, batch: int, *, detach: bool = True
) -> Float[Tensor, "batch class"]:
    """The logits in a forward's result for `batch` inputs; raises ModelError when there are none."""
    tensor = first_tensor(output)
    if tensor is None:
        raise ModelError(
            "the network gave no tensor, not logits (batch, class): wrap a module that "
            "classifies images"
        )
    if isinstance(output, Mapping) and not isinstance(output.get("logits"), Tensor):
        names = [
            str(name) for name, value in output.items() if isinstance(value, Tensor)
        ]
        if len(names) > 1:
            raise ModelError(
                f"the network gave a dict of tensors {', '.join(map(repr, names))}, "
                "and none is called 'logits': "
                "wrap a module that gives the logits alone"
            )
    # A network that squeezes too much gives (class) for a batch of one.
    rows = (
        1 if batch == 1 and tensor.ndim == 1 else tensor.shape[0] if tensor.ndim else 0
    )
    if (
        rows != batch
        or math.prod(tensor.shape[2:]) != 1
        or not tensor.numel()
        or not tensor.is_floating_point()
    ):
        raise ModelError(
            f"the network gave a {str(tensor.dtype).removeprefix('torch.')} tensor of "
            f"shape {tuple(tensor.shape)} "
            f"for a batch of {batch}, not logits (batch, class): wrap a module that "
            "classifies images"
        )
    return (tensor.detach() if detach else tensor).reshape(batch, -1)


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


# These ask for a tensor's shape and the like, not for its numbers.
ASKERS = frozenset(
    {
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "storage_offset",
        "element_size",
        "get_device",
    }
    | {
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "is_same_size",
        "__len__",
        "__hash__",
        "__repr__",
    }
)


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
        inputs = tuple(self.call_of(tensor) for tensor in _tensors((args, kwargs)))
        result = func(*args, **kwargs)
        self._count += 1
        made = list(_tensors(result))
        if name == "__setitem__":
            made = [args[0]]
        kept = (args, kwargs) if name in KEPT else ((), {})
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
        if not made and name not in ASKERS:
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


@dataclass(frozen=True, slots=True)
class Caught:
    """One caught call: a copy of its first tensor argument as it was at that moment, and all its arguments."""

    first: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def argument(self, position: int, keyword: str) -> Any:
        """An argument of the call, given by position or by keyword; None when it was left out."""
        return (
            self.args[position]
            if len(self.args) > position
            else self.kwargs.get(keyword)
        )


class _Watcher(TorchFunctionMode):
    """Counts the calls of a forward pass as they were counted when it was traced, and meets each before it runs."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def meet(
        self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Look at a call before it runs, and return the positional arguments that it shall run with."""
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


class Tap(_Watcher):
    """Catches the arguments of chosen calls of a forward pass, by the index and name they had when it was traced."""

    def __init__(self, wanted: Mapping[int, str]) -> None:
        super().__init__()
        self._wanted = wanted
        self.caught: dict[int, Caught] = {}

    def meet(
        self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Catch the call when it is a wanted one."""
        if self._wanted.get(index) == name:
            # Cloned at once: a later in-place operation may overwrite it.
            first = args[0] if args else kwargs["input"]
            self.caught[index] = Caught(first.detach().clone(), args, kwargs)
        return args


class Switch(_Watcher):
    """Replaces the first argument of one chosen call of a forward pass: a real forward with a changed feature map.

    `fired` says whether that call has come by.
    """

    def __init__(
        self, index: int, name: str, change: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self._chosen, self._change = (index, name), change
        self.fired = False

    def meet(
        self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Change the map when the call is the chosen one."""
        if (index, name) != self._chosen:
            return args
        self.fired = True
        if args:
            return (self._change(args[0]), *args[1:])
        kwargs["input"] = self._change(kwargs["input"])
        return args


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


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
