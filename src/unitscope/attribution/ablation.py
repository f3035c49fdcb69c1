"""Ablation: the prediction before and after units of a layer are switched off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import ranked
from unitscope.attribution.effects import Effect
from unitscope.attribution.explanation import Explanation, Units
from unitscope.attribution.scores import Scores
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.drawable import Drawable
from unitscope.inputs.subjects import Subject
from unitscope.plurals import plural


class Change(NamedTuple):
    """What an ablation did to one class.

    Ranks count from 1; probabilities (0–1) are None where the scores have none.
    """

    label: str
    index: int  # type: ignore[assignment]  # the class's; it replaces tuple.index
    rank_before: int
    rank_after: int
    logit_before: float
    logit_after: float
    probability_before: float | None
    probability_after: float | None


@dataclass(frozen=True, eq=False)
class Ablation(Drawable):
    """Logits before and after `units` of a layer were switched off, or replaced.

    `replaced` says in words what their maps became, "" where they are off: zero; `where`
    which of their cells, "" for all.

    `before` and `after` are (batch, class); `maps` are the maps of those units before.
    `exact` says that `after` is the algebra of the head on one forward pass; otherwise a
    second forward pass, of the network or of what follows the layer, measured it. Both are
    what the network would say. Only the direct `effect` of attention heads is not: what
    follows them is held. None where there is but one effect.
    """

    layer: str
    units: tuple[int, ...]
    before: Float[Tensor, "batch class"]
    after: Float[Tensor, "batch class"]
    maps: UnitMaps
    labels: tuple[str, ...]
    exact: bool
    scores: Scores
    effect: Effect | None = None
    replaced: str = ""
    where: str = ""

    def __repr__(self) -> str:
        how = "exact" if self.exact else "measured"
        if self.effect is not None:
            how = f"{self.effect} effect"
        units = plural(len(self.units), self.maps.noun)
        photos = plural(len(self.before), "photo")
        return f"<Ablation of {units} of '{self.layer}' on {photos}, {how}>"

    @classmethod
    def of(
        cls,
        explanation: Explanation,
        units: Units,
        effect: Effect = "total",
        after: Float[Tensor, "batch class"] | None = None,
        replaced: str = "",
        where: str = "",
    ) -> Ablation:
        """The ablation of units of the explained feature map.

        `after` are the logits of another change than switching them off, which the words
        tell.
        """
        if after is None:
            after = explanation.logits_without(units, effect)
        maps = explanation.unit_maps(units)
        reacts = explanation.head.maps_are_a_part
        return cls(
            layer=maps.layer,
            units=maps.units,
            before=explanation.logits,
            after=after,
            maps=maps,
            labels=explanation.labels,
            exact=explanation.exact or (reacts and effect == "direct"),
            scores=explanation.scores,
            effect=effect if reacts else None,
            replaced=replaced,
            where=where,
        )

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The photos."""
        return self.maps.subjects

    def changes(self, count: int = 5, image: int = 0) -> list[Change]:
        """The classes among the top `count` before or after, in their original order."""
        classes = len(self.labels)
        before, after = (
            ranked(logits[image].cpu(), self.labels, classes, self.scores)
            for logits in (self.before, self.after)
        )
        rank_after = {
            new.index: (rank, new) for rank, new in enumerate(after, 1)
        }

        changes = []
        for rank, old in enumerate(before, 1):
            new_rank, new = rank_after[old.index]
            if min(rank, new_rank) > count:
                continue
            change = Change(
                label=old.label,
                index=old.index,
                rank_before=rank,
                rank_after=new_rank,
                logit_before=old.logit,
                logit_after=new.logit,
                probability_before=old.probability,
                probability_after=new.probability,
            )
            changes.append(change)
        return changes

    def turned_over(self) -> list[bool]:
        """For every photo, whether the top prediction changed."""
        before, after = self.before.argmax(dim=1), self.after.argmax(dim=1)
        changed: list[bool] = torch.ne(before, after).tolist()
        return changed
