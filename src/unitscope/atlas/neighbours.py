"""Neighbours: the units of a layer that respond most alike over a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from unitscope.atlas.storage import AtlasLayer, StoredAtlas

Compared: TypeAlias = Literal["images", "classes", "sample"]

# The relative error of a shifted sum of squares, with some margin.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class Correlations:
    """Pearson's correlations of some units' mean activations with those of all units.

    `values` (chosen, unit) are −1 to 1, nan for a unit that is constant, and of a unit
    with itself. They are over all images, or else, where the layer's pooled units were
    not stored or are no means (of a maximum pool, say), over the means of `classes` or a
    random `sample` of images. `count` is the number of images or classes.
    """

    values: Float[np.ndarray, "chosen unit"]
    of: Compared
    count: int

    def nearest(self, place: int, count: int) -> list[tuple[int, float]]:
        """The `count` units most like the chosen unit at a place, best first.

        Each comes with its correlation.
        """
        values = self.values[place]
        nan_last = np.nan_to_num(values, nan=-2.0)
        order = np.argsort(-nan_last, kind="stable")[:count]
        return [
            (int(unit), float(values[unit]))
            for unit in order
            if np.isfinite(values[unit])
        ]


def correlations(
    atlas: StoredAtlas, layer: AtlasLayer, units: Sequence[int]
) -> Correlations:
    """Correlate some units of a layer with all of its units over the data set.

    Where the pooled units were stored and are means, as for most heads, all images are
    used, one shard at a time and in float64. Other layers have the means by class, and
    those of a random sample of images: the larger of the two is used.
    """
    if _has_pooled_units(atlas, layer):
        pooled = (part for part, _ in atlas.pooled())
        return Correlations(
            values=_correlated(pooled, units),
            of="images",
            count=atlas.images,
        )

    classes = atlas.empty_summary(layer).classes
    classes.restore(atlas.arrays(f"{layer.name}/classes"))
    class_means = classes.means[classes.counts > 0]
    sample_means = atlas.part(f"{layer.name}/sample/means", slice(None))
    if len(class_means) > len(sample_means):
        return Correlations(
            values=_correlated([class_means], units),
            of="classes",
            count=len(class_means),
        )
    return Correlations(
        values=_correlated([sample_means], units),
        of="sample",
        count=len(sample_means),
    )


def _has_pooled_units(atlas: StoredAtlas, layer: AtlasLayer) -> bool:
    if not layer.is_head or atlas.readout is None:
        return False
    if not atlas.head_pools_means:
        return False
    return atlas.readout.weight.shape[1] == layer.units


def _correlated(
    parts: Iterable[Float[np.ndarray, "_ unit"]], units: Sequence[int]
) -> Float[np.ndarray, "chosen unit"]:
    """Pearson's correlation over the rows of all parts, in one pass."""
    chosen = np.asarray(units, np.int64)
    rows = 0
    shift = sums = squares = products = np.zeros(0)
    for part in parts:
        values = part.astype(np.float64)
        if not rows:
            # Without a shift, values that vary little about a large mean would lose
            # their digits.
            shift = values.mean(axis=0)
            sums = np.zeros_like(shift)
            squares = np.zeros_like(shift)
            products = np.zeros((len(chosen), len(shift)))
        values -= shift
        rows += len(values)
        sums += values.sum(axis=0)
        squares += np.einsum("ru,ru->u", values, values)
        products += values[:, chosen].T @ values

    variation = (squares - sums**2 / rows).clip(min=0)
    means = np.outer(sums[chosen], sums) / rows
    covariation = products - means
    spread = np.sqrt(variation)
    spreads = np.outer(spread[chosen], spread)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = covariation / spreads

    # The variation of a constant unit is nothing but rounding.
    rounding = rows * (_ROUNDING * shift) ** 2
    constant = variation <= rounding
    correlation[:, constant] = np.nan
    correlation[constant[chosen]] = np.nan
    correlation[np.arange(len(chosen)), chosen] = np.nan
    return correlation.clip(-1, 1)
