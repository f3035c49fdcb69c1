"""Classifier: a module with its labels, its preprocessing and its head."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unitscope.attribution.activations import Activations
from unitscope.attribution.explanation import Explanation, Units
from unitscope.attribution.head import Head
from unitscope.attribution.scores import Scores
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.errors import HeadError
from unitscope.inputs.adapting import as_preprocessing
from unitscope.inputs.further import Further
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.interrupts import unbroken
from unitscope.labels import LabelsSource, read_labels
from unitscope.model import inner_layers
from unitscope.model.experiments import Experiments
from unitscope.model.explaining import Asked, Explainer, explained
from unitscope.model.forward import Forward
from unitscope.model.logits_module import LogitsModule, logits_module
from unitscope.model.network import Network
from unitscope.model.provenance import Provenance
from unitscope.model.question import Question
from unitscope.model.reading import Input, warn_of_detached
from unitscope.model.scoring import Scoring
from unitscope.model.structure import Structures
from unitscope.model.taking import taken
from unitscope.model.usual_input import UsualInput
from unitscope.model.wrapping import asked_scores, check_module
from unitscope.tracing.layers import Layer, map_layer_names, recording
from unitscope.tracing.output_choice import OutputName
from unitscope.tracing.stages import Stage, stages_of


class Classifier(Experiments):
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
        also: Mapping[str, Any] | None = None,
    ) -> None:
        check_module(module)
        self.preprocessing = as_preprocessing(preprocessing)
        self.provenance = provenance or Provenance.of_module(module, also or {})
        fixed = Further.fixed(also or {})
        count = None if labels is None else len(labels)
        self._network = Network(module, fixed, output, count)
        wanted = asked_scores(module, scores)
        self._scoring = Scoring(self._network, labels, wanted)
        self._structures = Structures(self._network, self._scoring)
        self._forward = Forward(self._network, self._structures)
        self._explainer = Explainer(
            self._network, self._structures, self._forward, self._scoring
        )
        self._usual = UsualInput(self._network, preprocessing is None)

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
        self._network.wrap(module)

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
        if not self._network.has_output:
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
        """How answers are explained: exact, residual, or else local (`head.kind`).

        Raises HeadError, saying why, where neither can be had.
        """
        return self._structures.head(self.input_shape)

    def head_or_refusal(self) -> tuple[Head | None, str]:
        """The head, None without even a local answer, and why it is not exact."""
        structure = self._structures.at(self.input_shape)
        try:
            return self.head, structure.reason if structure.refusal else ""
        except HeadError as refusal:
            return None, str(refusal)

    @property
    def also(self) -> Mapping[str, Any]:
        """The further inputs that are the same for all photos, by name."""
        return self._network.fixed.values

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of the network's parameters."""
        return self._network.like

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channel, row, col) of the network's usual input: the preprocessing's.

        Without one the last tensor's; else 224×224, of the first convolution's channels.
        """
        return self._usual.shape(self.preprocessing)

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
        also: Mapping[str, Any] | None = None,
        layer: str | None = None,
        method: str | None = None,
        precision: str | None = None,
        differentiable: bool = False,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> Explanation:
        """Explain photos or tensors: logits, class activation maps, contributions, ablations.

        `x` is a path, a PIL image, a list of them, a (batch, channel, row, col) tensor of
        preprocessed inputs, or a loader's batch with one. `also` are further inputs of the
        network by name, one row a photo. `batch_size` photos go through the network at a
        time; `progress` is called with the number of photos done.

        The answer is exact where the network's head is; residual where the logits are read
        from tokens of a transformer's stream. Otherwise it is local, at the last layer with
        a useful map, and so it is at any `layer` other than the head's. `method` asks for a
        local answer by one of `unitscope.attribution.methods.METHODS`.

        With `precision` "bfloat16" exact answers are computed in that, faster where the
        processor has it; `rounded` says how far they are off. A frozen network (see
        `freeze`) runs compiled.

        Answers are detached, unless they are asked to be `differentiable`: logits, maps
        and contributions then carry gradients to `x`, `also` and the parameters, for a map
        in a loss (docs/answers.md).

        Raises PhotoError, InputError, NonFiniteError; LayerError for a layer that does not
        exist or has no map; HeadError where there is neither an exact nor a local answer.
        """
        question = Question(layer, method, precision, differentiable)
        if not differentiable:
            warn_of_detached(x, also)
        gradients = recording() if differentiable else torch.no_grad()
        with unbroken(gradients):
            batches = self._batches(x, batch_size, also)
            return explained(batches, question, progress)

    def units(
        self,
        x: Input,
        layer: str | None = None,
        units: Units = 0,
        *,
        also: Mapping[str, Any] | None = None,
        batch_size: int = 16,
    ) -> UnitMaps:
        """The feature maps of chosen units of a layer; the explained layer's when None.

        Raises LayerError for a layer that does not exist or gives no feature map, UnitError
        for a unit that it does not have.
        """
        if layer is None:
            explanation = self.explain(x, also=also, batch_size=batch_size)
            return explanation.unit_maps(units)
        batches = self._batches(x, batch_size, also)
        return inner_layers.unit_maps(batches, layer, units)

    def activations(
        self,
        batch: Float[Tensor, "batch channel row col"],
        layers: Sequence[str] = (),
        *,
        also: Mapping[str, Any] | None = None,
    ) -> Activations:
        """What layers did on preprocessed inputs, with logits, from one forward pass.

        Raises LayerError for a layer that does not exist or has no map, NonFiniteError, and
        HeadError where the maps do not add up to the logits.
        """
        asked = self._explainer.whole(batch, also, self.preprocessing)
        return inner_layers.activations(asked, layers)

    def freeze(self, layers: str | Sequence[str] = ()) -> Classifier:
        """Promise that weights, code and mode stay as they are: passes then run compiled.

        `explain`, `activations`, `units` and scans run by ONNX Runtime until `thaw`. That
        needs the extra `fast`, a float32 network on the processor, and some seconds when
        inputs of a new shape first come. The compiled network must give what the network
        gives, to 1e-5 of the largest number; where it cannot, the network runs as it is,
        and a warning says why. `layers` are compiled beside the head's input; passes for
        other layers run as they are.

        A change that torch counts is seen before every pass: the network is then compiled
        anew, with a warning. Writes through `.data`, numpy or fused optimizers are not seen.
        """
        self._forward.freeze(map_layer_names(self.layers, layers))
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
        with self._forward.freezing(
            map_layer_names(self.layers, layers), required
        ):
            yield self

    @contextlib.contextmanager
    def thawed(self) -> Iterator[Classifier]:
        """A `with` inside which passes run the network as it is; then it is as before."""
        with self._forward.thawing():
            yield self

    def engine(self) -> str:
        """What runs the network on its usual inputs: "onnxruntime" (compiled) or "torch".

        Compiles a frozen network that has not run yet.
        """
        is_compiled = self._forward.compiled(self.input_shape) is not None
        return "onnxruntime" if is_compiled else "torch"

    def as_input(self, noise: Float[Tensor, "*axes"]) -> Tensor:
        """Noise of deviation 1 as the network takes inputs: dtype, device, and range."""
        return self._network.as_input(noise)

    def logits_module(
        self, inputs: Float[Tensor, "batch channel row col"]
    ) -> LogitsModule:
        """A copy of the network that gives logits, for other libraries to work on.

        Its `layers` are those for inputs of this shape. Raises HeadError for a network that
        cannot be copied, InputError for one that takes uint8 pixels.
        """
        shape = tuple(inputs.shape[1:])
        return logits_module(self._network, self._structures, shape)

    def _batches(
        self, x: Input, batch_size: int, also: Mapping[str, Any] | None
    ) -> Iterator[Asked]:
        photos, also = taken(x, also, self._network)
        self._usual.see(photos)
        return self._explainer.asked(
            photos, also, self.preprocessing, batch_size
        )


def wrap(
    module: nn.Module,
    labels: LabelsSource | None = None,
    preprocessing: AnyPreprocessing
    | Callable[[Image.Image], Any]
    | None = None,
    output: OutputName | None = None,
    *,
    scores: Scores | str | None = None,
    also: Mapping[str, Any] | None = None,
) -> Classifier:
    """Make a module that maps (batch, channel, row, col) to logits into a classifier.

    `labels` are the class names in order, a dict of index to name or of name to index, or
    a file of them. `preprocessing` is a unitscope.Preprocessing, a torchvision pipeline, or
    any callable from PIL image to tensor. Without one, ImageNet's convention is assumed,
    and reports say so. `output` names the logits ("out"), or gives their index, where the
    module returns several tensors and numbers do not say which they are. `scores` are
    "softmax" (one class is right), "sigmoid" (each class for itself), "none" (regression,
    embeddings) or "probabilities" (the outputs are such, and stay as they are); without
    them they are guessed from numbers. `also` are further inputs of the module by the names
    of its forward's parameters, the same for all photos; a tensor whose first axis is 1 is
    repeated for every photo.
    """
    names = None if labels is None else read_labels(labels)
    return Classifier(
        module, names, preprocessing, output=output, scores=scores, also=also
    )
