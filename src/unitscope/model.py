"""Classifier: a module with its labels, its preprocessing and its head."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.activations import Activations
from unitscope.attribution.explanation import (
    AnyHead,
    ExactExplanation,
    Explanation,
    LocalExplanation,
)
from unitscope.attribution.head import (
    Head,
    HeadPath,
    another_path,
    find_head,
    is_of_probabilities,
)
from unitscope.attribution.local import METHODS, LocalHead, find_local, started
from unitscope.attribution.readout import (
    LEAST_ROUNDING,
    cell_means,
    completeness_error,
    copied,
    is_finite,
    relative_difference,
    rounding_error,
)
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.engine.compiled import Compiled, compile_network
from unitscope.engine.frozen import Frozen
from unitscope.engine.passes import (
    ROUNDED,
    ForwardPass,
    Watched,
    run_bfloat16,
    run_plain,
)
from unitscope.errors import (
    HeadError,
    InputError,
    LabelsError,
    LayerError,
    ModelError,
    NonFiniteError,
    UnitscopeError,
    UnitscopeWarning,
)
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.photos import Encoded, Photo
from unitscope.inputs.preprocessing import AnyPreprocessing, as_preprocessing
from unitscope.inputs.subjects import Subject
from unitscope.labels import read_labels
from unitscope.tracing.layers import (
    Layer,
    captured,
    check_units,
    evaluating,
    find_map_layer,
    layers_of,
    without_units,
)
from unitscope.tracing.outputs import logits_of
from unitscope.tracing.stages import Stage, stages_of
from unitscope.tracing.trace import Trace, trace

OnePhoto: TypeAlias = str | os.PathLike[str] | Image.Image | Encoded | Photo
Input: TypeAlias = OnePhoto | Tensor | Iterable[OnePhoto]

_USUAL_INPUT = (224, 224)
# One pass of a frozen network at a time.
_FROZEN_RUNS = threading.RLock()

# Photos that go through uncropped come in any number of sizes; what was learnt of the
# least recent is learnt again.
_KEPT_STRUCTURES = 16


@dataclass(frozen=True)
class Provenance:
    """Where a classifier came from: for the report, and for anyone who wants the same numbers again.

    `spec` is what `load` was given ("torchvision:resnet50", or "wrapped"); `weights`
    says in words what the weights are ("IMAGENET1K_V2", "random initialisation, seed
    0", a file's name); `sha256` is the weights file's, where there is one; `notes` are
    lines that a reader should see (assumptions, repairs of the file, licences).
    """

    spec: str
    weights: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()


@dataclass
class _Structure:
    """What one traced forward pass taught about the network at one input shape.

    Without an exact `head`, `refusal` says why; `probabilities` says that the network
    ends in them, not in logits. `local` holds the local answers found so far, by layer
    and method (the layer None is the best one), or the reason why there is none.
    `rounded` is how far bfloat16 was off, measured on the first photos.
    """

    layers: list[Layer]
    classes: int
    head: Head | None
    path: HeadPath | None
    refusal: str
    probabilities: bool
    local: dict[tuple[str | None, str], LocalHead | str] = field(default_factory=dict)
    rounded: float | None = None

    def local_layers(self) -> tuple[str, ...]:
        """The layers whose outputs the best local answer reads, where no head is exact."""
        local = None if self.head is not None else self.local.get((None, METHODS[0]))
        if not isinstance(local, LocalHead):
            return ()
        return (
            (local.layer,)
            if local.start in (None, local.layer)
            else (local.layer, local.start)
        )


class Classifier:
    """An image classifier that can be explained: a module, its labels, its preprocessing, and its head.

    The module maps (batch, channel, row, col) to logits (batch, class). It stays the
    user's: its mode, gradients, hooks, dtype and device are as before after every call,
    also when one fails. It is run in evaluation mode without gradients.
    """

    def __init__(
        self,
        module: nn.Module,
        labels: Sequence[str] | None = None,
        preprocessing: AnyPreprocessing | Callable[[Image.Image], Any] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ModelError(
                "a classifier is made from a torch.nn.Module, not from "
                f"{type(module).__name__}"
            )
        self.module = module
        self.preprocessing = as_preprocessing(preprocessing)
        self.provenance = provenance or Provenance(
            "wrapped", f"as in the {type(module).__name__} that was wrapped"
        )
        self._frozen: Frozen | None = None
        self._labels = None if labels is None else tuple(labels)
        self._structures: dict[tuple[int, ...], _Structure] = {}
        # Where no preprocessing was given, the inputs themselves say what shape is
        # usual.
        self._shape_to_see = preprocessing is None
        self._seen_shape: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"<Classifier {self.provenance.spec}: {type(self.module).__name__}, {self.preprocessing.describe()}>"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in order of index; "class 0", "class 1" … where none were given."""
        if self._labels is not None:
            return self._labels
        return self._labels_for(self._structure(self.input_shape).classes)

    @property
    def head(self) -> AnyHead:
        """How the network's answers are explained: its exact head, found and verified, or else the best local answer.

        `head.exact` tells which, `head.kind` what kind. Raises HeadError, saying why,
        where neither can be had.
        """
        return self._head(self.input_shape)

    def head_or_refusal(self) -> tuple[AnyHead | None, str]:
        """The head and, unless it is exact, the reason why not; None where there can be no local answer either."""
        structure = self._structure(self.input_shape)
        try:
            return self.head, structure.refusal
        except HeadError as refusal:
            return None, str(refusal)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device that the network's parameters have."""
        floating = (
            p
            for p in chain(self.network.parameters(), self.network.buffers())
            if p.is_floating_point()
        )
        return next(floating, torch.empty(0))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channel, row, col) of the network's usual input.

        The preprocessing's; that of the last tensor where no preprocessing was given;
        else 224×224.
        """
        if self._seen_shape is not None:
            return self._seen_shape
        rows, cols = self.preprocessing.input_size or _USUAL_INPUT
        return self.preprocessing.channels, rows, cols

    def layers(self) -> list[Layer]:
        """The layers that run in a forward pass: name, kind, output shape (unit, row, col), in order of execution."""
        return list(self._structure(self.input_shape).layers)

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
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> Explanation:
        """Explain photos or tensors: logits, feature map, class activation maps, contributions, ablation of any units.

        `x` is a path, a PIL image, a list of them, or a (batch, channel, row, col)
        tensor of inputs already preprocessed. `batch_size` photos go through the
        network at a time; `progress` is called with the number of photos done.

        The answer is exact where the network's head is; else it is local, at the last
        layer that has cells to speak of. A `layer` that is not the head's is always
        answered locally. `method` chooses among local answers: "hirescam" (the default:
        its cells add up to gradient · activation) or "gradcam" (gradients averaged over
        the cells first); asking for one asks for a local answer.

        With `precision` "bfloat16" exact answers are computed in that, sooner where the
        processor has it, and `rounded` says how far they are off. A frozen network (see
        `freeze`) runs compiled.

        Raises PhotoError, InputError, NonFiniteError; LayerError for a layer that does
        not exist or has no map; HeadError where there is neither an exact nor a local
        answer.
        """
        if precision not in (None, "float32", "bfloat16"):
            raise InputError(
                f"there is no precision '{precision}': choose 'float32' or 'bfloat16'"
            )
        if method is not None and method not in METHODS:
            raise InputError(
                f"there is no method '{method}': choose "
                f"{' or '.join(map(repr, METHODS))}"
            )
        parts: list[Explanation] = []
        for batch, subjects in self._batches(x, batch_size):
            parts.append(
                self._explain_batch(
                    batch, subjects, layer, method, precision == "bfloat16"
                )
            )
            if progress is not None:
                progress(len(subjects))
        self._check_sizes(part.input_size for part in parts)
        return parts[0] if len(parts) == 1 else parts[0].joined(parts[1:])

    def units(
        self,
        x: Input,
        layer: str | None = None,
        units: int | Sequence[int] = 0,
        *,
        batch_size: int = 16,
    ) -> UnitMaps:
        """The feature maps of chosen units of any layer (the head's feature map when `layer` is None).

        Raises LayerError for a layer that does not exist or gives no feature map,
        UnitError for a unit it does not have.
        """
        if layer is None:
            return self.explain(x, batch_size=batch_size).unit_maps(units)
        maps: list[UnitMaps] = []
        for batch, subjects in self._batches(x, batch_size):
            found, chosen = self._layer_and_units(batch, layer, units)
            chosen_maps = _maps_of(
                found, self._pass(batch, (layer,), head=False), chosen
            )
            self._check_finite(chosen_maps, batch, f"the maps of layer '{layer}'")
            maps.append(
                UnitMaps(
                    layer,
                    tuple(chosen),
                    chosen_maps,
                    found.grid,
                    _size(batch),
                    subjects,
                )
            )
        self._check_sizes(part.input_size for part in maps)
        return _joined(maps)

    def ablate(
        self,
        x: Input,
        layer: str | None = None,
        units: int | Sequence[int] = (),
        *,
        batch_size: int = 16,
    ) -> Ablation:
        """Switch units of a layer off and classify again: `.before` and `.after` are logits (batch, class).

        On the head's feature map (`layer` None, or the head's layer) the algebra gives
        the answer from one forward pass; at any other layer a second forward pass runs
        with the units' maps set to zero.
        """
        if layer is None or self._is_head_layer(layer, x):
            explanation = self.explain(x, batch_size=batch_size)
            return Ablation.of(
                explanation,
                check_units(
                    units, explanation.feature_map.shape[1], "the last feature map"
                ),
            )
        befores, afters, maps = [], [], []
        for batch, subjects in self._batches(x, batch_size):
            found, chosen = self._layer_and_units(batch, layer, units)
            passed = self._pass(batch, (layer,), head=False)
            before = passed.logits
            with evaluating(self.network), without_units(self.network, found, chosen):
                after = self._logits(batch.clone())
            self._check_finite(before, batch, "the logits")
            self._check_finite(after, batch, f"the logits with units of '{layer}' off")
            befores.append(before)
            afters.append(after)
            chosen_maps = _maps_of(found, passed, chosen)
            maps.append(
                UnitMaps(
                    layer,
                    tuple(chosen),
                    chosen_maps,
                    found.grid,
                    _size(batch),
                    subjects,
                )
            )
        self._check_sizes(part.input_size for part in maps)
        joined = _joined(maps)
        labels = self._labels_for(befores[0].shape[1])
        return Ablation(
            layer,
            joined.units,
            torch.cat(befores),
            torch.cat(afters),
            joined,
            labels,
            exact=False,
        )

    def freeze(self, layers: str | Sequence[str] = ()) -> Classifier:
        """Promise that weights, code and mode stay as they are until `thaw`: passes run compiled, the sooner for it.

        `explain`, `activations`, `units` and scans then run by ONNX Runtime, which
        needs the extra `fast`, a float32 network on the processor, and some seconds
        when inputs of a new shape first come. What is compiled must give what the
        network gives, to 1e-5 of the largest number; where that cannot be, the network
        runs as it is, and a warning says why. `layers` are compiled beside the head's
        input; passes for other layers run as they are.

        A change that torch counts is seen before every pass: the network is then
        compiled anew, with a warning. A write through `.data` or numpy, or by a fused
        optimizer, is not seen.
        """
        self._frozen = Frozen(self.network, self._named(layers))
        return self

    def thaw(self) -> None:
        """Take the promise of `freeze` back: every pass runs the network as it is."""
        self._frozen = None

    @contextlib.contextmanager
    def frozen(
        self, layers: str | Sequence[str] = (), *, required: bool = False
    ) -> Iterator[Classifier]:
        """A `with` inside which the network is frozen; afterwards it is as it was before.

        Where it is `required` to run compiled, ModelError is raised where it cannot.
        """
        before, names = self._frozen, self._named(layers)
        if before is None or (before.layers, before.required) != (names, required):
            self._frozen = Frozen(self.network, names, required)
        try:
            yield self
        finally:
            self._frozen = before

    @contextlib.contextmanager
    def thawed(self) -> Iterator[Classifier]:
        """A `with` inside which every pass runs the network as it is; afterwards it is frozen as it was before."""
        before, self._frozen = self._frozen, None
        try:
            yield self
        finally:
            self._frozen = before

    def engine(self) -> str:
        """What runs the network on its usual inputs: "onnxruntime" where it is frozen and can be compiled, or "torch".

        Compiles a frozen network that has not run yet.
        """
        return (
            "torch" if self._compiled(self.input_shape, ()) is None else "onnxruntime"
        )

    def _named(self, layers: str | Sequence[str]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys([layers] if isinstance(layers, str) else layers))
        return tuple(find_map_layer(self.layers(), name).name for name in names)

    @property
    def network(self) -> nn.Module:
        """The module that is run and watched: inside DataParallel and torch.compile, whose wrappers hide the layers."""
        module: Any = self.module
        while True:
            if isinstance(
                module, (nn.DataParallel, nn.parallel.DistributedDataParallel)
            ):
                module = module.module
            elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
                module = module._orig_mod
            else:
                found: nn.Module = module
                return found

    def _structure(self, shape: tuple[int, ...]) -> _Structure:
        if shape not in self._structures:
            found = self._find_structure(shape)
            if len(self._structures) >= _KEPT_STRUCTURES:
                del self._structures[next(iter(self._structures))]
            self._structures[shape] = found
        return self._structures[shape]

    def _find_structure(self, shape: tuple[int, ...]) -> _Structure:
        with evaluating(self.network):
            example, traced = self._traced(shape)
            if traced.logits is None:
                raise ModelError(
                    "the network gave no tensor, not logits (batch, class): wrap a "
                    "module that classifies images"
                )
            self._check_finite(traced.logits, example, "the logits")
            layers, classes = layers_of(traced), traced.logits.shape[1]
            self._labels_for(classes)
            try:
                head, path = find_head(self.network, example, traced)
            except HeadError as refusal:
                # Only its text: the exception itself would keep the traced activations
                # alive.
                structure = _Structure(
                    layers,
                    classes,
                    None,
                    None,
                    str(refusal),
                    is_of_probabilities(traced),
                )
                with contextlib.suppress(
                    HeadError
                ):  # what was found, or why not, is in the structure
                    self._find_local(
                        structure, shape, None, METHODS[0], (example, traced)
                    )
                return structure
        return _Structure(layers, classes, head, path, "", False)

    def _traced(self, shape: tuple[int, ...]) -> tuple[Tensor, Trace]:
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(
            (1, *shape), generator=generator, dtype=torch.float32, device="cpu"
        )
        example = noise.to(self.like.device, self.like.dtype)
        return example, self._guarded(lambda: trace(self.network, example), shape)

    def _find_local(
        self,
        structure: _Structure,
        shape: tuple[int, ...],
        layer: str | None,
        method: str,
        seen: tuple[Tensor, Trace] | None = None,
    ) -> LocalHead:
        """The local answer at a layer (or the best one), prepared once for every layer and method."""
        key = (layer, method)
        if structure.probabilities:
            raise HeadError(structure.refusal)
        if key not in structure.local:
            chosen = None if layer is None else find_map_layer(structure.layers, layer)
            reason = structure.refusal or "a local answer was asked for"
            with evaluating(self.network):
                example, traced = seen or self._traced(shape)
                try:
                    structure.local[key] = self._guarded(
                        lambda: find_local(
                            self.network,
                            example,
                            traced,
                            structure.layers,
                            reason,
                            chosen,
                            method,
                        ),
                        shape,
                    )
                except HeadError as refusal:
                    structure.local[key] = str(refusal)
        found = structure.local[key]
        if isinstance(found, str):
            raise HeadError(found)
        return found

    def _head(
        self,
        shape: tuple[int, ...],
        layer: str | None = None,
        method: str | None = None,
    ) -> AnyHead:
        """The exact head, or the local answer at a layer, at one input shape."""
        structure = self._structure(shape)
        head = structure.head
        if (
            head is not None
            and method is None
            and (layer is None or (head.layer_is_map and head.layer == layer))
        ):
            return head
        if layer is None and head is not None:
            layer = head.layer
        return self._find_local(structure, shape, layer, method or METHODS[0])

    def _is_head_layer(self, layer: str, x: Input) -> bool:
        shape = (
            tuple(x.shape[1:])
            if isinstance(x, Tensor) and x.ndim == 4
            else self.input_shape
        )
        head = self._structure(shape).head
        return head is not None and head.layer_is_map and head.layer == layer

    def _explain_batch(
        self,
        batch: Tensor,
        subjects: tuple[Subject, ...],
        layer: str | None,
        method: str | None,
        reduced: bool = False,
        again: bool = False,
    ) -> Explanation:
        shape = tuple(batch.shape[1:])
        head = self._head(shape, layer, method)
        if isinstance(head, LocalHead):
            if reduced:
                _warn_of_precision("local answers are computed in that", 4)
            return self._explain_locally(batch, subjects, head)
        try:
            passed, rounded = (
                self._reduced(batch) if reduced else (self._pass(batch), 0.0)
            )
            assert passed.feature_map is not None and passed.readout is not None
            logits, feature_map = passed.logits, passed.feature_map
            units = cell_means(feature_map)
            # Rounded logits are the algebra's own, of these very units.
            if not rounded or not is_finite(logits):
                self._check_adds_up(passed, batch, units)
        except HeadError:
            if again:
                raise
            # The network may have changed since its head was found: once more, from the
            # beginning.
            self._structures.pop(shape, None)
            if self._frozen is not None:
                self._frozen.forget(shape)
            return self._explain_batch(
                batch, subjects, layer, method, reduced, again=True
            )
        self._warn_of_nothing(logits, feature_map, units, batch, subjects)
        # The weights are those of this very pass: a network that is being trained is
        # explained as it is now.
        current = dataclasses.replace(head, readout=passed.readout)
        labels = self._labels_for(logits.shape[1])
        return ExactExplanation(
            logits,
            feature_map,
            current,
            labels,
            subjects,
            _size(batch),
            rounded=rounded,
        )

    def _check_adds_up(
        self, passed: ForwardPass, batch: Tensor, units: Float[Tensor, "batch unit"]
    ) -> None:
        """Raise where a pass gave numbers that are not finite, or maps whose means `units` do not give the logits."""
        logits, feature_map, readout = passed.logits, passed.feature_map, passed.readout
        assert feature_map is not None and readout is not None
        # A mean is finite where all that it is of is, and the difference where both
        # are: else it is looked into.
        if bool(
            (relative_difference(readout.logits(units), logits) <= LEAST_ROUNDING).all()
        ):
            return
        self._check_finite(logits, batch, "the logits")
        self._check_finite(feature_map, batch, "the feature maps")
        error = completeness_error(logits, feature_map, readout)
        # What rounding may do is asked only where it did something.
        wrong = ~(error <= LEAST_ROUNDING)
        if bool(wrong.any()):
            wrong = ~(
                error <= rounding_error(logits, feature_map, readout, batch.dtype)
            )
        if bool(wrong.any()):
            raise HeadError(
                "the maps do not add up to the logits on this input (off by "
                f"{float(error[wrong][0]):.1e} of the "
                "largest logit): something else contributes to them"
            )

    def _pass(
        self, batch: Tensor, layers: tuple[str, ...] = (), head: bool = True
    ) -> ForwardPass:
        """One forward pass with the outputs of layers, and the head's input unless that is not wanted.

        Compiled while the network is frozen, else of the network as it is.
        """
        shape = tuple(batch.shape[1:])
        # While it is compiled the module is not itself, and hooks that one thread
        # captures by are changes to another.
        with contextlib.nullcontext() if self._frozen is None else _FROZEN_RUNS:
            compiled = self._compiled(shape, layers)
            if compiled is not None:
                return compiled.run(batch)
            watched = Watched(self._structure(shape).path if head else None, layers)
            with evaluating(self.network):
                passed: ForwardPass = self._guarded(
                    lambda: run_plain(self.network, batch, watched), shape
                )
            return passed

    def _compiled(
        self, shape: tuple[int, ...], layers: tuple[str, ...]
    ) -> Compiled | None:
        """The frozen network compiled for inputs of a shape, where that gives out these layers."""
        if self._frozen is None:
            return None
        structure = self._structure(shape)
        given = (*self._frozen.layers, *structure.local_layers())
        if not set(layers) <= set(given):
            return None
        watched = Watched(structure.path, tuple(dict.fromkeys(given)))

        def compile_() -> Compiled:
            example = torch.zeros(
                (1, *shape), dtype=self.like.dtype, device=self.like.device
            )
            with evaluating(self.network), torch.inference_mode(False), torch.no_grad():
                return compile_network(self.network, example, watched)

        return self._frozen.compiled(self.network, shape, compile_)

    def _reduced(self, batch: Tensor) -> tuple[ForwardPass, float]:
        """One forward pass in bfloat16, and how far it is rounded; in the network's own precision where it cannot be.

        What is off is relative to the largest logit and activation, and measured on the
        first photos.
        """
        shape = tuple(batch.shape[1:])
        structure = self._structure(shape)
        if batch.dtype is not torch.float32 or batch.device.type not in ("cpu", "cuda"):
            _warn_of_precision(
                "that needs float32 weights, on the processor or a CUDA device", 5
            )
            return self._pass(batch), 0.0
        if structure.rounded is None or structure.rounded <= ROUNDED:
            watched = Watched(structure.path)
            with evaluating(self.network):
                found = self._guarded(
                    lambda: run_bfloat16(self.network, batch, watched), shape
                )
            if structure.rounded is None:
                # A frozen network may give out more layers than were asked for here.
                exact = dataclasses.replace(self._pass(batch), outputs={})
                structure.rounded = found.difference(exact)
            if structure.rounded <= ROUNDED:
                return found, structure.rounded
        _warn_of_precision(
            f"its numbers would be off by {structure.rounded:.0%}, more than "
            f"{ROUNDED:.0%}",
            5,
        )
        return self._pass(batch), 0.0

    def activations(
        self, batch: Float[Tensor, "batch channel row col"], layers: Sequence[str] = ()
    ) -> Activations:
        """What layers did on inputs already preprocessed, with logits and the head's feature map, from one pass.

        Raises LayerError for a layer that does not exist or has no map, NonFiniteError,
        and HeadError where the maps do not add up to the logits.
        """
        shape, names = tuple(batch.shape[1:]), tuple(dict.fromkeys(layers))
        structure = self._structure(shape)
        chosen = [find_map_layer(structure.layers, name) for name in names]
        passed = self._pass(batch, names)
        maps = {layer.name: _map_of(layer, passed).contiguous() for layer in chosen}
        pooled = {name: cell_means(map_) for name, map_ in maps.items()}
        # A mean is finite where all that it is of is: the maps themselves are looked at
        # where something is wrong.
        for name, means in pooled.items():
            if not bool(torch.isfinite(means).all()):
                self._check_finite(maps[name], batch, f"the maps of layer '{name}'")
        logits, feature_map = passed.logits, passed.feature_map
        if feature_map is None:
            self._check_finite(logits, batch, "the logits")
            return Activations(logits, maps, pooled)
        units = cell_means(feature_map)
        self._check_adds_up(passed, batch, units)
        return Activations(logits, maps, pooled, feature_map, units, passed.readout)

    def _explain_locally(
        self, batch: Tensor, subjects: tuple[Subject, ...], head: LocalHead
    ) -> LocalExplanation:
        layers = self._structure(tuple(batch.shape[1:])).layers
        layer = find_map_layer(layers, head.layer)
        start = find_map_layer(layers, head.start) if head.start else None
        needed = [layer, *([start] if start else [])]
        passed = self._pass(
            batch, tuple(dict.fromkeys(one.name for one in needed)), head=False
        )
        logits = passed.logits
        self._check_finite(logits, batch, "the logits")
        for one in needed:
            _check_ran(one, passed)
        feature_map, suffix = started(self.network, layer, passed.outputs, batch, start)
        if head.silent and head.method == "hirescam":
            warnings.warn(
                f"a normalisation reads every cell of layer '{layer.name}' by itself, "
                "so that gradient · activation is "
                "0 in each of them: name the layer of that normalisation, or ask for "
                "the method gradcam",
                UnitscopeWarning,
                stacklevel=4,
            )
        self._check_finite(
            feature_map, batch, f"the feature maps of layer '{layer.name}'"
        )
        self._warn_of_nothing(
            logits, feature_map, cell_means(feature_map), batch, subjects
        )
        labels = self._labels_for(logits.shape[1])
        return LocalExplanation(
            logits, feature_map, head, labels, subjects, _size(batch), suffix=suffix
        )

    def forward_without(
        self, x: Input, units: int | Sequence[int], layer: str | None = None
    ) -> Tensor:
        """Logits (batch, class) of a real forward pass with units of the feature map set to zero.

        What `explain(x).ablate(units).logits` must equal: the slow way, to prove the
        fast one on the network at hand.
        """
        parts = []
        for batch, _ in self._batches(x, 16):
            shape = tuple(batch.shape[1:])
            head = self._head(shape, layer)
            chosen = check_units(units, head.map_shape[0], "the feature map")
            path = self._structure(shape).path
            if isinstance(head, LocalHead) or path is None:
                found = find_map_layer(self._structure(shape).layers, head.layer)
                with (
                    evaluating(self.network),
                    without_units(self.network, found, chosen),
                ):
                    parts.append(self._logits(batch.clone()))
                continue
            fresh = batch.clone()  # before the switch, which counts calls
            with evaluating(self.network), path.without_units(chosen) as switch:
                parts.append(self._logits(fresh))
            if not switch.fired:
                raise another_path()
        return torch.cat(parts)

    def _layer_and_units(
        self, batch: Tensor, layer: str, units: int | Sequence[int]
    ) -> tuple[Layer, list[int]]:
        found = find_map_layer(self._structure(tuple(batch.shape[1:])).layers, layer)
        return found, check_units(units, found.shape[0], f"layer '{layer}'")

    def _logits(self, batch: Tensor) -> Tensor:
        """Logits of one forward pass; give it a copy, since some networks normalise their input in place."""
        output = self._guarded(lambda: self.network(batch), tuple(batch.shape[1:]))
        return logits_of(output, len(batch)).to(torch.float32).clone()

    def _guarded(self, run: Callable[[], Any], shape: tuple[int, ...]) -> Any:
        """Run the user's network and turn its own errors into one line that says with what input it failed."""
        try:
            return run()
        except UnitscopeError:
            raise
        except torch.cuda.OutOfMemoryError:
            raise ModelError(
                "the device ran out of memory: use a smaller batch_size"
            ) from None
        except Exception as error:  # It is the user's code, and may raise anything.
            if any(
                isinstance(p, nn.parameter.UninitializedParameter)
                for p in self.network.parameters()
            ):
                raise ModelError(
                    "the network has lazy modules without weights yet: run one forward "
                    "pass of it first, or load its "
                    "weights"
                ) from None
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"the network failed on an input of {'×'.join(map(str, shape))} "
                "(channel × row × col): "
                f"{reason or repr(error)} — give its own preprocessing or input size"
            ) from error

    def _labels_for(self, classes: int) -> tuple[str, ...]:
        if self._labels is None:
            return _unnamed(classes)
        if len(self._labels) != classes:
            raise LabelsError(
                f"there are {len(self._labels)} labels, but the network has {classes} "
                "classes: give one label a class, "
                "in order"
            )
        return self._labels

    def _batches(
        self, x: Input, batch_size: int
    ) -> Iterator[tuple[Tensor, tuple[Subject, ...]]]:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        if isinstance(x, Tensor):
            yield from self._tensor_batches(x, batch_size)
            return
        if isinstance(x, (str, os.PathLike, Image.Image, Encoded, Photo)):
            x = [x]
        if (
            not isinstance(x, Iterable)
            or isinstance(x, (bytes, Mapping))
            or hasattr(x, "__array__")
        ):
            raise InputError(
                f"a {type(x).__name__} cannot be explained: give a path, a PIL image, "
                "a list of them, or a "
                "(batch, channel, row, col) tensor"
            )
        items = list(x)
        if not items:
            raise InputError("there is nothing to explain: the list of photos is empty")
        if isinstance(items[0], Tensor):
            raise InputError(
                f"a {type(x).__name__} of tensors cannot be explained: stack them, "
                "torch.stack(x)"
            )
        for read in batches(items, self.preprocessing, batch_size):
            tensors = [tensor for _, tensor in read]
            self._check_sizes(
                (int(tensor.shape[1]), int(tensor.shape[2])) for tensor in tensors
            )
            subjects = tuple(
                Subject.of_photo(photo, self.preprocessing) for photo, _ in read
            )
            yield stacked(tensors).to(self.like.device, self.like.dtype), subjects

    def _tensor_batches(
        self, x: Tensor, batch_size: int
    ) -> Iterator[tuple[Tensor, tuple[Subject, ...]]]:
        if x.ndim != 4 or 0 in x.shape:
            raise InputError(
                "a tensor of inputs has the shape (batch, channel, row, col), not "
                f"{tuple(x.shape)}: "
                "add a batch axis with x[None]"
            )
        if not x.is_floating_point():
            raise InputError(
                "a tensor of inputs holds preprocessed floating-point numbers, not "
                f"{x.dtype}: scale it first"
            )
        if not is_finite(x):
            bad = ~torch.isfinite(x).flatten(1).all(dim=1)
            raise NonFiniteError(
                f"input {int(bad.nonzero()[0])} of the batch holds NaN or infinite "
                "numbers: check what made it"
            )
        if self._shape_to_see:
            channels, rows, cols = (int(side) for side in x.shape[1:])
            self._seen_shape = channels, rows, cols
        for start in range(0, len(x), batch_size):
            batch = x[start : start + batch_size].detach()
            subjects = tuple(
                # A copy: the user may write over the tensor, and a view would keep the
                # whole batch alive.
                Subject.of_tensor(
                    copied(item.cpu()), f"input {start + position}", self.preprocessing
                )
                for position, item in enumerate(batch)
            )
            yield batch.to(self.like.device, self.like.dtype), subjects

    def _check_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Raise InputError unless all inputs have the same rows and columns."""
        different = list(dict.fromkeys(sizes))
        if len(different) > 1:
            listing = ", ".join(f"{rows}×{cols}" for rows, cols in different)
            raise InputError(
                f"the preprocessing gives inputs of different sizes ({listing}), "
                "which cannot share a batch: explain those photos one at a time, or "
                "add a crop"
            )

    def _check_finite(self, values: Tensor, batch: Tensor, what: str) -> None:
        if bool(torch.isfinite(values).all()):
            return
        for name, parameter in self.network.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise NonFiniteError(
                    f"{what} are NaN or infinite because the weights '{name}' are: "
                    "load sound weights"
                )
        raise NonFiniteError(
            f"{what} are NaN or infinite, first in the output of "
            f"{self._first_broken(batch)}"
        )

    def _warn_of_nothing(
        self,
        logits: Tensor,
        feature_map: Tensor,
        units: Tensor,
        batch: Tensor,
        subjects: tuple[Subject, ...],
    ) -> None:
        """Warn of photos on which no unit fires, or all classes get the same logit: right, and nothing to look at."""
        if bool((units.any(dim=1) & (logits != logits[:, :1]).any(dim=1)).all()):
            return
        for image, subject in enumerate(subjects):
            one = batch[image : image + 1]
            if not bool(feature_map[image].any()):
                where = self._first_layer(one, lambda output: not bool(output.any()))
                warnings.warn(
                    f"on {subject.name} every unit of the feature map is 0 everywhere, "
                    f"first in the output of {where}: "
                    "its maps show nothing",
                    UnitscopeWarning,
                    stacklevel=4,
                )
            elif logits.shape[1] > 1 and bool(
                (logits[image] == logits[image, 0]).all()
            ):
                warnings.warn(
                    f"on {subject.name} all {logits.shape[1]} classes have the logit "
                    f"{float(logits[image, 0]):g}: check the weights of the last layer",
                    UnitscopeWarning,
                    stacklevel=4,
                )

    def _first_broken(self, batch: Tensor) -> str:
        return self._first_layer(
            batch, lambda output: not bool(torch.isfinite(output).all())
        )

    def _first_layer(self, batch: Tensor, test: Callable[[Tensor], bool]) -> str:
        """The first layer, of those that have no layers inside, whose output passes a test, in words."""
        names = [layer.name for layer in layers_of(self._retraced(batch)) if layer.leaf]
        with evaluating(self.network), captured(self.network, names) as outputs:
            self.network(batch.clone())
        found = [name for name in names if name in outputs and test(outputs[name])]
        return f"layer '{found[0]}'" if found else "a function that belongs to no layer"

    def _retraced(self, batch: Tensor) -> Any:
        with evaluating(self.network):
            return trace(self.network, batch[:1])


def wrap(
    module: nn.Module,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    preprocessing: AnyPreprocessing | Callable[[Image.Image], Any] | None = None,
) -> Classifier:
    """Make any module that maps (batch, channel, row, col) to logits (batch, class) into a classifier to explain.

    `labels` are the class names in order, or a file of them; `preprocessing` is a
    unitscope.Preprocessing, a torchvision pipeline, or any callable from PIL image to
    tensor. Without one, ImageNet's convention is assumed, and the reports say so.
    """
    return Classifier(
        module, None if labels is None else read_labels(labels), preprocessing
    )


def _warn_of_precision(reason: str, level: int) -> None:
    warnings.warn(
        "bfloat16 was asked for, but the network was run in its own precision: "
        f"{reason}",
        UnitscopeWarning,
        stacklevel=level + 1,
    )


@cache
def _unnamed(classes: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(classes))


def _size(batch: Tensor) -> tuple[int, int]:
    return int(batch.shape[2]), int(batch.shape[3])


def _check_ran(layer: Layer, passed: ForwardPass) -> None:
    if layer.name not in passed.outputs:
        raise LayerError(
            f"layer '{layer.name}' did not run on this input, though it did on the "
            "first: "
            "choose a layer that always runs"
        )


def _map_of(layer: Layer, passed: ForwardPass) -> Tensor:
    _check_ran(layer, passed)
    return layer.units_first(passed.outputs[layer.name]).to(torch.float32)


def _maps_of(layer: Layer, passed: ForwardPass, units: list[int]) -> Tensor:
    return _map_of(layer, passed)[:, units].contiguous()


def _joined(parts: list[UnitMaps]) -> UnitMaps:
    if len(parts) == 1:
        return parts[0]
    return dataclasses.replace(
        parts[0],
        maps=torch.cat([part.maps for part in parts]),
        subjects=tuple(subject for part in parts for subject in part.subjects),
    )
