"""Classifier: a module with its labels, its preprocessing and its head."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.activations import Activations
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.head import Head
from unitscope.attribution.scores import Scores
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.errors import HeadError
from unitscope.inputs.adapting import as_preprocessing
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.labels import LabelsSource, read_labels
from unitscope.model import inner_layers
from unitscope.model.explaining import Explainer, Question
from unitscope.model.forward import Forward
from unitscope.model.network import Network
from unitscope.model.provenance import Provenance
from unitscope.model.reading import (
    Batch,
    Input,
    read_batches,
    warn_of_detached,
)
from unitscope.model.scoring import Scoring
from unitscope.model.structure import Structures
from unitscope.model.wrapping import check_module
from unitscope.tracing.layers import (
    Layer,
    check_units,
    find_map_layer,
    recording,
)
from unitscope.tracing.output_choice import OutputName
from unitscope.tracing.stages import Stage, stages_of

_USUAL_INPUT = (224, 224)


class Classifier:
    """An image classifier that can be explained: module, labels, preprocessing and head.

    The module maps (batch, channel, row, col) to logits (batch, class). It stays the
    user's: its mode, gradients, hooks, dtype and device are as before after every call,
    also when one fails. It runs in evaluation mode, without gradients.
    """

    def __init__(
        self,
        module: nn.Module,
        labels: Sequence[str] | None = None,
        preprocessing: AnyPreprocessing
        | Callable[[Image.Image], Any]
        | None = None,
        provenance: Provenance | None = None,
        output: OutputName | None = None,
        scores: Scores | str | None = None,
    ) -> None:
        check_module(module)
        self.preprocessing = as_preprocessing(preprocessing)
        self.provenance = provenance or Provenance(
            "wrapped", f"as in the {type(module).__name__} that was wrapped"
        )
        count = None if labels is None else len(labels)
        self._network = Network(module, output, count)
        wanted = None if scores is None else Scores.read(scores)
        self._scoring = Scoring(self._network, labels, wanted)
        self._structures = Structures(self._network, self._scoring)
        self._forward = Forward(self._network, self._structures)
        # Without a preprocessing, the inputs themselves show what shape is usual.
        self._shape_from_inputs = preprocessing is None
        self._seen_shape: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        module = type(self.module).__name__
        described = self.preprocessing.describe()
        return f"<Classifier {self.provenance.spec}: {module}, {described}>"

    @property
    def module(self) -> nn.Module:
        """The user's module."""
        return self._network.wrapped

    @module.setter
    def module(self, module: nn.Module) -> None:
        self._network.wrapped = module

    @property
    def network(self) -> nn.Module:
        """The module that runs: inside DataParallel and torch.compile, which hide layers."""
        return self._network.module

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes by index; "class 0", "class 1" … without labels."""
        if self._scoring.names is not None:
            return self._scoring.names
        classes = self._structures.at(self.input_shape).classes
        return self._scoring.labels_for(classes)

    @property
    def scores(self) -> Scores:
        """What its numbers are, as asked or else guessed; `scores_note` says why."""
        return self._structures.scores_at(self.input_shape).scores

    @property
    def scores_note(self) -> str:
        """Why `scores` are what they are; "" where they were asked for."""
        return self._structures.scores_at(self.input_shape).note

    @property
    def output(self) -> str | None:
        """The output that is read as logits ("1"), settable; None where there is one only."""
        self._structures.at(self.input_shape)
        choice = self._network.output
        return None if choice.is_alone else choice.path

    @output.setter
    def output(self, output: OutputName | None) -> None:
        self._network.read_as_logits(output)
        self._scoring.forget()
        self._forward.forget_all()

    @property
    def head(self) -> Head:
        """How answers are explained: the exact head, or else a local one (`head.exact`).

        Raises HeadError, saying why, where neither can be had.
        """
        return self._structures.head(self.input_shape)

    def head_or_refusal(self) -> tuple[Head | None, str]:
        """The head, None without even a local answer, and why it is not exact."""
        structure = self._structures.at(self.input_shape)
        try:
            return self.head, structure.refusal
        except HeadError as refusal:
            return None, str(refusal)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of the network's parameters."""
        return self._network.like

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channel, row, col) of the network's usual input.

        The preprocessing's; the last tensor's where no preprocessing was given; else
        224×224.
        """
        if self._seen_shape is not None:
            return self._seen_shape
        rows, cols = self.preprocessing.input_size or _USUAL_INPUT
        return self.preprocessing.channels, rows, cols

    def layers(self) -> list[Layer]:
        """The layers of a forward pass in order: name, kind, output shape, place."""
        return list(self._structures.at(self.input_shape).layers)

    def stages(self) -> list[Stage]:
        """The layers grouped by the rows and columns of their maps."""
        return stages_of(self.layers())

    def explain(
        self,
        x: Input,
        *,
        layer: str | None = None,
        method: str | None = None,
        precision: str | None = None,
        differentiable: bool = False,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> Explanation:
        """Explain photos or tensors: logits, class activation maps, contributions, ablations.

        `x` is a path, a PIL image, a list of them, or a (batch, channel, row, col) tensor
        of inputs already preprocessed. `batch_size` photos go through the network at a
        time; `progress` is called with the number of photos done.

        The answer is exact where the network's head is. Otherwise it is local, at the last
        layer with a useful map. A `layer` other than the head's is always answered
        locally. `method` asks for a local answer by "hirescam" (the default), or by another
        of `unitscope.attribution.methods.METHODS`.

        With `precision` "bfloat16" exact answers are computed in that, which is faster
        where the processor has it; `rounded` says how far they are off. A frozen network
        (see `freeze`) runs compiled.

        Answers are detached, unless they are asked to be `differentiable`: logits, maps
        and contributions then carry gradients to `x` and to the parameters, for a map in
        a loss (docs/answers.md).

        Raises PhotoError, InputError, NonFiniteError; LayerError for a layer that does not
        exist or has no map; HeadError where there is neither an exact nor a local answer.
        """
        question = Question(layer, method, precision, differentiable)
        with recording() if differentiable else contextlib.nullcontext():
            batches = self._batches(x, batch_size)
            if not differentiable:
                warn_of_detached(x)
            return self._explainer().all(batches, question, progress)

    def units(
        self,
        x: Input,
        layer: str | None = None,
        units: int | Sequence[int] = 0,
        *,
        batch_size: int = 16,
    ) -> UnitMaps:
        """The feature maps of chosen units of a layer; the explained layer's when None.

        Raises LayerError for a layer that does not exist or gives no feature map, UnitError
        for a unit that it does not have.
        """
        if layer is None:
            return self.explain(x, batch_size=batch_size).unit_maps(units)
        batches = self._batches(x, batch_size)
        return inner_layers.unit_maps(self._explainer(), batches, layer, units)

    def ablate(
        self,
        x: Input,
        layer: str | None = None,
        units: int | Sequence[int] = (),
        *,
        batch_size: int = 16,
    ) -> Ablation:
        """Switch units of a layer off and classify again: logits `.before` and `.after`.

        On the head's feature map (`layer` None, or the head's layer) the algebra gives the
        answer from one forward pass. At any other layer a second forward pass runs with
        the units' maps set to zero.
        """
        shape: tuple[int, ...] = self.input_shape
        if isinstance(x, Tensor) and x.ndim == 4:
            shape = tuple(x.shape[1:])
        if layer is None or self._structures.is_head_layer(layer, shape):
            explanation = self.explain(x, batch_size=batch_size)
            count = explanation.feature_map.shape[1]
            chosen = check_units(units, count, "the last feature map")
            return Ablation.of(explanation, chosen)

        batches = self._batches(x, batch_size)
        return inner_layers.measured_ablation(
            self._explainer(), batches, layer, units
        )

    def forward_without(
        self, x: Input, units: int | Sequence[int], layer: str | None = None
    ) -> Tensor:
        """Logits (batch, class) of a real forward pass with units at zero.

        What `explain(x).ablate(units).logits` must equal: the slow way, to prove the fast
        one on the network at hand.
        """
        explainer = self._explainer()
        parts = [
            inner_layers.logits_without(explainer, batch, units, layer)
            for batch, _ in self._batches(x, 16)
        ]
        return torch.cat(parts)

    def activations(
        self,
        batch: Float[Tensor, "batch channel row col"],
        layers: Sequence[str] = (),
    ) -> Activations:
        """What layers did on preprocessed inputs, with logits, from one forward pass.

        Raises LayerError for a layer that does not exist or has no map, NonFiniteError, and
        HeadError where the maps do not add up to the logits.
        """
        return inner_layers.activations(self._explainer(), batch, layers)

    def freeze(self, layers: str | Sequence[str] = ()) -> Classifier:
        """Promise that weights, code and mode stay as they are: passes then run compiled.

        `explain`, `activations`, `units` and scans run by ONNX Runtime until `thaw`. That
        needs the extra `fast`, a float32 network on the processor, and some seconds when
        inputs of a new shape first come. The compiled network must give what the network
        gives, to 1e-5 of the largest number; where it cannot, the network runs as it is,
        and a warning says why. `layers` are compiled beside the head's input; passes for
        other layers run as they are.

        A change that torch counts is seen before every pass: the network is then compiled
        anew, with a warning. A write through `.data` or numpy, or by a fused optimizer, is
        not seen.
        """
        self._forward.freeze(self._layer_names(layers))
        return self

    def thaw(self) -> None:
        """Take the promise of `freeze` back: every pass runs the network as it is."""
        self._forward.frozen = None

    @contextlib.contextmanager
    def frozen(
        self, layers: str | Sequence[str] = (), *, required: bool = False
    ) -> Iterator[Classifier]:
        """A `with` inside which the network is frozen; afterwards it is as before.

        Where it is `required` to run compiled and cannot, ModelError is raised.
        """
        with self._forward.freezing(self._layer_names(layers), required):
            yield self

    @contextlib.contextmanager
    def thawed(self) -> Iterator[Classifier]:
        """A `with` inside which passes run the network as it is; then it is as before."""
        with self._forward.thawing():
            yield self

    def engine(self) -> str:
        """What runs the network on its usual inputs: "onnxruntime" or "torch".

        "onnxruntime" where it is frozen and can be compiled. Compiles a frozen network that
        has not run yet.
        """
        compiled = self._forward.compiled(self.input_shape)
        return "torch" if compiled is None else "onnxruntime"

    def _explainer(self) -> Explainer:
        return Explainer(
            self._network, self._structures, self._forward, self._scoring
        )

    def _batches(self, x: Input, batch_size: int) -> Iterator[Batch]:
        batches = read_batches(x, self.preprocessing, batch_size, self.like)
        if isinstance(x, Tensor) and self._shape_from_inputs:
            channels, rows, cols = (int(side) for side in x.shape[1:])
            self._seen_shape = channels, rows, cols
        return batches

    def _layer_names(self, layers: str | Sequence[str]) -> tuple[str, ...]:
        names = dict.fromkeys([layers] if isinstance(layers, str) else layers)
        return tuple(find_map_layer(self.layers(), name).name for name in names)


def wrap(
    module: nn.Module,
    labels: LabelsSource | None = None,
    preprocessing: AnyPreprocessing
    | Callable[[Image.Image], Any]
    | None = None,
    output: OutputName | None = None,
    *,
    scores: Scores | str | None = None,
) -> Classifier:
    """Make a module that maps (batch, channel, row, col) to logits into a classifier.

    `labels` are the class names in order, a dict of index to name or of name to index, or
    a file of them. `preprocessing` is a unitscope.Preprocessing, a torchvision pipeline, or
    any callable from PIL image to tensor. Without one, ImageNet's convention is assumed,
    and reports say so. `output` names the logits ("out"), or gives their index, where the
    module returns several tensors and numbers do not say which they are. `scores` are
    "softmax" (one class is right), "sigmoid" (each class for itself), "none" (regression,
    embeddings) or "probabilities" (the outputs are such, and stay as they are); without
    them they are guessed from numbers.
    """
    names = None if labels is None else read_labels(labels)
    return Classifier(
        module, names, preprocessing, output=output, scores=scores
    )
