"""Unfollowed: what stands in the way of an account of the residual stream, in words."""

from __future__ import annotations

from collections.abc import Sequence

from unitscope.errors import HeadError
from unitscope.residual.attention import mixes_tokens
from unitscope.residual.mixing import EINSUM, PRODUCTS
from unitscope.residual.rows import MOVING
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ACTIVATIONS,
    ATTENTIONS,
    CASTS,
    CELL_MIXERS,
    CHANNELS_FIRST,
    COPIES,
    ELEMENTWISE_PRODUCTS,
    LINEAR_FUNCTIONS,
    MATRIX_PRODUCTS,
    NORMALISATIONS,
    REDUCTIONS,
    SOFTMAXES,
    TAKINGS,
)

# Mix tokens, or cells.
MIXERS = (
    ATTENTIONS
    | CELL_MIXERS
    | MATRIX_PRODUCTS
    | CHANNELS_FIRST - {"batch_norm"}
    | {"roll", "conv1d"}
) - {"addmm", "mm", "matmul", "__matmul__"}

UNITS_ONLY = (
    "no token attends to others: its attention mixes units with each other"
)

_POOLS = REDUCTIONS | {
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "max_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
}


class NoAttentionError(HeadError):
    """The network has no attention."""


def attends(call: Call) -> bool:
    """Whether a call is attention: fused, or a product with what a softmax gave."""
    if call.name in ATTENTIONS or _weighs_chosen(call):
        return True
    if not mixes_tokens(call):
        return False
    return any(_is_softmaxed(each) for each in call.inputs)


def _weighs_chosen(call: Call) -> bool:
    """Whether a softmax weighs tokens that every token chose for itself."""
    if call.name not in PRODUCTS | ELEMENTWISE_PRODUCTS | {EINSUM}:
        return False
    return any(map(_is_softmaxed, call.inputs)) and any(
        map(_is_chosen, call.inputs)
    )


def _is_chosen(call: Call) -> bool:
    """Whether numbers were taken from places that other numbers name."""
    while call.name in MOVING | CASTS | COPIES and len(call.inputs) == 1:
        (call,) = call.inputs
    # An index that is a tensor is among the inputs.
    return call.name in TAKINGS and len(call.inputs) > 1


def _is_softmaxed(call: Call) -> bool:
    """Whether numbers are a softmax, or were made of one by a few calls."""
    frontier = [call]
    for _ in range(12):
        if not frontier:
            return False
        call = frontier.pop(0)
        if call.name in SOFTMAXES:
            return True
        if call.name not in PRODUCTS | ATTENTIONS:
            frontier += call.inputs[:2]
    return False


def in_words(ends: Sequence[Call], branches: Sequence[Sequence[Call]]) -> str:
    """Why a walk from the logits met no attention.

    `ends` are the calls that ended it, in turn; `branches` what layers computed that
    write to the logits: one of them where these do not come from a sum.
    """
    if any(_is_factorised(call) for branch in branches for call in branch):
        return (
            "the token that is read takes from others by products in which no token has "
            "a weight of its own (factorised attention)"
        )
    if len(branches) > 1:
        return "the logits are not read from a token that attends to others, token by token"
    for end in ends:
        found = _attention_before(end)
        if found is not None and _weighs_chosen(found):
            return (
                "every token chooses the tokens that it attends to, which then have no "
                "places: set the scores of all others to -inf before the softmax instead"
            )
        if found is not None:
            apart = ": keep photos and heads on axes of their own"
            return (
                f"between attention and what it writes, the way back from the logits ends "
                f"at '{end.name}'{apart if end.name in MOVING else ''}"
            )
    call = ends[0] if ends else None
    if call is None or call.name in _POOLS:
        return (
            "the logits are read from a pool of all tokens, not from a token that "
            "attends to others"
        )
    if call.name in ACTIVATIONS:
        return (
            f"'{call.name}' stands between the token that is read and the logits, "
            "which are then no sum of what was written"
        )
    return (
        "the logits are not read from a token that attends to others: the way back from "
        f"them ends at '{call.name}'"
    )


def _attention_before(call: Call) -> Call | None:
    """The attention whose result a call changes, with no layer between; None where none."""
    waiting, seen = [call], {id(call)}
    while waiting:
        call = waiting.pop(0)
        if attends(call):
            return call
        if call.name not in LINEAR_FUNCTIONS | NORMALISATIONS:
            waiting += [each for each in call.inputs if id(each) not in seen]
            seen.update(map(id, call.inputs))
    return None


def _is_factorised(call: Call) -> bool:
    """Whether a product takes what another product gave, with no softmax between."""
    if call.name not in PRODUCTS or not mixes_tokens(call):
        return False
    return any(
        each.name in PRODUCTS and mixes_tokens(each) for each in call.inputs
    )
