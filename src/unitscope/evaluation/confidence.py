"""Confidence: what a class loses, and how often it gains, when only its map is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure


def shares(
    maps: Float[np.ndarray, "photo row col"],
) -> Float[np.ndarray, "photo row col"]:
    """How much of each pixel is left: the positive part of the map, its largest being 1.

    Nothing is left of a photo whose map is nowhere positive.
    """
    positive = maps.clip(min=0)
    largest = positive.max(axis=(1, 2), keepdims=True)
    scaled: np.ndarray = np.divide(
        positive, largest, out=np.zeros_like(positive), where=largest > 0
    )
    return scaled


def _before_and_after(
    batch: Batch, maps: Mapping[str, Maps]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The class's score of the whole photos, and by method with the map's part alone."""
    everyone = range(len(batch))
    hidden = batch.hidden()
    before = batch.scores(batch.inputs, everyone)
    after = {}
    for name, each in maps.items():
        share = torch.from_numpy(shares(each.on_input())).to(batch.inputs)
        mixed: Tensor = hidden + share[:, None] * (batch.inputs - hidden)
        after[name] = batch.scores(mixed, everyone)
    return before, after


class AverageDrop(Measure):
    """The share of the class's score that is lost; a gain counts as no loss."""

    name: ClassVar[str] = "average drop"
    formula: ClassVar[str] = (
        "max(0, p − p′) / p; p′: the class's score p where every pixel is hidden but "
        "for max(0, map) / max(map)"
    )
    unit: ClassVar[str] = "share"
    better: ClassVar[int] = -1
    source: ClassVar[str] = "Chattopadhay et al., Grad-CAM++, WACV 2018"

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure. NaN where the score is not positive."""
        before, after = _before_and_after(batch, maps)
        base = np.where(before > 0, before, np.nan)
        return {
            name: (before - each).clip(min=0) / base
            for name, each in after.items()
        }


class Increase(Measure):
    """Whether the class's score grows when only the map's part of the photo is left."""

    name: ClassVar[str] = "increase in confidence"
    formula: ClassVar[str] = (
        "1 where p′ > p, else 0 (p′ as of the average drop)"
    )
    unit: ClassVar[str] = "share of photos"
    better: ClassVar[int] = 1
    source: ClassVar[str] = "Chattopadhay et al., Grad-CAM++, WACV 2018"

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        before, after = _before_and_after(batch, maps)
        return {
            name: (each > before).astype(np.float64)
            for name, each in after.items()
        }
