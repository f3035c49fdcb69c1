"""Predicted: what a classifier predicted for a batch of photos, and which these are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import (
    Classes,
    Prediction,
    class_index,
    class_indices,
    ranked,
)
from unitscope.attribution.scores import Scores
from unitscope.inputs.further import Further
from unitscope.inputs.photos import PhotoSource
from unitscope.inputs.subjects import Subject


class Predicted:
    """The predictions of a batch of photos.

    `logits` (batch, class); `scores` says how they become probabilities, or that they are
    such.
    """

    logits: Float[Tensor, "batch class"]
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    scores: Scores

    def __len__(self) -> int:
        return len(self.subjects)

    def inputs(self) -> list[PhotoSource] | Tensor:
        """What was explained: the photos' sources, or the tensor of inputs.

        The tensor is (batch, channel, row, col). Both can be explained again.
        """
        tensors = [
            each.tensor for each in self.subjects if each.tensor is not None
        ]
        if tensors:
            return torch.stack(tensors)
        return [
            each.source for each in self.subjects if each.source is not None
        ]

    @property
    def probabilities(self) -> Float[Tensor, "batch class"] | None:
        """Of all classes (0–1), in float64; None where there are none."""
        return self.scores.probabilities(self.logits)

    @property
    def also(self) -> Mapping[str, Any]:
        """The further inputs that were explained, as `explain(also=…)` takes them."""
        return Further.of_each([each.further for each in self.subjects]).values

    def top(self, count: int = 5) -> list[list[Prediction]]:
        """For every photo its `count` best classes: label, index, logit, probability."""
        return [
            ranked(logits, self.labels, count, self.scores)
            for logits in self.logits.detach().cpu()
        ]

    def class_index(self, which: int | str) -> int:
        """The index of a class given by label or index.

        Raises ClassError with near matches.
        """
        return class_index(self.labels, which)

    def _classes_or_all(self, classes: Classes | None) -> list[int]:
        if classes is None:
            return list(range(len(self.labels)))
        return class_indices(self.labels, classes)
