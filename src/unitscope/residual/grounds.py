"""Grounds: the steps at which a walk back along the stream ends."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unitscope.attribution.readings import Reading
from unitscope.attribution.steps import affine
from unitscope.residual.attention import Attended, AttentionCall
from unitscope.residual.fused import plain
from unitscope.residual.rows import Row
from unitscope.residual.step import StreamStep, Variants, caught_of
from unitscope.residual.sums import Sums
from unitscope.tracing.arguments import WithArguments, tensors_in
from unitscope.tracing.outputs import first_tensor


class Tokens(NamedTuple):
    """Which of the tokens that are attended to are patches: rows · cols, row by row.

    `own` is the place of the token that is read, None where it is not among them.
    """

    before: int
    rows: int
    cols: int
    own: int | None

    @property
    def patches(self) -> tuple[int, int]:
        """(rows, cols) of the patches."""
        return self.rows, self.cols

    def split(self, by_token: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The patches, and the other tokens by name, of (photo, token, unit)."""
        end = self.before + self.rows * self.cols
        patches = by_token[:, self.before : end]
        others = {}
        if self.own is not None:
            others[CLASS_TOKEN] = by_token[:, self.own : self.own + 1]
        rest = [
            place
            for place in range(by_token.shape[1])
            if place != self.own and not self.before <= place < end
        ]
        if rest:
            others[OTHER_TOKENS] = by_token[:, rest]
        return patches, others


CLASS_TOKEN = "class token"
OTHER_TOKENS = "other tokens"
READ_DIRECTLY = "patches read directly"


@dataclass(frozen=True, eq=False, kw_only=True)
class Attention(StreamStep):
    """What the token takes from all tokens, head behind head."""

    of_photos = True

    call: AttentionCall
    tokens: Tokens

    def meet(self, call: WithArguments) -> Attended:
        """See StreamStep."""
        return self.call.attended(call)

    def of_sums(self, before: Sequence[Sums], read: Attended) -> Sums:
        """See StreamStep."""
        patches, others = self.tokens.split(read.by_token())
        apart = torch.diag_embed(read.by_head().transpose(1, 2))
        # (photo, unit, head, head) → (photo, head, head · unit)
        by_head = apart.permute(0, 2, 3, 1).flatten(2)
        others = {
            name: part.sum(dim=1, keepdim=True) for name, part in others.items()
        }
        heads: dict[Hashable, Tensor] = {self.index: by_head}
        width = read.taken.shape[-1]
        for head in read.apart:
            own = torch.zeros_like(patches)
            units = slice(head * width, (head + 1) * width)
            own[..., units] = patches[..., units]
            heads[(self.index, head)] = own
        return Sums({self.tokens.patches: patches}, others, heads=heads)

    def of_vectors(self, before: Sequence[Variants], read: Tensor) -> Variants:
        """See StreamStep; read is (photo, variant, head, unit)."""
        return read.flatten(2)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pooled(StreamStep):
    """The mean of the patches, beside the token that is read."""

    of_photos = True

    reading: Reading

    def meet(self, call: WithArguments) -> Tensor:
        """See StreamStep."""
        return self.reading.read({self.index: caught_of(call)})

    def of_sums(self, before: Sequence[Sums], read: Tensor) -> Sums:
        """See StreamStep."""
        # Heads write to patches, too: none of that is among what heads gave.
        mean = read.mean(dim=(2, 3))[:, None]
        return Sums(others={READ_DIRECTLY: mean})

    def of_vectors(self, before: Sequence[Variants], read: Tensor) -> Variants:
        """See StreamStep."""
        return read.mean(dim=(2, 3))[:, None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Written(StreamStep):
    """What a layer wrote for the token, whatever it computed it from.

    An MLP computed it from the token alone; the embedding comes before all attention.
    """

    of_photos = True

    row: Row
    is_mlp: bool = False
    is_embedding: bool = False

    def made(self, result: Any) -> Tensor | None:
        """See StreamStep."""
        tensor = first_tensor(result)
        assert tensor is not None
        return plain(self.row.of(tensor))[:, None].clone()

    def of_sums(self, before: Sequence[Sums], read: Tensor) -> Sums:
        """See StreamStep."""
        return Sums(written={self.index: read})

    def of_vectors(self, before: Sequence[Variants], read: Tensor) -> Variants:
        """See StreamStep."""
        return read


@dataclass(frozen=True, eq=False, kw_only=True)
class Neurons(Written):
    """What every neuron of an MLP wrote for the token, and behind them the bias."""

    def meet(self, call: WithArguments) -> Tensor:
        """See StreamStep."""
        tensors = list(tensors_in((call.args, call.kwargs)))
        hidden = plain(self.row.of(tensors[1 if self.name == "addmm" else 0]))
        weight, bias = affine(self.name, caught_of(call))
        written = hidden[:, :, None] * weight.T
        if bias is None:
            bias = weight.new_zeros(len(weight))
        beside = bias.expand(len(hidden), 1, -1)
        return torch.cat([written, beside], dim=1)

    def made(self, result: Any) -> None:
        """See StreamStep."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Constant(StreamStep):
    """A tensor that does not depend on the photo: an argument of a call.

    It is a part of the embedding where no attention was read before it.
    """

    of_photos = True

    row: Row
    position: int
    is_embedding: bool

    def meet(self, call: WithArguments) -> Tensor:
        """See StreamStep."""
        tensors = list(tensors_in((call.args, call.kwargs)))
        vector = self.row.of_all(tensors[self.position].detach(), tensors)
        return vector[:, None].clone()

    def of_sums(self, before: Sequence[Sums], read: Tensor) -> Sums:
        """See StreamStep."""
        if self.is_embedding:
            return Sums(embedding=read)
        return Sums(constant=read)

    def of_vectors(self, before: Sequence[Variants], read: Tensor) -> Variants:
        """See StreamStep."""
        return read


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedConstant(Constant):
    """A constant tensor that is put beside others: one of the arguments of `cat`."""

    def meet(self, call: WithArguments) -> Tensor:
        """See StreamStep."""
        tensors = list(tensors_in((call.args, call.kwargs)))
        vector = self.row.of(tensors[self.position].detach())
        return plain(vector)[:, None].clone()


def attends_at(steps: Sequence[StreamStep], place: int) -> bool:
    """Whether the step at a place goes back to attention, or to a pool of patches."""
    places = [place]
    while places:
        step = steps[places.pop()]
        if isinstance(step, (Attention, Pooled)):
            return True
        places += step.before
    return False
