"""Explaining: one batch of inputs → its explanation, exact or local."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import cell_means, is_finite
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.head import Head
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.local_search import Photos
from unitscope.attribution.methods import DEFAULT_METHOD
from unitscope.engine.passes import ForwardPass
from unitscope.errors import HeadError, InputError, warn_user
from unitscope.inputs.further import Further
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.inputs.subjects import Subject
from unitscope.interrupts import unbroken
from unitscope.model.checks import (
    check_adds_up,
    check_same_size,
    warn_of_nothing,
    warn_of_silence,
)
from unitscope.model.forward import Forward, warn_of_precision
from unitscope.model.network import Network
from unitscope.model.pixels import check_pixels
from unitscope.model.question import Question
from unitscope.model.reading import read_batches
from unitscope.model.rest import rest_after
from unitscope.model.scoring import Scoring
from unitscope.model.structure import Structures
from unitscope.model.taking import taken
from unitscope.residual.explanation import ResidualExplanation
from unitscope.residual.head import ResidualHead
from unitscope.residual.stream import Stream
from unitscope.tracing.arguments import tensors_in
from unitscope.tracing.ending import Ending
from unitscope.tracing.layers import Layer, find_map_layer


@dataclass(frozen=True)
class Explainer:
    """Explains batches with a network."""

    network: Network
    structures: Structures
    forward: Forward
    scoring: Scoring

    def asked(
        self,
        photos: Tensor | list[Any],
        also: Mapping[str, Any],
        preprocessing: AnyPreprocessing,
        batch_size: int,
    ) -> Iterator[Asked]:
        """Photos in batches, with the explainer for each."""
        like = self.network.like
        further = Further.of_photos(also, len(photos))
        done = 0
        for inputs, subjects in read_batches(
            photos, preprocessing, batch_size, like
        ):
            rows = range(done, done + len(subjects))
            done += len(subjects)
            asked = self.given(inputs, further.rows(rows), subjects)
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
        inputs = inputs.to(like.device, like.dtype)
        return Asked(explainer, inputs, _with_further(subjects, further))

    def explain(
        self,
        batch: Float[Tensor, "batch channel row col"],
        subjects: tuple[Subject, ...],
        question: Question,
    ) -> Explanation:
        """The explanation of a batch. Raises as `Classifier.explain` does."""
        head = self._head(batch, subjects, question)
        if question.differentiable:
            self._check_differentiable(batch)
        if not isinstance(head, LocalHead):
            try:
                return self._by(head, batch, subjects, question)
            except HeadError:
                # The network may have changed since its head was found: find it anew.
                self.forward.forget(tuple(batch.shape[1:]))
            head = self._head(batch, subjects, question)
        try:
            return self._by(head, batch, subjects, question)
        except HeadError as error:
            if isinstance(head, ResidualHead):
                raise HeadError(
                    f"{error}; ask for a local answer, method='{DEFAULT_METHOD}' "
                    f"(--method {DEFAULT_METHOD})"
                ) from None
            if not (isinstance(head, ExactHead) and self.network.further):
                raise
            return self.explain_locally(batch, subjects, question)

    def _by(
        self,
        head: Head,
        batch: Tensor,
        subjects: tuple[Subject, ...],
        question: Question,
    ) -> Explanation:
        """The explanation by a head of any kind."""
        if isinstance(head, ExactHead):
            return self._exactly(batch, subjects, head, question)
        if isinstance(head, ResidualHead):
            return self._by_stream(batch, subjects, head, question)
        assert isinstance(head, LocalHead)
        return self._locally(batch, subjects, head, question)

    def _head(
        self, batch: Tensor, subjects: tuple[Subject, ...], question: Question
    ) -> Head:
        """The head for a batch, which may itself show where a local answer can be given."""
        shape = tuple(batch.shape[1:])
        structure = self.structures.at(shape)
        if structure.residual is not None:
            question.check_heads_alone()
        compiled = structure.layers_of_best_local()
        names = tuple(subject.name for subject in subjects)
        photos = Photos(batch.detach(), names, self.network.calling)
        head = self.structures.head(
            shape, question.layer, self._method(question, shape), photos
        )
        if structure.layers_of_best_local() != compiled:
            self.forward.recompile(shape)
        return head

    def _method(self, question: Question, shape: tuple[int, ...]) -> str | None:
        """The method asked for, or that of a local answer, which carries gradients."""
        is_residual = self.structures.at(shape).residual is not None
        if not (question.differentiable and is_residual):
            return question.method
        warn_user(
            "the account of the residual stream carries no gradients: the answer is local "
            "for differentiable=True"
        )
        return question.method or DEFAULT_METHOD

    def ending_at(self, batch: Tensor) -> Ending:
        """Where the logits are in a forward pass of a batch."""
        return self.structures.at(tuple(batch.shape[1:])).ending

    def explain_locally(
        self,
        batch: Float[Tensor, "batch channel row col"],
        subjects: tuple[Subject, ...],
        question: Question,
    ) -> LocalExplanation:
        """The local answer at the exact head's layer, for a head that photos do not share."""
        at_head = dataclasses.replace(
            question, layer=None, method=DEFAULT_METHOD
        )
        head = self._head(batch, subjects, at_head)
        assert isinstance(head, LocalHead)
        names = " and ".join(map(repr, self.network.further.values))
        reason = f"the head depends on {names}, and differs from photo to photo"
        head = dataclasses.replace(head, reason=reason, instead="")
        return self._locally(batch, subjects, head, question)

    def _exactly(
        self,
        batch: Tensor,
        subjects: tuple[Subject, ...],
        head: ExactHead,
        question: Question,
    ) -> ExactExplanation:
        rounded = 0.0
        if question.bfloat16:
            passed, rounded = self.forward.run_bfloat16(batch)
        else:
            passed = self.forward.run(
                batch, differentiable=question.differentiable
            )
        self._check_recorded(passed, question.differentiable)
        assert passed.feature_map is not None and passed.readout is not None

        with unbroken(torch.no_grad()):
            units = cell_means(passed.feature_map)
            # Rounded logits are the algebra's own, computed from these very units.
            if not rounded or not is_finite(passed.logits):
                check_adds_up(self.network, passed, batch, units)
            warn_of_nothing(
                self.network,
                passed,
                units,
                passed.feature_map,
                batch,
                subjects,
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
            differentiable=question.differentiable,
        )

    def _by_stream(
        self,
        batch: Tensor,
        subjects: tuple[Subject, ...],
        head: ResidualHead,
        question: Question,
    ) -> ResidualExplanation:
        if question.bfloat16:
            warn_of_precision("residual answers are computed in that")
        network, shape = self.network, tuple(batch.shape[1:])
        stream_path = self.structures.at(shape).stream
        assert stream_path is not None
        with network.running():
            stream = network.guarded(
                lambda: Stream.of(
                    network.module, stream_path, batch, network.calling
                ),
                shape,
            )
        network.check_finite(stream.logits, batch, "the logits")
        stream.account.check(stream.logits, batch.dtype)
        return ResidualExplanation(
            stream.logits,
            stream.account.attention,
            head,
            self.scoring.labels_for(stream.logits.shape[1]),
            subjects,
            size_of(batch),
            stream=stream,
            scores=self.structures.scores_at(shape).scores,
        )

    def _check_differentiable(self, batch: Tensor) -> None:
        """Raise where nothing requires gradients; say where a pass is not compiled."""
        if batch.requires_grad and self.network.pixels:
            raise InputError(
                "the network takes uint8 pixels, and no gradient passes whole numbers: "
                "leave out x.requires_grad_(), or wrap the network behind the conversion"
            )
        parameters = self.network.module.parameters()
        given = (batch, *tensors_in(dict(self.network.further.values)))
        if not any(each.requires_grad for each in chain(given, parameters)):
            raise InputError(
                "differentiable=True, but neither the inputs nor any parameter of the "
                "network requires gradients: call x.requires_grad_() first"
            )
        if self.forward.frozen is not None:
            warn_user(
                "compiled passes carry no gradients: the frozen network runs as it is "
                "for differentiable=True"
            )

    def _check_recorded(
        self, passed: ForwardPass, differentiable: bool
    ) -> None:
        if differentiable and not passed.logits.requires_grad:
            raise HeadError(
                "the network computes its logits outside autograd (no_grad, detach or "
                "numpy in its forward), so that they carry no gradients: leave out "
                "differentiable"
            )

    def _locally(
        self,
        batch: Tensor,
        subjects: tuple[Subject, ...],
        head: LocalHead,
        question: Question,
    ) -> LocalExplanation:
        if question.bfloat16:
            warn_of_precision("local answers are computed in that")
        layer, start = self._layers_of(head, batch)
        differentiable = question.differentiable
        rest = rest_after(
            self.network,
            self.structures,
            self.forward,
            batch,
            layer,
            start,
            differentiable,
        )
        passed, feature_map = rest.passed, rest.feature_map
        self._check_recorded(passed, differentiable)
        if head.silent and head.attributes_by.needs_direction:
            warn_of_silence(layer)
        with unbroken(torch.no_grad()):
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
            suffix=rest.suffix,
            scores=self.structures.scores_at(tuple(batch.shape[1:])).scores,
            differentiable=differentiable,
        )

    def _layers_of(
        self, head: LocalHead, batch: Tensor
    ) -> tuple[Layer, Layer | None]:
        """The layer of a local head, and the one that is handed over before it."""
        layers = self.structures.at(tuple(batch.shape[1:])).layers
        layer = find_map_layer(layers, head.layer)
        start = find_map_layer(layers, head.start) if head.start else None
        return layer, start


class Asked(NamedTuple):
    """A batch of inputs (batch, channel, row, col), and what explains it."""

    explainer: Explainer
    inputs: Tensor
    subjects: tuple[Subject, ...]

    def is_head_layer(self, layer: str) -> bool:
        """Whether a layer's output is the feature map of the exact head."""
        shape = tuple(self.inputs.shape[1:])
        return self.explainer.structures.is_head_layer(layer, shape)


def _with_further(
    subjects: tuple[Subject, ...], further: Further
) -> tuple[Subject, ...]:
    """The subjects, each with what the network was given beside it."""
    further = further.detach()
    return tuple(
        dataclasses.replace(subject, further=further.rows([row]))
        for row, subject in enumerate(subjects)
    )


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
            explainer.explain_locally(inputs, subjects, question)
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


def size_of(batch: Tensor) -> tuple[int, int]:
    """The size (rows, cols) of a batch's inputs."""
    return int(batch.shape[2]), int(batch.shape[3])
