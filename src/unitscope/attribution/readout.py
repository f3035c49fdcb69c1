"""Readout: the algebra by which pooled units become logits.

It is linear, with at most one normalisation before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

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

    def divisor(
        self, pooled: Float[Tensor, "*batch unit"]
    ) -> Float[Tensor, "*batch 1"]:
        """What the units of every photo are divided by, positive."""
        if self.kind == "length":
            length: Tensor = torch.linalg.vector_norm(
                pooled, dim=-1, keepdim=True
            )
            return length.clamp(min=self.eps)
        if self.centred:
            pooled = pooled - pooled.mean(dim=-1, keepdim=True)
        mean_square: Tensor = pooled.square().mean(dim=-1, keepdim=True)
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
class Readout:
    """How pooled units p become logits.

    logit[c] = Σ_u weight[c,u] · p[u] / divisor(p) + bias[c], with `weight` (class, unit)
    and `bias` (class) in float32. Without a `norm` the divisor is 1. With one, its scale
    and shift are part of the weight and the bias. Where the normalisation subtracts the
    mean of the units, the weight is centred over the units instead:
    Σ_u V[c,u] (p[u] − mean p) = Σ_u (V[c,u] − mean_u V[c]) p[u]. For one photo the
    divisor is one number, so contributions and maps still add up to the logit.
    """

    weight: Float[Tensor, "class unit"] = field(repr=False)
    bias: Float[Tensor, "class"] = field(repr=False)
    norm: Normalisation | None = None

    def divisor(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch 1"]:
        """What the pooled units of every photo are divided by: 1 without a norm."""
        if self.norm is None:
            return torch.ones_like(pooled[:, :1])
        return self.norm.divisor(pooled)

    def logits(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch class"]:
        """The logits of pooled units."""
        if self.norm is not None:
            divisor = self.norm.divisor(pooled)
            if self.norm.centred:
                # The centred weight ignores what all units have in common; subtracting
                # it first loses fewer digits.
                pooled = pooled - pooled.mean(dim=-1, keepdim=True)
            pooled = pooled / divisor
        with without_autocast(pooled):
            return pooled @ self.weight.T + self.bias

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


def scaled(readout: Readout, factor: Tensor) -> Readout:
    """The readout with its logits multiplied by one factor, or by one for every class."""
    factors = _per_class(factor, readout)
    weight = readout.weight * factors[:, None]
    bias = readout.bias * factors
    return Readout(weight, bias, readout.norm)


def shifted(readout: Readout, offset: Tensor) -> Readout:
    """The readout with one number, or one for every class, added to its logits."""
    bias = readout.bias + _per_class(offset, readout)
    return Readout(readout.weight, bias, readout.norm)


def added(one: Readout, other: Readout, sign: float = 1.0) -> Readout:
    """The readout of the sum, or the difference, of two that read the same units."""
    if one.norm != other.norm or one.weight.shape != other.weight.shape:
        raise HeadError(
            "two readouts of different kinds are added: something other than "
            "one linear layer"
        )
    weight = one.weight + sign * other.weight
    bias = one.bias + sign * other.bias
    return Readout(weight, bias, one.norm)


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
