"""Trace: one forward pass, watched.

A trace says which functions ran on which tensors, which modules returned them, and
where their cells lie.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from unitscope.errors import ModelError
from unitscope.tracing.calls import Call, Recorder
from unitscope.tracing.outputs import (
    THE_RESULT,
    OutputChoice,
    first_tensor,
    leaves_of,
)

# The child in which torch.nn.utils.parametrize keeps what makes a module's weights. It
# is no layer.
_PARAMETRIZATIONS = "parametrizations"


@dataclass(frozen=True, slots=True)
class ModuleRun:
    """One run of a named module: its output's shape, and the call that made it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    call: Call
    leaf: bool


@dataclass
class Trace:
    """What one forward pass did.

    `runs` are the runs of modules in the order in which they ended; `result` is what the
    network gave, and `makers` are the calls that made the tensors in it, by path. `choice`
    says which of them holds the logits, once that is known; `output` is the call that
    made them.
    """

    input_size: tuple[int, int]
    calls: list[Call] = field(default_factory=list)
    runs: list[ModuleRun] = field(default_factory=list)
    result: Any = None
    makers: dict[str, Call] = field(default_factory=dict)
    choice: OutputChoice = THE_RESULT
    output: Call | None = None
    logits: Tensor | None = None

    def read(self, choice: OutputChoice, batch: int = 1) -> Trace:
        """Take the chosen output for the logits.

        Raises ModelError where it is none, HeadError where it is not there.
        """
        logits = choice.logits(self.result, batch)
        self.logits = logits.to(torch.float32).clone()
        self.output = self.makers[choice.path]
        self.choice = choice
        return self

    def names(self) -> list[str]:
        """The names of the runs: `module`, or `module:2` for the second of several."""
        counts = Counter(run.name for run in self.runs)
        seen: Counter[str] = Counter()
        names = []
        for run in self.runs:
            name = run.name
            seen[name] += 1
            if counts[name] > 1:
                name = f"{name}:{seen[name]}"
            names.append(name)
        return names


def kind_of(module: nn.Module) -> str:
    """The name of a module's class before its weights were parametrised."""
    return type_before_parametrizations(module).__name__


def trace(module: nn.Module, x: Tensor) -> Trace:
    """Run one forward pass and record it; `Trace.read` then says what the logits are.

    The module must already be in evaluation mode, without gradients.
    """
    rows, cols = map(int, x.shape[-2:])
    result = Trace(input_size=(rows, cols))
    x = x.clone()  # Some networks normalise their input in place.
    recorder = Recorder(x)

    with _run_hooks(module, recorder, result.runs), recorder.on():
        result.result = module(x)

    for leaf in leaves_of(result.result):
        result.makers[leaf.path] = recorder.call_of(leaf.tensor)
    result.calls = recorder.calls
    return result


@contextlib.contextmanager
def _run_hooks(
    module: nn.Module, recorder: Recorder, runs: list[ModuleRun]
) -> Iterator[None]:
    """Hooks on all named modules, inside, that add their runs to `runs`."""
    with contextlib.ExitStack() as stack:
        for name, submodule in module.named_modules():
            _check_watchable(name, submodule, module)
            if name and _PARAMETRIZATIONS not in name.split("."):
                hook = _run_hook(name, recorder, runs)
                stack.callback(submodule.register_forward_hook(hook).remove)
        yield


def _check_watchable(
    name: str, submodule: nn.Module, module: nn.Module
) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        return
    if isinstance(submodule, torch.jit.ScriptModule):
        raise ModelError(
            f"the network's part '{name}' is TorchScript, which cannot be watched: put the "
            "Python module there that it was made from"
        )


def _run_hook(
    name: str, recorder: Recorder, runs: list[ModuleRun]
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(submodule: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None:
            return
        run = ModuleRun(
            name=name,
            kind=kind_of(submodule),
            shape=tuple(tensor.shape),
            call=recorder.call_of(tensor),
            leaf=_is_leaf(submodule),
        )
        runs.append(run)

    return hook


def _is_leaf(module: nn.Module) -> bool:
    names = dict(module.named_children()).keys()
    return names <= {_PARAMETRIZATIONS}


def unwatchable(module: nn.Module) -> str:
    """Why the calls of a network cannot be watched, and the remedy; empty where they can."""
    kind = ""
    if isinstance(module, torch.jit.ScriptModule):
        kind = "TorchScript"
    elif isinstance(module, torch.fx.GraphModule):
        targets = (str(node.target) for node in module.graph.nodes)
        if any(target.startswith("aten.") for target in targets):
            kind = "an exported program"
    if not kind:
        return ""
    return (
        f"the network is {kind}, which cannot be watched: wrap the Python module that "
        "it was made from"
    )
