"""Readout: the algebra by which pooled units become logits.

It is linear, with at most one normalisation before it: of the pooled units themselves,
or of what an earlier readout made of them (a projection, as before a cosine similarity).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import (
    blank,
    in_float64,
    recorded,
    without_autocast,
)
from unitscope.errors import HeadError

# Numbers computed at once when units are switched off in turn: they fit in the cache.
_NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Normalisation:
    """What divides the pooled units of a photo before the linear layer: one number.

    `kind` is "layer" (Ba et al. 2016: units less their mean, divided by their standard
    deviation), "root mean square" (Zhang & Sennrich 2019) or "length" (units divided by
    their Euclidean norm, at least `eps`).
    """

    kind: str
    eps: float

    @property
    def centred(self) -> bool:
        """Whether the mean over the units is subtracted first."""
        return self.kind == "layer"

    def centre(
        self, pooled: Float[Tensor, "*batch unit"]
    ) -> Float[Tensor, "*batch unit"]:
        """The units, less their mean where it is subtracted."""
        if not self.centred:
            return pooled
        return pooled - pooled.mean(dim=-1, keepdim=True)

    def normalised(
        self, pooled: Float[Tensor, "*batch unit"]
    ) -> Float[Tensor, "*batch unit"]:
        """The units after the normalisation, without its scale and shift."""
        return self.centre(pooled) / self.divisor(pooled)

    def divisor(
        self, pooled: Float[Tensor, "*batch unit"]
    ) -> Float[Tensor, "*batch 1"]:
        """What the units of every photo are divided by, positive."""
        if self.kind == "length":
            length: Tensor = torch.linalg.vector_norm(
                pooled, dim=-1, keepdim=True
            )
            return length.clamp(min=self.eps)
        mean_square: Tensor = (
            self.centre(pooled).square().mean(dim=-1, keepdim=True)
        )
        return (mean_square + self.eps).sqrt()

    def divisor_without_each(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch unit"]:
        """The divisor with every unit at zero in turn, for all units at once, from two sums.

        Σ over the other units = S − p[u], and Σ of their squares = Q − p[u]²; the unit
        itself still counts, as 0. The largest unit may make up almost all of both sums,
        so that their difference loses its digits: its divisor is computed anew.
        """
        values = in_float64(pooled)
        divisors = self._divisors_from_sums(values)

        largest = values.abs().argmax(dim=1, keepdim=True)
        without_largest = values.scatter(1, largest, 0.0)
        anew = self.divisor(without_largest)
        divisors = divisors.scatter(1, largest, anew)
        return divisors.to(pooled)

    def _divisors_from_sums(
        self, values: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch unit"]:
        count = values.shape[1]
        square = values.square()
        squares = square.sum(dim=1, keepdim=True) - square
        squares = squares.clamp(min=0)
        if self.kind == "length":
            return squares.sqrt().clamp(min=self.eps)

        variance = squares / count
        if self.centred:
            total = values.sum(dim=1, keepdim=True)
            mean = (total - values) / count
            variance = variance - mean.square()
            variance = variance.clamp(min=0)
        return (variance + self.eps).sqrt()


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a readout makes of pooled units before it is normalised and read by classes.

    `readout` gives the numbers of the embedding in the place of logits; `weight` is what
    every class reads of them after the normalisation.
    """

    readout: Readout
    weight: Float[Tensor, "class number"] = field(repr=False)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Embedding:
        """The same with a function applied to all its numbers."""
        return Embedding(self.readout.mapped(function), function(self.weight))


@dataclass(frozen=True, eq=False)
class Readout:
    """How pooled units p become logits.

    logit[c] = Σ_u weight[c,u] · p[u] / divisor(p) + bias[c], with `weight` (class, unit)
    and `bias` (class) in float32. Without a `norm` the divisor is 1. With one, its scale
    and shift are part of the weight and the bias. Where the normalisation subtracts the
    mean of the units, the weight is centred over the units instead:
    Σ_u V[c,u] (p[u] − mean p) = Σ_u (V[c,u] − mean_u V[c]) p[u]. For one photo the
    divisor is one number, so contributions and maps still add up to the logit.

    With an `embedding` the norm is that of an earlier readout e(p) = V·p + d:
    logit = W · e(p) / |e(p)| + bias. Then `weight` is W·V, and what is left beside the
    units, W·d / |e(p)| + bias, depends on the photo too: see `left_out`.
    """

    weight: Float[Tensor, "class unit"] = field(repr=False)
    bias: Float[Tensor, "class"] = field(repr=False)
    norm: Normalisation | None = None
    embedding: Embedding | None = None

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Readout:
        """The same with a function applied to all its numbers."""
        embedding = self.embedding
        return replace(
            self,
            weight=function(self.weight),
            bias=function(self.bias),
            embedding=embedding.mapped(function) if embedding else None,
        )

    def detach(self) -> Readout:
        """The same without gradients."""
        return self.mapped(torch.Tensor.detach)

    def divisor(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch 1"]:
        """What the pooled units of every photo are divided by: 1 without a norm."""
        if self.norm is None:
            return torch.ones_like(pooled[:, :1])
        if self.embedding is None:
            return self.norm.divisor(pooled)
        inner = self.embedding.readout
        length = self.norm.divisor(inner.logits(pooled))
        return inner.divisor(pooled) * length

    def left_out(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch class"]:
        """What the units do not give of the logits: the bias, and a projection's constants."""
        bias = self.bias.expand(len(pooled), -1)
        if self.embedding is None:
            return bias
        assert self.norm is not None
        inner = self.embedding.readout
        constants = self.norm.centre(inner.left_out(pooled))
        length = self.norm.divisor(inner.logits(pooled))
        with without_autocast(pooled):
            return constants / length @ self.embedding.weight.T + bias

    def logits(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch class"]:
        """The logits of pooled units."""
        if self.embedding is not None:
            return self._logits_of(self.embedding.readout.logits(pooled))
        if self.norm is not None:
            # The centred weight ignores what all units have in common; subtracting it
            # first loses fewer digits.
            pooled = self.norm.normalised(pooled)
        with without_autocast(pooled):
            return pooled @ self.weight.T + self.bias

    def _logits_of(
        self, embedded: Float[Tensor, "*batch number"]
    ) -> Float[Tensor, "*batch class"]:
        """The logits of an embedding."""
        assert self.norm is not None and self.embedding is not None
        shares = self.norm.normalised(embedded).to(self.embedding.weight)
        with without_autocast(shares):
            return shares @ self.embedding.weight.T + self.bias

    def logits_without_each(
        self,
        pooled: Float[Tensor, "batch unit"],
        logits: Float[Tensor, "batch class"],
        classes: list[int] | None,
    ) -> Float[Tensor, "batch unit chosen"]:
        """The logits with every unit at zero in turn, in closed form.

        `logits` are those with all units on; `classes` chooses some of the classes. Apart
        from the result it needs memory for a few units at a time.
        """
        every_class, units = self.weight.shape
        count = every_class if classes is None else len(classes)
        # Laid out as the weights are: nothing is transposed in memory.
        each = blank((len(pooled), count, units), logits)
        every_unit = list(range(units))
        for few, ablated in self.logits_without_few(
            pooled, logits, classes, every_unit
        ):
            first, last = few[0], few[-1]
            each[:, :, first : last + 1] = ablated.transpose(1, 2)
        return each.transpose(1, 2)

    def logits_without_few(
        self,
        pooled: Float[Tensor, "batch unit"],
        logits: Float[Tensor, "batch class"],
        classes: list[int] | None,
        units: list[int],
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few chosen"]]]:
        """The same for chosen `units`, a few (`at_once`) at a time: units and logits."""
        if self.embedding is not None:
            yield from self._embedded_without_few(
                pooled, classes, units, at_once
            )
            return
        weight, bias = self.weight, self.bias
        if classes is not None:
            weight = weight[classes]
            bias = bias[classes]
            logits = logits[:, classes]
        count = at_once or _units_at_once(len(pooled), len(weight))

        values, total, divisors = pooled, logits, None
        if self.norm is not None:
            # In float64: one unit may be most of the sum that it is subtracted from.
            values = in_float64(pooled)
            weight = weight.cpu()
            bias = bias.cpu()
            total = values @ weight.T.to(torch.float64)
            divisors = self.norm.divisor_without_each(values)

        for begin in range(0, len(units), count):
            few = units[begin : begin + count]
            chosen = _slice_of(few)
            lost = weight[:, chosen].to(values.dtype)
            ablated = torch.addcmul(
                total[:, :, None], values[:, None, chosen], lost, value=-1
            )
            if divisors is not None:
                ablated = ablated / divisors[:, None, chosen]
                ablated = ablated + bias[:, None]
                ablated = ablated.to(logits)
            yield few, ablated.transpose(1, 2)

    def _embedded_without_few(
        self,
        pooled: Float[Tensor, "batch unit"],
        classes: list[int] | None,
        units: list[int],
        at_once: int | None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few chosen"]]]:
        """The same through an embedding, which is computed anew without each unit."""
        assert self.embedding is not None and self.norm is not None
        inner = self.embedding.mapped(in_float64).readout
        values = in_float64(pooled)
        embedded = inner.logits(values)
        chosen = slice(None) if classes is None else classes
        weight = self.embedding.weight[chosen]
        bias = self.bias[chosen]

        largest = max(len(bias), embedded.shape[1])
        count = at_once or _units_at_once(len(pooled), largest)
        for few, without in inner.logits_without_few(
            values, embedded, None, units, count
        ):
            shares = self.norm.normalised(without).to(pooled)
            with without_autocast(shares):
                yield few, shares @ weight.T + bias


def scaled(readout: Readout, factor: Tensor) -> Readout:
    """The readout with its logits multiplied by one factor, or by one for every class."""
    factors = _per_class(factor, readout)[:, None]
    embedding = readout.embedding
    if embedding is not None:
        embedding = replace(embedding, weight=embedding.weight * factors)
    return replace(
        readout,
        weight=readout.weight * factors,
        bias=readout.bias * factors[:, 0],
        embedding=embedding,
    )


def shifted(readout: Readout, offset: Tensor) -> Readout:
    """The readout with one number, or one for every class, added to its logits."""
    bias = readout.bias + _per_class(offset, readout)
    return replace(readout, bias=bias)


def added(one: Readout, other: Readout, sign: float = 1.0) -> Readout:
    """The readout of the sum, or the difference, of two that read the same units."""
    is_alike = one.norm == other.norm and one.weight.shape == other.weight.shape
    if not is_alike or one.embedding or other.embedding:
        raise HeadError(
            "two readouts of different kinds are added: something other than "
            "one linear layer"
        )
    weight = one.weight + sign * other.weight
    bias = one.bias + sign * other.bias
    return Readout(weight, bias, one.norm)


def composed(
    before: Readout, weight: Float[Tensor, "class2 class"], bias: Tensor | None
) -> Readout:
    """The readout with a linear layer behind it."""
    if _is_diagonal(before.weight):
        through = weight * before.weight.diagonal()
    else:
        through = weight @ before.weight
    embedding = before.embedding
    if embedding is not None:
        embedding = replace(embedding, weight=weight @ embedding.weight)
    elif before.norm is not None and before.norm.centred:
        through = through - through.mean(dim=1, keepdim=True)

    constant = weight @ before.bias
    constant = constant if bias is None else constant + bias
    return Readout(through, constant, before.norm, embedding)


def embedded(before: Readout, norm: Normalisation) -> Readout:
    """The readout that normalises what an earlier one gives."""
    weight = before.weight
    if norm.centred:
        weight = weight - weight.mean(dim=0, keepdim=True)
    identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    return Readout(
        weight,
        torch.zeros_like(before.bias),
        norm,
        Embedding(before, identity),
    )


def _is_diagonal(matrix: Tensor) -> bool:
    """Whether a matrix scales and mixes nothing, as that of a normalisation does."""
    rows, cols = matrix.shape
    if rows != cols:
        return False
    everywhere = int(matrix.count_nonzero())
    on_diagonal = int(matrix.diagonal().count_nonzero())
    return everywhere == on_diagonal


def _units_at_once(photos: int, classes: int) -> int:
    """The number of units whose ablated logits fit in the cache."""
    numbers = max(1, photos * classes)
    return max(1, _NUMBERS_AT_ONCE // numbers)


def _slice_of(units: list[int]) -> slice | list[int]:
    """A slice where the units follow one another, since a slice copies nothing."""
    run = range(units[0], units[-1] + 1)
    return slice(run.start, run.stop) if units == list(run) else units


def _per_class(values: Tensor, readout: Readout) -> Float[Tensor, "class"]:
    values = recorded(values).to(readout.bias)
    if values.ndim >= 2 and len(values) > 1:
        same_for_all_photos = bool((values == values[:1]).all())
        values = values[0] if same_for_all_photos else values
    flat = values.flatten()
    if len(flat) not in (1, len(readout.bias)):
        raise HeadError(
            f"{len(flat)} numbers meet {len(readout.bias)} logits: one, or one "
            "for each, was expected"
        )
    return flat.expand(len(readout.bias))
