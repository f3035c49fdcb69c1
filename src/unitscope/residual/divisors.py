"""Divisors: recognise normalisations that a network writes out, by what they divide by."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from unitscope.attribution.head_walk import behind_guards, normalises_all
from unitscope.attribution.pooling import reduced_axes
from unitscope.residual.steps import number_of
from unitscope.tracing.arguments import tensors_in
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ADDITIONS,
    CASTS,
    COPIES,
    ELEMENTWISE_PRODUCTS,
    LENGTHS,
    QUOTIENTS,
    REVERSED_QUOTIENTS,
    SUBTRACTIONS,
    UNIT_NORMALISATIONS,
)

_POWERS = ("pow", "pow_", "__pow__")
_SQUARES = ("square", "square_")


class Divisor(NamedTuple):
    """What a vector is divided by: its length, or the root of its mean square.

    See `steps.Normalised` for the numbers.
    """

    kind: str
    eps: float = 0.0
    factor: float = 1.0
    beside: float = 0.0


def divisor_at(call: Call, position: int, vector: Call) -> Divisor | None:
    """What a product or quotient divides a tensor by, the argument at a position.

    None where the other argument is no number that the vectors of `vector`, along its
    last axis, set.
    """
    if len(call.inputs) != 2:
        return None
    other = _plain(call.inputs[1 - position])
    if other.shape != (*vector.shape[:-1], 1):
        return None
    if call.name in QUOTIENTS:
        length = behind_guards(other)
        if position == 0 and _is_length(length, vector):
            return Divisor("length", 1e-12)
        return _root(other, vector) if position == 0 else None
    if call.name not in ELEMENTWISE_PRODUCTS:
        return None
    if other.name in ("rsqrt", "rsqrt_"):
        return _mean_square(other.inputs[0], vector)
    if other.name in _POWERS and _exponent(other) == -0.5:
        return _mean_square(other.inputs[0], vector)
    is_inverse = other.name in ("reciprocal", *REVERSED_QUOTIENTS)
    is_one_over = other.name in REVERSED_QUOTIENTS and number_of(other) != 1
    if is_inverse and not is_one_over and len(other.inputs) == 1:
        return _root(_plain(other.inputs[0]), vector)
    return None


def normalisation_at(call: Call) -> str | None:
    """What a normalisation of vectors divides by; None where it takes more than those."""
    if call.name == "group_norm" and len(call.shape) != 2:
        return None
    if not normalises_all(call, call.shape[-1]):
        return None
    return UNIT_NORMALISATIONS[call.name]


def is_centred(call: Call) -> bool:
    """Whether a call gives vectors, along the last axis, minus the mean of each."""
    if call.name not in SUBTRACTIONS or call.name in ("rsub", "__rsub__"):
        return False
    if len(call.inputs) != 2 or call.kwargs.get("alpha", 1) != 1:
        return False
    vector, mean = map(_plain, call.inputs)
    if call.shape != vector.shape or mean.shape != (*call.shape[:-1], 1):
        return False
    is_mean = mean.name == "mean" or (mean.name, mean.place) in (
        ("var_mean", 1),
        ("std_mean", 1),
    )
    return is_mean and _along_units(mean) and _plain(mean.inputs[0]) is vector


def _is_length(call: Call, vector: Call) -> bool:
    if call.name not in LENGTHS or not call.inputs:
        return False
    return call.inputs[0] is vector


def _root(call: Call, vector: Call) -> Divisor | None:
    """The divisor that a root, or a deviation, with something added to it is."""
    beside = 0.0
    if call.name in ADDITIONS:
        number = _number_beside(call)
        if number is None:
            return None
        beside, call = number, _plain(call.inputs[0])
    found: Divisor | None = None
    if call.name in ("sqrt", "sqrt_") or (
        call.name in _POWERS and _exponent(call) == 0.5
    ):
        found = _mean_square(call.inputs[0], vector)
    elif call.name == "std" or (call.name, call.place) == ("std_mean", 0):
        found = _variance(call, vector)
    return None if found is None else found._replace(beside=beside)


def _mean_square(call: Call, vector: Call) -> Divisor | None:
    """The mean of squares of a vector, with something added to it."""
    call = _plain(call)
    eps = 0.0
    if call.name in ADDITIONS:
        number = _number_beside(call)
        if number is None:
            return None
        eps, call = number, _plain(call.inputs[0])
    if call.name == "var" or (call.name, call.place) == ("var_mean", 0):
        found = _variance(call, vector)
        return None if found is None else found._replace(eps=eps)
    if call.name != "mean" or not _along_units(call):
        return None
    squares = _plain(call.inputs[0])
    is_square = squares.name in _SQUARES or (
        squares.name in _POWERS and _exponent(squares) == 2
    )
    if squares.name in ELEMENTWISE_PRODUCTS and len(squares.inputs) == 2:
        is_square = _plain(squares.inputs[0]) is _plain(squares.inputs[1])
    if is_square and _plain(squares.inputs[0]) is _plain(vector):
        return Divisor("root mean square", eps)
    return None


def _variance(call: Call, vector: Call) -> Divisor | None:
    """The variance of the numbers that a vector has after it was centred."""
    vector = _plain(vector)
    if not is_centred(vector) or not _along_units(call):
        return None
    read = _plain(call.inputs[0])
    if read is not vector and read is not _plain(vector.inputs[0]):
        return None
    correction = call.kwargs.get("correction")
    if correction is None:
        positional = call.args[2] if len(call.args) > 2 else True
        correction = int(bool(call.kwargs.get("unbiased", positional)))
    units = read.shape[-1]
    return Divisor("root mean square", factor=units / (units - correction))


def _along_units(call: Call) -> bool:
    """Whether a reduction takes the last axis alone."""
    dimensions = len(call.inputs[0].shape)
    return reduced_axes(call, dimensions) == {dimensions - 1}


def _number_beside(call: Call) -> float | None:
    """The constant number that a sum adds to a tensor."""
    if len(call.inputs) == 1:
        return number_of(call)
    tensors = list(tensors_in((call.args, call.kwargs)))
    other = tensors[1] if len(tensors) == 2 else None
    # A trace keeps no numbers of tensors.
    if other is None or other.is_meta or other.numel() != 1:
        return None
    return float(other)


def _exponent(call: Call) -> float | None:
    exponent = call.argument(1, "exponent")
    if isinstance(exponent, Tensor):
        return None  # A trace keeps no numbers of tensors.
    return float(exponent) if isinstance(exponent, (int, float)) else None


def _plain(call: Call) -> Call:
    """The call that made the numbers, behind casts and copies."""
    while call.name in CASTS | COPIES and call.inputs:
        call = call.inputs[0]
    return call
