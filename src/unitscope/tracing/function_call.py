"""Function call: what the rules of axes read of a call and of one of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitscope.tracing.arguments import argument
from unitscope.tracing.functions import CHANNELS_FIRST
from unitscope.tracing.roles import Layout, TracedTensor


@dataclass(frozen=True)
class FunctionCall:
    """A call of a torch function, and one of its results.

    `inputs` are the tensors among its arguments, in their order; `shape` is that of the
    result. `offset` is how much of the divided axis the earlier results of a call such
    as `split` took.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: Sequence[TracedTensor]
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def first(self) -> TracedTensor:
        """The first tensor among the arguments."""
        return self.inputs[0]

    @property
    def first_layout(self) -> Layout | None:
        """The layout of the first tensor; None where it is not that of its shape."""
        layout, shape = self.first
        fits = layout is not None and len(layout) == len(shape)
        return layout if fits else None

    @property
    def reads_map(self) -> bool:
        """Whether the function takes a first argument of four axes for a map."""
        return reads_map(self.name, self.args, self.kwargs)

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument by position or by keyword."""
        return argument(self.args, self.kwargs, position, keyword, default)

    def required(self, position: int, keyword: str) -> Any:
        """An argument that must be there; raises KeyError where it is not."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs[keyword]

    def axis(self, dimensions: int, position: int = 1) -> int:
        """The axis that `dim` names, from 0, of so many; the first by default."""
        axis = _dim(self.args, self.kwargs, position, default=0)
        return int(axis) % max(dimensions, 1)

    @property
    def divided_axis(self) -> int:
        """The axis along which a call such as `split` divides its first argument."""
        return self.axis(len(self.shape), position=2)


def reads_map(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call takes a first argument of four axes for (batch, unit, row, col)."""
    if name == "mean":
        return _is_over_last_two(args, kwargs)
    return name in CHANNELS_FIRST


def _is_over_last_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a mean is over the last two of four axes: rows and columns of a map."""
    tensor = argument(args, kwargs, 0, "input")
    if not isinstance(tensor, Tensor) or tensor.ndim != 4:
        return False
    axes = argument(args, kwargs, 1, "dim", kwargs.get("axis"))
    if not isinstance(axes, (tuple, list)):
        return False
    return {int(axis) % 4 for axis in axes} == {2, 3}


def _dim(
    args: tuple[Any, ...], kwargs: dict[str, Any], position: int, default: Any
) -> Any:
    if "dim" in kwargs:
        return kwargs["dim"]
    if "axis" in kwargs:
        return kwargs["axis"]
    return args[position] if len(args) > position else default


def along(value: Any, side: int) -> int:
    """A size such as a kernel's along rows (side 0) or columns (side 1)."""
    if isinstance(value, (tuple, list, torch.Size)):
        return int(value[0] if side == 0 else value[-1])
    return int(value)
