"""Bootstrap: the mean over photos with its 95 % interval."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from unitscope.atlas.intervals import Estimate

RESAMPLES = 4000
_AT_ONCE = 200


def mean_with_interval(
    values: Float[np.ndarray, " photo"], seed: int = 0
) -> Estimate:
    """The mean of the values that there are, between percentiles of resampled means.

    The photos are drawn with replacement 4000 times (Efron 1979); the interval runs from
    the 2.5th to the 97.5th percentile. NaN values are left out; without an interval for
    fewer than two.
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return Estimate(float("nan"), float("nan"), float("nan"))
    mean = float(there.mean())
    if len(there) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _AT_ONCE):
        draws = random.integers(0, len(there), (_AT_ONCE, len(there)))
        means[start : start + _AT_ONCE] = there[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))
