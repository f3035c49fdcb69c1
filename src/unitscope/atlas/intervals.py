"""Intervals: how far a share, a mean, a selectivity or an IoU measured on some photos may be from that on all."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Num, Shaped

# Half the width of a 95 % interval of a normal distribution, in standard deviations.
Z95 = 1.959963984540054

# Numbers of any shape, a single one too: they are broadcast against each other.
Numbers: TypeAlias = float | Shaped[np.ndarray, "..."] | np.generic
Floats: TypeAlias = Any


class Interval(NamedTuple):
    """The ends of an interval: arrays of one shape, or numbers."""

    low: Floats
    high: Floats


class Estimate(NamedTuple):
    """What was measured and the interval around it: arrays of one shape, or numbers; nan where nothing was measured."""

    value: Floats
    low: Floats
    high: Floats


def wilson(hits: Numbers, count: Numbers, z: float = Z95) -> Interval:
    """The score interval of a proportion (Wilson 1927), 95 % unless told: stays inside [0, 1] and holds at 0 and 1.

    `hits` of `count`, broadcast against each other. Where `count` is 0 nothing was
    measured: both ends are nan. Raises ValueError where `hits` is not between 0 and
    `count`.
    """
    hits, count = (
        np.asarray(hits, dtype=np.float64),
        np.asarray(count, dtype=np.float64),
    )
    wrong = ~((hits >= 0) & (hits <= count))
    if wrong.any():
        few, of = (pair[wrong][0] for pair in np.broadcast_arrays(hits, count))
        raise ValueError(
            f"{few:g} of {of:g} is no proportion: expected 0 <= hits <= count"
        )
    share = _ratio(hits, count)
    count = np.where(count > 0, count, np.nan)
    middle = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not push an end past the proportion at 0 or 1.
    low, high = (
        (middle - spread) / (1 + z * z / count),
        (middle + spread) / (1 + z * z / count),
    )
    return Interval(
        np.maximum(0.0, np.minimum(low, share)),
        np.minimum(1.0, np.maximum(high, share)),
    )


def proportion(hits: Numbers, count: Numbers, z: float = Z95) -> Estimate:
    """`hits` / `count` with its Wilson interval; nan where `count` is 0."""
    return Estimate(_ratio(hits, count), *wilson(hits, count, z))


def balanced_accuracy_interval(
    tp: Numbers, positives: Numbers, fp: Numbers, negatives: Numbers, z: float = Z95
) -> Estimate:
    """Balanced accuracy (TPR + TNR) / 2, with the square-and-add interval of two Wilson intervals (Newcombe 1998).

    `tp` of `positives` and `fp` of `negatives`, broadcast against each other; the
    result lies in [0, 1], 0.5 is chance, and it is nan where there are no positives or
    no negatives. Newcombe's interval is for a difference of independent proportions;
    TPR + TNR = 1 + (TPR − FPR).
    """
    found = proportion(tp, positives, z)
    rejected = proportion(np.asarray(negatives) - np.asarray(fp), negatives, z)
    value = (found.value + rejected.value) / 2
    below = np.hypot(found.value - found.low, rejected.value - rejected.low) / 2
    above = np.hypot(found.high - found.value, rejected.high - rejected.value) / 2
    return Estimate(
        value, np.maximum(0.0, value - below), np.minimum(1.0, value + above)
    )


def balanced_accuracy_drop(
    tp_lost: Numbers,
    tp_gained: Numbers,
    positives: Numbers,
    fp_gained: Numbers,
    fp_lost: Numbers,
    negatives: Numbers,
    z: float = Z95,
) -> Estimate:
    """How much balanced accuracy falls between two ways to predict the same photos, in −1 to 1, with its interval.

    Of the `positives`, `tp_lost` are found only the first way and `tp_gained` only the
    second; of the `negatives`, `fp_gained` are taken for the class only the second way
    and `fp_lost` only the first; all are broadcast against each other. The photos are
    the same, so that only those count whose prediction changes: the intervals are
    Agresti & Min's (2005) for matched proportions, half a photo added to each cell, of
    both kinds of photos together. nan where there are no positives or no negatives.
    """
    changes = [(tp_lost, tp_gained, positives), (fp_gained, fp_lost, negatives)]
    value, middle, variance = (np.zeros(()) for _ in range(3))
    for change in changes:
        worse, better, count = (
            np.asarray(counts, dtype=np.float64) for counts in change
        )
        value = value + _ratio(worse - better, count) / 2
        difference = (worse - better) / (count + 2)
        middle = middle + difference / 2
        variance = (
            variance
            + ((worse + better + 1) / (count + 2) - difference**2) / (count + 2) / 4
        )
    error = z * np.sqrt(variance)
    # The added cells pull the middle to 0: the estimate itself is not left outside.
    return Estimate(
        value,
        np.maximum(-1.0, np.minimum(middle - error, value)),
        np.minimum(1.0, np.maximum(middle + error, value)),
    )


def mean_interval(
    total: Numbers, squares: Numbers, count: Numbers, z: float = Z95
) -> Estimate:
    """A mean ± z·s/√n, from the sum and the sum of squares of `count` values, broadcast against each other.

    In the values' unit. The mean is nan of no values, its interval nan of fewer than
    two.
    """
    total, squares, count = (
        np.asarray(sums, dtype=np.float64) for sums in (total, squares, count)
    )
    value = _ratio(total, count)
    # Rounding may leave less than nothing of the difference.
    variance = _ratio(np.maximum(squares - total * value, 0.0), count - 1)
    error = z * np.sqrt(_ratio(variance, count))
    return Estimate(value, value - error, value + error)


def selectivity(
    means: Float[np.ndarray, "class *unit"],
    counts: Num[np.ndarray, " class"],
    variances: Float[np.ndarray, "class *unit"],
    z: float = Z95,
) -> Estimate:
    """Class selectivity (Morcos et al. 2018) of every unit, (μ_max − μ_rest) / (μ_max + μ_rest), in [0, 1].

    `means` and sample `variances` (class, unit) are those of the unit's activation on
    the `counts` (class) photos of each class; μ_max is the largest mean and μ_rest the
    mean of the others. Classes without photos are left out. It is defined for
    activations that are not negative: nan where a mean is, where all are 0, and of
    fewer than two classes. The interval is that of the delta method, as if the class of
    the largest mean had been known beforehand; it is nan where a class has one photo
    only.
    """
    seen = counts > 0
    shape, classes = means.shape[1:], int(seen.sum())
    if classes < 2:
        return Estimate(*(np.full(shape, np.nan) for _ in range(3)))
    photos = np.asarray(counts, dtype=np.float64)[seen].reshape(-1, *(1 for _ in shape))
    means = means[seen].astype(np.float64)
    errors = np.where(photos > 1, variances[seen], np.nan) / photos
    first = means.argmax(axis=0)[None]
    top, top_error = (
        np.take_along_axis(values, first, axis=0)[0] for values in (means, errors)
    )
    others = np.arange(classes).reshape(-1, *(1 for _ in shape)) != first
    rest = means.mean(axis=0, where=others)
    rest_error = errors.sum(axis=0, where=others) / (classes - 1) ** 2
    both = np.where((means >= 0).all(axis=0), top + rest, np.nan)
    value = _ratio(top - rest, both)
    error = z * 2 * np.sqrt(_ratio(rest**2 * top_error + top**2 * rest_error, both**4))
    return Estimate(
        value, np.maximum(0.0, value - error), np.minimum(1.0, value + error)
    )


def ratio_interval(
    i: Numbers,
    u: Numbers,
    ii: Numbers,
    iu: Numbers,
    uu: Numbers,
    count: Numbers,
    z: float = Z95,
) -> Estimate:
    """Σi / Σu over photos, such as an IoU over a data set, with its linearised interval (Cochran 1977, §2.11).

    `i` and `u` are the sums over `count` photos of each photo's intersection and union,
    `ii`, `iu` and `uu` those of their products; all are broadcast against each other.
    Photos are what varies, not pixels. Clipped to [0, 1]; nan where `u` is 0, the
    interval also of fewer than two photos. It says nothing where no photo has any
    intersection: it is [0, 0] then.
    """
    i, u, ii, iu, uu, count = (
        np.asarray(sums, dtype=np.float64) for sums in (i, u, ii, iu, uu, count)
    )
    value = _ratio(i, u)
    residual = np.maximum(ii - 2 * value * iu + value**2 * uu, 0.0)
    error = z * np.sqrt(_ratio(residual, u**2) * _ratio(count, count - 1))
    return Estimate(
        value, np.maximum(0.0, value - error), np.minimum(1.0, value + error)
    )


def _ratio(above: Any, below: Any) -> Any:
    """The quotient as float64; nan where what it is divided by is not positive."""
    above, below = (
        np.asarray(above, dtype=np.float64),
        np.asarray(below, dtype=np.float64),
    )
    return above / np.where(below > 0, below, np.nan)
