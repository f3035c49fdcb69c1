"""95 % intervals of shares, means, selectivities and IoUs that some photos gave."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int64, Num, Shaped

# Half the width of a 95 % interval of a normal distribution, in standard deviations.
Z95 = 1.959963984540054

_Array: TypeAlias = Shaped[np.ndarray, "..."]
# A number or an array. Functions broadcast their arguments against each other.
Numbers: TypeAlias = float | _Array | np.generic
Floats: TypeAlias = Any


class Interval(NamedTuple):
    """The ends of an interval: numbers, or arrays of one shape."""

    low: Floats
    high: Floats


class Estimate(NamedTuple):
    """A value and the interval around it: numbers, or arrays of one shape.

    All three are nan where nothing was measured.
    """

    value: Floats
    low: Floats
    high: Floats


def wilson(hits: Numbers, count: Numbers, z: float = Z95) -> Interval:
    """The score interval of a proportion (Wilson 1927), by default at 95 %.

    It stays inside [0, 1] and is valid at 0 and 1. `hits` of `count` are broadcast
    against each other. Both ends are nan where `count` is 0. Raises ValueError where
    `hits` is not between 0 and `count`.
    """
    hits, count = _float64(hits, count)
    _check_proportion(hits, count)

    share = _ratio(hits, count)
    count = np.where(count > 0, count, np.nan)
    middle = share + z * z / (2 * count)
    variance = share * (1 - share) / count
    correction = z * z / (4 * count * count)
    spread = z * np.sqrt(variance + correction)
    scale = 1 + z * z / count

    # Rounding must not push an end past the proportion at 0 or 1.
    low = np.minimum((middle - spread) / scale, share)
    high = np.maximum((middle + spread) / scale, share)
    return Interval(
        low=np.maximum(0.0, low),
        high=np.minimum(1.0, high),
    )


def _check_proportion(hits: _Array, count: _Array) -> None:
    wrong = ~((hits >= 0) & (hits <= count))
    if not wrong.any():
        return

    hits, count = np.broadcast_arrays(hits, count)
    wrong_hits = hits[wrong][0]
    wrong_count = count[wrong][0]
    raise ValueError(
        f"{wrong_hits:g} of {wrong_count:g} is no proportion: "
        "expected 0 <= hits <= count"
    )


def proportion(hits: Numbers, count: Numbers, z: float = Z95) -> Estimate:
    """`hits` / `count` with its Wilson interval; nan where `count` is 0."""
    return Estimate(_ratio(hits, count), *wilson(hits, count, z))


def balanced_accuracy_interval(
    tp: Numbers,
    positives: Numbers,
    fp: Numbers,
    negatives: Numbers,
    z: float = Z95,
) -> Estimate:
    """Balanced accuracy (TPR + TNR) / 2 with its interval (Newcombe 1998).

    `tp` of `positives` and `fp` of `negatives` are broadcast against each other. The
    result lies in [0, 1], chance is 0.5, and it is nan where there are no positives or
    no negatives. The interval is Newcombe's square-and-add interval of two Wilson
    intervals. That is an interval of a difference of independent proportions; here
    TPR + TNR = 1 + (TPR − FPR).
    """
    true_negatives = np.asarray(negatives) - np.asarray(fp)
    tpr = proportion(tp, positives, z)
    tnr = proportion(true_negatives, negatives, z)

    return _clipped(
        value=(tpr.value + tnr.value) / 2,
        below=np.hypot(tpr.value - tpr.low, tnr.value - tnr.low) / 2,
        above=np.hypot(tpr.high - tpr.value, tnr.high - tnr.value) / 2,
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
    """The drop in balanced accuracy between two predictions of the same photos.

    It lies in [−1, 1].
    Of the `positives`, the first prediction alone finds `tp_lost` and the second alone
    `tp_gained`. Of the `negatives`, the second alone takes `fp_gained` for the class
    and the first alone `fp_lost`. All are broadcast against each other. The result is
    nan where there are no positives or no negatives.

    Only photos whose prediction changes matter, since the photos are the same. The
    interval combines those of both kinds of photos, each by Agresti & Min (2005) for
    matched proportions, which add half a photo to every cell.
    """
    changes = [
        (tp_lost, tp_gained, positives),
        (fp_gained, fp_lost, negatives),
    ]
    value = middle = variance = np.zeros(())
    for change in changes:
        worse, better, count = _float64(*change)
        value = value + _ratio(worse - better, count) / 2

        difference = (worse - better) / (count + 2)
        middle = middle + difference / 2
        discordant = (worse + better + 1) / (count + 2)
        of_difference = (discordant - difference**2) / (count + 2)
        variance = variance + of_difference / 4
    error = z * np.sqrt(variance)

    # The added cells pull the middle to 0, but the interval must contain the estimate.
    low = np.minimum(middle - error, value)
    high = np.maximum(middle + error, value)
    return Estimate(
        value=value,
        low=np.maximum(-1.0, low),
        high=np.minimum(1.0, high),
    )


def mean_interval(
    total: Numbers, squares: Numbers, count: Numbers, z: float = Z95
) -> Estimate:
    """A mean ± z·s/√n, from the sum and the sum of squares of `count` values.

    The unit is that of the values. The arguments are broadcast against each other. The
    mean is nan of no values, the interval nan of fewer than two.
    """
    total, squares, count = _float64(total, squares, count)
    value = _ratio(total, count)
    # Rounding may make the difference negative.
    deviations = np.maximum(squares - total * value, 0.0)
    variance = _ratio(deviations, count - 1)
    error = z * np.sqrt(_ratio(variance, count))
    return Estimate(
        value=value,
        low=value - error,
        high=value + error,
    )


def selectivity(
    means: Float[np.ndarray, "class *unit"],
    counts: Num[np.ndarray, " class"],
    variances: Float[np.ndarray, "class *unit"],
    z: float = Z95,
) -> Estimate:
    """Class selectivity (μ_max − μ_rest) / (μ_max + μ_rest) of every unit, 0 to 1.

    `means` and sample `variances` (class, unit) describe the unit's activation on the
    `counts` (class) photos of each class. μ_max is the largest mean and μ_rest the mean
    of the others (Morcos et al. 2018); classes without photos are left out.

    Selectivity is defined for activations that are not negative. It is nan where a mean
    is negative, where all means are 0, and for fewer than two classes. The interval is
    that of the delta method, as if the class of the largest mean had been known
    beforehand. It is nan where a class has a single photo.
    """
    present = counts > 0
    classes = int(present.sum())
    shape = means.shape[1:]
    if classes < 2:
        return Estimate(
            value=np.full(shape, np.nan),
            low=np.full(shape, np.nan),
            high=np.full(shape, np.nan),
        )

    column = (-1, *(1 for _ in shape))
    photos = counts[present].astype(np.float64).reshape(column)
    means = means[present].astype(np.float64)
    # Squared standard errors of the means.
    known = np.where(photos > 1, variances[present], np.nan)
    errors = known / photos

    best = means.argmax(axis=0)[None]
    top = np.take_along_axis(means, best, axis=0)[0]
    top_error = np.take_along_axis(errors, best, axis=0)[0]
    others = np.arange(classes).reshape(column) != best
    rest = means.mean(axis=0, where=others)
    rest_error = errors.sum(axis=0, where=others) / (classes - 1) ** 2

    defined = (means >= 0).all(axis=0)
    total = np.where(defined, top + rest, np.nan)
    value = _ratio(top - rest, total)
    gradient = rest**2 * top_error + top**2 * rest_error
    variance = _ratio(gradient, total**4)
    error = z * 2 * np.sqrt(variance)
    return _clipped(value, error, error)


def ratio_interval(
    i: Numbers,
    u: Numbers,
    ii: Numbers,
    iu: Numbers,
    uu: Numbers,
    count: Numbers,
    z: float = Z95,
) -> Estimate:
    """Σi / Σu over photos, such as an IoU, with its interval (Cochran 1977, §2.11).

    The arguments are those of `ratio_and_error`. The interval is clipped to [0, 1]. It is
    nan where the value is, and for fewer than two photos. Where no photo has any
    intersection the interval is [0, 0] and says nothing.
    """
    value, error = ratio_and_error(i, u, ii, iu, uu, count)
    return _clipped(value, z * error, z * error)


def ratio_and_error(
    i: Numbers,
    u: Numbers,
    ii: Numbers,
    iu: Numbers,
    uu: Numbers,
    count: Numbers,
) -> tuple[Floats, Floats]:
    """Σi / Σu over photos and its standard error, linearised (Cochran 1977, §2.11).

    `i` and `u` are the sums over `count` photos of each photo's intersection and union,
    `ii`, `iu` and `uu` the sums of their products. All are broadcast against each
    other. Photos, not pixels, count as independent. Both are nan where `u` is 0, the
    error also for fewer than two photos.
    """
    i, u, ii, iu, uu, count = _float64(i, u, ii, iu, uu, count)
    value = _ratio(i, u)
    residual = ii - 2 * value * iu + value**2 * uu
    # Rounding may make the residual negative.
    residual = np.maximum(residual, 0.0)
    variance = _ratio(residual, u**2)
    correction = _ratio(count, count - 1)
    return value, np.sqrt(variance * correction)


def chosen_interval(
    values: Float[np.ndarray, "item candidate"],
    errors: Float[np.ndarray, "item candidate"],
    chosen: Int64[np.ndarray, "item rank"],
) -> Estimate:
    """95 % intervals, (item, rank), of candidates chosen because their value is large.

    The best of many is too large on the numbers that it was chosen by. So the low end
    allows for all contenders: the candidates whose value may be as large, at a level that
    holds for all candidates together (locally simultaneous intervals, Zrnic & Fithian
    2024, with the bounds of Dunn 1961). Where nothing comes near the chosen one, the
    interval is the ordinary one. `values` from 0 to 1 and their standard `errors` are nan
    where nothing is known.
    """
    known = values > 0
    quantiles = _simultaneous(values.shape[1])
    of_all = quantiles[known.sum(axis=1)]

    value = np.take_along_axis(values, chosen, axis=1)
    error = np.take_along_axis(errors, chosen, axis=1)
    farthest_down = value - of_all[:, None] * error
    farthest_up = np.where(known, values + of_all[:, None] * errors, -np.inf)

    # Candidates whose farthest end reaches that of the chosen one, itself among them.
    in_order = np.sort(farthest_up, axis=1)
    contenders = np.ones(chosen.shape, dtype=np.int64)
    for item, ends in enumerate(in_order):
        below = np.searchsorted(ends, farthest_down[item])
        contenders[item] = np.maximum(1, len(ends) - below)
    return _clipped(value, quantiles[contenders] * error, Z95 * error)


def _simultaneous(most: int) -> Float[np.ndarray, " count"]:
    """For 0 to `most` intervals the z with which they hold together at 95 %."""
    normal = NormalDist()
    tail = (1 - normal.cdf(Z95)) / np.arange(1, most + 1)
    return np.array([Z95, *(-normal.inv_cdf(share) for share in tail)])


def _float64(*numbers: Numbers) -> tuple[_Array, ...]:
    return tuple(np.asarray(number, dtype=np.float64) for number in numbers)


def _clipped(value: Floats, below: Floats, above: Floats) -> Estimate:
    """A value from 0 to 1, and the interval around it clipped to that range."""
    return Estimate(
        value=value,
        low=np.maximum(0.0, value - below),
        high=np.minimum(1.0, value + above),
    )


def _ratio(numerator: Numbers, denominator: Numbers) -> Floats:
    """The quotient as float64; nan where the denominator is not positive."""
    numerator, denominator = _float64(numerator, denominator)
    return numerator / np.where(denominator > 0, denominator, np.nan)
