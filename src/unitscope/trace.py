"""Trace: one forward pass, watched: which functions ran on what, which modules gave what, and where cells lie."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode

from unitscope.errors import ModelError
from unitscope.geometry import PIXELS, Axis, Grid

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
    | {"view", "reshape", "squeeze", "permute", "adaptive_avg_pool1d", "layer_norm", "group_norm", "rms_norm"}
    | {"normalize", "batch_norm"}
)

# The most tokens that may stand before those of the map: class, distillation and register tokens.
_MOST_PREFIX = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axes of a tensor are the rows and columns of a map, and where its cells lie on the network's input.

    The map is (batch, row, col, unit) when `channels_last`, as in Swin, and (batch, …, row, col) otherwise.
    """

    channels_last: bool
    grid: Grid | None

    def spatial(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The rows and columns of a tensor of this layout."""
        return shape[1:3] if self.channels_last else shape[-2:]


@dataclass(frozen=True)
class Axes:
    """Where units, rows and columns lie in a tensor that holds a feature map.

    `order` is "units first" (batch, unit, row, col), "units last" (batch, row, col, unit), "tokens" (batch, token,
    unit) or "units, tokens" (batch, unit, token), where the last rows · cols tokens are the map's cells, row by row,
    and `prefix` tokens stand before them (a class token, registers). For tokens, `grid` says where the cells lie on
    the network's input, None where that could not be followed.
    """

    order: str = "units first"
    rows: int = 0
    cols: int = 0
    prefix: int = 0
    grid: Grid | None = None

    def units_first(self, tensor: Tensor) -> Float[Tensor, "batch unit row col"]:
        """The tensor as a feature map."""
        if self.order == "units first":
            return tensor
        if self.order == "units last":
            return tensor.permute(0, 3, 1, 2)
        tokens = tensor.transpose(1, 2) if self.order == "tokens" else tensor
        return tokens[:, :, self.prefix :].reshape(*tokens.shape[:2], self.rows, self.cols)

    def without(self, tensor: Tensor, units: Sequence[int]) -> Tensor:
        """A copy of the tensor with the maps of `units` at zero, in the tokens before the cells too."""
        changed = tensor.clone()
        last = self.order in ("units last", "tokens")
        changed[(..., list(units)) if last else (slice(None), list(units))] = 0
        return changed

    def laid_back(self, feature_map: Float[Tensor, "batch unit row col"], others: Tensor | None) -> Tensor:
        """The tensor of this order that holds a feature map, behind the tokens of `others` (batch, token, unit)."""
        if self.order == "units first":
            return feature_map
        if self.order == "units last":
            return feature_map.permute(0, 2, 3, 1)
        tokens = feature_map.flatten(2).transpose(1, 2)
        tokens = tokens if others is None else torch.cat([others, tokens], dim=1)
        return tokens if self.order == "tokens" else tokens.transpose(1, 2)


@dataclass(eq=False, slots=True)
class Call:
    """One call of a torch function in a forward pass: a node of the graph that leads to the logits.

    `index` counts all calls of the pass, so that the same call can be found again in the next one; `inputs` are the
    calls that made its tensor arguments; `args` and `kwargs` are kept only for the functions a head is made of.
    `layout` is None where it could not be followed.
    """

    name: str
    index: int
    inputs: tuple[Call, ...]
    shape: tuple[int, ...]
    layout: Layout | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid | None:
        """Where the cells of the result lie on the network's input; None where that could not be followed."""
        return self.layout.grid if self.layout else None

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

    def names(self) -> list[str]:
        """The names of the runs: the module's, with `:2` behind it for the second run where it runs several times."""
        times = Counter(run.name for run in self.runs)
        seen: Counter[str] = Counter()
        names = []
        for run in self.runs:
            seen[run.name] += 1
            names.append(f"{run.name}:{seen[run.name]}" if times[run.name] > 1 else run.name)
        return names


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


def axes_of_tokens(
    call: Call, tokens: int, input_size: tuple[int, int], most_prefix: int = _MOST_PREFIX
) -> Axes | None:
    """How the `tokens` of a call's result lie in rows and columns; None when they make no grid.

    They are the cells of the nearest map before them that has as many, or fewer by up to `most_prefix` tokens; else
    those that tile the input in its own proportions.
    """
    for map_ in _maps_before(call):
        assert map_.layout is not None
        rows, cols = map_.layout.spatial(map_.shape)
        if rows * cols > 1 and 0 <= tokens - rows * cols <= most_prefix:
            return Axes("tokens", rows, cols, tokens - rows * cols, map_.grid)
    for prefix in (0, 1, 2, 5):  # none, a class token, a distillation token too, or four registers
        if prefix > most_prefix or tokens - prefix < 4:
            break
        rows = round(((tokens - prefix) * input_size[0] / input_size[1]) ** 0.5)
        cols = (tokens - prefix) // max(rows, 1)
        if rows * cols == tokens - prefix and rows * input_size[1] == cols * input_size[0]:
            return Axes("tokens", rows, cols, prefix)
    return None


def _maps_before(call: Call) -> Iterator[Call]:
    """The calls with (batch, …, row, col) results of known layout that lead to a call, nearest first."""
    seen, frontier = {id(call)}, [call]
    while frontier:
        one = frontier.pop(0)
        if one.layout is not None and len(one.shape) == 4:
            yield one
        for before in one.inputs:
            if id(before) not in seen:
                seen.add(id(before))
                frontier.append(before)


def kind_of(module: nn.Module) -> str:
    """The name of a module's class, as it was before its weights were parametrised."""
    return type_before_parametrizations(module).__name__


def logits_of(output: Any, batch: int, *, detach: bool = True) -> Float[Tensor, "batch class"]:
    """The logits in a forward's result for `batch` inputs; raises ModelError when there are none."""
    tensor = first_tensor(output)
    if tensor is None:
        raise ModelError("the network gave no tensor, not logits (batch, class): wrap a module that classifies images")
    # A network that squeezes too much gives (class) for a batch of one.
    rows = 1 if batch == 1 and tensor.ndim == 1 else tensor.shape[0] if tensor.ndim else 0
    if rows != batch or math.prod(tensor.shape[2:]) != 1 or not tensor.numel() or not tensor.is_floating_point():
        raise ModelError(
            f"the network gave a {str(tensor.dtype).removeprefix('torch.')} tensor of shape {tuple(tensor.shape)} "
            f"for a batch of {batch}, not logits (batch, class): wrap a module that classifies images"
        )
    return (tensor.detach() if detach else tensor).reshape(batch, -1)


def trace(module: nn.Module, x: Tensor) -> Trace:
    """Run one forward pass and record it; the module must already be in evaluation mode, without gradients."""
    result = Trace((int(x.shape[-2]), int(x.shape[-1])))
    x = x.clone()  # some networks normalise their input in place
    recorder = _Recorder(x)
    with _module_hooks(module, recorder, result), recorder:
        output = module(x)
    logits = first_tensor(output)
    if logits is not None:
        result.output = recorder.call_of(logits)
        result.logits = logits_of(output, len(x)).to(torch.float32).clone()
    return result


@contextlib.contextmanager
def _module_hooks(module: nn.Module, recorder: _Recorder, result: Trace) -> Iterator[None]:
    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(submodule: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                leaf = all(name == _PARAMETRIZATIONS for name, _ in submodule.named_children())
                run = ModuleRun(name, kind_of(submodule), tuple(tensor.shape), recorder.call_of(tensor), leaf)
                result.runs.append(run)

        return hook

    with contextlib.ExitStack() as stack:
        for name, submodule in module.named_modules():
            if name and _PARAMETRIZATIONS not in name.split("."):
                stack.callback(submodule.register_forward_hook(hook_for(name)).remove)
        yield


class _Recorder(TorchFunctionMode):
    """Builds the graph of calls; tensors are kept alive while it runs so that their identities stay unique."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._alive: list[Tensor] = []
        self._made_by: dict[int, Call] = {}
        self._count = 0
        self._assign(x, Call("input", -1, (), tuple(x.shape), Layout(False, Grid(PIXELS, PIXELS))))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # Reading .shape, .data, .T and the like; hooks do it too, so it must not count.
            value = func(*args, **kwargs)
            if isinstance(value, Tensor) and id(value) not in self._made_by:
                read = str(getattr(getattr(func, "__self__", None), "__name__", name))
                self._assign(value, Call(read, -1, (self.call_of(args[0]),), tuple(value.shape)))
            return value
        inputs = tuple(self.call_of(tensor) for tensor in _tensors((args, kwargs)))
        result = func(*args, **kwargs)
        self._count += 1
        made = list(_tensors(result))
        if name == "__setitem__":
            made = [args[0]]
        kept = (args, kwargs) if name in KEPT else ((), {})
        for tensor in made:
            layout = _layout(name, args, kwargs, inputs, tuple(tensor.shape))
            self._assign(tensor, Call(name, self._count, inputs, tuple(tensor.shape), layout, *kept))
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


class _Watcher(TorchFunctionMode):
    """Counts the calls of a forward pass as they were counted when it was traced, and is told of each by `meet`."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def meet(self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Look at a call before it runs, and return the positional arguments that it shall run with."""
        raise NotImplementedError

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name != "__get__":
            self._count += 1
            args = self.meet(self._count, name, args, kwargs)
        return func(*args, **kwargs)


class Tap(_Watcher):
    """Catches the arguments of chosen calls of a forward pass, by the index and name they had when it was traced."""

    def __init__(self, wanted: dict[int, str]) -> None:
        super().__init__()
        self._wanted = wanted
        self.caught: dict[int, Caught] = {}

    def meet(self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
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

    def __init__(self, index: int, name: str, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._chosen, self._change = (index, name), change
        self.fired = False

    def meet(self, index: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
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


# The child under which torch.nn.utils.parametrize keeps what makes a module's weights; it is no layer.
_PARAMETRIZATIONS = "parametrizations"

# These keep the shape of a map and move its cells about, so that what they give lies nowhere in particular.
_SCRAMBLERS = frozenset({"flip", "fliplr", "flipud", "roll", "rot90", "T", "mT", "H", "mH", "t"})
_WINDOWS = frozenset({"conv2d", "max_pool2d", "max_pool2d_with_indices", "avg_pool2d"})
_RESAMPLERS = frozenset({"adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "upsample"})
# These take their first argument for (batch, unit, row, col), so that it was one, whatever made it.
_CHANNELS_FIRST = (
    _WINDOWS
    | _RESAMPLERS
    | {"batch_norm", "instance_norm", "group_norm", "conv_transpose2d", "lp_pool2d", "pixel_shuffle", "pixel_unshuffle"}
)


def _layout(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[Call, ...], shape: tuple[int, ...]
) -> Layout | None:
    """Which axes of a call's result are rows and columns, and where its cells lie; None where that is not known."""
    if inputs and (name in _CHANNELS_FIRST or (name == "mean" and _over_last_two(args, kwargs))):
        _settle(inputs[0])
    located = [call for call in inputs if call.layout is not None and len(call.shape) >= 4]
    if len(shape) < 4 or not located:
        return None
    source = located[0]
    layout = source.layout
    assert layout is not None
    if name in ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis"):
        return _moved(name, args, kwargs, layout, len(source.shape), len(shape))
    if name in _SCRAMBLERS:
        return Layout(layout.channels_last, None) if name not in ("T", "mT", "H", "mH", "t") else None
    if name in _CHANNELS_FIRST and len(source.shape) == 4:
        return Layout(False, _grid(name, args, kwargs, source, shape))
    if name == "pad":
        return Layout(layout.channels_last, _padded(args, kwargs, layout))
    if name == "__getitem__" and len(shape) == len(source.shape) == 4:
        return _sliced(args[1], layout)
    same = [
        call.layout for call in located if call.layout and call.layout.spatial(call.shape) == call.layout.spatial(shape)
    ]
    if same:
        # Branches that meet (sums, concatenations) must agree on where their cells lie.
        if any(other.channels_last != same[0].channels_last for other in same):
            return None
        agree = all(_agree(same[0].grid, other.grid) for other in same)
        return Layout(same[0].channels_last, same[0].grid if agree else None)
    return None


def _over_last_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a mean is over the last two of four axes, so that these are the rows and columns of a map."""
    axes = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    tensor = args[0] if args else kwargs.get("input")
    four = isinstance(tensor, Tensor) and tensor.ndim == 4
    return four and isinstance(axes, (tuple, list)) and {int(axis) % 4 for axis in axes} == {2, 3}


def _sliced(index: Any, layout: Layout) -> Layout | None:
    """The layout after plain slices such as x[:, :, ::2, ::2]; None after any other choice."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [part for part in parts if not isinstance(part, Tensor)]:
        place = next(position for position, part in enumerate(parts) if part is Ellipsis)
        parts[place : place + 1] = [slice(None)] * (5 - len(parts))
    parts += [slice(None)] * (4 - len(parts))
    if not all(isinstance(part, slice) for part in parts):
        return None
    if layout.grid is None:
        return layout
    axes = []
    spatial = parts[1:3] if layout.channels_last else parts[2:4]
    for axis, part in zip((layout.grid.rows, layout.grid.cols), spatial, strict=True):
        begin, stride = part.start or 0, part.step or 1
        if begin < 0:
            return Layout(layout.channels_last, None)
        axes.append(Axis(axis.start + axis.step * begin, axis.step * stride))
    return Layout(layout.channels_last, Grid(axes[0], axes[1]))


def _settle(call: Call) -> None:
    """Note, now that a convolution has read it, that a tensor of unknown layout is (batch, unit, row, col)."""
    while call.layout is None and len(call.shape) == 4:
        call.layout = Layout(False, None)
        alike = [before for before in call.inputs if before.shape == call.shape]
        if alike and call.name not in ("permute", "transpose"):
            call = alike[0]


def _moved(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], layout: Layout, before: int, after: int
) -> Layout | None:
    """The layout after axes changed places."""
    order = list(range(before))
    if name == "permute":
        given = kwargs.get("dims") or (args[1] if len(args) == 2 else args[1:])
        order = [axis % before for axis in given]
    elif name in ("transpose", "swapaxes", "swapdims"):
        one, other = (axis % before for axis in (*args[1:3], *kwargs.values())[:2])
        order[one], order[other] = order[other], order[one]
    else:
        return None
    rows, cols = (1, 2) if layout.channels_last else (before - 2, before - 1)
    places = (order.index(rows), order.index(cols))
    if places == (after - 2, after - 1):
        return Layout(False, layout.grid)
    return Layout(True, layout.grid) if places == (1, 2) and after == 4 else None


def _grid(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], source: Call, shape: tuple[int, ...]
) -> Grid | None:
    """Where the cells lie that a function of (batch, unit, row, col) gives; None when that cannot be followed."""
    if source.grid is None:
        return None
    if name in _WINDOWS:
        return _windowed(name, args, kwargs, source.grid)
    pairs = list(zip((source.grid.rows, source.grid.cols), source.shape[-2:], shape[-2:], strict=True))
    if name in _RESAMPLERS or name.startswith("pixel"):
        corners = bool(kwargs.get("align_corners"))
        rows, cols = (axis.resampled(before, after, corners) for axis, before, after in pairs)
        return Grid(rows, cols)
    # A normalisation keeps the cells; a transposed convolution of stride one does if it keeps the shape.
    return source.grid if source.shape[-2:] == shape[-2:] else None


def _windowed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Grid) -> Grid | None:
    def given(position: int, keyword: str, default: Any) -> Any:
        value = args[position] if len(args) > position else kwargs.get(keyword, default)
        return default if value is None or value == [] else value

    if name == "conv2d":
        kernel = tuple(args[1].shape[-2:]) if len(args) > 1 else tuple(kwargs["weight"].shape[-2:])
        stride, padding, dilation = (
            given(i, k, d) for i, k, d in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
        )
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


def _padded(args: tuple[Any, ...], kwargs: dict[str, Any], layout: Layout) -> Grid | None:
    grid = layout.grid
    if grid is None:
        return None
    # Amounts come in pairs (before, behind) from the last axis on.
    amounts = [*(args[1] if len(args) > 1 else kwargs["pad"]), 0, 0, 0, 0, 0, 0]
    left, top = (amounts[2], amounts[4]) if layout.channels_last else (amounts[0], amounts[2])
    return Grid(
        Axis(grid.rows.start - top * grid.rows.step, grid.rows.step),
        Axis(grid.cols.start - left * grid.cols.step, grid.cols.step),
    )


def _agree(one: Grid | None, other: Grid | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(
        abs(a.start - b.start) < 1e-6 and abs(a.step - b.step) < 1e-6
        for a, b in ((one.rows, other.rows), (one.cols, other.cols))
    )


def _two(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list, torch.Size)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))
