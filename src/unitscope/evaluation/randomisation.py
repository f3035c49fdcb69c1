"""Randomisation: whether maps change when the network forgets what it has learnt."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.likeness import likeness
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure
from unitscope.model import Classifier

_SEED = 0


def randomised(model: Classifier, share: float) -> Classifier:
    """A copy of a model whose last layers have random weights; the model stays as it is.

    `share` is that of the modules with weights, the last ones of them by registration; 0
    means the very last. Each tensor becomes normal numbers of its own mean and deviation,
    so that activations keep their scale. Buffers (running means) stay.
    """
    module = copy.deepcopy(model.module)
    holders = [
        each
        for each in module.modules()
        if any(True for _ in each.parameters(recurse=False))
    ]
    count = max(1, round(share * len(holders)))
    generator = torch.Generator().manual_seed(_SEED)
    for holder in holders[-count:]:
        _draw_anew(holder, generator)
    return Classifier(
        module,
        model.labels,
        model.preprocessing,
        output=model.output,
        scores=model.scores,
        also=dict(model.also),
    )


def _draw_anew(holder: nn.Module, generator: torch.Generator) -> None:
    for parameter in holder.parameters(recurse=False):
        values = parameter.detach().float().cpu()
        normal = torch.randn(values.shape, generator=generator)
        deviation = values.std(correction=0)
        with torch.no_grad():
            parameter.copy_(values.mean() + deviation * normal)


class Randomised(Measure):
    """How alike a map stays when the network's last layers forget what they learnt."""

    unit: ClassVar[str] = "|rank correlation|"
    better: ClassVar[int] = -1
    source: ClassVar[str] = (
        "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018"
    )
    of_nulls: ClassVar[bool] = False
    share: ClassVar[float]

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        if self.name not in batch.memory:
            batch.memory[self.name] = randomised(batch.model, self.share)
        forgetful = batch.memory[self.name]
        found = {}
        for name, each in maps.items():
            assert each.again is not None
            other = each.again(forgetful, batch.inputs, batch.classes)
            found[name] = np.abs(likeness(each.values, other.values))
        return found


_FORMULA = (
    "|Spearman's rank correlation| of the map's cells with those after the weights of {} "
    "became normal numbers of their mean and deviation; unrelated maps of n cells have "
    "about 0.8/√n"
)


class RandomisedHead(Randomised):
    """After the last layer's weights were randomised."""

    name: ClassVar[str] = "randomised head"
    formula: ClassVar[str] = _FORMULA.format("the last layer")
    share: ClassVar[float] = 0.0


class RandomisedHalf(Randomised):
    """After the weights of the later half of the layers were randomised."""

    name: ClassVar[str] = "randomised later half"
    formula: ClassVar[str] = _FORMULA.format("the later half of the layers")
    share: ClassVar[float] = 0.5


class RandomisedAll(Randomised):
    """After all weights were randomised."""

    name: ClassVar[str] = "randomised network"
    formula: ClassVar[str] = _FORMULA.format("all layers")
    share: ClassVar[float] = 1.0
