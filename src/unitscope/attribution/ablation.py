"""Ablation: the prediction before and after units are switched off, at any layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import ranked
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.drawable import Drawable
from unitscope.inputs.subjects import Subject


class Change(NamedTuple):
    """What an ablation did to one class; ranks count from 1, probabilities are softmax (0–1)."""

    label: str
    index: int  # type: ignore[assignment]  # of the class; tuple.index is given up for it
    rank_before: int
    rank_after: int
    logit_before: float
    logit_after: float
    probability_before: float
    probability_after: float


@dataclass(frozen=True, eq=False)
class Ablation(Drawable):
    """Logits (batch, class) before and after the `units` of `layer` were switched off (their feature maps set to zero).

    `maps` are the maps of those units before. `exact` says that `after` is the algebra
    of the head on one forward pass; otherwise it was measured by a second forward pass,
    of the network or of what follows the layer, with the units' maps set to zero. Both
    are what the network would say.
    """

    layer: str
    units: tuple[int, ...]
    before: Float[Tensor, "batch class"]
    after: Float[Tensor, "batch class"]
    maps: UnitMaps
    labels: tuple[str, ...]
    exact: bool

    def __repr__(self) -> str:
        how = "exact" if self.exact else "measured"
        return f"<Ablation of {len(self.units)} units of '{self.layer}' on {len(self.before)} photos, {how}>"

    @classmethod
    def of(cls, explanation: Explanation, units: list[int]) -> Ablation:
        """The ablation of units of the last feature map, from an explanation already made."""
        after = explanation.ablate(units)
        maps = explanation.unit_maps(units)
        return cls(
            maps.layer,
            maps.units,
            explanation.logits,
            after.logits,
            maps,
            explanation.labels,
            explanation.exact,
        )

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The photos."""
        return self.maps.subjects

    def changes(self, count: int = 5, image: int = 0) -> list[Change]:
        """The classes that are among the top `count` before or after, in the order before."""
        before, after = self.before[image].cpu(), self.after[image].cpu()
        everything = len(self.labels)
        was = {
            old.index: (rank, old)
            for rank, old in enumerate(ranked(before, self.labels, everything), 1)
        }
        now = {
            new.index: (rank, new)
            for rank, new in enumerate(ranked(after, self.labels, everything), 1)
        }
        rows = []
        for index, (rank, old) in was.items():
            new_rank, new = now[index]
            if min(rank, new_rank) <= count:
                rows.append(
                    Change(
                        old.label,
                        index,
                        rank,
                        new_rank,
                        old.logit,
                        new.logit,
                        old.probability,
                        new.probability,
                    )
                )
        return rows

    def turned_over(self) -> list[bool]:
        """For every photo, whether the first prediction changed."""
        changed: list[bool] = torch.ne(
            self.before.argmax(dim=1), self.after.argmax(dim=1)
        ).tolist()
        return changed
