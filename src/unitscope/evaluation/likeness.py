"""Likeness: the rank correlation of two maps of one photo."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from unitscope.attribution.screening import rank_correlation


def likeness(
    one: Float[np.ndarray, photo * cells],
    other: Float[np.ndarray, photo * cells],
) -> Float[np.ndarray, " photo"]:
    """Spearman's rank correlation over the cells of each photo's maps.

    0 where one of the maps is the same everywhere, or has fewer than three cells.
    """
    found = [
        rank_correlation(a.ravel().tolist(), b.ravel().tolist())
        for a, b in zip(one, other, strict=True)
    ]
    return np.array([0.0 if value is None else value for value in found])
