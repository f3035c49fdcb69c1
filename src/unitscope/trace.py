"""Trace: one forward pass, watched: which functions ran on what, which modules gave what, and where cells lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unitscope.geometry import PIXELS, Axis, Grid

# The arguments of these calls are kept, because the head is read off them.
KEPT = frozenset(
    {"linear", "conv2d", "addmm", "matmul", "__matmul__", "mean", "adaptive_avg_pool2d", "avg_pool2d", "flatten"}
    | {"view", "reshape", "squeeze", "permute"}
)


@dataclass(eq=False, slots=True)
class Call:
    """One call of a torch function in a forward pass: a node of the graph that leads to the logits.

    `index` counts all calls of the pass, so that the same call can be found again in the next one; `inputs` are the calls
    that made its tensor arguments; `args` and `kwargs` are kept only for the functions a head is made of.
    """

    name: str
    index: int
    inputs: tuple[Call, ...]
    shape: tuple[int, ...]
    grid: Grid | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument of the call, given by position or by keyword."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(keyword, default)


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
    """What one forward pass did: `runs` of modules in the order in which they finished, and the `output` call."""

    input_size: tuple[int, int]
    runs: list[ModuleRun] = field(default_factory=list)
    output: Call | None = None
    logits: Tensor | None = None


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that a forward's result stands for: itself, `.logits` of a model output, or a tuple's first tensor."""
    if isinstance(value, Tensor):
        return value
    logits = value.get("logits") if isinstance(value, Mapping) else getattr(value, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    for item in values:
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def trace(module: nn.Module, x: Tensor) -> Trace:
    """Run one forward pass and record it; the module must already be in evaluation mode, without gradients."""
    result = Trace((int(x.shape[-2]), int(x.shape[-1])))
    recorder = _Recorder(x)
    with _module_hooks(module, recorder, result), recorder:
        output = module(x)
    result.logits = first_tensor(output)
    if result.logits is not None:
        result.output = recorder.call_of(result.logits)
    return result


@contextlib.contextmanager
def _module_hooks(module: nn.Module, recorder: _Recorder, result: Trace) -> Iterator[None]:
    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(submodule: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                leaf = next(submodule.children(), None) is None
                run = ModuleRun(name, type(submodule).__name__, tuple(tensor.shape), recorder.call_of(tensor), leaf)
                result.runs.append(run)

        return hook

    handles = [submodule.register_forward_hook(hook_for(name)) for name, submodule in module.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchFunctionMode):
    """Builds the graph of calls; tensors are kept alive while it runs so that their identities stay unique."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._alive: list[Tensor] = []
        self._made_by: dict[int, Call] = {}
        self._count = 0
        self._assign(x, Call("input", -1, (), tuple(x.shape), Grid(PIXELS, PIXELS)))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # Reading .shape and the like; hooks do it too, so it must not count.
            return func(*args, **kwargs)
        inputs = tuple(self.call_of(tensor) for tensor in _tensors((args, kwargs)))
        result = func(*args, **kwargs)
        self._count += 1
        made = list(_tensors(result))
        if name == "__setitem__":
            made = [args[0]]
        kept = (args, kwargs) if name in KEPT else ((), {})
        for tensor in made:
            grid = _grid(name, args, kwargs, inputs, tuple(tensor.shape))
            self._assign(tensor, Call(name, self._count, inputs, tuple(tensor.shape), grid, *kept))
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


@dataclass(frozen=True, slots=True)
class Caught:
    """One caught call: a copy of its first tensor argument as it was at that moment, and all its arguments."""

    first: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def argument(self, position: int, keyword: str) -> Any:
        """An argument of the call, given by position or by keyword; None when it was left out."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(keyword)


class Tap(TorchFunctionMode):
    """Catches the arguments of chosen calls of a forward pass, by the index and name they had when it was traced."""

    def __init__(self, wanted: dict[int, str]) -> None:
        super().__init__()
        self._wanted = wanted
        self._count = 0
        self.caught: dict[int, Caught] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name != "__get__":
            self._count += 1
            if self._wanted.get(self._count) == name:
                # Cloned at once: a later in-place operation may overwrite it.
                self.caught[self._count] = Caught(next(_tensors((args, kwargs))).clone(), args, kwargs)
        return func(*args, **kwargs)


class Switch(TorchFunctionMode):
    """Replaces the first tensor argument of one chosen call of a forward pass: a real forward with a changed feature map."""

    def __init__(self, index: int, name: str, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._index, self._name, self._change = index, name, change
        self._count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name != "__get__":
            self._count += 1
            if (self._count, name) == (self._index, self._name):
                args = (self._change(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


# These keep the shape of a map and move its cells about, so that what they give lies nowhere in particular.
_SCRAMBLERS = frozenset({"flip", "fliplr", "flipud", "roll", "rot90", "transpose", "permute", "swapaxes", "t", "T", "mT"})
_WINDOWS = frozenset({"conv2d", "max_pool2d", "avg_pool2d", "boolean_dispatch"})


def _grid(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Call, ...], shape: tuple[int, ...]
) -> Grid | None:
    """Where the cells of a call's result lie on the network's input, or None when that cannot be followed."""
    if len(shape) < 4:
        return None
    located = [call for call in inputs if call.grid is not None and len(call.shape) >= 4]
    if not located:
        return None
    source = located[0]
    assert source.grid is not None
    if name == "permute":
        order = args[1] if len(args) == 2 else args[1:]
        keeps = [axis % len(shape) for axis in (kwargs.get("dims") or order)][-2:] == [len(shape) - 2, len(shape) - 1]
        return source.grid if keeps else None
    if name in _SCRAMBLERS:
        swapped = [axis % len(shape) for axis in args[1:3] if isinstance(axis, int)]
        keeps = name == "transpose" and len(swapped) == 2 and max(swapped) < len(shape) - 2
        return source.grid if keeps else None
    if name in _WINDOWS:
        return _windowed(name, args, kwargs, source.grid)
    if name == "pad":
        return _padded(args, kwargs, source.grid)
    same = [call.grid for call in located if call.shape[-2:] == shape[-2:]]
    if same:
        # Branches that meet (sums, concatenations) must agree on where their cells lie.
        return same[0] if all(_agree(same[0], other) for other in same) else None
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "upsample"):
        pairs = zip((source.grid.rows, source.grid.cols), source.shape[-2:], shape[-2:], strict=True)
        rows, cols = (axis.resampled(before, after) for axis, before, after in pairs)
        return Grid(rows, cols)
    return None


def _windowed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Grid) -> Grid | None:
    def given(position: int, keyword: str, default: Any) -> Any:
        value = args[position] if len(args) > position else kwargs.get(keyword, default)
        return default if value is None or value == [] else value

    if name == "conv2d":
        kernel = tuple(args[1].shape[-2:]) if len(args) > 1 else tuple(kwargs["weight"].shape[-2:])
        stride, padding, dilation = (given(i, k, d) for i, k, d in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1)))
    else:
        kernel = given(1, "kernel_size", 1)
        stride, padding = given(2, "stride", kernel), given(3, "padding", 0)
        dilation = 1 if name == "avg_pool2d" else given(4, "dilation", 1)
    axes = []
    for axis, k, s, d, side in zip(
        (grid.rows, grid.cols), _two(kernel), _two(stride), _two(dilation), (0, 1), strict=True
    ):
        # "same" puts the odd pixel of padding behind, as torch does.
        p = {"same": d * (k - 1) // 2, "valid": 0}[padding] if isinstance(padding, str) else _two(padding)[side]
        axes.append(axis.windowed(k, s, p, d))
    return Grid(axes[0], axes[1])


def _padded(args: tuple[Any, ...], kwargs: dict[str, Any], grid: Grid) -> Grid:
    amounts = list(args[1] if len(args) > 1 else kwargs["pad"]) + [0, 0, 0, 0]
    left, top = amounts[0], amounts[2]
    return Grid(
        Axis(grid.rows.start - top * grid.rows.step, grid.rows.step),
        Axis(grid.cols.start - left * grid.cols.step, grid.cols.step),
    )


def _agree(one: Grid, other: Grid | None) -> bool:
    return other is not None and all(
        abs(a.start - b.start) < 1e-6 and abs(a.step - b.step) < 1e-6
        for a, b in ((one.rows, other.rows), (one.cols, other.cols))
    )


def _two(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list, torch.Size)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))
