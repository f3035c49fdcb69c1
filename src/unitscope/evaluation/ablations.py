"""Ablations: whether what a map says of parts is what switching them off really does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.likeness import likeness
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure

PATCHES = 7
"""Patches along either side of the input."""


def patches(
    input_size: tuple[int, int], along: int = PATCHES
) -> Bool[np.ndarray, "patch row col"]:
    """Masks of patches that tile an input, as even as pixels allow."""
    rows, cols = (np.arange(pixels) * along // pixels for pixels in input_size)
    number = rows[:, None] * along + cols
    found: np.ndarray = number == np.arange(along**2)[:, None, None]
    return found


def _losses(
    batch: Batch, masks: Bool[np.ndarray, "patch row col"]
) -> Float[np.ndarray, "photo patch"]:
    """What the class's logit loses when each patch alone is hidden: real passes."""
    hidden = batch.hidden()
    before = batch.logits(batch.inputs, range(len(batch)))
    device = batch.inputs.device
    losses = []
    for place in range(len(batch)):
        mixed: Tensor = torch.where(
            torch.from_numpy(masks)[:, None].to(device),
            hidden[place],
            batch.inputs[place],
        )
        after = batch.logits(mixed, [place] * len(masks))
        losses.append(before[place] - after)
    return np.stack(losses)


class PatchCorrelation(Measure):
    """Whether patches with much of the map are those whose loss costs the logit much."""

    name: ClassVar[str] = "patch correlation"
    formula: ClassVar[str] = (
        f"Spearman's rank correlation over {PATCHES}×{PATCHES} patches: the sum of the map "
        "over a patch, and what the logit loses when that patch alone is hidden"
    )
    unit: ClassVar[str] = "rank correlation"
    better: ClassVar[int] = 1
    low: ClassVar[float | None] = -1.0
    source: ClassVar[str] = (
        "Ancona et al., ICLR 2018 (sensitivity-n, here n = 1 patch, by ranks)"
    )

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        masks = patches(batch.input_size)
        losses = _losses(batch, masks)
        return {
            name: likeness(
                np.einsum("byx,pyx->bp", each.on_input(), masks),
                losses,
            )
            for name, each in maps.items()
        }


class UnitCorrelation(Measure):
    """Whether units that contribute much are those whose loss costs the logit much."""

    name: ClassVar[str] = "unit correlation"
    formula: ClassVar[str] = (
        "Spearman's rank correlation over the units of the explained layer: contributions, "
        "and what the logit loses when that unit alone is switched off by a real pass"
    )
    unit: ClassVar[str] = "rank correlation"
    better: ClassVar[int] = 1
    low: ClassVar[float | None] = -1.0
    source: ClassVar[str] = "Bau et al., PNAS 2020 (units switched off)"
    of_nulls: ClassVar[bool] = False

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure. NaN for methods that give units no contributions."""
        losses: dict[str | None, np.ndarray] = {}
        found = {}
        for name, each in maps.items():
            if each.contributions is None:
                found[name] = np.full(len(batch), np.nan)
                continue
            if each.layer not in losses:
                losses[each.layer] = _unit_losses(batch, each.layer)
            found[name] = likeness(each.contributions, losses[each.layer])
        return found


def _unit_losses(
    batch: Batch, layer: str | None
) -> Float[np.ndarray, "photo unit"]:
    """What the class's logit loses when each unit of a layer alone is off."""
    result = batch.model.ablations(batch.inputs, layer)
    everyone, classes = range(len(batch)), list(batch.classes)
    before = result.before[everyone, classes]
    after = result.after[everyone, :, classes]
    losses: np.ndarray = (before[:, None] - after).double().cpu().numpy()
    return losses
