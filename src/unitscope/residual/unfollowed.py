"""Unfollowed: what stands in the way of an account of the residual stream, in words."""

from __future__ import annotations

from collections.abc import Sequence

from unitscope.errors import HeadError
from unitscope.residual.attention import mixes_tokens
from unitscope.residual.mixing import PRODUCTS
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ACTIVATIONS,
    ATTENTIONS,
    CELL_MIXERS,
    CHANNELS_FIRST,
    MATRIX_PRODUCTS,
    REDUCTIONS,
    SOFTMAXES,
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
    if call.name in ATTENTIONS:
        return True
    if not mixes_tokens(call):
        return False
    return any(_is_softmaxed(each) for each in call.inputs)


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


def _is_factorised(call: Call) -> bool:
    """Whether a product takes what another product gave, with no softmax between."""
    if call.name not in PRODUCTS or not mixes_tokens(call):
        return False
    return any(
        each.name in PRODUCTS and mixes_tokens(each) for each in call.inputs
    )
