"""Explaining: one batch of inputs → its explanation, exact or local."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import cell_means, is_finite
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.methods import DEFAULT_METHOD, METHODS
from unitscope.attribution.suffix import suffix_after
from unitscope.errors import HeadError, InputError, warn_user
from unitscope.inputs.further import Further
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.inputs.subjects import Subject
from unitscope.model.checks import (
    check_adds_up,
    check_ran,
    check_same_size,
    warn_of_nothing,
)
from unitscope.model.forward import Forward, warn_of_precision
from unitscope.model.network import Network
from unitscope.model.pixels import check_pixels
from unitscope.model.reading import read_batches
from unitscope.model.structure import Structures
from unitscope.model.taking import taken
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
        """The question of these options; raises InputError for one that does not exist."""
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
    """Explains batches with a network; `labels_for` gives the labels of so many classes."""

    network: Network
    structures: Structures
    forward: Forward
    labels_for: Callable[[int], tuple[str, ...]]

    def asked(
        self,
        photos: Tensor | list[Any],
        also: Mapping[str, Any],
        preprocessing: AnyPreprocessing,
        batch_size: int,
    ) -> Iterator[Asked]:
        """Photos in batches, with the explainer for each."""
        like = self.network.like
        for inputs, subjects in read_batches(
            photos, preprocessing, batch_size, like, also
        ):
            further = Further.of_each([each.further for each in subjects])
            asked = self.given(inputs, further, subjects)
            if isinstance(photos, Tensor):
                check_pixels(asked.explainer.network, inputs, preprocessing)
            yield asked

    def whole(
        self,
        batch: Tensor,
        also: Mapping[str, Any] | None,
        preprocessing: AnyPreprocessing,
    ) -> Asked:
        """A whole batch of preprocessed inputs, without subjects."""
        is_usual = isinstance(batch, Tensor) and batch.is_floating_point()
        if is_usual:
            # As a scan makes it: nothing is checked twice.
            further = Further.of_photos(also or {}, len(batch))
            return self.given(batch, further)

        inputs, also = taken(batch, also, self.network)
        if not isinstance(inputs, Tensor):
            raise InputError(
                "activations are those of a (batch, channel, row, col) tensor, not of a "
                f"{type(batch).__name__}"
            )
        asked = self.given(inputs, Further.of_photos(also, len(inputs)))
        check_pixels(asked.explainer.network, inputs, preprocessing)
        return asked

    def given(
        self,
        inputs: Tensor,
        further: Further,
        subjects: tuple[Subject, ...] = (),
    ) -> Asked:
        """A batch with the explainer for it, of the network with its further inputs."""
        pixels = inputs.dtype is torch.uint8
        if not further and not pixels:
            return Asked(self, inputs, subjects)

        network = self.network.given(further, pixels)
        structures = self.structures.of(network)
        forward = self.forward.of(network, structures)
        explainer = dataclasses.replace(
            self, network=network, structures=structures, forward=forward
        )
        like = network.like
        return Asked(explainer, inputs.to(like.device, like.dtype), subjects)

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
                try:
                    return self._exactly(
                        batch, subjects, head, question.bfloat16
                    )
                except HeadError:
                    if not self.network.further:
                        raise
                    return self.explain_locally(batch, subjects)

        assert isinstance(head, LocalHead)
        if question.bfloat16:
            warn_of_precision("local answers are computed in that")
        return self._locally(batch, subjects, head)

    def explain_locally(
        self,
        batch: Float[Tensor, "batch channel row col"],
        subjects: tuple[Subject, ...],
    ) -> LocalExplanation:
        """The local answer at the exact head's layer, for a head that photos do not share."""
        shape = tuple(batch.shape[1:])
        head = self.structures.head(shape, method=DEFAULT_METHOD)
        assert isinstance(head, LocalHead)
        names = " and ".join(map(repr, self.network.further.values))
        reason = f"the head depends on {names}, and differs from photo to photo"
        head = dataclasses.replace(head, reason=reason)
        return self._locally(batch, subjects, head)

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
            self.labels_for(passed.logits.shape[1]),
            subjects,
            size_of(batch),
            rounded=rounded,
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
            module, layer, passed.outputs, batch, start
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
            self.labels_for(passed.logits.shape[1]),
            subjects,
            size_of(batch),
            suffix=dataclasses.replace(suffix, calling=self.network.calling),
        )


class Asked(NamedTuple):
    """A batch of inputs (batch, channel, row, col), and what explains it."""

    explainer: Explainer
    inputs: Tensor
    subjects: tuple[Subject, ...]


def explained(
    batches: Iterable[Asked],
    question: Question,
    progress: Callable[[int], None] | None = None,
) -> Explanation:
    """The explanation of all batches; `progress` is called with the photos done."""
    parts: list[Explanation] = []
    kept: list[Asked] = []
    for asked in batches:
        explainer, inputs, subjects = asked
        parts.append(explainer.explain(inputs, subjects, question))
        if explainer.network.further:
            kept.append(asked)
        if progress is not None:
            progress(len(subjects))
    check_same_size(part.input_size for part in parts)

    if kept and not _share_head(parts):
        parts = [
            explainer.explain_locally(inputs, subjects)
            for explainer, inputs, subjects in kept
        ]
    return parts[0] if len(parts) == 1 else parts[0].joined(parts[1:])


def _share_head(parts: Sequence[Explanation]) -> bool:
    """Whether the heads of several explanations are the same, to rounding."""
    readouts = [
        part.head.readout for part in parts if isinstance(part.head, ExactHead)
    ]
    if not readouts:
        return True
    if len(readouts) < len(parts):
        return False
    first, *rest = readouts
    return all(
        torch.allclose(first.weight, other.weight)
        and torch.allclose(first.bias, other.bias)
        for other in rest
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
