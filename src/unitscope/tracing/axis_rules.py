"""Axis rules: the roles of the axes of a call's result, from those of its arguments.

One table says which rule belongs to which torch function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from unitscope.tracing.combining import (
    attended,
    mixed,
    multiplied,
    stacked,
    summed,
)
from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.functions import (
    ATTENTIONS,
    AXIS_REORDERINGS,
    CELL_MIXERS,
    CELLWISE,
    CHANNELS_FIRST,
    CHOICES_ALONG_AXIS,
    CONCATENATIONS,
    CONSTRUCTORS,
    DIVIDERS,
    FLIPS,
    LINEAR_LAYERS,
    MATRIX_PRODUCTS,
    RESHAPES,
    SELECTIONS,
)
from unitscope.tracing.joining import joined
from unitscope.tracing.reordering import (
    flipped,
    is_permutation,
    moved,
    permuted,
    respelled,
    reversed_axes,
    rolled,
    rotated,
    swapped,
)
from unitscope.tracing.reshaping import reshaped
from unitscope.tracing.roles import LOST, Layout, TracedTensor, without_place
from unitscope.tracing.selecting import (
    chosen_along,
    divided,
    selected,
    written,
)
from unitscope.tracing.windows import padded, unfolded, windowed

Rule: TypeAlias = Callable[[FunctionCall], Layout | None]


def _of_first(rule: Callable[[FunctionCall, Layout], Layout | None]) -> Rule:
    """A rule that needs the layout of the first argument, and is silent without it."""

    def of_first(call: FunctionCall) -> Layout | None:
        layout = call.first_layout
        if layout is None:
            return None
        return rule(call, layout)

    return of_first


def _of_map(call: FunctionCall) -> Layout | None:
    """The rule of functions that compute a map from a map, where they read one."""
    layout = call.first_layout
    if layout is not None and len(layout) == 4 and call.reads_map:
        return windowed(call, layout)
    return summed(call)


# A rule returns None where it cannot tell the roles. Functions without a rule may have
# put cells anywhere.
_RULES: dict[str, Rule] = {
    **dict.fromkeys(CELLWISE, summed),
    **dict.fromkeys(CHANNELS_FIRST | {"mean"}, _of_map),
    **dict.fromkeys(AXIS_REORDERINGS, _of_first(swapped)),
    **dict.fromkeys(("movedim", "moveaxis"), _of_first(moved)),
    "permute": _of_first(permuted),
    "einsum": _of_first(respelled),
    "T": _of_first(reversed_axes),
    **dict.fromkeys(RESHAPES, _of_first(reshaped)),
    **dict.fromkeys(SELECTIONS, _of_first(selected)),
    **dict.fromkeys(DIVIDERS, _of_first(divided)),
    **dict.fromkeys(FLIPS, _of_first(flipped)),
    "rot90": _of_first(rotated),
    "roll": _of_first(rolled),
    **dict.fromkeys(CHOICES_ALONG_AXIS, _of_first(chosen_along)),
    **dict.fromkeys(CONCATENATIONS, joined),
    **dict.fromkeys(MATRIX_PRODUCTS, multiplied),
    **dict.fromkeys(LINEAR_LAYERS, mixed),
    **dict.fromkeys(ATTENTIONS, attended),
    "stack": stacked,
    "unfold": _of_first(unfolded),
    "pad": _of_first(padded),
}

# Arguments, by place, that only say where numbers are taken or left.
_MASKS = {"masked_fill": 1, "masked_fill_": 1, "where": 0}

# Where the rule of one of these is silent, cells were mixed with weights: a shortcut
# around the function still knows its places.
_MIX_CELLS = MATRIX_PRODUCTS | ATTENTIONS | LINEAR_LAYERS

# Where the rule of one of these is silent, cells were merged or divided, not put
# elsewhere.
_KEEP_ORDER = (
    CELLWISE
    | RESHAPES
    | CONCATENATIONS
    | DIVIDERS
    | CHANNELS_FIRST
    | {"stack", "unbind", "unfold", "pad"}
)


def followed(call: FunctionCall) -> Layout | None:
    """The layout of a call's result; None where it does not depend on photo's cells."""
    inputs = call.inputs
    if call.name in CONSTRUCTORS or not any(tensor.layout for tensor in inputs):
        return None
    no_roles: Layout = (None,) * len(call.shape)

    if call.name == "__setitem__":
        return written(call)
    mixes = call.name in CELL_MIXERS or call.name.startswith("fft_")
    if mixes and not is_permutation(call):
        return no_roles

    layout = _by_rule(call)
    if layout is LOST:
        return LOST
    if call.name in _MIX_CELLS:
        return layout or no_roles

    if _takes_lost_cells(call):
        if layout is None or not any(layout):
            return LOST
        return tuple(map(without_place, layout))

    if layout is None and call.name not in _KEEP_ORDER:
        return LOST
    return layout or no_roles


def _by_rule(call: FunctionCall) -> Layout | None:
    """What the rule of a function says, of arguments whose cells are not lost."""
    rule = _RULES.get(call.name)
    if rule is None:
        return None

    inputs = []
    for tensor in call.inputs:
        if tensor.layout is LOST:
            tensor = TracedTensor(None, tensor.shape)
        inputs.append(tensor)
    return rule(replace(call, inputs=inputs))


def _takes_lost_cells(call: FunctionCall) -> bool:
    """Whether lost cells may be among those of the result."""
    mask = _MASKS.get(call.name)
    return any(
        tensor.layout is LOST
        and place != mask
        and _brings_cells(tensor.shape, call.shape)
        for place, tensor in enumerate(call.inputs)
    )


def _brings_cells(shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether a tensor has cells of its own, not one number for all, as a gate has."""
    cells_and_units = math.prod(shape[1:])
    if cells_and_units <= 1:
        return False
    if len(shape) != 4 or len(result) != 4:
        return True
    _, _, *cells = shape
    _, _, *result_cells = result
    is_gate = cells == [1, 1] and result_cells != [1, 1]
    return not is_gate
