"""Explaining: one batch of inputs → its explanation, exact or local."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import cell_means, is_finite
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.methods import METHODS
from unitscope.attribution.suffix import suffix_after
from unitscope.errors import HeadError, InputError, warn_user
from unitscope.inputs.subjects import Subject
from unitscope.model.checks import check_adds_up, check_ran, warn_of_nothing
from unitscope.model.forward import Forward, warn_of_precision
from unitscope.model.network import Network
from unitscope.model.scoring import Scoring
from unitscope.model.structure import Structures
from unitscope.tracing.ending import Ending
from unitscope.tracing.layers import Layer, find_map_layer


@dataclass(frozen=True)
class Question:
    """What is asked: the best answer, or a local one at a `layer`, or by a `method`."""

    layer: str | None = None
    method: str | None = None
    bfloat16: bool = False

    @classmethod
    def of(
        cls, layer: str | None, method: str | None, precision: str | None
    ) -> Question:
        """The question of a user; raises InputError for an unknown method or precision."""
        if precision not in (None, "float32", "bfloat16"):
            raise InputError(
                f"there is no precision '{precision}': choose 'float32' or 'bfloat16'"
            )
        if method is not None and method not in METHODS:
            choices = " or ".join(map(repr, METHODS))
            raise InputError(f"there is no method '{method}': choose {choices}")
        return cls(layer, method, precision == "bfloat16")


@dataclass(frozen=True)
class Explainer:
    """Explains batches with a network."""

    network: Network
    structures: Structures
    forward: Forward
    scoring: Scoring

    def explain(
        self,
        batch: Float[Tensor, "batch channel row col"],
        subjects: tuple[Subject, ...],
        question: Question,
    ) -> Explanation:
        """The explanation of a batch. Raises as `Classifier.explain` does."""
        shape = tuple(batch.shape[1:])
        head = self.structures.head(shape, question.layer, question.method)
        if isinstance(head, ExactHead):
            try:
                return self._exactly(batch, subjects, head, question.bfloat16)
            except HeadError:
                # The network may have changed since its head was found: find it anew.
                self.forward.forget(shape)
            head = self.structures.head(shape, question.layer, question.method)
            if isinstance(head, ExactHead):
                return self._exactly(batch, subjects, head, question.bfloat16)

        assert isinstance(head, LocalHead)
        if question.bfloat16:
            warn_of_precision("local answers are computed in that")
        return self._locally(batch, subjects, head)

    def ending_at(self, batch: Tensor) -> Ending:
        """Where the logits are in a forward pass of a batch."""
        return self.structures.at(tuple(batch.shape[1:])).ending

    def _exactly(
        self,
        batch: Tensor,
        subjects: tuple[Subject, ...],
        head: ExactHead,
        bfloat16: bool,
    ) -> ExactExplanation:
        rounded = 0.0
        if bfloat16:
            passed, rounded = self.forward.run_bfloat16(batch)
        else:
            passed = self.forward.run(batch)
        assert passed.feature_map is not None and passed.readout is not None

        units = cell_means(passed.feature_map)
        # Rounded logits are the algebra's own, computed from these very units.
        if not rounded or not is_finite(passed.logits):
            check_adds_up(self.network, passed, batch, units)
        warn_of_nothing(
            self.network, passed, units, passed.feature_map, batch, subjects
        )
        return ExactExplanation(
            passed.logits,
            passed.feature_map,
            # The weights of this very pass: a network in training is explained as it is.
            dataclasses.replace(head, readout=passed.readout),
            self.scoring.labels_for(passed.logits.shape[1]),
            subjects,
            size_of(batch),
            rounded=rounded,
            scores=self.structures.scores_at(tuple(batch.shape[1:])).scores,
        )

    def _locally(
        self, batch: Tensor, subjects: tuple[Subject, ...], head: LocalHead
    ) -> LocalExplanation:
        layers = self.structures.at(tuple(batch.shape[1:])).layers
        layer = find_map_layer(layers, head.layer)
        start = find_map_layer(layers, head.start) if head.start else None
        needed = [layer] if start in (None, layer) else [layer, start]

        names = tuple(each.name for each in needed)
        passed = self.forward.run(batch, names, with_head=False)
        self.network.check_finite(passed.logits, batch, "the logits")
        for each in needed:
            check_ran(each, passed)

        module = self.network.module
        feature_map, suffix = suffix_after(
            module, layer, passed.outputs, batch, start, self.ending_at(batch)
        )
        if head.silent and head.attributes_by.needs_direction:
            _warn_of_silence(layer)
        what = f"the feature maps of layer '{layer.name}'"
        self.network.check_finite(feature_map, batch, what)
        units = cell_means(feature_map)
        warn_of_nothing(
            self.network, passed, units, feature_map, batch, subjects
        )
        return LocalExplanation(
            passed.logits,
            feature_map,
            head,
            self.scoring.labels_for(passed.logits.shape[1]),
            subjects,
            size_of(batch),
            suffix=suffix,
            scores=self.structures.scores_at(tuple(batch.shape[1:])).scores,
        )


def _warn_of_silence(layer: Layer) -> None:
    others = [
        name for name, method in METHODS.items() if not method.needs_direction
    ]
    warn_user(
        f"a normalisation reads every cell of layer '{layer.name}' by itself, so that "
        "gradient · activation is 0 in each of them: name the layer of that "
        f"normalisation, or ask for the method {' or '.join(others)}"
    )


def size_of(batch: Tensor) -> tuple[int, int]:
    """The size (rows, cols) of a batch's inputs."""
    return int(batch.shape[2]), int(batch.shape[3])
