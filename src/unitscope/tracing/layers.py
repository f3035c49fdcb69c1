"""Layers: name them, and capture or replace the output of one, inside a `with` that leaves nothing behind."""

from __future__ import annotations

import contextlib
import copy
import re
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unitscope.errors import LayerError, UnitError, near_matches
from unitscope.geometry import Grid
from unitscope.tracing.axes import Axes
from unitscope.tracing.outputs import first_tensor
from unitscope.tracing.trace import ModuleRun, Trace


@dataclass(frozen=True)
class Layer:
    """One run of a named module in a forward pass.

    `name` is the module's dotted name, with `:2` behind it for the second run of a
    module that runs several times; `kind` is the module's class; `shape` is that of its
    output without the batch: (unit, row, col) for a feature map, also where the module
    itself gives (row, col, unit) or tokens. How its axes lie is in `axes`, None where
    that could not be followed. `grid` says where the cells of a feature map lie on the
    network's input; `leaf` says that the module has no modules inside; `call` is the
    call of a forward pass that makes the output, by index and name.
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
        """Whether the output is a feature map with more than one cell, and it is known which axis the units are."""
        return (
            len(self.shape) == 3
            and self.shape[1] * self.shape[2] > 1
            and self.axes is not None
        )

    @property
    def cells(self) -> tuple[int, ...]:
        """The shape without its units: (row, col) of a map, (token) of tokens, () of a vector."""
        return self.shape[:1] if len(self.shape) == 2 else self.shape[1:]

    def units_first(self, output: Tensor) -> Float[Tensor, "batch unit row col"]:
        """The layer's output as a feature map, whatever order of axes the module gives."""
        return output if self.axes is None else self.axes.units_first(output)

    def describe_shape(self) -> str:
        """The shape in words: `512 × 7 × 7`, with the tokens that stand before those of a map."""
        others = self.axes.others if self.axes else 0
        more = f" + {others} token{'s' if others > 1 else ''}" if others else ""
        return " × ".join(map(str, self.shape)) + more


@dataclass(frozen=True)
class Stage:
    """A run of consecutive layers whose feature maps have the same rows and columns."""

    first: str
    last: str
    shape: tuple[int, ...]
    convolutions: int
    kinds: tuple[str, ...]


def layers_of(trace: Trace) -> list[Layer]:
    """The layers that ran, in order of execution (a container comes after what it contains)."""
    return [
        _layer_of(trace, name, run)
        for name, run in zip(trace.names(), trace.runs, strict=True)
    ]


def _layer_of(trace: Trace, name: str, run: ModuleRun) -> Layer:
    shape = run.shape[1:]
    # One photo was traced: where there are more in the batch, windows or patches were
    # made of it.
    axes = run.call.axes if run.shape[:1] == (1,) else None
    if axes is not None:
        shape = axes.map_shape(run.shape)
    rows, cols = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
    grid = run.call.grid or Grid.tiling(trace.input_size, (max(rows, 1), max(cols, 1)))
    return Layer(
        name, run.kind, shape, grid, run.leaf, axes, (run.call.index, run.call.name)
    )


def stages_of(layers: Sequence[Layer]) -> list[Stage]:
    """Group the leaf layers into stages: a new stage begins where the maps come to have fewer cells."""
    stages: list[Stage] = []
    group: list[Layer] = []

    def close() -> None:
        if group:
            kinds = tuple(dict.fromkeys(layer.kind for layer in group))
            convolutions = sum("Conv" in layer.kind for layer in group)
            last = [layer for layer in group if layer.cells == group[0].cells][-1]
            stages.append(
                Stage(
                    group[0].name,
                    last.name,
                    _outermost(group[0], last, layers).shape,
                    convolutions,
                    kinds,
                )
            )
            group.clear()

    for position, layer in enumerate(layers):
        if (
            not layer.leaf
            or layer.kind.startswith("Dropout")
            or layer.kind in ("Identity", "Flatten")
        ):
            continue
        # Squeeze-and-excitation gates work beside the main path, on pooled maps;
        # attention within its windows.
        if not layer.is_map and any(later.is_map for later in layers[position + 1 :]):
            continue
        # Where a block runs its shortcut first, or branches (Inception), larger maps
        # return: they belong to the block.
        returning = (
            group
            and len(layer.cells) == len(group[0].cells)
            and layer.cells >= group[0].cells
        )
        if group and not returning:
            close()
        group.append(layer)
    close()
    return stages


def _outermost(first: Layer, last: Layer, layers: Sequence[Layer]) -> Layer:
    """Of the layers that ran in a stage, containers included, the last of the least depth that has the stage's cells.

    Its map is what the stage hands on: a residual stage ends inside the first block of
    the next, whose narrow convolution says nothing of the stage's width.
    """
    begin, end = layers.index(first), layers.index(last) + 1
    while end < len(layers) and not layers[end].leaf:
        end += 1  # a container is listed after what it contains
    same = [layer for layer in layers[begin:end] if layer.cells == first.cells]
    if not any(layer.is_map for layer in layers[end:]):
        return same[-1]  # the last stage ends where the head begins
    least = min(layer.name.count(".") for layer in same)
    return [layer for layer in same if layer.name.count(".") == least][-1]


def find_layer(layers: Sequence[Layer], name: str) -> Layer:
    """The layer called `name`; raises LayerError with near matches, or with the runs of one that runs several times."""
    for layer in layers:
        if layer.name == name:
            return layer
    runs = [layer.name for layer in layers if layer.name.rpartition(":")[0] == name]
    if runs:
        raise LayerError(
            f"layer '{name}' runs {len(runs)} times in one forward pass: name one run, "
            f"'{runs[0]}' to '{runs[-1]}'"
        )
    near = near_matches(name, [layer.name for layer in layers])
    raise LayerError(
        f"there is no layer '{name}' among the {len(layers)} that ran{near}: "
        "`unitscope info` or model.layers() lists them"
    )


def find_map_layer(layers: Sequence[Layer], name: str) -> Layer:
    """The layer called `name`, which must give a feature map; raises LayerError otherwise."""
    layer = find_layer(layers, name)
    if not layer.is_map:
        maps = [candidate.name for candidate in layers if candidate.is_map]
        suggestion = f": choose a layer before it, such as '{maps[-1]}'" if maps else ""
        raise LayerError(
            f"layer '{name}' ({layer.kind}) gives {'×'.join(map(str, layer.shape))}, "
            "not a feature map "
            f"(unit, row, col) with several cells{suggestion}"
        )
    return layer


def check_units(
    units: int | Sequence[int] | Tensor, count: int, where: str
) -> list[int]:
    """Turn a choice of units into a list without repeats; raises UnitError for what is not a unit of the layer."""
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
    return list(dict.fromkeys(int(unit) for unit in chosen))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets its own flag back, also after an exception or Ctrl-C.

    Compiled parts run as the Python they were made from, where their calls can be
    watched. Random numbers that the network draws leave the caller's generators as they
    were.
    """
    training = [submodule for submodule in parts_of(module) if submodule.training]
    try:
        for submodule in training:
            submodule.training = False
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_eagerly())
            stack.enter_context(torch.random.fork_rng(devices=_generators(module)))
            # The network's own precision: autocasting around it would round what must
            # add up.
            for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for submodule in training:
            submodule.training = True


def parts_of(module: nn.Module) -> list[nn.Module]:
    """The module and all modules in it: `Module.modules` without the names, which take several times as long."""
    found = {id(module): module}
    waiting = [module]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                waiting.append(child)
    return list(found.values())


def _generators(module: nn.Module) -> list[torch.device]:
    """The CUDA devices whose generators a network may draw from, beside the processor's."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    return list(
        {
            parameter.device
            for parameter in module.parameters()
            if parameter.device.type == "cuda"
        }
    )


def _eagerly() -> contextlib.AbstractContextManager[Any]:
    # Nothing is compiled where the compiler was not even imported; setting its stance
    # would import it, for seconds.
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None or "torch._dynamo.eval_frame" not in sys.modules:
        return contextlib.nullcontext()
    forced: contextlib.AbstractContextManager[Any] = stance("force_eager")
    return forced


@contextlib.contextmanager
def captured(
    module: nn.Module, names: Sequence[str]
) -> Iterator[dict[str, Shaped[Tensor, "batch unit *cells"]]]:
    """Collect the outputs of the named layers in a forward pass inside; cloned, as in-place ops may overwrite them."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any], None]:
        def function(output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                with (
                    torch._C.DisableTorchFunction()
                ):  # whoever counts the network's calls must not count these
                    outputs[name] = tensor.detach().clone()

        return function

    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(names):
            stack.enter_context(_on_output(module, name, keep(name)))
        yield outputs


@contextlib.contextmanager
def without_units(
    module: nn.Module, layer: Layer, units: Sequence[int]
) -> Iterator[None]:
    """Switch units off: inside, the layer's output has zero maps for `units`; the module itself is not touched."""

    def replace(output: Any) -> Any:
        tensor = first_tensor(output)
        assert tensor is not None
        return _rebuilt(
            output, tensor, (layer.axes or Axes()).without(tensor, units), layer
        )

    with _on_output(module, layer.name, replace):
        yield


@contextlib.contextmanager
def replacing(module: nn.Module, layer: Layer, tensor: Tensor) -> Iterator[None]:
    """Inside, the layer's output is `tensor`, in the layer's own dtype; the module itself is not touched."""

    def replace(output: Any) -> Any:
        old = first_tensor(output)
        assert old is not None
        return _rebuilt(output, old, tensor.to(old.dtype), layer)

    with _on_output(module, layer.name, replace):
        yield


def _rebuilt(output: Any, old: Tensor, new: Tensor, layer: Layer) -> Any:
    replaced = _with_tensor(output, old, new)
    if replaced is None:
        raise LayerError(
            f"units of layer '{layer.name}' cannot be switched off, because it returns "
            f"a {type(output).__name__} "
            "that cannot be rebuilt: choose a layer inside it, or the one after it"
        )
    return replaced


def _with_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """The same structure with one tensor replaced; None when it is not found in tensors, tuples, lists and mappings."""
    if output is old:
        return new
    if isinstance(output, (tuple, list)):
        items = [_with_tensor(item, old, new) for item in output]
        if all(item is None for item in items):
            return None
        items = [
            item if found is None else found
            for item, found in zip(output, items, strict=True)
        ]
        return (
            type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
        )
    if isinstance(output, MutableMapping):
        found = {key: _with_tensor(item, old, new) for key, item in output.items()}
        if all(item is None for item in found.values()):
            return None
        # A shallow copy keeps the class, and the fields, of the model outputs of
        # transformers.
        changed = copy.copy(output)
        for key, item in found.items():
            if item is not None:
                changed[key] = item
        return changed
    return None


@contextlib.contextmanager
def _on_output(
    module: nn.Module, name: str, function: Callable[[Any], Any]
) -> Iterator[None]:
    """Call `function` on the output of one run of one module; what it returns, unless None, replaces the output."""
    modules = dict(module.named_modules())
    match = re.fullmatch(r"(.+):(\d+)", name)
    # A module's own name may end in ":2", as a key of a ModuleDict.
    path, wanted = (
        (match[1], int(match[2])) if match and name not in modules else (name, 1)
    )
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        return function(output) if runs == wanted else None

    handle = modules[path].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
