"""Attention: the weights and values of one token, however the network spells attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from unitscope.residual.fused import of_fused, of_whole, plain
from unitscope.residual.mixing import (
    EINSUM,
    PRODUCTS,
    Mixing,
    disordered,
    mixing_at,
    ordered,
)
from unitscope.residual.rows import PHOTO, UNITS, Row
from unitscope.tracing.arguments import WithArguments, tensors_in
from unitscope.tracing.calls import Call

FUSED = "scaled_dot_product_attention"
WHOLE = "multi_head_attention_forward"

# The axes of what all tokens take from heads.
_OUTPUTS = "bhqd"


class Attended(NamedTuple):
    """What one token takes from every token through every head, float32.

    `weights` are its attention. What it takes from the heads `apart` is told patch by
    patch.
    """

    weights: Float[Tensor, "photo head token"]
    taken: Float[Tensor, "photo head token unit"]
    apart: tuple[int, ...] = ()

    def scaled(self, keep: Float[Tensor, "photo head"]) -> Attended:
        """The same with every head multiplied by its number."""
        return self._replace(
            weights=self.weights * keep[..., None],
            taken=self.taken * keep[..., None, None],
        )

    def by_token(self) -> Float[Tensor, "photo token headunit"]:
        """What the token takes from every token, head behind head."""
        return self.taken.transpose(1, 2).flatten(2)

    def by_head(self) -> Float[Tensor, "photo head unit"]:
        """What the token takes from every head."""
        return self.taken.sum(dim=2)


@dataclass(frozen=True)
class AttentionCall:
    """A call that mixes tokens, with weights that depend on the photo.

    `query` is the place of the token that is read among those that ask. `mixing` says
    which axes are which; it is None for multi-head attention in one call, whose tensors
    are (token, photo, unit).
    """

    index: int
    name: str
    query: int
    heads: int
    mixing: Mixing | None = None

    @property
    def projects(self) -> bool:
        """Whether the call applies the output projection, too."""
        return self.name == WHOLE

    @property
    def query_axis(self) -> int:
        """The axis of the result that holds the tokens that ask."""
        return 0 if self.mixing is None else self.mixing.query_axis

    @property
    def value_axis(self) -> int:
        """The axis of the values that holds the tokens that are attended to."""
        return 0 if self.mixing is None else self.mixing.value_axis

    def values_of(self, call: Call) -> Call:
        """The call that made the values."""
        if self.name in (FUSED, WHOLE):
            return call.inputs[2]
        assert self.mixing is not None
        return call.inputs[1 if self.mixing.first else 0]

    def projection(self, call: WithArguments) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the output projection that the call applies."""
        weight = call.argument(11, "out_proj_weight")
        bias = call.argument(12, "out_proj_bias")
        return plain(weight), None if bias is None else plain(bias)

    def attended(self, call: WithArguments) -> Attended:
        """What the token attends to, from the arguments of the call in a pass."""
        if self.mixing is None:
            scores, values = of_whole(call, self.heads, self.query)
            weights = scores.softmax(dim=-1)[:, :, 0]
        elif self.name == FUSED:
            letters = self.mixing.result
            weights, values = of_fused(call, self.query, letters, self.heads)
        else:
            weights, values = self._of_product(call, self.mixing)
        # A new tensor: the values may be overwritten later.
        taken = weights[..., None] * values
        return Attended(weights.expand(taken.shape[:-1]).clone(), taken)

    def _of_product(
        self, call: WithArguments, mixing: Mixing
    ) -> tuple[Tensor, Tensor]:
        both = list(tensors_in((call.args, call.kwargs)))
        weights, values = both if mixing.first else reversed(both)
        row = weights.select(mixing.weights.index("q"), self.query)
        letters = tuple(one for one in mixing.weights if one != "q")
        return (
            ordered(plain(row), letters, "bhk", self.heads),
            ordered(plain(values), mixing.values, "bhkd", self.heads),
        )

    def outputs(
        self, result: Tensor, call: WithArguments
    ) -> Float[Tensor, "photo head token unit"]:
        """What all tokens take from every head, from the call's arguments and result."""
        if self.mixing is not None:
            letters = self.mixing.result
            return ordered(result, letters, _OUTPUTS, self.heads)
        scores, values = of_whole(call, self.heads, None)
        return scores.softmax(dim=-1) @ values

    def result_of(
        self,
        outputs: Float[Tensor, "photo head token unit"],
        result: Tensor,
        call: WithArguments,
    ) -> Tensor:
        """The call's result when all tokens take this from every head."""
        if self.mixing is not None:
            laid = disordered(outputs, self.mixing.result, _OUTPUTS)
            return laid.to(result.dtype)
        # (photo, head, token, unit) → (token, photo, unit)
        joined = outputs.permute(2, 0, 1, 3).flatten(2)
        return linear(joined, *self.projection(call)).to(result.dtype)


def attention_at(
    call: Call, row: Row, merged: str = ""
) -> AttentionCall | None:
    """The attention that a call is, for the token at a row of its result; else None.

    `merged` says how photos and heads share the first axis: see `mixing_at`.
    """
    if call.name == WHOLE:
        if len(call.shape) != 3 or row.axes[1:] != (PHOTO, UNITS):
            return None
        if row.axes[0] < 0 or call.argument(21, "static_k") is not None:
            return None
        heads = int(call.argument(4, "num_heads"))
        return AttentionCall(call.index, call.name, row.axes[0], heads)

    if call.name == FUSED:
        mixing = _of_fused(call, row, merged)
    else:
        mixing = mixing_at(call, row, merged)
    if mixing is None:
        return None
    axes = row.axes[1:] if merged else row.axes
    query = axes[mixing.query_axis]
    heads = mixing.heads(call.shape)
    return AttentionCall(call.index, call.name, query, heads, mixing)


def _of_fused(call: Call, row: Row, merged: str) -> Mixing | None:
    """The axes of the fused function: queries, keys and values are (…, token, unit)."""
    letters = {PHOTO: "b", UNITS: "h"}
    leading = [letters.get(axis, "1") for axis in row.axes[:-2]]
    if merged:
        if "".join(leading) != merged:
            return None
        leading = [merged]
    if row.axes[-1] != UNITS or row.axes[-2] < 0:
        return None
    if len(leading) + 2 != len(call.shape) or "".join(leading).count("h") > 1:
        return None
    if any(
        one == "1" and length > 1
        for one, length in zip(leading, call.shape, strict=False)
    ):
        return None
    before = tuple(leading)
    return Mixing((*before, "q", "k"), (*before, "k", "d"), (*before, "q", "d"))


def mixes_tokens(call: Call) -> bool:
    """Whether a call may mix tokens, with weights that it is given or makes itself."""
    if call.name in (FUSED, WHOLE):
        return True
    if call.name not in PRODUCTS | {EINSUM} or len(call.inputs) != 2:
        return False
    weights, values = (each.shape for each in call.inputs)
    if call.name == EINSUM:
        return min(len(weights), len(values)) >= 3
    # Weights (…, token, token) and values (…, token, unit).
    if not 3 <= len(weights) == len(values) == len(call.shape):
        return False
    return weights[:-2] == values[:-2] == call.shape[:-2]
