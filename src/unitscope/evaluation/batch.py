"""Batch: photos as the network takes them, each with the class that is explained."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unitscope.evaluation.hiding import Hiding
from unitscope.model import Classifier

_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Photos with their ids, the class explained of each, and what hides pixels.

    `masks` say where in the input what belongs to the class is; None where nothing is
    known of that. `seed` is that of the evaluation, and `memory` what measures keep from
    one batch of it to the next.
    """

    model: Classifier
    inputs: Float[Tensor, "photo channel row col"]
    ids: tuple[str, ...]
    classes: tuple[int, ...]
    hiding: Hiding
    masks: Bool[np.ndarray, "photo row col"] | None = None
    seed: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def input_size(self) -> tuple[int, int]:
        """(rows, cols) of the network's input."""
        rows, cols = self.inputs.shape[2:]
        return int(rows), int(cols)

    def hidden(self) -> Float[Tensor, "photo channel row col"]:
        """The photos with every pixel hidden."""
        return self.hiding.hidden(self.inputs)

    def seed_of(self, photo: int) -> int:
        """A seed that depends on the photo's id and the evaluation's seed alone."""
        text = f"{self.seed} {self.ids[photo]}"
        return zlib.crc32(text.encode("utf-8", "surrogateescape"))

    def scores(
        self,
        inputs: Float[Tensor, "input channel row col"],
        owners: Sequence[int],
    ) -> Float[np.ndarray, " input"]:
        """The probability of the class of each input's photo, given by its place.

        The class's number itself, where the network gives no probabilities.
        """
        return self._values(inputs, owners, as_probabilities=True)

    def logits(
        self,
        inputs: Float[Tensor, "input channel row col"],
        owners: Sequence[int],
    ) -> Float[np.ndarray, " input"]:
        """The logit of the class of each input's photo."""
        return self._values(inputs, owners, as_probabilities=False)

    def _values(
        self, inputs: Tensor, owners: Sequence[int], as_probabilities: bool
    ) -> Float[np.ndarray, " input"]:
        parts = [np.zeros(0)]
        for start in range(0, len(inputs), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            values = logits_of(self.model, inputs[some])
            if as_probabilities:
                probabilities = self.model.scores.probabilities(values)
                values = values if probabilities is None else probabilities
            classes = [self.classes[owner] for owner in owners[some]]
            chosen = values[range(len(values)), classes]
            parts.append(chosen.double().cpu().numpy())
        return np.concatenate(parts)


def logits_of(
    model: Classifier, inputs: Float[Tensor, "input channel row col"]
) -> Float[Tensor, "input class"]:
    """The logits of one forward pass, compiled while the network is frozen."""
    with torch.no_grad():
        return model.activations(inputs).logits
