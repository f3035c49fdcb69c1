"""Mixing: which axes of a product are photos, heads, tokens and units.

Axes have letters: b photos, h heads, q tokens that ask, k tokens that are attended to, d
units of a head. An axis may hold photos and heads, "bh" or "hb" by which varies slower;
"1" is an axis of length one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from unitscope.residual.rows import PHOTO, PHOTOS, UNITS, Row
from unitscope.tracing.calls import Call

PRODUCTS = frozenset(("matmul", "__matmul__", "bmm"))
EINSUM = "einsum"

Letters: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Mixing:
    """The axes of both arguments of a product and of its result, by letters.

    `first` says whether the weights are the first argument.
    """

    weights: Letters
    values: Letters
    result: Letters
    first: bool = True

    @property
    def value_axis(self) -> int:
        """The axis of the values that holds the tokens."""
        return self.values.index("k")

    @property
    def query_axis(self) -> int:
        """The axis of the result that holds the tokens that ask."""
        return self.result.index("q")

    def heads(self, shape: tuple[int, ...]) -> int:
        """How many heads there are, by the shape of the result for two photos."""
        for letters, length in zip(self.result, shape, strict=True):
            if letters == "h":
                return length
            if "h" in letters:
                return length // PHOTOS
        return 1


def _divided(tensor: Tensor, axis: int, lengths: tuple[int, int]) -> Tensor:
    before, behind = tensor.shape[:axis], tensor.shape[axis + 1 :]
    return tensor.reshape(*before, *lengths, *behind)


def ordered(
    tensor: Tensor, letters: Letters, wanted: str, heads: int
) -> Tensor:
    """A tensor with its axes in the wanted order; of length one where it has none."""
    apart = "".join(letters)
    for axis in reversed(range(len(letters))):
        if letters[axis] == "bh":
            tensor = _divided(tensor, axis, (-1, heads))
        elif letters[axis] == "hb":
            tensor = _divided(tensor, axis, (heads, -1))
    for axis in reversed(range(len(apart))):
        if apart[axis] == "1":
            tensor = tensor.squeeze(axis)
    apart = apart.replace("1", "")
    tensor = tensor.permute(
        [apart.index(one) for one in wanted if one in apart]
    )
    for axis, one in enumerate(wanted):
        if one not in apart:
            tensor = tensor.unsqueeze(axis)
    return tensor


def disordered(tensor: Tensor, letters: Letters, had: str) -> Tensor:
    """A tensor with axes `had`, as long as those are, laid as the letters say."""
    apart = "".join(letters).replace("1", "")
    for axis in reversed(range(len(had))):
        if had[axis] not in apart:
            tensor = tensor.squeeze(axis)
            had = had[:axis] + had[axis + 1 :]
    tensor = tensor.permute([had.index(one) for one in apart])
    for axis, one in enumerate(letters):
        if one == "1":
            tensor = tensor.unsqueeze(axis)
        elif len(one) > 1:
            tensor = tensor.flatten(axis, axis + 1)
    return tensor


def mixing_at(call: Call, row: Row, merged: str = "") -> Mixing | None:
    """How a product mixes tokens for the one at a row of its result; None if it cannot.

    `merged` says how photos and heads share the first axis of the tensors, which are
    apart in the row.
    """
    if call.name not in PRODUCTS | {EINSUM} or len(call.inputs) != 2:
        return None
    axes = row.axes
    if merged:
        if merged != "".join(
            "b" if axis == PHOTO else "h" for axis in axes[:2]
        ):
            return None
        axes = (PHOTO, *axes[2:])
    if len(axes) != len(call.shape):
        return None
    if call.name == EINSUM:
        return _of_einsum(call, axes, merged)
    return _of_matrices(call, axes, merged)


def _of_matrices(
    call: Call, axes: tuple[int, ...], merged: str
) -> Mixing | None:
    one, other = (each.shape for each in call.inputs)
    if not 3 <= len(one) == len(other) == len(call.shape):
        return None
    shape = call.shape
    leading: list[str] = []
    for axis, length in zip(axes[:-2], shape, strict=False):
        letter = {PHOTO: merged or "b", UNITS: "h"}.get(axis)
        if letter is None:
            letter = "1" if length == 1 else None
        if letter is None:
            return None
        leading.append(letter)
    apart = "".join(leading)
    if "b" not in apart or apart.count("h") > 1:
        return None
    if one[:-2] != shape[:-2] or other[:-2] != shape[:-2]:
        return None
    before = tuple(leading)
    if axes[-1] == UNITS and axes[-2] >= 0:
        return Mixing(
            (*before, "q", "k"), (*before, "k", "d"), (*before, "q", "d")
        )
    if axes[-2] == UNITS and axes[-1] >= 0:
        return Mixing(
            (*before, "k", "q"),
            (*before, "d", "k"),
            (*before, "d", "q"),
            first=False,
        )
    return None


def _of_einsum(call: Call, axes: tuple[int, ...], merged: str) -> Mixing | None:
    terms = terms_of(call)
    if terms is None:
        return None
    *operands, result = terms
    by_name: dict[str, str] = {}
    for name, axis, length in zip(result, axes, call.shape, strict=True):
        if axis == PHOTO:
            by_name[name] = merged or "b"
        elif axis == UNITS:
            by_name[name] = "d"
        else:
            is_head = length == 1 and all(name in each for each in operands)
            by_name[name] = "h" if is_head else "q"
    asking = [name for name, letter in by_name.items() if letter == "q"]
    if len(asking) != 1:
        return None
    has_query = [asking[0] in each for each in operands]
    if has_query.count(True) != 1:
        return None
    first = has_query[0]
    weights, values = operands if first else reversed(operands)
    for name in result:
        # Of the vector's axes the heads are those that the weights have, too.
        if by_name[name] == "d" and name in weights:
            by_name[name] = "h"
    summed = (set(weights) | set(values)) - set(result)
    if len(summed) != 1 or not all(
        next(iter(summed)) in each for each in operands
    ):
        return None
    by_name[next(iter(summed))] = "k"
    made = (
        tuple(by_name[name] for name in each)
        for each in (weights, values, result)
    )
    return _checked(Mixing(next(made), next(made), next(made), first))


def _checked(mixing: Mixing) -> Mixing | None:
    """The same where every letter stands where it must, and only once."""
    needed: Mapping[str, tuple[str, str]] = {
        "weights": ("qk", "bh"),
        "values": ("bkd", "h"),
        "result": ("bqd", "h"),
    }
    for name, (must, may) in needed.items():
        letters = "".join(getattr(mixing, name))
        if len(set(letters)) != len(letters):
            return None
        if not set(must) <= set(letters) <= set(must + may):
            return None
    result = "".join(mixing.result)
    # Head behind head: units vary faster.
    if "h" in result and result.index("h") > result.index("d"):
        return None
    return mixing


def terms_of(call: Call) -> list[str] | None:
    """The letters of both operands and of the result of an einsum, as it is spelled."""
    equation = call.argument(0, "equation")
    if not isinstance(equation, str) or "->" not in equation:
        return None
    left, result = equation.replace(" ", "").split("->")
    terms = [*left.split(","), result]
    shapes = [*(each.shape for each in call.inputs), call.shape]
    if len(terms) != 3:
        return None
    spelled = []
    for term, shape in zip(terms, shapes, strict=True):
        if "..." in term:
            missing = len(shape) - len(term) + 3
            # Those that `...` stands for end alike.
            names = "".join(chr(ord("Α") + place) for place in range(missing))
            term = term.replace("...", names[::-1])
        if len(term) != len(shape) or len(set(term)) != len(term):
            return None
        spelled.append(term)
    return spelled
