"""Refusal: why a network has no exact head, in words."""

from __future__ import annotations

import math

from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ELEMENTWISE_PRODUCTS,
    PROBABILITIES,
    SUM_SIGNS,
    UNIT_QUOTIENTS,
)

WANTED = "exact maps need a feature map, a global average pool and one linear layer at the end"

_WORDS = {
    "relu": "a hidden layer (an MLP head, as in AlexNet or VGG)",
    "gelu": "a hidden layer (an MLP head)",
    "silu": "a hidden layer (an MLP head)",
    "hardswish": "a hidden layer (an MLP head, as in MobileNet v3)",
    "hardtanh": "a hidden layer (an MLP head)",
    "tanh": "a hidden layer (an MLP head)",
    "layer_norm": "a layer normalisation of something other than pooled units",
    "group_norm": "a group normalisation of something other than pooled units",
    "rms_norm": "a normalisation of something other than pooled units",
    "batch_norm": "a batch normalisation",
    "softmax": "a softmax",
    "log_softmax": "a log-softmax",
    "sigmoid": "a sigmoid",
    "constant": "a tensor that torch did not compute from the photo",
    "normalize": "a normalisation to unit length",
    "cat": "a concatenation",
    **dict.fromkeys(SUM_SIGNS, "a sum"),
    **dict.fromkeys(UNIT_QUOTIENTS, "a division"),
    **dict.fromkeys(ELEMENTWISE_PRODUCTS, "a multiplication"),
    **dict.fromkeys(
        ("adaptive_max_pool2d", "max_pool2d", "amax", "max"), "a maximum pool"
    ),
    "scaled_dot_product_attention": "an attention pool",
}


def refusal(call: Call, linear: Call | None) -> str:
    """Why there is no exact head: which call stands in its place, and what is wanted.

    `linear` is the linear layer after the call, if there is one.
    """
    while call.name in ("permute", "transpose") and call.inputs:
        call = call.inputs[0]
    words = _WORDS.get(call.name, f"'{call.name}'")

    if linear is None:
        remedy = ""
        if call.name in PROBABILITIES:
            remedy = "wrap it without that, so that it gives logits; "
        return (
            f"the network ends in {words}, not in a linear layer or a pool: "
            f"{remedy}{WANTED}"
        )
    if len(call.shape) == 4 and math.prod(call.shape[1:]) != max(
        call.shape[1:]
    ):
        shape = "×".join(map(str, call.shape[1:]))
        return (
            f"the last linear layer reads a flattened {shape} map, cell by cell, not a "
            f"pooled one: {WANTED}"
        )
    if call.name == "__getitem__":
        is_token = bool(call.inputs) and len(call.inputs[0].shape) == 3
        words = "a token (as in ViT)" if is_token else "a selection of units"
    return (
        f"before the last linear layer stands {words} instead of a global "
        f"average pool: {WANTED}"
    )
