"""Completeness: how much of the logit a map leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure


class LeftOut(Measure):
    """What the map leaves out of the logit, relative to it: of an exact map the bias."""

    name: ClassVar[str] = "left out"
    formula: ClassVar[str] = (
        "|logit − what the map accounts for| / |logit|; only for methods whose maps are in "
        "logits (an exact map leaves out the bias)"
    )
    unit: ClassVar[str] = "share of the logit"
    better: ClassVar[int] = -1
    high: ClassVar[float | None] = None
    source: ClassVar[str] = (
        "Sundararajan et al., Axiomatic attribution, ICML 2017 (completeness)"
    )
    of_nulls: ClassVar[bool] = False

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure. NaN for methods that promise no logits, and for a logit of 0."""
        logits = batch.logits(batch.inputs, range(len(batch)))
        base = np.where(logits != 0, np.abs(logits), np.nan)
        nothing = np.full(len(batch), np.nan)
        return {
            name: nothing
            if each.accounts_for is None
            else np.abs(logits - each.accounts_for) / base
            for name, each in maps.items()
        }
