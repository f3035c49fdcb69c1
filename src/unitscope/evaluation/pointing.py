"""Pointing game: whether the largest value of a map lies on what belongs to the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure

TOLERANCE = 15.0
"""Pixels of the network's input that a map may point beside a mask."""


def points_at(
    values: Float[np.ndarray, "row col"],
    down: Float[np.ndarray, " row"],
    across: Float[np.ndarray, " col"],
    mask: Bool[np.ndarray, "height width"],
    tolerance: float = TOLERANCE,
) -> float:
    """The share of a map's largest cells whose centres lie in a mask, or hardly beside it.

    `down` and `across` are the centres of the cells, in pixels of the mask; the centre
    of its first pixel is 0.5. Distances are from the pixel in which a centre lies to the
    nearest pixel of the mask. NaN where the mask is empty.
    """
    if not mask.any():
        return float("nan")
    height, width = mask.shape
    in_mask = np.argwhere(mask)
    hits = []
    for row, col in np.argwhere(values == values.max()):
        y = min(max(int(down[row]), 0), height - 1)
        x = min(max(int(across[col]), 0), width - 1)
        squared = ((in_mask - (y, x)) ** 2).sum(axis=1)
        hits.append(squared.min() <= tolerance**2)
    return float(np.mean(hits))


class Pointing(Measure):
    """Whether the map's largest value lies within 15 pixels of the mask."""

    name: ClassVar[str] = "pointing game"
    formula: ClassVar[str] = (
        "1 where the centre of the map's largest cell lies in the mask or within "
        f"{TOLERANCE:g} pixels of it; of several equal cells their share"
    )
    unit: ClassVar[str] = "share of photos"
    better: ClassVar[int] = 1
    source: ClassVar[str] = "Zhang et al., Excitation Backprop, ECCV 2016"
    needs_masks: ClassVar[bool] = True

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        masks = batch.masks
        assert masks is not None
        found = {}
        for name, each in maps.items():
            down, across = each.centres()
            found[name] = np.array(
                [
                    points_at(values, down, across, mask)
                    for values, mask in zip(each.values, masks, strict=True)
                ]
            )
        return found
