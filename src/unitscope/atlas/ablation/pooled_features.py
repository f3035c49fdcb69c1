"""Pooled features: the pooled units of all photos with their classes, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from unitscope.attribution.readout import Readout
from unitscope.errors import InputError, NonFiniteError

# Photos that are scored at once: few enough for the cache, and enough that threads do
# not mostly wait for each other.
_PHOTOS_AT_ONCE = 1024


class PooledFeatures(NamedTuple):
    """The pooled units of some photos, their classes, and their splits.

    `target` is the index of the photo's class among the logits, −1 without one: such a
    photo does not count. Units are ranked on the photos of the `ranking` split, and
    results are reported on the others.
    """

    pooled: Float32[np.ndarray, "photo unit"]
    target: Int64[np.ndarray, " photo"]
    ranking: Bool[np.ndarray, " photo"]


SplitName: TypeAlias = Literal["ranking", "reporting", "all"]

# Called once for every pass over the data set, which is never in memory as a whole.
PooledSource: TypeAlias = Callable[[], Iterable[PooledFeatures]]


class Block(NamedTuple):
    """Photos that have a class, few enough to be scored at once, with their logits."""

    pooled: Float32[Tensor, "photo unit"]
    logits: Float32[Tensor, "photo class"]
    target: Int64[np.ndarray, " photo"]
    ranking: Bool[np.ndarray, " photo"]


def on_processor(readout: Readout) -> Readout:
    """The readout on the processor, in float32, without gradients."""
    return Readout(
        readout.weight.detach().to("cpu", torch.float32),
        readout.bias.detach().to("cpu", torch.float32),
        readout.norm,
    )


def blocks(
    readout: Readout, source: PooledSource, split: SplitName = "all"
) -> Iterator[Block]:
    """The photos of a split in blocks.

    Raises InputError for features that do not fit the readout, NonFiniteError for nan
    or infinite ones.
    """
    for features in source():
        _check(features, readout)
        rows = _rows(features, split)
        for begin in range(0, len(rows), _PHOTOS_AT_ONCE):
            chosen = rows[begin : begin + _PHOTOS_AT_ONCE]
            pooled = torch.from_numpy(features.pooled[chosen])
            yield Block(
                pooled=pooled,
                logits=readout.logits(pooled),
                target=features.target[chosen],
                ranking=features.ranking[chosen],
            )


def _rows(
    features: PooledFeatures, split: SplitName
) -> Int64[np.ndarray, " row"]:
    """The photos of a split that have a class."""
    counts = features.target >= 0
    if split == "ranking":
        counts &= features.ranking
    if split == "reporting":
        counts &= ~features.ranking
    return np.flatnonzero(counts)


def _check(features: PooledFeatures, readout: Readout) -> None:
    classes, units = readout.weight.shape
    width = features.pooled.shape[1]
    if width != units:
        raise InputError(
            f"the pooled features are of {width} units, the head reads {units}: "
            "compute them with this head's network"
        )

    target = features.target
    wrong = target[(target >= classes) | (target < -1)]
    if len(wrong):
        raise InputError(
            f"a photo is of class {wrong[0]}: expected 0 to {classes - 1}, or −1 "
            "without a class"
        )
    if not np.isfinite(features.pooled).all():
        raise NonFiniteError(
            "the pooled features contain nan or infinite numbers: compute them again "
            "in float32"
        )
