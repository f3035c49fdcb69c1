"""Steps: what is affine, or divides by one number, between writes and the logits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, linalg
from torch.nn.functional import linear, pad

from unitscope.attribution.steps import affine, batch_norm_of
from unitscope.residual.attention import AttentionCall
from unitscope.residual.fused import plain
from unitscope.residual.rows import Row
from unitscope.residual.step import StreamStep, Variants, caught_of
from unitscope.residual.sums import Sums
from unitscope.tracing.arguments import WithArguments, tensors_in


@dataclass(frozen=True, eq=False, kw_only=True)
class Added(StreamStep):
    """The sum of several vectors, each with a sign or a factor, and of a plain number.

    `number` is the factor of the number, which the call is given; None where it has none.
    """

    factors: tuple[float, ...]
    number: float | None = None

    def meet(self, call: WithArguments) -> float:
        """See StreamStep."""
        return 0.0 if self.number is None else self.number * number_of(call)

    def of_sums(self, before: Sequence[Sums], read: float | None) -> Sums:
        """See StreamStep."""
        total = Sums()
        for part, factor in zip(before, self.factors, strict=True):
            scaled = part if factor == 1 else part.times(factor)
            total = total.plus(scaled)
        if read:
            like = before[0].total()
            total = total.shifted(torch.full_like(like[:, None], read))
        return total

    def of_vectors(
        self, before: Sequence[Variants], read: float | None
    ) -> Variants:
        """See StreamStep."""
        first, *rest = (
            part * factor
            for part, factor in zip(before, self.factors, strict=True)
        )
        return sum(rest, first + (read or 0.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Centred(StreamStep):
    """A vector minus its mean."""

    def of_sums(self, before: Sequence[Sums], read: Any) -> Sums:
        """See StreamStep."""
        return before[0].mapped(centred)

    def of_vectors(self, before: Sequence[Variants], read: Any) -> Variants:
        """See StreamStep."""
        return centred(before[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaled(StreamStep):
    """A vector times, or over, numbers: constants, or a gate that is held."""

    of_photos = True

    row: Row
    position: int
    divides: bool = False
    is_gate: bool = False

    def meet(self, call: WithArguments) -> Tensor | float:
        """See StreamStep."""
        tensors = list(tensors_in((call.args, call.kwargs)))
        if len(tensors) == 1:
            return number_of(call)
        other = tensors[1 - self.position]
        return self.row.of_all(other.detach(), tensors)[:, None].clone()

    def of_sums(self, before: Sequence[Sums], read: Tensor | float) -> Sums:
        """See StreamStep."""
        return before[0].mapped(lambda vectors: self._scaled(vectors, read))

    def of_vectors(
        self, before: Sequence[Variants], read: Tensor | float
    ) -> Variants:
        """See StreamStep."""
        return self._scaled(before[0], read)

    def _scaled(self, vectors: Tensor, by: Tensor | float) -> Tensor:
        return vectors / by if self.divides else vectors * by


class Weights(NamedTuple):
    """Weight (class, unit) and bias of a linear layer."""

    weight: Tensor
    bias: Tensor | None

    def of(self, classes: Sequence[int]) -> Weights:
        """Those of some classes."""
        chosen = list(classes)
        bias = None if self.bias is None else self.bias[chosen]
        return Weights(self.weight[chosen], bias)


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(StreamStep):
    """A linear layer; or the output projection inside a call that is all of attention."""

    attention: AttentionCall | None = None
    # Of an einsum: which tensor the weights are, and its axes as (class, unit…).
    position: int = 1
    axes: tuple[int, ...] = ()

    def meet(self, call: WithArguments) -> Weights:
        """See StreamStep."""
        if self.attention is not None:
            return Weights(*self.attention.projection(call))
        if self.axes:
            tensors = list(tensors_in((call.args, call.kwargs)))
            weight = plain(tensors[self.position])
            return Weights(weight.permute(self.axes).flatten(1), None)
        return Weights(*affine(self.name, caught_of(call)))

    def of_sums(self, before: Sequence[Sums], read: Weights) -> Sums:
        """See StreamStep."""
        after = before[0].mapped(lambda vectors: linear(vectors, read.weight))
        if read.bias is None:
            return after
        return after.shifted(read.bias[None, None])

    def of_vectors(self, before: Sequence[Variants], read: Weights) -> Variants:
        """See StreamStep."""
        made: Tensor = linear(before[0], read.weight, read.bias)
        return made


class Gain(NamedTuple):
    """Scale and shift of a normalisation, and what keeps its divisor from being zero."""

    scale: Tensor | float
    shift: Tensor | None
    eps: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalised(StreamStep):
    """A vector over one number of its own: its deviation, root mean square, or length.

    Of sums that number is held. `written` says what keeps the divisor from being zero
    where the normalisation is written out; there the mean square is taken `factor` times,
    and `beside` is added to the root.
    """

    kind: str
    written: float | None = None
    factor: float = 1.0
    beside: float = 0.0

    def meet(self, call: WithArguments) -> Gain:
        """See StreamStep."""
        if self.written is not None:
            return Gain(1.0, None, self.written)
        if self.kind == "length":
            eps = call.argument(3, "eps") if self.name == "normalize" else None
            return Gain(1.0, None, 1e-12 if eps is None else float(eps))
        is_layer = self.kind == "layer"
        scale = call.argument(2, "weight")
        shift = call.argument(3, "bias") if is_layer else None
        eps = call.argument(4 if is_layer else 3, "eps")
        if eps is None:
            first = next(tensors_in((call.args, call.kwargs)))
            eps = 1e-5 if is_layer else torch.finfo(first.dtype).eps
        return Gain(
            1.0 if scale is None else plain(scale),
            None if shift is None else plain(shift)[None, None],
            float(eps),
        )

    def of_sums(self, before: Sequence[Sums], read: Gain) -> Sums:
        """See StreamStep."""
        total = before[0].total()[:, None]
        divisor = self._divisor(self._centred(total), read.eps)
        after = before[0].mapped(
            lambda vectors: self._centred(vectors) / divisor * read.scale
        )
        return after if read.shift is None else after.shifted(read.shift)

    def of_vectors(self, before: Sequence[Variants], read: Gain) -> Variants:
        """See StreamStep."""
        centred = self._centred(before[0])
        divided = centred / self._divisor(centred, read.eps) * read.scale
        return divided if read.shift is None else divided + read.shift

    def _centred(self, vectors: Tensor) -> Tensor:
        return centred(vectors) if self.kind == "layer" else vectors

    def _divisor(self, vectors: Tensor, eps: float) -> Tensor:
        if self.kind == "length":
            lengths: Tensor = linalg.vector_norm(vectors, dim=-1, keepdim=True)
            return lengths.clamp(min=eps)
        mean = vectors.square().mean(dim=-1, keepdim=True)
        return (mean * self.factor + eps).sqrt() + self.beside


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNormalised(StreamStep):
    """A vector times and plus the constants of a batch normalisation."""

    def meet(self, call: WithArguments) -> tuple[Tensor, Tensor]:
        """See StreamStep."""
        return batch_norm_of(caught_of(call))

    def of_sums(
        self, before: Sequence[Sums], read: tuple[Tensor, Tensor]
    ) -> Sums:
        """See StreamStep."""
        scale, shift = read
        after = before[0].mapped(lambda vectors: vectors * scale)
        return after.shifted(shift[None, None])

    def of_vectors(
        self, before: Sequence[Variants], read: tuple[Tensor, Tensor]
    ) -> Variants:
        """See StreamStep."""
        scale, shift = read
        return before[0] * scale + shift


@dataclass(frozen=True, eq=False, kw_only=True)
class Joined(StreamStep):
    """Vectors put one behind the other, as of a class token and the mean of patches."""

    widths: tuple[int, ...]

    def of_sums(self, before: Sequence[Sums], read: Any) -> Sums:
        """See StreamStep."""
        total = Sums()
        done, all_units = 0, sum(self.widths)
        for part, width in zip(before, self.widths, strict=True):
            padding = (done, all_units - done - width)
            total = total.plus(part.mapped(functools.partial(pad, pad=padding)))
            done += width
        return total

    def of_vectors(self, before: Sequence[Variants], read: Any) -> Variants:
        """See StreamStep."""
        most = max(each.shape[1] for each in before)
        photos = max(each.shape[0] for each in before)
        return torch.cat(
            [each.expand(photos, most, -1) for each in before], dim=-1
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Sides(StreamStep):
    """The logits of two classes from one number: `complement` − the number, and it."""

    complement: float

    def of_sums(self, before: Sequence[Sums], read: Any) -> Sums:
        """See StreamStep."""
        both = before[0].mapped(lambda number: torch.cat([-number, number], -1))
        like = before[0].total()
        return both.shifted(like.new_tensor([[[self.complement, 0.0]]]))

    def of_vectors(self, before: Sequence[Variants], read: Any) -> Variants:
        """See StreamStep."""
        (number,) = before
        return torch.cat([self.complement - number, number], dim=-1)


def centred(vectors: Tensor) -> Tensor:
    """Vectors minus the mean of each."""
    return vectors - vectors.mean(dim=-1, keepdim=True)


def number_of(call: WithArguments) -> float:
    """The plain number that a sum or a product of one tensor is given."""
    both = (*call.args, *(call.kwargs.get(key) for key in ("input", "other")))
    numbers = [one for one in both if isinstance(one, (int, float))]
    return float(numbers[0]) if numbers else 0.0
