"""Readout: the algebra by which pooled units become logits: linear, with at most one normalisation before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import HeadError

_TINY = torch.finfo(torch.float32).tiny

# How many numbers are computed at once where units are switched off in turn: they stay
# in the processor's cache.
_AT_ONCE = 1 << 20

# Relative to the largest logit: what rounding may always do.
LEAST_ROUNDING = 1e-5


@dataclass(frozen=True)
class Normalisation:
    """What divides the pooled units of a photo before the linear layer, by one number for all of them.

    `kind` is "layer" (Ba et al. 2016: less their mean, divided by their standard
    deviation; `centred`), "root mean square" (Zhang & Sennrich 2019) or "length"
    (divided by their Euclidean norm, at least `eps`).
    """

    kind: str
    eps: float

    @property
    def centred(self) -> bool:
        """Whether the mean over the units is taken away first."""
        return self.kind == "layer"

    def divisor(
        self, pooled: Float[Tensor, "*batch unit"]
    ) -> Float[Tensor, "*batch 1"]:
        """What the units of every photo are divided by, positive."""
        if self.kind == "length":
            length: Tensor = torch.linalg.vector_norm(pooled, dim=-1, keepdim=True)
            return length.clamp(min=self.eps)
        if self.centred:
            pooled = pooled - pooled.mean(dim=-1, keepdim=True)
        square: Tensor = pooled.square().mean(dim=-1, keepdim=True)
        return (square + self.eps).sqrt()

    def divisor_without_each(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch unit"]:
        """The divisor with every unit at zero in turn, for all units at once, from two sums.

        Σ over the others = S − p[u], and Σ of squares over the others = Q − p[u]²; the
        unit itself still counts, as 0. Without the largest unit, which may be next to
        all of the sums, it is computed anew.
        """
        values = in_float64(pooled)  # the difference of two sums loses digits
        found = self._without_each(values)
        largest = values.abs().argmax(dim=1, keepdim=True)
        return found.scatter(
            1, largest, self.divisor(values.scatter(1, largest, 0.0))
        ).to(pooled)

    def _without_each(
        self, values: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch unit"]:
        count = values.shape[1]
        squares = (values.square().sum(dim=1, keepdim=True) - values.square()).clamp(
            min=0
        )
        if self.kind == "length":
            return squares.sqrt().clamp(min=self.eps)
        square = squares / count
        if self.centred:
            square = (
                square - ((values.sum(dim=1, keepdim=True) - values) / count).square()
            ).clamp(min=0)
        return (square + self.eps).sqrt()


@dataclass(frozen=True, eq=False)
class Readout:
    """How pooled units p become logits: logit[c] = Σ_u weight[c,u] · p[u] / divisor(p) + bias[c].

    `weight` (class, unit) and `bias` (class) are float32. Without a `norm` the divisor
    is 1. With one, its scale and shift are in the weight and the bias, and the weight
    is centred over the units where the normalisation takes their mean away: Σ_u V[c,u]
    (p[u] − mean p) = Σ_u (V[c,u] − mean_u V[c]) p[u]. For one photo the divisor is a
    number, so that contributions and maps add up to the logit as they do without it.
    """

    weight: Float[Tensor, "class unit"] = field(repr=False)
    bias: Float[Tensor, "class"] = field(repr=False)
    norm: Normalisation | None = None

    def divisor(self, pooled: Float[Tensor, "batch unit"]) -> Float[Tensor, "batch 1"]:
        """What the pooled units of every photo are divided by: 1 without a normalisation."""
        return (
            torch.ones_like(pooled[:, :1])
            if self.norm is None
            else self.norm.divisor(pooled)
        )

    def logits(
        self, pooled: Float[Tensor, "batch unit"]
    ) -> Float[Tensor, "batch class"]:
        """The logits of pooled units."""
        if self.norm is not None:
            divisor = self.norm.divisor(pooled)
            # The weight is centred: what all units have in common changes nothing but
            # the rounding.
            pooled = (
                pooled - pooled.mean(dim=-1, keepdim=True)
                if self.norm.centred
                else pooled
            ) / divisor
        with unrounded(pooled):
            return pooled @ self.weight.T + self.bias

    def logits_without_each(
        self,
        pooled: Float[Tensor, "batch unit"],
        logits: Float[Tensor, "batch class"],
        classes: list[int] | None,
    ) -> Float[Tensor, "batch unit chosen"]:
        """The logits with every unit at zero in turn, for the chosen classes or all, in closed form.

        `logits` are those with all units on. Beside the result, memory for a few units
        at a time is used.
        """
        count, units = (
            len(self.weight) if classes is None else len(classes),
            self.weight.shape[1],
        )
        # Laid out as the weights are, so that nothing is transposed in memory.
        each = blank((len(pooled), count, units), logits)
        for few, without in self.logits_without_few(
            pooled, logits, classes, list(range(units))
        ):
            each[:, :, few[0] : few[-1] + 1] = without.transpose(1, 2)
        return each.transpose(1, 2)

    def logits_without_few(
        self,
        pooled: Float[Tensor, "batch unit"],
        logits: Float[Tensor, "batch class"],
        classes: list[int] | None,
        units: list[int],
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few chosen"]]]:
        """The same for chosen units, a few of them (`at_once`) at a time: which, and their logits."""
        weight, bias = self.weight, self.bias
        if classes is not None:
            weight, bias, logits = weight[classes], bias[classes], logits[:, classes]
        count = at_once or max(1, _AT_ONCE // max(1, len(pooled) * len(weight)))
        precise, total, divisor = pooled, logits, None
        if self.norm is not None:
            # In float64, since one unit may be most of the sum that it is taken from.
            precise, weight, bias = in_float64(pooled), weight.cpu(), bias.cpu()
            total, divisor = (
                precise @ weight.T.to(torch.float64),
                self.norm.divisor_without_each(precise),
            )
        for begin in range(0, len(units), count):
            few = units[begin : begin + count]
            chosen = (
                slice(few[0], few[-1] + 1)
                if few == list(range(few[0], few[-1] + 1))
                else few
            )
            lost = weight[:, chosen].to(precise.dtype)
            each = torch.addcmul(
                total[:, :, None], precise[:, None, chosen], lost, value=-1
            )
            if divisor is not None:
                each = (each / divisor[:, None, chosen] + bias[:, None]).to(logits)
            yield few, each.transpose(1, 2)


def in_float64(values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """The values in float64, on the processor, since not every device has float64."""
    # Through numpy: a tensor of a subclass that stands for a device keeps its
    # restrictions also when it is copied.
    return torch.from_numpy(values.detach().cpu().numpy()).to(torch.float64)


def blank(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A tensor of any numbers, to be filled, of the dtype and on the device of another.

    Large ones on the processor are numpy's, which asks for huge pages: fresh memory is
    then several times faster to write to.
    """
    if like.device.type != "cpu" or like.dtype is not torch.float32:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=np.float32))


# Small work beside every pass is numpy's on the processor: torch would wake its threads
# for it, which then stay busy for some milliseconds and keep the network's next pass
# waiting.


def copied(numbers: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """A copy of a tensor on the processor, without its gradient."""
    if numbers.dtype is not torch.float32:
        return numbers.detach().clone()
    return torch.from_numpy(numbers.detach().numpy().copy())


def is_finite(numbers: Float[Tensor, "*axes"]) -> bool:
    """Whether all numbers are finite: their sum, of one reading, says so for all but very large ones."""
    if numbers.device.type == "cpu" and numbers.dtype is torch.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(numbers.detach().numpy().sum()):
                return True
    return bool(torch.isfinite(numbers).all())


def cell_means(
    feature_map: Float[Tensor, "batch unit row col"],
) -> Float[Tensor, "batch unit"]:
    """The mean of every unit's map over its cells: what a global average pool gives."""
    if feature_map.device.type == "cpu" and feature_map.dtype is torch.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            return torch.from_numpy(feature_map.detach().numpy().mean(axis=(2, 3)))
    return feature_map.mean(dim=(2, 3))


def unrounded(like: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which a caller's autocast does not round the algebra, on the device of a tensor."""
    if like.device.type in ("cpu", "cuda"):
        return torch.autocast(like.device.type, enabled=False)
    return contextlib.nullcontext()


def completeness_error(
    logits: Float[Tensor, "batch class"],
    feature_map: Float[Tensor, "batch unit row col"],
    readout: Readout,
) -> Float[Tensor, " batch"]:
    """How far the readout of the pooled map is from the logits: largest difference over classes / largest |logit|."""
    return relative_difference(readout.logits(cell_means(feature_map)), logits)


def relative_difference(
    rebuilt: Float[Tensor, "batch class"], logits: Float[Tensor, "batch class"]
) -> Float[Tensor, " batch"]:
    """For every photo, the largest difference over the classes, relative to the largest |logit|."""
    return (rebuilt - logits).abs().amax(dim=1) / logits.abs().amax(dim=1).clamp(
        min=_TINY
    )


def ablation_difference(
    found: Float[Tensor, "batch class"],
    real: Float[Tensor, "batch class"],
    before: Float[Tensor, "batch class"],
) -> Float[Tensor, " batch"]:
    """For every photo, the largest difference of ablated logits to those of a real forward pass.

    Relative to the largest |logit| before or after, since with units off all logits may
    be next to nothing.
    """
    largest = torch.maximum(before.abs().amax(dim=1), real.abs().amax(dim=1)).clamp(
        min=_TINY
    )
    return (found - real).abs().amax(dim=1) / largest


def rounding_error(
    logits: Float[Tensor, "batch class"],
    feature_map: Float[Tensor, "batch unit row col"],
    readout: Readout,
    dtype: torch.dtype,
) -> Float[Tensor, " batch"]:
    """The completeness error that rounding alone may cause in a network of this dtype, relative to the largest |logit|.

    It is 1e-5, or four units in the last place of the terms that are summed up,
    |W|·mean|A| / divisor + |b|, where that is more: in half precision, and where large
    contributions all but cancel, as near the boundary between two classes.
    """
    divisor = readout.divisor(cell_means(feature_map))
    with unrounded(feature_map):
        summed = (
            feature_map.abs().mean(dim=(2, 3)) / divisor @ readout.weight.abs().T
            + readout.bias.abs()
        )
    return rounding_allowance(summed.amax(dim=1), logits, dtype)


def rounding_allowance(
    terms: Float[Tensor, " batch"],
    logits: Float[Tensor, "batch class"],
    dtype: torch.dtype,
) -> Float[Tensor, " batch"]:
    """What rounding may do to sums of `terms`, relative to the largest |logit|."""
    scale = logits.abs().amax(dim=1).clamp(min=_TINY)
    return (4 * torch.finfo(dtype).eps * terms / scale).clamp(min=LEAST_ROUNDING)


def scaled(readout: Readout, factor: Tensor) -> Readout:
    """The readout with its logits multiplied by one factor, or by one for every class."""
    vector = _per_class(factor, readout)
    return Readout(
        readout.weight * vector[:, None], readout.bias * vector, readout.norm
    )


def shifted(readout: Readout, offset: Tensor) -> Readout:
    """The readout with one number, or one for every class, added to its logits."""
    return Readout(
        readout.weight, readout.bias + _per_class(offset, readout), readout.norm
    )


def added(one: Readout, other: Readout, sign: float = 1.0) -> Readout:
    """The readout of the sum (or difference) of two that read the same units."""
    if one.norm != other.norm or one.weight.shape != other.weight.shape:
        raise HeadError(
            "two readouts of different kinds are added: something other than one "
            "linear layer"
        )
    return Readout(
        one.weight + sign * other.weight, one.bias + sign * other.bias, one.norm
    )


def _per_class(values: Tensor, readout: Readout) -> Float[Tensor, "class"]:
    values = values.detach().to(readout.bias)
    if values.ndim >= 2 and len(values) > 1 and bool((values == values[:1]).all()):
        values = values[0]  # the same for every photo of the batch
    flat = values.flatten()
    if len(flat) not in (1, len(readout.bias)):
        raise HeadError(
            f"{len(flat)} numbers meet {len(readout.bias)} logits: one, or one for "
            "each, was expected"
        )
    return flat.expand(len(readout.bias))
