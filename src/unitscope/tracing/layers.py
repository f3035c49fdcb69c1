"""Layers: find them by name, and capture or replace their outputs.

Everything is done inside a `with`, which leaves the network as it was.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unitscope.counts import is_count
from unitscope.errors import InputError, LayerError, UnitError, near_matches
from unitscope.geometry import Grid
from unitscope.interrupts import undone
from unitscope.tracing.axes import Axes
from unitscope.tracing.outputs import first_tensor, with_tensor
from unitscope.tracing.taps import uncounted
from unitscope.tracing.trace import ModuleRun, Trace

# Held while a module is not as its user left it: its flags, hooks and weights, and the
# random number generators, belong to all threads.
ONE_THREAD = threading.RLock()


@dataclass(frozen=True)
class Layer:
    """One run of a named module in a forward pass.

    `name` is the module's dotted name, followed by `:2` for the second run of a module
    that runs several times; `kind` is the module's class. `shape` is that of its output
    without the batch: (unit, row, col) for a feature map, even where the module returns
    (row, col, unit) or tokens. `axes` says how the map lies in the output; it is None
    where that could not be followed. `grid` says where the map's cells lie on the
    network's input. `leaf` says that the module has no modules inside. `call` is the
    index and name of the function call that makes the output.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    grid: Grid
    leaf: bool
    axes: Axes | None = field(default_factory=Axes)
    call: tuple[int, str] = (-1, "")

    @property
    def is_map(self) -> bool:
        """Whether the output is a feature map of several cells, with known axes."""
        if self.axes is None or len(self.shape) != 3:
            return False
        _, rows, cols = self.shape
        return rows * cols > 1

    @property
    def cells(self) -> tuple[int, ...]:
        """The shape without units: (row, col) of a map, (token) of tokens, or ()."""
        if len(self.shape) == 2:
            return self.shape[:1]
        return self.shape[1:]

    def units_first(
        self, output: Tensor
    ) -> Float[Tensor, "batch unit row col"]:
        """The layer's output as a feature map, in whatever order its axes are."""
        if self.axes is None:
            return output
        return self.axes.units_first(output)

    def describe_shape(self) -> str:
        """The shape in words: `512 × 7 × 7`, or `192 × 14 × 14 + 1 token`."""
        shape = " × ".join(map(str, self.shape))
        others = self.axes.others if self.axes else 0
        if not others:
            return shape
        plural = "s" if others > 1 else ""
        return f"{shape} + {others} token{plural}"


def layers_of(trace: Trace) -> list[Layer]:
    """The layers that ran, in order of execution: containers follow their contents."""
    layers = []
    for name, run in zip(trace.names(), trace.runs, strict=True):
        layer = _layer_of(trace, name, run)
        layers.append(layer)
    return layers


def _layer_of(trace: Trace, name: str, run: ModuleRun) -> Layer:
    # One photo was traced. Where the batch is larger, the network made windows or
    # patches of it.
    is_one_photo = run.shape[:1] == (1,)
    axes = run.call.axes if is_one_photo else None

    shape = run.shape[1:]
    if axes is not None:
        shape = axes.map_shape(run.shape)
    return Layer(
        name=name,
        kind=run.kind,
        shape=shape,
        grid=run.call.grid or _tiling(shape, trace.input_size),
        leaf=run.leaf,
        axes=axes,
        call=(run.call.index, run.call.name),
    )


def _tiling(shape: tuple[int, ...], input_size: tuple[int, int]) -> Grid:
    rows = cols = 1
    if len(shape) == 3:
        _, rows, cols = shape
    cells = (max(rows, 1), max(cols, 1))
    return Grid.tiling(input_size, cells)


def nesting(name: str) -> tuple[int, int]:
    """How deep a layer lies by its name: of several, the outermost has the least."""
    return name.count("."), len(name)


def find_layer(layers: Sequence[Layer], name: str) -> Layer:
    """The layer called `name`.

    Raises LayerError with the names of near matches, or of the runs of a module that
    runs several times.
    """
    for layer in layers:
        if layer.name == name:
            return layer

    if not isinstance(name, str) or not name:
        raise LayerError(
            f"a layer is a name, not {name!r}: `unitscope info` or model.layers() lists them"
        )
    names = [layer.name for layer in layers]
    runs = [known for known in names if known.rpartition(":")[0] == name]
    if runs:
        raise LayerError(
            f"layer '{name}' runs {len(runs)} times in one forward pass: name one run, "
            f"'{runs[0]}' to '{runs[-1]}'"
        )
    near = near_matches(name, names)
    raise LayerError(
        f"there is no layer '{name}' among the {len(layers)} that ran{near}: "
        "`unitscope info` or model.layers() lists them"
    )


def find_map_layer(layers: Sequence[Layer], name: str) -> Layer:
    """The layer called `name`; raises LayerError where it gives no feature map."""
    layer = find_layer(layers, name)
    if layer.is_map:
        return layer

    shape = "×".join(map(str, layer.shape))
    before = [each for each in layers[: layers.index(layer)] if each.is_map]
    maps = before or [each for each in layers if each.is_map]
    where = "a layer before it" if before else "another layer"
    remedy = f": choose {where}, such as '{maps[-1].name}'" if maps else ""
    raise LayerError(
        f"layer '{name}' ({layer.kind}) gives {shape}, not a feature map "
        f"(unit, row, col) with several cells{remedy}"
    )


def map_layer_names(
    layers: Callable[[], Sequence[Layer]], names: str | Sequence[str]
) -> tuple[str, ...]:
    """The full names of layers with maps that are named, without repeats.

    `layers` gives those of the network; it is not asked where none are named.
    """
    chosen = dict.fromkeys([names] if isinstance(names, str) else names)
    return tuple(find_map_layer(layers(), name).name for name in chosen)


def check_units(
    units: int | str | Sequence[int | str] | Tensor, count: int, where: str
) -> list[int]:
    """Turn a choice of units into a list without repeats.

    Raises UnitError for a number that is not from 0 to `count` − 1; `where` names what
    has the units.
    """
    chosen: list[Any] = [units]
    if isinstance(units, Tensor):
        chosen = units.flatten().tolist()
    elif isinstance(units, Iterable) and not isinstance(units, (str, bytes)):
        chosen = list(units)

    for unit in chosen:
        if isinstance(unit, bool) or not hasattr(unit, "__index__"):
            raise UnitError(
                f"unit {unit!r} is not a number: units of {where} are numbered 0 to "
                f"{count - 1}"
            )
        if not 0 <= unit < count:
            raise UnitError(
                f"there is no unit {unit} in {where}: its {count} units are numbered 0 "
                f"to {count - 1}"
            )
    numbers = map(int, chosen)
    return list(dict.fromkeys(numbers))


def checked_count(at_once: int | None) -> int | None:
    """The number of units per chunk; raises InputError unless it is 1 or more."""
    if at_once is None:
        return None
    if not is_count(at_once, 1):
        raise InputError(
            f"at_once is the number of units per chunk, 1 or more, not {at_once!r}"
        )
    return at_once


@contextlib.contextmanager
def evaluating(
    module: nn.Module, differentiable: bool = False
) -> Iterator[None]:
    """Evaluation mode, for one thread at a time, without gradients or recording them.

    Every module gets its own training flag back, also after an exception or Ctrl-C.
    Compiled parts run as the Python that they were made from, where calls can be
    watched. The caller's random number generators stay as they were.
    """
    with ONE_THREAD, undone(lambda: _evaluate(module, differentiable)):
        yield


def _evaluate(module: nn.Module, differentiable: bool) -> Callable[[], object]:
    """Begin what `evaluating` says; returns the function that ends it."""
    with contextlib.ExitStack() as stack:
        training = [part for part in parts_of(module) if part.training]
        stack.callback(_train, training)
        for part in training:
            part.training = False

        stack.enter_context(recording() if differentiable else torch.no_grad())
        stack.enter_context(_eagerly())
        generators = _generators(module)
        stack.enter_context(torch.random.fork_rng(devices=generators))
        # Autocasting would round numbers that must add up.
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        begun = stack.pop_all()
    return begun.close


def _train(modules: Sequence[nn.Module]) -> None:
    for module in modules:
        module.training = True


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Gradients are recorded, also inside the caller's no_grad and inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def parts_of(module: nn.Module) -> list[nn.Module]:
    """The module and all modules in it.

    `Module.modules` builds names too, which takes several times as long.
    """
    parts = {id(module): module}
    waiting = [module]
    while waiting:
        parent = waiting.pop()
        for child in parent._modules.values():
            if child is not None and id(child) not in parts:
                parts[id(child)] = child
                waiting.append(child)
    return list(parts.values())


def _generators(module: nn.Module) -> list[torch.device]:
    """The CUDA devices whose random number generators a network may use."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    devices = {parameter.device for parameter in module.parameters()}
    return [device for device in devices if device.type == "cuda"]


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules as plain Python."""
    # Setting the compiler's stance imports the compiler, which takes seconds. Nothing
    # is compiled where nobody has imported it.
    stance = getattr(torch.compiler, "set_stance", None)
    has_compiler = "torch._dynamo.eval_frame" in sys.modules
    if stance is None or not has_compiler:
        return contextlib.nullcontext()
    forced: contextlib.AbstractContextManager[Any] = stance("force_eager")
    return forced


@contextlib.contextmanager
def captured(
    module: nn.Module, names: Sequence[str]
) -> Iterator[dict[str, Shaped[Tensor, "batch unit *cells"]]]:
    """Collect copies of the named layers' outputs in a forward pass inside.

    Copies, because later in-place operations may overwrite an output.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any], None]:
        def function(output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                return
            with uncounted():
                if not torch.is_grad_enabled():
                    tensor = tensor.detach()
                outputs[name] = tensor.clone()

        return function

    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(names):
            stack.enter_context(_on_output(module, name, keep(name)))
        yield outputs


@contextlib.contextmanager
def on_outputs(
    module: nn.Module,
    names: Sequence[str],
    function: Callable[[str, Any], Any],
) -> Iterator[None]:
    """Inside, call `function` with the name and the output of each layer as it ends.

    What the function returns, unless None, replaces the output.
    """
    modules = dict(module.named_modules())
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(names):
            called = functools.partial(function, name)
            stack.enter_context(_on_output_of(modules, name, called))
        yield


@contextlib.contextmanager
def changing_output(
    module: nn.Module, layer: Layer, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Inside, the layer's output is what `change` makes of it, in its own data type."""

    def replace(output: Any) -> Any:
        old = first_tensor(output)
        assert old is not None
        with uncounted():
            new = change(old).to(old.dtype)
        return _rebuilt(output, old, new, layer)

    with _on_output(module, layer.name, replace):
        yield


def replacing(
    module: nn.Module, layer: Layer, tensor: Tensor
) -> contextlib.AbstractContextManager[None]:
    """Inside, the layer's output is `tensor`, in the layer's own data type."""
    return changing_output(module, layer, lambda _: tensor)


def _rebuilt(output: Any, old: Tensor, new: Tensor, layer: Layer) -> Any:
    rebuilt = with_tensor(output, old, new)
    if rebuilt is None:
        raise LayerError(
            f"units of layer '{layer.name}' cannot be switched off, because it returns "
            f"a {type(output).__name__} that cannot be rebuilt: choose a layer inside "
            "it, or the one after it"
        )
    return rebuilt


def _on_output(
    module: nn.Module, name: str, function: Callable[[Any], Any]
) -> contextlib.AbstractContextManager[None]:
    return _on_output_of(dict(module.named_modules()), name, function)


@contextlib.contextmanager
def _on_output_of(
    modules: Mapping[str, nn.Module],
    name: str,
    function: Callable[[Any], Any],
) -> Iterator[None]:
    """Call `function` on the output of a layer, inside.

    What the function returns, unless None, replaces the output.
    """
    path, wanted = name, 1
    # A module's own name may end in ":2", as a key of a ModuleDict.
    match = re.fullmatch(r"(.+):(\d+)", name)
    if match and name not in modules:
        path, wanted = match[1], int(match[2])
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs != wanted:
            return None
        return function(output)

    with undone(lambda: modules[path].register_forward_hook(hook).remove):
        yield
