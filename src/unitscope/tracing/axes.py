"""Axes: which axes of a tensor are the rows, columns or tokens of a map, followed from call to call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.geometry import PIXELS, Axis, Grid
from unitscope.tracing.functions import (
    ATTENTIONS,
    AXIS_REORDERINGS,
    CELL_MIXERS,
    CELL_REORDERINGS,
    CELLWISE,
    CHANNELS_FIRST,
    CONCATENATIONS,
    CONSTRUCTORS,
    DIVIDERS,
    LINEAR_LAYERS,
    MATRIX_PRODUCTS,
    RESAMPLERS,
    RESHAPES,
    SELECTIONS,
    WINDOWS,
)


@dataclass(frozen=True)
class Axes:
    """Where units, rows and columns lie in a tensor that holds a feature map.

    `order` is "units first" (batch, unit, row, col), "units last" (batch, row, col,
    unit), "tokens" (batch, token, unit) or "units, tokens" (batch, unit, token), where
    rows · cols tokens are the map's cells, row by row, `prefix` tokens stand before
    them (a class token) and `suffix` behind them (registers).
    """

    order: str = "units first"
    rows: int = 0
    cols: int = 0
    prefix: int = 0
    suffix: int = 0

    @classmethod
    def tiling(
        cls, order: str, tokens: int, input_size: tuple[int, int]
    ) -> Axes | None:
        """Tokens taken for rows and columns that tile an input (rows, cols) in squares; None where none do."""
        rows = round((tokens * input_size[0] / input_size[1]) ** 0.5)
        cols = tokens // max(rows, 1)
        fits = (
            tokens > 1
            and rows * cols == tokens
            and rows * input_size[1] == cols * input_size[0]
        )
        return cls(order, rows, cols) if fits else None

    @property
    def others(self) -> int:
        """How many tokens are no cells of the map."""
        return self.prefix + self.suffix

    def map_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(unit, row, col) of the map in a tensor of this shape."""
        if self.order in ("units first", "units last"):
            unit, row, col = (
                shape[1:] if self.order == "units first" else (shape[3], *shape[1:3])
            )
            return unit, row, col
        return shape[2 if self.order == "tokens" else 1], self.rows, self.cols

    def units_first(self, tensor: Tensor) -> Float[Tensor, "batch unit row col"]:
        """The tensor as a feature map."""
        if self.order == "units first":
            return tensor
        if self.order == "units last":
            return tensor.permute(0, 3, 1, 2)
        tokens = tensor.transpose(1, 2) if self.order == "tokens" else tensor
        cells = tokens[:, :, self.prefix : self.prefix + self.rows * self.cols]
        return cells.reshape(*tokens.shape[:2], self.rows, self.cols)

    def without(self, tensor: Tensor, units: Sequence[int]) -> Tensor:
        """A copy of the tensor with the maps of `units` at zero, in the tokens that are no cells too."""
        changed = tensor.clone()
        last = self.order in ("units last", "tokens")
        changed[(..., list(units)) if last else (slice(None), list(units))] = 0
        return changed

    def other_tokens(self, tensor: Tensor) -> Float[Tensor, "batch token unit"] | None:
        """A copy of the tokens that are no cells; None where there are none."""
        if not self.others:
            return None
        tokens = tensor if self.order == "tokens" else tensor.transpose(1, 2)
        return torch.cat(
            [tokens[:, : self.prefix], tokens[:, tokens.shape[1] - self.suffix :]],
            dim=1,
        )

    def laid_back(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        others: Float[Tensor, "batch token unit"] | None,
    ) -> Tensor:
        """The tensor of this order that holds a feature map, among the tokens of `others`."""
        if self.order == "units first":
            return feature_map
        if self.order == "units last":
            return feature_map.permute(0, 2, 3, 1)
        tokens = feature_map.flatten(2).transpose(1, 2)
        if others is not None:
            tokens = torch.cat(
                [others[:, : self.prefix], tokens, others[:, self.prefix :]], dim=1
            )
        return tokens if self.order == "tokens" else tokens.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Side:
    """The role of an axis of rows ("row") or columns ("col"); `axis` says where they lie, None where unknown."""

    which: str
    axis: Axis | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The role of an axis of tokens: behind `before` others, the cells of `rows` × `cols`, row by row."""

    rows: int
    cols: int
    before: int
    row_axis: Axis | None
    col_axis: Axis | None

    @property
    def cells(self) -> int:
        """How many tokens are cells."""
        return self.rows * self.cols


# The role of every axis of a tensor; None is any other: the batch, units, heads, an
# axis that was mixed.
Role = Side | Tokens | None
Layout = tuple[Role, ...]


# Of a tensor whose cells were chosen, sorted or written by who knows what: they lie
# nobody knows where, as do those of what it is added to. A tensor that does not depend
# on the photo's cells has None instead.
LOST: Layout = (Side("lost", None),)


class Known(NamedTuple):
    """What is known of a tensor: the roles of its axes, None where they could not be followed, and its shape."""

    layout: Layout | None
    shape: tuple[int, ...]


IMAGE: Layout = (None, None, Side("row", PIXELS), Side("col", PIXELS))
# A map (batch, unit, row, col) that lies nobody knows where.
SOMEWHERE: Layout = (None, None, Side("row", None), Side("col", None))


def axes_of(layout: Layout | None, shape: tuple[int, ...]) -> Axes | None:
    """How a map lies in a tensor; None where no map does."""
    if layout is None or len(layout) != len(shape):
        return None
    kinds = [
        role.which
        if isinstance(role, Side)
        else "token"
        if isinstance(role, Tokens)
        else ""
        for role in layout
    ]
    if kinds in (
        ["", "", "row", "col"],
        ["", "", "col", "row"],
    ):  # transposed, it is a map that lies nowhere
        return Axes()
    if kinds == ["", "row", "col", ""]:
        return Axes("units last")
    if kinds not in (["", "token", ""], ["", "", "token"]):
        return None
    place = kinds.index("token")
    role = layout[place]
    assert isinstance(role, Tokens)
    behind = shape[place] - role.before - role.cells
    if behind < 0:
        return None
    order = "tokens" if place == 1 else "units, tokens"
    return Axes(order, role.rows, role.cols, role.before, behind)


def grid_of(layout: Layout | None) -> Grid | None:
    """Where the cells of a map lie on the network's input; None where that could not be followed."""
    roles = [role for role in layout or () if role is not None]
    if len(roles) == 1 and isinstance(roles[0], Tokens):
        rows, cols = roles[0].row_axis, roles[0].col_axis
    elif [getattr(role, "which", "") for role in roles] == ["row", "col"]:
        rows, cols = (role.axis for role in roles if isinstance(role, Side))
    else:
        return None
    return Grid(rows, cols) if rows and cols else None


def reads_map(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call takes a first argument of four axes for a map with units first."""
    return name in CHANNELS_FIRST or (name == "mean" and _over_last_two(args, kwargs))


def followed(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: Sequence[Known],
    shape: tuple[int, ...],
    offset: int = 0,
) -> Layout | None:
    """The roles of the axes of a call's result, from those of the tensors among its arguments, in their order.

    `offset` is how much of the divided axis the earlier results of a call took that
    gives several.
    """
    if name in CONSTRUCTORS or not any(known.layout for known in inputs):
        return None
    if name == "__setitem__":
        return (
            inputs[0].layout if inputs[-1].layout is None or len(inputs) == 1 else LOST
        )
    if name in CELL_MIXERS or name.startswith("fft_"):
        return (None,) * len(shape)
    lost = any(
        known.layout is LOST and _is_as_large(known.shape, shape) for known in inputs
    )
    inputs = [
        known if known.layout is not LOST else Known(None, known.shape)
        for known in inputs
    ]
    found = _found(name, args, kwargs, inputs, shape, offset)
    if name in MATRIX_PRODUCTS or name in ATTENTIONS or name in LINEAR_LAYERS:
        return found or (None,) * len(shape)
    if not lost and (found is not None or name in _KNOWN_NAMES):
        return found or (None,) * len(shape)
    return LOST if found is None or not any(found) else tuple(map(_lost, found))


def _is_as_large(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a tensor may bring cells of its own to a result: not one number for all of them, as a gate does."""
    return math.prod(one[1:]) > 1 and not (
        len(one) == len(other) == 4 and one[2:] == (1, 1) != other[2:]
    )


def _found(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: Sequence[Known],
    shape: tuple[int, ...],
    offset: int,
) -> Layout | None:
    """The roles of a call's result, by the rule of its name; None where there is none, or it says nothing."""
    first, layout = inputs[0], inputs[0].layout
    if name in CONCATENATIONS:
        return _joined(_axis(args, kwargs, 0, len(shape)), inputs)
    if name in MATRIX_PRODUCTS:
        return _product(inputs[-2], inputs[-1], shape)
    if name in LINEAR_LAYERS:
        mixed = len(shape) - 1 if name == "linear" else 1
        fits = (
            layout
            and len(layout) == len(shape)
            and _fits(first, (*shape[:mixed], first.shape[mixed], *shape[mixed + 1 :]))
        )
        return (
            (*layout[:mixed], None, *layout[mixed + 1 :]) if fits and layout else None
        )
    if name in ATTENTIONS:
        return layout if layout and len(layout) == len(shape) else None
    if name == "stack":
        place = _axis(args, kwargs, 0, len(shape))
        known = [
            one.layout
            for one in inputs
            if one.layout and len(one.layout) == len(shape) - 1
        ]
        met = reduce(_met, known) if known else None
        return (*met[:place], None, *met[place:]) if met else None
    if layout is not None and len(layout) == len(first.shape):
        changed = _changed(
            name, args, kwargs, Known(layout, first.shape), shape, offset
        )
        if changed is not _KEPT:
            return changed
    if name not in CELLWISE and not reads_map(name, args, kwargs):
        return None
    # Sums must agree on where their cells lie.
    fitting = [known.layout for known in inputs if known.layout and _fits(known, shape)]
    return reduce(_met, fitting) if fitting else None


# Where these say nothing of a result, its cells were merged or divided, not put
# elsewhere.
_KNOWN_NAMES = (
    CELLWISE
    | RESHAPES
    | CONCATENATIONS
    | DIVIDERS
    | {"stack", "unbind", "unfold", "pad"}
    | CHANNELS_FIRST
)

# Says that a function changes nothing about which axes are what.
_KEPT: Layout = (None,) * 64


def _changed(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    first: Known,
    shape: tuple[int, ...],
    offset: int,
) -> Layout | None:
    """The roles after a function that moves, divides or cuts the axes of its first argument."""
    layout, before = first
    assert layout is not None
    if name in AXIS_REORDERINGS:
        return _moved(name, args, kwargs, layout, len(shape))
    if name in RESHAPES:
        return _reshaped(layout, before, shape)
    if name in SELECTIONS:
        return _indexed(_index(name, args, kwargs, len(before)), layout, before)
    if name in DIVIDERS:
        axis = divided_axis(args, kwargs, len(shape))
        return _indexed(
            (*(slice(None),) * axis, slice(offset, offset + shape[axis])),
            layout,
            before,
        )
    if name in CELL_REORDERINGS:
        return tuple(map(_lost, layout)) if shape == before else None
    if len(layout) == 4 and reads_map(name, args, kwargs):
        return _windowed(name, args, kwargs, layout, before, shape)
    if name == "unfold" and len(layout) == 4 and len(shape) == 3:
        return _unfolded(args, kwargs, layout, before, shape)
    return _padded(args, kwargs, layout) if name == "pad" else _KEPT


def _fits(known: Known, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has the cells of a result: as many rows, columns or tokens on the same axes."""
    assert known.layout is not None
    if not len(known.layout) == len(known.shape) == len(shape):
        return False
    return all(
        role is None or before == after
        for role, before, after in zip(known.layout, known.shape, shape, strict=True)
    ) and any(known.layout)


def _met(one: Layout, other: Layout) -> Layout:
    """The roles of a sum of two tensors of one shape."""
    return tuple(_met_role(a, b) for a, b in zip(one, other, strict=True))


def _met_role(
    one: Role,
    other: Role,
    meet: Callable[[Axis | None, Axis | None], Axis | None] | None = None,
) -> Role:
    # What has lost its place (mixed by attention, say) is added to what has one.
    if one is None or other is None:
        return one or other
    meet = meet or (lambda a, b: a if _alike(a, b) else None)
    if isinstance(one, Side) and isinstance(other, Side) and one.which == other.which:
        return Side(one.which, meet(one.axis, other.axis))
    if isinstance(one, Tokens) and isinstance(other, Tokens):
        if (one.rows, one.cols, one.before) == (other.rows, other.cols, other.before):
            rows, cols = (
                meet(one.row_axis, other.row_axis),
                meet(one.col_axis, other.col_axis),
            )
            return Tokens(one.rows, one.cols, one.before, rows, cols)
    return None


def _alike(one: Axis | None, other: Axis | None) -> bool:
    if one is None or other is None:
        return False
    return abs(one.start - other.start) < 1e-6 and abs(one.step - other.step) < 1e-6


def _lost(role: Role) -> Role:
    if isinstance(role, Side):
        return Side(role.which, None)
    return (
        replace(role, row_axis=None, col_axis=None)
        if isinstance(role, Tokens)
        else None
    )


def _joined(axis: int, inputs: Sequence[Known]) -> Layout | None:
    """The roles after tensors were put one behind the other."""
    known = [one for one in inputs if one.layout and len(one.layout) == len(one.shape)]
    placed: Role = None
    holders = [one for one in known if isinstance((one.layout or ())[axis], Tokens)]
    if len(holders) == 1:  # a class token before the cells, registers behind them
        at = next(place for place, one in enumerate(inputs) if one is holders[0])
        role = (holders[0].layout or ())[axis]
        assert isinstance(role, Tokens)
        placed = replace(
            role,
            before=role.before
            + sum(one.shape[axis] for one in inputs[:at] if len(one.shape) > axis),
        )
        known = holders
    layouts = [one.layout for one in known if one.layout]
    joined = list(layouts[0])
    for place in range(len(joined)):
        if place != axis:
            joined[place] = _joined_role([layout[place] for layout in layouts])
    joined[axis] = placed
    return tuple(joined)


def _joined_role(roles: Sequence[Role]) -> Role:
    """The role of an axis of units that look at the same places, or at neighbours (merged patches): their middle."""

    def middle(one: Axis | None, other: Axis | None) -> Axis | None:
        return one if one and other and abs(one.step - other.step) < 1e-6 else None

    role = reduce(lambda a, b: _met_role(a, b, middle), roles)
    if isinstance(role, Side) and role.axis:
        starts = [one.axis.start for one in roles if isinstance(one, Side) and one.axis]
        # Neighbours lie less than a step of theirs apart; what looks further away looks
        # elsewhere.
        near = max(starts) - min(starts) < role.axis.step - 1e-6
        return Side(
            role.which,
            Axis((min(starts) + max(starts)) / 2, role.axis.step) if near else None,
        )
    if isinstance(role, Tokens):
        return reduce(_met_role, roles)
    return role


def _product(one: Known, other: Known, shape: tuple[int, ...]) -> Layout | None:
    """The roles of a matrix product: rows of the one, columns of the other; what is summed over is gone."""
    if len(shape) < 2:
        return None
    left = (
        one.layout
        if one.layout and len(one.layout) == len(shape)
        else (None,) * len(shape)
    )
    right = (
        other.layout
        if other.layout and len(other.layout) == len(shape)
        else (None,) * len(shape)
    )
    outer = [a or b for a, b in zip(left[:-2], right[:-2], strict=True)]
    return (*outer, left[-2], right[-1])


def _axis(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    default: int,
    dimensions: int,
    position: int = 1,
) -> int:
    given = kwargs.get(
        "dim", kwargs.get("axis", args[position] if len(args) > position else default)
    )
    return int(given) % max(dimensions, 1)


def divided_axis(args: tuple[Any, ...], kwargs: dict[str, Any], dimensions: int) -> int:
    """The axis along which a call such as `split` divides a tensor."""
    return _axis(args, kwargs, 0, dimensions, 2)


def _moved(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], layout: Layout, after: int
) -> Layout | None:
    """The roles after axes changed places."""
    count = len(layout)
    order = list(range(count))
    given = [
        *args[1:],
        *(value for keyword, value in kwargs.items() if keyword != "input"),
    ]
    if name == "permute":
        given = (
            list(given[0])
            if len(given) == 1 and not isinstance(given[0], int)
            else given
        )
        order = [int(axis) % count for axis in given]
    elif name in ("movedim", "moveaxis"):
        source, target = (
            [axis] if isinstance(axis, int) else list(axis) for axis in given[:2]
        )
        source, target = (
            [axis % count for axis in source],
            [axis % count for axis in target],
        )
        rest = iter([axis for axis in order if axis not in source])
        order = [
            source[target.index(place)] if place in target else next(rest)
            for place in order
        ]
    elif name == "T":
        order.reverse()
    elif count >= 2:
        one, other = (-2, -1) if name in ("mT", "t") else given[:2]
        order[one], order[other] = order[other], order[one]
    return tuple(layout[axis] for axis in order) if len(order) == after else None


def _reshaped(
    layout: Layout, before: tuple[int, ...], after: tuple[int, ...]
) -> Layout | None:
    """The roles after axes were merged, divided, left out or put in, in row-major order."""
    found: list[Role] = [None] * len(after)
    one = other = 0
    while one < len(before) or other < len(after):
        # Axes of length one come and go.
        if (
            one < len(before)
            and other < len(after)
            and before[one] == after[other] == 1
        ):
            found[other] = layout[one]
            one, other = one + 1, other + 1
            continue
        if one < len(before) and before[one] == 1:
            one += 1
            continue
        if other < len(after) and after[other] == 1:
            other += 1
            continue
        if one >= len(before) or other >= len(after):
            return None
        first, begin = one, other
        have, want = before[one], after[other]
        one, other = one + 1, other + 1
        while have != want:
            if have < want and one < len(before):
                have, one = have * before[one], one + 1
            elif want < have and other < len(after):
                want, other = want * after[other], other + 1
            else:
                return None
        taken = [place for place in range(first, one) if before[place] > 1]
        given = [place for place in range(begin, other) if after[place] > 1]
        roles = _regrouped(
            [(layout[p], before[p]) for p in taken], [after[p] for p in given]
        )
        for place, role in zip(given, roles, strict=True):
            found[place] = role
    return tuple(found)


def _regrouped(taken: list[tuple[Role, int]], given: list[int]) -> list[Role]:
    """The roles of axes of lengths `given` that were made, in row-major order, of the axes `taken`."""
    roles = [role for role, _ in taken]
    if len(taken) == len(given) == 1:
        return roles
    one = roles[0] if len(roles) == 1 else None
    if len(roles) == 2 and len(given) == 1:
        rows, cols = roles
        if (
            isinstance(rows, Side)
            and isinstance(cols, Side)
            and (rows.which, cols.which) == ("row", "col")
        ):
            return [Tokens(taken[0][1], taken[1][1], 0, rows.axis, cols.axis)]
    if isinstance(one, Tokens) and one.before == 0 and given == [one.rows, one.cols]:
        return [Side("row", one.row_axis), Side("col", one.col_axis)]
    if (
        isinstance(one, Side) and len(given) == 2
    ):  # cut into patches, each of which lies in their middle
        patch = one.axis.windowed(given[1], given[1], 0) if one.axis else None
        return [Side(one.which, patch), None]
    return [None] * len(given)


def _index(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], dimensions: int
) -> Any:
    """What a call takes from a tensor, written as the index of a `[…]`."""
    if name == "__getitem__":
        return args[1]
    axis = _axis(args, kwargs, 0, dimensions)
    if name == "narrow":
        start = args[2] if len(args) > 2 else kwargs["start"]
        length = args[3] if len(args) > 3 else kwargs["length"]
        return tuple([slice(None)] * axis + [slice(start, start + length)])
    return tuple(
        [slice(None)] * axis + [0]
    )  # all that `unbind` and `select` give lies the same


def _indexed(index: Any, layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The roles after plain indices and slices such as x[:, 1:] and x[:, :, ::2]; None after any other choice."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(
        part is None or part is Ellipsis or isinstance(part, (int, slice))
        for part in parts
    ):
        return None
    consuming = sum(part is not None and part is not Ellipsis for part in parts)
    dots = next(
        (place for place, part in enumerate(parts) if part is Ellipsis), len(parts)
    )
    parts[dots : dots + 1] = [slice(None)] * (len(layout) - consuming)
    found: list[Role] = []
    axes = iter(zip(layout, shape, strict=True))
    for part in parts:
        if part is None or isinstance(part, bool):
            found.append(None)
            continue
        role, length = next(axes)
        if isinstance(part, slice):
            found.append(_cut(role, *part.indices(length)))
    return tuple(found)


def _cut(role: Role, begin: int, end: int, stride: int) -> Role:
    """The role of an axis after a slice."""
    if isinstance(role, Side):
        return Side(
            role.which,
            role.axis
            and Axis(role.axis.start + role.axis.step * begin, role.axis.step * stride),
        )
    if isinstance(role, Tokens):
        whole = stride == 1 and begin <= role.before and end >= role.before + role.cells
        return replace(role, before=role.before - begin) if whole else None
    return None


def _over_last_two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a mean is over the last two of four axes, so that these are the rows and columns of a map."""
    axes = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    tensor = args[0] if args else kwargs.get("input")
    four = isinstance(tensor, Tensor) and tensor.ndim == 4
    return (
        four
        and isinstance(axes, (tuple, list))
        and {int(axis) % 4 for axis in axes} == {2, 3}
    )


def _windowed(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    layout: Layout,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Layout | None:
    """The roles of what a function of (batch, unit, row, col) gives."""
    if len(after) != 4:
        return None
    found: list[Role] = [None, None]
    for side in (0, 1):
        role, have, made = layout[2 + side], before[2 + side], after[2 + side]
        if not isinstance(role, Side):
            return None
        axis = role.axis
        if axis is not None:
            if name in WINDOWS:
                axis = axis.windowed(*_window(name, args, kwargs, side))
            elif name in RESAMPLERS:
                axis = axis.resampled(have, made, bool(kwargs.get("align_corners")))
            elif have != made or (
                name == "conv_transpose2d" and _of(_stride(args, kwargs), side) != 1
            ):
                # A normalisation keeps the cells; a transposed convolution of stride
                # one does if it keeps the shape.
                axis = None
        found.append(Side(role.which, axis))
    return tuple(found)


def _stride(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[3] if len(args) > 3 else kwargs.get("stride", 1)


def _window(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], side: int
) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a window along rows (side 0) or columns (side 1)."""

    def given(position: int, keyword: str, default: Any) -> Any:
        value = args[position] if len(args) > position else kwargs.get(keyword, default)
        return default if value is None or value == [] else value

    if name == "conv2d":
        kernel = (args[1] if len(args) > 1 else kwargs["weight"]).shape[-2:]
        stride, padding, dilation = (
            given(3, "stride", 1),
            given(4, "padding", 0),
            given(5, "dilation", 1),
        )
    else:
        kernel = given(1, "kernel_size", 1)
        stride, padding = given(2, "stride", kernel), given(3, "padding", 0)
        dilation = 1 if name == "avg_pool2d" else given(4, "dilation", 1)
    k, s, d = _of(kernel, side), _of(stride, side), _of(dilation, side)
    if isinstance(
        padding, str
    ):  # "same" puts the odd pixel of padding behind, as torch does
        return k, s, {"same": d * (k - 1) // 2, "valid": 0}[padding], d
    return k, s, _of(padding, side), d


def _unfolded(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    layout: Layout,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Layout | None:
    """The roles of (batch, unit · kernel, token): patches, one a token."""

    def given(position: int, keyword: str, default: Any, side: int) -> int:
        return _of(
            args[position] if len(args) > position else kwargs.get(keyword, default),
            side,
        )

    axes, counts = [], []
    for side in (0, 1):
        k, d = given(1, "kernel_size", 1, side), given(2, "dilation", 1, side)
        p, s = given(3, "padding", 0, side), given(4, "stride", 1, side)
        role = layout[2 + side]
        axes.append(
            role.axis.windowed(k, s, p, d)
            if isinstance(role, Side) and role.axis
            else None
        )
        counts.append((before[2 + side] + 2 * p - d * (k - 1) - 1) // s + 1)
    if math.prod(counts) != after[2]:
        return None
    return (None, None, Tokens(counts[0], counts[1], 0, axes[0], axes[1]))


def _padded(args: tuple[Any, ...], kwargs: dict[str, Any], layout: Layout) -> Layout:
    """The roles after padding: amounts come in pairs (before, behind) from the last axis on."""
    amounts = args[1] if len(args) > 1 else kwargs["pad"]
    found = list(layout)
    for place, amount in enumerate(amounts[::2]):
        role = found[-1 - place]
        if isinstance(role, Side) and role.axis:
            found[-1 - place] = Side(
                role.which,
                Axis(role.axis.start - amount * role.axis.step, role.axis.step),
            )
        elif isinstance(role, Tokens) and amount + role.before >= 0:
            found[-1 - place] = replace(role, before=role.before + amount)
        elif isinstance(role, Tokens):
            found[-1 - place] = None
    return tuple(found)


def _of(value: Any, side: int) -> int:
    if isinstance(value, (tuple, list, torch.Size)):
        return int(value[0] if side == 0 else value[-1])
    return int(value)
