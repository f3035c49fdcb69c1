"""Function call: what the rules of axes read of a call and of one of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unitscope.tracing.arguments import WithArguments
from unitscope.tracing.functions import CHANNELS_FIRST
from unitscope.tracing.roles import Layout, TracedTensor


@dataclass(frozen=True)
class FunctionCall(WithArguments):
    """A call of a torch function, and one of its results.

    `inputs` are the tensors among its arguments, in their order; `shape` is that of the
    result. `offset` is how much of the divided axis the earlier results of a call such
    as `split` took.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: Sequence[TracedTensor] = ()
    shape: tuple[int, ...] = ()
    offset: int = 0

    @property
    def first(self) -> TracedTensor:
        """The first tensor among the arguments."""
        return self.inputs[0]

    @property
    def first_layout(self) -> Layout | None:
        """The layout of the first tensor; None where it does not fit its shape."""
        layout, shape = self.first
        if layout is None or len(layout) != len(shape):
            return None
        return layout

    @property
    def reads_map(self) -> bool:
        """Whether a first argument of four axes must be (batch, unit, row, col)."""
        if self.name == "mean":
            return self._is_over_rows_and_columns()
        return self.name in CHANNELS_FIRST

    def _is_over_rows_and_columns(self) -> bool:
        """Whether a mean is over the last two of four axes."""
        tensor = self.argument(0, "input")
        if not isinstance(tensor, Tensor) or tensor.ndim != 4:
            return False
        axes = self.argument(1, "dim")
        if axes is None:
            axes = self.kwargs.get("axis")
        if not isinstance(axes, (tuple, list)):
            return False
        places = {int(axis) % 4 for axis in axes}
        return places == {2, 3}

    def required(self, position: int, keyword: str) -> Any:
        """An argument by position or keyword; raises KeyError where it is missing."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs[keyword]

    def axis(self, dimensions: int, position: int = 1, default: int = 0) -> int:
        """The axis that `dim` names, from 0, of so many; the first by default."""
        if "dim" in self.kwargs:
            axis = self.kwargs["dim"]
        else:
            axis = self.argument(position, "axis", default)
        return int(axis) % max(dimensions, 1)

    @property
    def divided_axis(self) -> int:
        """The axis along which a call such as `split` divides its first argument."""
        dimensions = len(self.shape)
        return self.axis(dimensions, position=2)


def along(value: Any, side: int) -> int:
    """A size such as a kernel's along rows (side 0) or columns (side 1)."""
    if not isinstance(value, (tuple, list)):
        return int(value)
    if side == 0:
        return int(value[0])
    return int(value[-1])
