"""Attention: the weights and values of one token, however the network spells attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from unitscope.residual.rows import PHOTO, PHOTOS, UNITS, Row
from unitscope.tracing.arguments import WithArguments
from unitscope.tracing.calls import Call

FUSED = "scaled_dot_product_attention"
WHOLE = "multi_head_attention_forward"
PRODUCTS = frozenset(("matmul", "__matmul__", "bmm"))


class Attended(NamedTuple):
    """What one token attends to, by head, float32.

    The token takes Σ_t weights[h,t] · values[h,t] from head h. What it takes from the
    heads `apart` is told patch by patch.
    """

    weights: Float[Tensor, "photo head token"]
    values: Float[Tensor, "photo head token unit"]
    apart: tuple[int, ...] = ()

    def scaled(self, keep: Float[Tensor, "photo head"]) -> Attended:
        """The same with every head multiplied by its number."""
        return self._replace(weights=self.weights * keep[..., None])

    def by_token(self) -> Float[Tensor, "photo token headunit"]:
        """What the token takes from every token, head behind head."""
        taken = self.weights[..., None] * self.values
        return taken.transpose(1, 2).flatten(2)

    def by_head(self) -> Float[Tensor, "photo head unit"]:
        """What the token takes from every head."""
        return (self.weights[:, :, None] @ self.values)[:, :, 0]


@dataclass(frozen=True)
class AttentionCall:
    """A call that mixes tokens, with weights that depend on the photo.

    `query` is the place of the token that is read among those that ask. `is_merged` says
    whether photos and heads share an axis, photo by photo.
    """

    index: int
    name: str
    query: int
    heads: int
    is_merged: bool = False

    @property
    def projects(self) -> bool:
        """Whether the call applies the output projection, too."""
        return self.name == WHOLE

    def projection(self, call: WithArguments) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the output projection that the call applies."""
        weight = call.argument(11, "out_proj_weight")
        bias = call.argument(12, "out_proj_bias")
        return _plain(weight), None if bias is None else _plain(bias)

    def attended(self, call: WithArguments) -> Attended:
        """What the token attends to, from the arguments of the call in a pass."""
        if self.name == FUSED:
            return self._of_scores(*_fused(call, self.query))
        if self.name == WHOLE:
            return self._of_scores(*_whole(call, self.heads, self.query))
        second = "mat2" if self.name == "bmm" else "other"
        weights = self._by_head(call.argument(0, "input"))
        values = self._by_head(call.argument(1, second))
        return Attended(_plain(weights[:, :, self.query]), _plain(values))

    def outputs(
        self, result: Tensor, call: WithArguments
    ) -> Float[Tensor, "photo head token unit"]:
        """What all tokens take from every head, from the call's arguments and result."""
        if not self.projects:
            return self._by_head(result)
        scores, values = _whole(call, self.heads, None)
        return scores.softmax(dim=-1) @ values

    def result_of(
        self,
        outputs: Float[Tensor, "photo head token unit"],
        result: Tensor,
        call: WithArguments,
    ) -> Tensor:
        """The call's result when all tokens take this from every head."""
        if not self.projects:
            return outputs.reshape(result.shape).to(result.dtype)
        # (photo, head, token, unit) → (token, photo, unit)
        joined = outputs.permute(2, 0, 1, 3).flatten(2)
        return linear(joined, *self.projection(call)).to(result.dtype)

    def _by_head(self, tensor: Tensor) -> Tensor:
        """(photo, head, token, unit), or (photo, head, token, token)."""
        if self.is_merged:
            return tensor.reshape(-1, self.heads, *tensor.shape[1:])
        return tensor if tensor.ndim == 4 else tensor[:, None]

    def _of_scores(self, scores: Tensor, values: Tensor) -> Attended:
        return Attended(scores.softmax(dim=-1)[:, :, 0], values)


def attention_at(call: Call, row: Row) -> AttentionCall | None:
    """The attention that a call is, for the token at a row of its result; else None."""
    if call.name == WHOLE:
        if len(call.shape) != 3 or row.axes[1:] != (PHOTO, UNITS):
            return None
        extra = ("bias_k", "bias_v", "static_k", "static_v")
        places = (7, 8, 21, 22)
        has_extra = any(
            call.argument(place, name) is not None
            for place, name in zip(places, extra, strict=True)
        )
        if has_extra or call.argument(9, "add_zero_attn", False):
            return None
        heads = int(call.argument(4, "num_heads"))
        return AttentionCall(call.index, call.name, row.axes[0], heads)

    if call.name not in PRODUCTS | {FUSED} or len(row.axes) not in (3, 4):
        return None
    photo, *head, query, unit = row.axes
    if photo != PHOTO or unit != UNITS or query < 0:
        return None
    if not mixes_tokens(call):
        return None
    is_merged = len(row.axes) == 4 and len(call.shape) == 3
    heads = 1
    if head:
        heads = call.shape[0] // PHOTOS if is_merged else call.shape[1]
        if head[0] not in (UNITS, 0) or (head[0] == 0 and heads > 1):
            return None
    return AttentionCall(call.index, call.name, query, heads, is_merged)


def mixes_tokens(call: Call) -> bool:
    """Whether a call mixes tokens, with weights that it is given or makes itself."""
    if call.name in (FUSED, WHOLE):
        return True
    # Weights (…, token, token) and values (…, token, unit).
    if call.name not in PRODUCTS or len(call.inputs) != 2:
        return False
    weights, values = (each.shape for each in call.inputs)
    if not 3 <= len(weights) == len(values) == len(call.shape) <= 4:
        return False
    return weights[:-2] == values[:-2] == call.shape[:-2]


def values_of(call: Call) -> Call:
    """The call that made the values that an attention call mixes."""
    return call.inputs[1 if call.name in PRODUCTS else 2]


def _fused(call: WithArguments, query: int) -> tuple[Tensor, Tensor]:
    """Scores (photo, head, 1, token) of one query, and values, of the fused function."""
    asking, key, value = (
        call.argument(place, name)
        for place, name in enumerate(("query", "key", "value"))
    )
    mask = call.argument(3, "attn_mask")
    scale = call.kwargs.get("scale")
    if asking.ndim == 3:
        asking, key, value = asking[:, None], key[:, None], value[:, None]
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask

    repeats = asking.shape[1] // key.shape[1]
    key = _plain(key).repeat_interleave(repeats, dim=1)
    value = _plain(value).repeat_interleave(repeats, dim=1)
    queries, tokens = asking.shape[2], key.shape[2]
    scale = asking.shape[-1] ** -0.5 if scale is None else scale
    row = _plain(asking[:, :, query : query + 1])
    scores = row @ key.transpose(-2, -1) * scale
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], queries, tokens)
        mask = mask[..., query : query + 1, :]
        # True means that a token takes part.
        scores = _masked(scores, ~mask if mask.dtype is torch.bool else mask)
    if call.argument(5, "is_causal", False):
        scores[..., query + 1 :] = -math.inf
    return scores, value


def _whole(
    call: WithArguments, heads: int, query: int | None
) -> tuple[Tensor, Tensor]:
    """Scores (photo, head, query, token) and values, of multi-head attention in one call.

    The scores of one query, or of all. Tensors are (token, photo, unit) there.
    """
    asking, key, value = (
        _plain(call.argument(place, name))
        for place, name in enumerate(("query", "key", "value"))
    )
    wanted = slice(None) if query is None else slice(query, query + 1)
    inputs = (asking[wanted], key, value)
    made = [
        _by_head(linear(x, weight, bias), heads)
        for x, (weight, bias) in zip(inputs, _projections(call), strict=True)
    ]
    asking, key, value = made
    scores = asking @ key.transpose(-2, -1) * asking.shape[-1] ** -0.5

    mask = call.argument(16, "attn_mask")
    if mask is not None:
        if mask.ndim == 3:
            mask = mask.reshape(-1, heads, *mask.shape[1:])
        # True means that a token is left out.
        scores = _masked(scores, mask[..., wanted, :])
    padding = call.argument(14, "key_padding_mask")
    if padding is not None:
        scores = _masked(scores, padding[:, None, None])
    return scores, value


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
        [None] * 3 if bias is None else [_plain(each) for each in bias.chunk(3)]
    )
    return list(zip(map(_plain, weights), biases, strict=True))


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with a mask: True leaves a token out, a number is added."""
    if mask.dtype is torch.bool:
        return scores.masked_fill(mask, -math.inf)
    return scores + mask.to(scores)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32)
