"""Fused: the weights and values of one token in functions that are attention in one call."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, pad

from unitscope.residual.mixing import Letters, ordered
from unitscope.tracing.arguments import WithArguments


def of_fused(
    call: WithArguments, query: int, letters: Letters, heads: int
) -> tuple[Tensor, Tensor]:
    """Weights (photo, head, token) of one query, and values, of the fused function.

    `letters` are those of the result.
    """
    asking, key, value = (
        call.argument(place, name)
        for place, name in enumerate(("query", "key", "value"))
    )
    mask = call.argument(3, "attn_mask")
    scale = call.kwargs.get("scale")
    scale = asking.shape[-1] ** -0.5 if scale is None else scale
    tokens = key.shape[-2]
    repeats = 1
    if call.kwargs.get("enable_gqa", False):
        repeats = asking.shape[-3] // key.shape[-3]

    def by_head(tensor: Tensor, wanted: str, letters: Letters) -> Tensor:
        count = tensor.shape[letters.index("h")] if "h" in letters else heads
        return ordered(plain(tensor), letters, wanted, count)

    row = by_head(asking[..., query : query + 1, :], "bhqd", letters)
    of_keys = tuple("k" if one == "q" else one for one in letters)
    key, value = (by_head(each, "bhkd", of_keys) for each in (key, value))
    if repeats > 1:
        key = key.repeat_interleave(repeats, dim=1)
        value = value.repeat_interleave(repeats, dim=1)
    scores = row @ key.transpose(-2, -1) * scale
    if mask is not None:
        mask = mask.expand(*asking.shape[:-1], tokens)[
            ..., query : query + 1, :
        ]
        of_mask = tuple("k" if one == "d" else one for one in letters)
        mask = ordered(mask, of_mask, "bhqk", heads)
        # True means that a token takes part.
        scores = _masked(scores, ~mask if mask.dtype is torch.bool else mask)
    if call.argument(5, "is_causal", False):
        scores[..., query + 1 :] = -math.inf
    return scores.softmax(dim=-1)[:, :, 0], value


def of_whole(
    call: WithArguments, heads: int, query: int | None
) -> tuple[Tensor, Tensor]:
    """Scores (photo, head, query, token) and values, of multi-head attention in one call.

    The scores of one query, or of all. Tensors are (token, photo, unit) there.
    """
    asking, key, value = (
        plain(call.argument(place, name))
        for place, name in enumerate(("query", "key", "value"))
    )
    wanted = slice(None) if query is None else slice(query, query + 1)
    of_query, of_key, of_value = _projections(call)
    asking = _projected(asking[wanted], of_query, heads)
    tokens = len(value)
    value = _with_extra(_projected(value, of_value, heads), call, 1)
    added = value.shape[2] - tokens
    if query is None or added:
        key = _with_extra(_projected(key, of_key, heads), call, 0)
        scores = asking @ key.transpose(-2, -1)
    else:
        scores = _scores_of_one(asking, key, *of_key)
    scores = scores * asking.shape[-1] ** -0.5

    mask = call.argument(16, "attn_mask")
    if mask is not None:
        if mask.ndim == 3:
            mask = mask.reshape(-1, heads, *mask.shape[1:])
        mask = pad(mask, (0, added))
        # True means that a token is left out.
        scores = _masked(scores, mask[..., wanted, :])
    padding = call.argument(14, "key_padding_mask")
    if padding is not None:
        padding = pad(padding, (0, added))
        scores = _masked(scores, padding[:, None, None])
    return scores, value


def _scores_of_one(
    asking: Float[Tensor, "photo head 1 unit"],
    key: Float[Tensor, "token photo input"],
    weight: Float[Tensor, "headunit input"],
    bias: Float[Tensor, " headunit"] | None,
) -> Float[Tensor, "photo head 1 token"]:
    """The scores of one query: its weights on the keys' inputs need no keys."""
    heads = asking.shape[1]
    by_head = weight.reshape(heads, -1, weight.shape[1])
    on_inputs = torch.einsum("phqu,hui->phqi", asking, by_head)
    scores = torch.einsum("phqi,tpi->phqt", on_inputs, key)
    if bias is None:
        return scores
    return scores + asking @ bias.reshape(heads, -1, 1)


def _with_extra(
    tokens: Float[Tensor, "photo head token unit"],
    call: WithArguments,
    place: int,
) -> Float[Tensor, "photo head token2 unit"]:
    """Keys (place 0) or values with the learnt token, and that of zeros, if any."""
    extra = call.argument(7 + place, ("bias_k", "bias_v")[place])
    if extra is not None:
        one = _by_head(plain(extra), tokens.shape[1]).expand(
            len(tokens), -1, -1, -1
        )
        tokens = torch.cat([tokens, one], dim=2)
    if call.argument(9, "add_zero_attn", False):
        tokens = pad(tokens, (0, 0, 0, 1))
    return tokens


def _projected(
    inputs: Float[Tensor, "token photo input"],
    projection: tuple[Tensor, Tensor | None],
    heads: int,
) -> Float[Tensor, "photo head token unit"]:
    """Queries, keys or values of inputs."""
    # Photos first, as most networks have them: else it is a product for every token.
    made = linear(inputs.transpose(0, 1).contiguous(), *projection)
    return _by_head(made.transpose(0, 1), heads)


def _by_head(
    units: Float[Tensor, "token photo headunit"], heads: int
) -> Float[Tensor, "photo head token unit"]:
    tokens, photos, _ = units.shape
    return units.reshape(tokens, photos, heads, -1).permute(1, 2, 0, 3)


def _projections(call: WithArguments) -> list[tuple[Tensor, Tensor | None]]:
    """Weights and biases that make queries, keys and values."""
    if call.argument(17, "use_separate_proj_weight", False):
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        weights = [
            call.argument(18 + place, name) for place, name in enumerate(names)
        ]
    else:
        weights = list(call.argument(5, "in_proj_weight").chunk(3))
    bias = call.argument(6, "in_proj_bias")
    biases = (
        [None] * 3 if bias is None else [plain(each) for each in bias.chunk(3)]
    )
    return list(zip(map(plain, weights), biases, strict=True))


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with a mask: True leaves a token out, a number is added."""
    if mask.dtype is torch.bool:
        return scores.masked_fill(mask, -math.inf)
    return scores + mask.to(scores)


def plain(tensor: Tensor) -> Tensor:
    """A tensor in float32, without gradients."""
    return tensor.detach().to(torch.float32)
