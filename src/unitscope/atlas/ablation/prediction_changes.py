"""Prediction changes: photos whose prediction changes with each unit off in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from unitscope.attribution.readout import Readout

# The size of a block of logits: small enough for the cache, and large enough that
# threads do not mostly wait for each other.
NUMBERS_AT_ONCE = 1_000_000

_FLOAT = torch.finfo(torch.float32)

# Pairs of a photo and a unit, and the class that is predicted without the unit.
Changes: TypeAlias = tuple[
    Int64[np.ndarray, " pair"],
    Int64[np.ndarray, " pair"],
    Int64[np.ndarray, " pair"],
]


class PredictionChanges(ABC):
    """Finds the pairs of a photo and a unit without which its prediction changes."""

    @abstractmethod
    def of(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        predicted: Int64[np.ndarray, " photo"],
    ) -> Iterator[Changes]:
        """The changes for a block of photos; `predicted` is with all units on."""


def changes_of(
    readout: Readout, numbers_at_once: int = NUMBERS_AT_ONCE
) -> PredictionChanges:
    """The fastest way to find the changes for a readout.

    At most about `numbers_at_once` logits are computed together.
    """
    if readout.norm is None:
        return LinearChanges(readout, numbers_at_once)
    return NormalisedChanges(readout, numbers_at_once)


class LinearChanges(PredictionChanges):
    """The changes for a linear readout, where logit c changes by −p[u] · W[c,u]."""

    def __init__(
        self, readout: Readout, numbers_at_once: int = NUMBERS_AT_ONCE
    ) -> None:
        self._weight = readout.weight
        self._by_unit = readout.weight.T.contiguous()
        self._least = readout.weight.amin(dim=0)
        self._most = readout.weight.amax(dim=0)
        self._largest = readout.weight.abs().amax(dim=0)
        self._numbers_at_once = numbers_at_once

    def of(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        predicted: Int64[np.ndarray, " photo"],
    ) -> Iterator[Changes]:
        """See PredictionChanges."""
        classes = logits.shape[1]
        if classes < 2:
            return

        candidates = self.may_change(
            pooled, logits, torch.from_numpy(predicted)
        )
        photos, units = candidates.nonzero(as_tuple=True)
        size = max(self._numbers_at_once // classes, 1)
        for begin in range(0, len(photos), size):
            end = begin + size
            photo = photos[begin:end]
            unit = units[begin:end]
            # The same operation as in Readout.logits_without_each, for equal rounding.
            without = torch.addcmul(
                logits[photo],
                pooled[photo, unit][:, None],
                self._by_unit[unit],
                value=-1,
            )
            new = without.numpy().argmax(axis=1)
            photo_index = photo.numpy()
            unit_index = unit.numpy()
            changed = new != predicted[photo_index]
            yield (
                photo_index[changed],
                unit_index[changed],
                new[changed],
            )

    def may_change(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        predicted: Int64[Tensor, " photo"],
    ) -> Bool[Tensor, "photo unit"]:
        """All pairs whose prediction changes, and a few more.

        Class c overtakes class y where p[u] (W[y,u] − W[c,u]) ≥ logit[y] − logit[c].
        The left side is at most its maximum over c, and the right side at least the
        margin of y over the second class.
        """
        best, second = logits.topk(2, dim=1).values.unbind(dim=1)
        margin = (best - second)[:, None]
        own = self._weight[predicted]
        loss = torch.maximum(
            pooled * (own - self._least),
            pooled * (own - self._most),
        )

        # Both sides, and the logits with the unit off, are rounded by a few units in
        # the last place of their terms.
        largest_logit = logits.abs().amax(dim=1, keepdim=True)
        terms = pooled.abs() * self._largest + largest_logit
        rounding = 8 * _FLOAT.eps * terms
        upper_bound = loss + rounding + _FLOAT.tiny
        # Not `>=`: a pair whose bound overflows to nan must be included.
        return ~(upper_bound < margin)


class NormalisedChanges(PredictionChanges):
    """The changes for a readout with a normalisation, where every logit changes."""

    def __init__(
        self, readout: Readout, numbers_at_once: int = NUMBERS_AT_ONCE
    ) -> None:
        self._readout = readout
        self._photos_at_once = max(
            4 * numbers_at_once // readout.weight.numel(), 1
        )

    def of(
        self,
        pooled: Float32[Tensor, "photo unit"],
        logits: Float32[Tensor, "photo class"],
        predicted: Int64[np.ndarray, " photo"],
    ) -> Iterator[Changes]:
        """See PredictionChanges."""
        size = self._photos_at_once
        for begin in range(0, len(pooled), size):
            part = slice(begin, begin + size)
            without = self._readout.logits_without_each(
                pooled[part],
                logits[part],
                None,
            )
            # Like numpy, torch takes the first of several equal logits.
            new = without.argmax(dim=2).numpy()
            photo, unit = (new != predicted[part, None]).nonzero()
            yield photo + begin, unit, new[photo, unit]
