"""Windows: rules of functions of maps, such as convolutions, pools and padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from unitscope.geometry import Axis
from unitscope.tracing.function_call import FunctionCall, along
from unitscope.tracing.functions import RESAMPLERS, WINDOWS
from unitscope.tracing.roles import Layout, Role, Side, Tokens


class Window(NamedTuple):
    """A sliding window along one side of a map, in cells."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    def positions(self, cells: int) -> int:
        """How many places the window takes along so many cells."""
        padded = cells + 2 * self.padding
        last_offset = self.dilation * (self.kernel - 1)
        free = padded - last_offset - 1
        return free // self.stride + 1


def windowed(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles of a map that was computed from a map (batch, unit, row, col)."""
    if len(call.shape) != 4:
        return None

    roles: list[Role] = [None, None]
    for side, role in enumerate(layout[2:]):
        if not isinstance(role, Side):
            return None
        axis = role.axis
        if axis is not None:
            axis = _axis_after(call, axis, side)
        roles.append(Side(role.which, axis))
    return tuple(roles)


def _axis_after(call: FunctionCall, axis: Axis, side: int) -> Axis | None:
    """Where the cells of the result lie along rows (side 0) or columns (side 1)."""
    if call.name in WINDOWS:
        window = _window(call, side)
        return axis.windowed(*window)

    before = call.first.shape[2 + side]
    after = call.shape[2 + side]
    if call.name in RESAMPLERS:
        corners = bool(call.kwargs.get("align_corners"))
        return axis.resampled(before, after, corners)

    # A normalisation keeps the cells, and so does a transposed convolution of stride
    # one that keeps the shape.
    if before != after:
        return None
    if call.name == "conv_transpose2d":
        stride = call.argument(3, "stride", 1)
        if along(stride, side) != 1:
            return None
    return axis


def _window(call: FunctionCall, side: int) -> Window:
    """The window of a convolution or a pool along one side."""
    if call.name == "conv2d":
        kernel = call.required(1, "weight").shape[-2:]
        stride = _setting(call, 3, "stride", 1)
        padding = _setting(call, 4, "padding", 0)
        dilation = _setting(call, 5, "dilation", 1)
    else:
        kernel = _setting(call, 1, "kernel_size", 1)
        stride = _setting(call, 2, "stride", kernel)
        padding = _setting(call, 3, "padding", 0)
        dilation = 1
        if call.name != "avg_pool2d":
            dilation = _setting(call, 4, "dilation", 1)

    kernel = along(kernel, side)
    dilation = along(dilation, side)
    if padding == "same":
        # Where the padding is odd, torch puts one more cell behind than before.
        padding = dilation * (kernel - 1) // 2
    elif padding == "valid":
        padding = 0
    return Window(
        kernel=kernel,
        stride=along(stride, side),
        padding=along(padding, side),
        dilation=dilation,
    )


def _setting(
    call: FunctionCall, position: int, keyword: str, default: Any
) -> Any:
    value = call.argument(position, keyword, default)
    if value is None or value == []:
        return default
    return value


def unfolded(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles of (batch, unit · kernel, token) made of a map: one patch a token.

    `Tensor.unfold` has the same name, and cuts along one axis.
    """
    if len(call.shape) == len(layout) + 1:
        return _cut_along_axis(call, layout)
    if len(layout) != 4 or len(call.shape) != 3:
        return None

    rows, row_axis = _patches(call, layout, side=0)
    cols, col_axis = _patches(call, layout, side=1)
    _, _, count = call.shape
    if rows * cols != count:
        return None
    tokens = Tokens(
        rows=rows,
        cols=cols,
        before=0,
        row_axis=row_axis,
        col_axis=col_axis,
    )
    return None, None, tokens


def _cut_along_axis(call: FunctionCall, layout: Layout) -> Layout:
    """The roles after one axis was cut into windows, whose cells are the last axis."""
    axis = call.required(1, "dimension") % len(layout)
    role = layout[axis]
    if isinstance(role, Side) and role.axis is not None:
        size, step = call.required(2, "size"), call.required(3, "step")
        role = Side(role.which, role.axis.windowed(size, step, 0, 1))
    elif isinstance(role, Tokens):
        role = None
    return (*layout[:axis], role, *layout[axis + 1 :], None)


def _patches(
    call: FunctionCall, layout: Layout, side: int
) -> tuple[int, Axis | None]:
    """How many patches `unfold` cuts along one side of a map, and where they lie."""
    cells = call.first.shape[2 + side]
    role = layout[2 + side]
    window = _unfold_window(call, side)
    count = window.positions(cells)
    if not isinstance(role, Side) or role.axis is None:
        return count, None
    axis = role.axis.windowed(*window)
    return count, axis


def _unfold_window(call: FunctionCall, side: int) -> Window:
    kernel = call.argument(1, "kernel_size", 1)
    dilation = call.argument(2, "dilation", 1)
    padding = call.argument(3, "padding", 0)
    stride = call.argument(4, "stride", 1)
    return Window(
        kernel=along(kernel, side),
        stride=along(stride, side),
        padding=along(padding, side),
        dilation=along(dilation, side),
    )


def padded(call: FunctionCall, layout: Layout) -> Layout:
    """The roles after padding.

    The amounts come in pairs (before, behind), that of the last axis first.
    """
    roles = list(layout)
    amounts = call.required(1, "pad")
    axis = len(roles)
    for before in amounts[::2]:
        axis -= 1
        roles[axis] = _padded_role(roles[axis], before)
    return tuple(roles)


def _padded_role(role: Role, before: int) -> Role:
    if isinstance(role, Side):
        axis = role.axis
        if axis is not None:
            axis = axis.sliced(-before)
        return Side(role.which, axis)
    if isinstance(role, Tokens):
        before += role.before
        if before < 0:
            # Negative padding cut cells off.
            return None
        return replace(role, before=before)
    return role
