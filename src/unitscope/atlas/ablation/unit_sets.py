"""Unit sets: the predictions with several units off at once, for any number of sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from unitscope.atlas.ablation.confusion import Confusion
from unitscope.atlas.ablation.pooled_features import (
    Block,
    PooledSource,
    SplitName,
    blocks,
    on_processor,
)
from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.readout import Readout
from unitscope.errors import InputError

Units: TypeAlias = Sequence[int] | Int64[np.ndarray, " _"]
_Mask: TypeAlias = Bool[np.ndarray, " unit"]


def confusion_without(
    readout: Readout,
    source: PooledSource,
    sets: Sequence[Units],
    on: SplitName = "reporting",
) -> Confusion:
    """The counts with each of several sets of units off, (set, class).

    One pass over the photos of the split `on`. For a linear readout a set costs photos
    × classes × the number of units off, or on, whichever is smaller. Raises InputError
    for units that do not exist.
    """
    readout = on_processor(readout)
    classes, units = readout.weight.shape
    masks = [_mask(off, units) for off in sets]

    tp = np.zeros((len(sets), classes), dtype=np.int64)
    fp = np.zeros((len(sets), classes), dtype=np.int64)
    positives = np.zeros(classes, dtype=np.int64)
    for block in blocks(readout, source, on):
        positives += np.bincount(block.target, minlength=classes)
        for place, logits in enumerate(_logits_without(readout, block, masks)):
            predicted = logits.numpy().argmax(axis=1)
            correct = predicted[predicted == block.target]
            all_counts = np.bincount(predicted, minlength=classes)
            hits = np.bincount(correct, minlength=classes)
            tp[place] += hits
            fp[place] += all_counts - hits
    return Confusion(tp, fp, positives)


def curve(
    readout: Readout,
    source: PooledSource,
    order: Units,
    sizes: Sequence[int],
    on: SplitName = "reporting",
) -> Confusion:
    """The counts with the first n units of an order off, for every n of `sizes`.

    The counts are (size, class). Raises InputError for sizes that are not possible.
    """
    check_sizes(sizes, len(order))
    sets = [order[:size] for size in sizes]
    return confusion_without(readout, source, sets, on)


def check_sizes(sizes: Sequence[int], units: int) -> None:
    """Raise InputError unless that many of `units` units can be off."""
    for size in sizes:
        if not 0 <= size <= units:
            raise InputError(
                f"{size} units cannot be off: expected 0 to {units}, the units of the "
                "layer"
            )


def _mask(off: Units, units: int) -> _Mask:
    """A mask of the units that are off."""
    indices = np.asarray(off, dtype=np.int64)
    wrong = indices[(indices < 0) | (indices >= units)]
    if len(wrong):
        raise InputError(
            f"there is no unit {wrong[0]}: the head reads {units} units, 0 to "
            f"{units - 1}"
        )
    mask = np.zeros(units, dtype=bool)
    mask[indices] = True
    return mask


def _logits_without(
    readout: Readout, block: Block, masks: Sequence[_Mask]
) -> Iterator[Float32[Tensor, "photo class"]]:
    """The logits of a block with every set of units off in turn."""
    if readout.norm is not None:
        for mask in masks:
            is_on = torch.from_numpy(~mask)
            yield readout.logits(block.pooled * is_on)
        return

    # The values of a unit are contiguous, so that choosing units copies whole rows.
    pooled = block.pooled.T.contiguous()
    weight = readout.weight.T.contiguous()
    for mask in masks:
        # Subtract the units that are off, or add up those that are on.
        subtract = 2 * int(mask.sum()) <= len(mask)
        used = mask if subtract else ~mask
        chosen = torch.from_numpy(np.flatnonzero(used))
        chosen_pooled = pooled.index_select(0, chosen).T
        chosen_weight = weight.index_select(0, chosen)
        with without_autocast(chosen_pooled):
            if subtract:
                yield torch.addmm(
                    block.logits,
                    chosen_pooled,
                    chosen_weight,
                    alpha=-1,
                )
            else:
                yield torch.addmm(readout.bias, chosen_pooled, chosen_weight)
