"""Sums: through which of its arguments a function call is a sum with constant weights."""

from __future__ import annotations

from collections.abc import Sequence

from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ACTIVATIONS,
    ADDITIONS,
    ATTENTIONS,
    AXIS_REORDERINGS,
    CASTS,
    CONCATENATIONS,
    CONVOLUTIONS,
    COPIES,
    DIVIDERS,
    DROPOUTS,
    ELEMENTWISE_CHOICES,
    ELEMENTWISE_FUNCTIONS,
    ELEMENTWISE_PRODUCTS,
    FLIPS,
    MATRIX_PRODUCTS,
    MAXIMUM_POOLS,
    MEAN_POOLS,
    NORMALISATIONS,
    QUOTIENTS,
    REARRANGEMENTS,
    REPETITIONS,
    RESHAPES,
    SELECTIONS,
    SOFTMAXES,
    SUBTRACTIONS,
)

# Give the very numbers of their argument, in evaluation mode.
SAME_NUMBERS = CASTS | COPIES | DROPOUTS

_ATTRIBUTES = frozenset(("T", "mT", "H", "mH"))

# Put numbers elsewhere, and compute nothing.
CARRYING = (
    SAME_NUMBERS
    | RESHAPES
    | AXIS_REORDERINGS
    | SELECTIONS
    | DIVIDERS
    | CONCATENATIONS
    | REPETITIONS
    | FLIPS
    | REARRANGEMENTS
    | _ATTRIBUTES
)

# Sums over earlier units, with weights.
WEIGHTED = CONVOLUTIONS | MATRIX_PRODUCTS | frozenset(("linear",))

_TERMS = ADDITIONS | SUBTRACTIONS
_FIRST_ONLY = (
    WEIGHTED - MATRIX_PRODUCTS
    | QUOTIENTS
    | MEAN_POOLS
    | (CARRYING - CONCATENATIONS)
    | frozenset(("mean", "sum", "neg", "neg_", "__neg__", "interpolate"))
    | frozenset(("upsample", "batch_norm"))
)
_ONE_ONLY = ELEMENTWISE_PRODUCTS | MATRIX_PRODUCTS

# Positions of flags in the arguments of functions that take them.
_TRAINING = {"batch_norm": 5, "dropout": 2}


def summed(call: Call, moving: Sequence[bool]) -> list[int] | None:
    """The tensor arguments that a call is a sum of, by their place; None where it is none.

    `moving` says which of them depend on the photo: all others are constant weights. The
    rest of a sum is a constant.
    """
    places = [place for place, moves in enumerate(moving) if moves]
    name = call.name
    if _is_random(call) or _rounds(call):
        return None
    if name in _TERMS or name in CONCATENATIONS or name == "stack":
        return places
    if name in _FIRST_ONLY:
        return places if places == [0] else None
    if name in _ONE_ONLY:
        return places if len(places) == 1 else None
    return None


def is_elementwise(call: Call, moving: Sequence[bool]) -> bool:
    """Whether a call computes each number from the number in the same place alone."""
    if call.name == "glu" or not moving or not moving[0] or sum(moving) != 1:
        return False
    return call.name in (
        ACTIVATIONS | ELEMENTWISE_FUNCTIONS | ELEMENTWISE_CHOICES
    )


def why_no_sum(call: Call, moving: Sequence[bool]) -> str:
    """Why a call is no sum with constant weights, in words."""
    name = call.name
    if name == "input":
        return "the network's input"
    if name in MAXIMUM_POOLS:
        return "a maximum of cells"
    if name == "batch_norm":
        return (
            "a batch normalisation by the statistics of the photos themselves"
        )
    if name in NORMALISATIONS:
        return f"a normalisation ({name}), which divides by a number that the photo sets"
    if name in ATTENTIONS or name in SOFTMAXES:
        return f"attention ({name}), whose weights the photo sets"
    if name in MATRIX_PRODUCTS:
        return f"a product of two matrices that the photo sets ({name}), as in attention"
    if name in ELEMENTWISE_PRODUCTS | QUOTIENTS:
        return "a product of numbers that the photo sets (a gate)"
    if is_elementwise(call, moving):
        return f"an activation ({name.strip('_')})"
    if name in WEIGHTED:
        return f"a sum ({name}) with weights that the photo sets"
    if _is_random(call):
        return f"{name}, which drops numbers at random"
    return f"the function {name}, which is not known to be a sum"


def _is_random(call: Call) -> bool:
    """Whether a dropout drops, or a batch normalisation reads the batch."""
    if call.name == "batch_norm":
        return bool(call.argument(_TRAINING["batch_norm"], "training", False))
    if call.name in DROPOUTS:
        return bool(call.argument(_TRAINING["dropout"], "training", True))
    return False


def _rounds(call: Call) -> bool:
    return call.kwargs.get("rounding_mode") is not None
