"""Rounding: how far sums are from the logits, and how far rounding alone may put them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import cell_means, without_autocast
from unitscope.attribution.readout import Readout

# Relative to the largest logit: an error of this size is always allowed.
LEAST_ROUNDING = 1e-5

_TINY = torch.finfo(torch.float32).tiny


def relative_difference(
    rebuilt: Float[Tensor, "batch class"], logits: Float[Tensor, "batch class"]
) -> Float[Tensor, " batch"]:
    """For every photo, the largest difference over classes / the largest |logit|."""
    difference = _largest(rebuilt - logits)
    return difference / _largest(logits).clamp(min=_TINY)


def completeness_error(
    logits: Float[Tensor, "batch class"],
    feature_map: Float[Tensor, "batch unit row col"],
    readout: Readout,
) -> Float[Tensor, " batch"]:
    """How far the readout of the pooled map is from the logits: relative difference."""
    pooled = cell_means(feature_map)
    rebuilt = readout.logits(pooled)
    return relative_difference(rebuilt, logits)


def ablation_difference(
    fast: Float[Tensor, "batch class"],
    real: Float[Tensor, "batch class"],
    before: Float[Tensor, "batch class"],
) -> Float[Tensor, " batch"]:
    """For every photo, how far ablated logits are from those of a real forward pass.

    The largest difference over classes, relative to the largest |logit| before or after:
    with units off, all logits may be close to zero.
    """
    difference = _largest(fast - real)
    largest = torch.maximum(_largest(before), _largest(real))
    return difference / largest.clamp(min=_TINY)


def rounding_error(
    logits: Float[Tensor, "batch class"],
    feature_map: Float[Tensor, "batch unit row col"],
    readout: Readout,
    dtype: torch.dtype,
) -> Float[Tensor, " batch"]:
    """The completeness error that rounding alone may cause in a network of this dtype.

    Relative to the largest |logit|: 1e-5, or four units in the last place of the terms
    that are summed, |W|·mean|A| / divisor + |b|, where that is more. It is more in half
    precision, and where large contributions almost cancel, as near the boundary between
    two classes.
    """
    pooled = cell_means(feature_map)
    divisor = readout.divisor(pooled)
    with without_autocast(feature_map):
        magnitudes = feature_map.abs().mean(dim=(2, 3))
        units = magnitudes / divisor
        terms = units @ readout.weight.abs().T
    terms = terms + readout.left_out(pooled).abs()
    largest_term = terms.amax(dim=1)
    return rounding_allowance(largest_term, logits, dtype)


def rounding_allowance(
    terms: Float[Tensor, " batch"],
    logits: Float[Tensor, "batch class"],
    dtype: torch.dtype,
) -> Float[Tensor, " batch"]:
    """What rounding may do to sums of `terms`, relative to the largest |logit|."""
    largest = _largest(logits).clamp(min=_TINY)
    last_place = torch.finfo(dtype).eps
    error = 4 * last_place * terms / largest
    return error.clamp(min=LEAST_ROUNDING)


def _largest(values: Float[Tensor, "batch class"]) -> Float[Tensor, " batch"]:
    """The largest |value| of every photo."""
    return values.abs().amax(dim=1)
