"""Stability: how much a map stays the same when the photo changes a little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.likeness import likeness
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure

NOISE = 0.05
"""The deviation of the noise, as a share of the photo's own."""

_DRAWS = 3


class Stability(Measure):
    """The rank correlation of a map with that of the same photo under small noise."""

    name: ClassVar[str] = "stability"
    formula: ClassVar[str] = (
        "Spearman's rank correlation of the map's cells with those under normal noise of "
        f"{NOISE:.0%} of the input's deviation, the mean of {_DRAWS} draws"
    )
    unit: ClassVar[str] = "rank correlation"
    better: ClassVar[int] = 1
    low: ClassVar[float | None] = -1.0
    source: ClassVar[str] = (
        "after Alvarez-Melis & Jaakkola, WHI 2018 (robustness)"
    )
    of_nulls: ClassVar[bool] = False

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        drawn = [_noisy(batch, draw) for draw in range(_DRAWS)]
        found = {}
        for name, each in maps.items():
            assert each.again is not None
            values = [
                likeness(
                    each.values,
                    each.again(batch.model, noisy, batch.classes).values,
                )
                for noisy in drawn
            ]
            found[name] = np.mean(values, axis=0)
        return found


def _noisy(batch: Batch, draw: int) -> Tensor:
    """The photos with noise that depends on their ids and the evaluation's seed."""
    noisy = []
    for place, photo in enumerate(batch.inputs):
        generator = torch.Generator().manual_seed(batch.seed_of(place) + draw)
        noise = torch.randn(photo.shape, generator=generator).to(photo)
        noisy.append(photo + NOISE * photo.std() * noise)
    return torch.stack(noisy)
