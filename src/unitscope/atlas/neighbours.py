"""Neighbours: which units of a layer respond most alike over a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from unitscope.atlas.storage import AtlasLayer, StoredAtlas

Compared: TypeAlias = Literal["images", "classes", "sample"]


@dataclass(frozen=True, eq=False)
class Correlations:
    """How alike some units of a layer respond to all of its units: Pearson's correlation of their mean activations.

    `values` (asked, unit) are −1 to 1, nan for a unit that is always the same, and of a
    unit with itself. They are over all images, or else, where those were not kept, over
    the means of `classes` or a random `sample` of images; `count` says how many were
    compared.
    """

    values: Float[np.ndarray, "asked unit"]
    of: Compared
    count: int

    def nearest(self, asked: int, count: int) -> list[tuple[int, float]]:
        """The `count` units most alike the one asked for at a place, with their correlations; the best first."""
        values = self.values[asked]
        order = np.argsort(-np.nan_to_num(values, nan=-2.0), kind="stable")[:count]
        return [
            (int(unit), float(values[unit]))
            for unit in order
            if np.isfinite(values[unit])
        ]


def correlations(
    atlas: StoredAtlas, layer: AtlasLayer, units: Sequence[int]
) -> Correlations:
    """Correlate some units of a layer with all of its units over the data set.

    Where the head's pooled units were kept, over all images, a shard at a time and in
    float64. Of other layers the means by class are known, and those of a random sample
    of images: whichever are more are compared.
    """
    if (
        layer.is_head
        and atlas.readout is not None
        and atlas.readout.weight.shape[1] == layer.units
    ):
        return Correlations(
            _correlated((pooled for pooled, _ in atlas.pooled()), units),
            "images",
            atlas.images,
        )
    classes = atlas.empty_summary(layer).classes
    classes.restore(atlas.arrays(f"{layer.name}/classes"))
    means, sample = (
        classes.means[classes.counts > 0],
        atlas.part(f"{layer.name}/sample/means", slice(None)),
    )
    if len(means) > len(sample):
        return Correlations(_correlated([means], units), "classes", len(means))
    return Correlations(_correlated([sample], units), "sample", len(sample))


def _correlated(
    parts: Iterable[Float[np.ndarray, "_ unit"]], units: Sequence[int]
) -> Float[np.ndarray, "asked unit"]:
    """Pearson's correlation over the rows of all parts, in one pass."""
    chosen = np.asarray(units, np.int64)
    rows, shift = 0, np.zeros(0)
    sums = squares = products = np.zeros(0)
    for part in parts:
        values = part.astype(np.float64)
        if not rows:
            # Sums of what is near 0 lose nothing where values vary little about a large
            # mean.
            shift = values.mean(axis=0)
            sums, squares, products = (
                np.zeros_like(shift),
                np.zeros_like(shift),
                np.zeros((len(chosen), len(shift))),
            )
        values -= shift
        rows += len(values)
        sums += values.sum(axis=0)
        squares += np.einsum("ru,ru->u", values, values)
        products += values[:, chosen].T @ values
    variation = (squares - sums**2 / rows).clip(min=0)
    # What is left of a unit that is always the same is rounding.
    still = variation <= rows * (1e-13 * shift) ** 2
    spread = np.sqrt(variation)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (products - np.outer(sums[chosen], sums) / rows) / np.outer(
            spread[chosen], spread
        )
    found[:, still], found[still[chosen]] = np.nan, np.nan
    found[np.arange(len(chosen)), chosen] = np.nan
    return found.clip(-1, 1)
