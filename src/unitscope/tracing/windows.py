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
        free = cells + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        return free // self.stride + 1


def windowed(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles of a map that was computed from a map (batch, unit, row, col)."""
    if len(call.shape) != 4:
        return None
    roles: list[Role] = [None, None]
    for side, role in enumerate(layout[2:]):
        if not isinstance(role, Side):
            return None
        axis = _axis_after(call, role.axis, side) if role.axis else None
        roles.append(Side(role.which, axis))
    return tuple(roles)


def _axis_after(call: FunctionCall, axis: Axis, side: int) -> Axis | None:
    """Where the cells of the result lie along rows (side 0) or columns (side 1)."""
    if call.name in WINDOWS:
        return axis.windowed(*_window(call, side))

    before, after = call.first.shape[2 + side], call.shape[2 + side]
    if call.name in RESAMPLERS:
        return axis.resampled(before, after, bool(call.kwargs.get("align_corners")))

    # A normalisation keeps the cells, and so does a transposed convolution of stride
    # one that keeps the shape.
    if before != after:
        return None
    if (
        call.name == "conv_transpose2d"
        and along(call.argument(3, "stride", 1), side) != 1
    ):
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
        has_dilation = call.name != "avg_pool2d"
        dilation = _setting(call, 4, "dilation", 1) if has_dilation else 1

    size, step = along(kernel, side), along(dilation, side)
    if padding == "same":
        # Where the padding is odd, torch puts one more cell behind than before.
        before = step * (size - 1) // 2
    elif isinstance(padding, str):
        before = {"valid": 0}[padding]
    else:
        before = along(padding, side)
    return Window(size, along(stride, side), before, step)


def _setting(call: FunctionCall, position: int, keyword: str, default: Any) -> Any:
    value = call.argument(position, keyword, default)
    return default if value is None or value == [] else value


def unfolded(call: FunctionCall, layout: Layout) -> Layout | None:
    """The roles of (batch, unit · kernel, token) made of a map: one patch a token."""
    if len(layout) != 4 or len(call.shape) != 3:
        return None

    row_window, col_window = (_unfold_window(call, side) for side in (0, 1))
    rows = row_window.positions(call.first.shape[2])
    cols = col_window.positions(call.first.shape[3])
    if rows * cols != call.shape[2]:
        return None

    row_axis = _patch_axis(layout[2], row_window)
    col_axis = _patch_axis(layout[3], col_window)
    return None, None, Tokens(rows, cols, 0, row_axis, col_axis)


def _patch_axis(role: Role, window: Window) -> Axis | None:
    if not isinstance(role, Side) or role.axis is None:
        return None
    return role.axis.windowed(*window)


def _unfold_window(call: FunctionCall, side: int) -> Window:
    kernel = along(call.argument(1, "kernel_size", 1), side)
    dilation = along(call.argument(2, "dilation", 1), side)
    padding = along(call.argument(3, "padding", 0), side)
    stride = along(call.argument(4, "stride", 1), side)
    return Window(kernel, stride, padding, dilation)


def padded(call: FunctionCall, layout: Layout) -> Layout:
    """The roles after padding; amounts come in pairs (before, behind), last axis first."""
    roles = list(layout)
    amounts = call.required(1, "pad")
    for place, amount in enumerate(amounts[::2]):
        roles[-1 - place] = _padded_role(roles[-1 - place], amount)
    return tuple(roles)


def _padded_role(role: Role, before: int) -> Role:
    if isinstance(role, Side) and role.axis:
        start = role.axis.start - before * role.axis.step
        return Side(role.which, Axis(start, role.axis.step))
    if isinstance(role, Tokens):
        # Negative padding may cut cells off.
        keeps_cells = before + role.before >= 0
        return replace(role, before=role.before + before) if keeps_cells else None
    return role
