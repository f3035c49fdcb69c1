"""Peers: methods of pytorch-grad-cam, torchcam and captum, with their scaling undone.

Each is a function (model, inputs, classes) → signed maps (photo, row, col), and stands in
`PEERS` with what it promises. All of them run on a copy of the network.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.methods import DEFAULT_METHOD
from unitscope.errors import (
    InputError,
    MissingExtraError,
    ModelError,
    UnitscopeError,
    kind_and_text,
    near_matches,
)
from unitscope.geometry import PIXELS, Grid
from unitscope.model import Classifier
from unitscope.model.logits_module import LogitsModule
from unitscope.tracing.layers import Layer

PeerFunction: TypeAlias = Callable[
    [Classifier, Tensor, Sequence[int]], Float[Tensor, "photo row col"]
]
"""(model, inputs (photo, channel, row, col), a class for each photo) → signed maps."""

# Photos that captum sends through the network at a time, of those that it makes.
_AT_ONCE = 16
_STEPS = 50


@dataclass(frozen=True)
class Peer:
    """A method of another library: what it promises, and the function that makes maps.

    `place` says where the cells of its maps lie: at those of a "layer", the one of our
    local answers, or at the "pixels" of the input.
    """

    name: str
    library: str
    promise: str
    maps: PeerFunction
    place: Literal["layer", "pixels"]

    def grid(
        self, model: Classifier, inputs: Float[Tensor, "photo channel row col"]
    ) -> Grid:
        """Where the cells of its maps lie on the network's input."""
        if self.place == "pixels":
            return Grid(PIXELS, PIXELS)
        return model.explain(inputs[:1], method=DEFAULT_METHOD).grid


def peer(name: str) -> Peer:
    """The method of this name; raises InputError with near matches."""
    if name not in PEERS:
        raise InputError(
            f"there is no method {name!r} of another library"
            f"{near_matches(name, list(PEERS))}: choose from {', '.join(PEERS)}"
        )
    return PEERS[name]


def _library(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(package, "peers", purpose) from None


@contextlib.contextmanager
def _of_peer(name: str) -> Iterator[None]:
    """Errors of another library in one line; its progress bars are not shown."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except UnitscopeError:
        raise
    except Exception as error:  # another library may raise anything
        raise ModelError(
            f"{name} failed on this network: {kind_and_text(error)}: choose another method"
        ) from error


@dataclass(frozen=True)
class _AtLayer:
    """A copy of the network, and its layer that is explained."""

    copied: LogitsModule
    module: nn.Module
    layer: Layer
    inputs: Tensor

    @classmethod
    def of(cls, model: Classifier, inputs: Tensor) -> _AtLayer:
        """The layer of our local answers, in a copy."""
        name = model.explain(inputs[:1], method=DEFAULT_METHOD).head.layer
        copied = model.logits_module(inputs)
        module, layer = copied.layer(name)
        # Gradients must pass where all parameters are frozen too.
        return cls(
            copied, module, layer, inputs.detach().clone().requires_grad_()
        )

    @property
    def reshaping(self) -> Callable[[Tensor], Tensor] | None:
        """What makes a map (photo, unit, row, col) of the layer's output, if it is none."""
        axes = self.layer.axes
        if axes is None or axes.order == "units first":
            return None
        return lambda output: axes.units_first(output).contiguous()


# ---- pytorch-grad-cam


def _grad_cam(
    kind: str,
    model: Classifier,
    inputs: Tensor,
    classes: Sequence[int],
) -> Float[Tensor, "photo row col"]:
    """Its map before it is clipped at 0, stretched to 0 … 1 and enlarged."""
    library = _library("pytorch_grad_cam", "grad-cam", kind)
    targets_of = _library(
        "pytorch_grad_cam.utils.model_targets", "grad-cam", kind
    )
    at = _AtLayer.of(model, inputs)
    made: list[Any] = []
    method = _keeping(
        library.GradCAM if kind == "FinerCAM" else getattr(library, kind), made
    )
    with _of_peer(f"{kind} of pytorch-grad-cam"), at.copied.running():
        if kind == "FinerCAM":
            targets = [
                targets_of.FinerWeightedTarget(which, rivals, 1.0)
                for which, rivals in zip(
                    classes, _rivals(at, classes), strict=True
                )
            ]
            caller = library.FinerCAM(
                at.copied, [at.module], at.reshaping, base_method=method
            )
        else:
            targets = [targets_of.ClassifierOutputTarget(c) for c in classes]
            caller = method(at.copied, [at.module], at.reshaping)
        with caller:
            caller(at.inputs, targets)
    signed: Tensor = torch.as_tensor(made[0]).double().cpu()
    return signed


def _keeping(method: Any, made: list[Any]) -> Any:
    """The class of a method that also keeps the maps as they are before scaling."""

    class Keeping(method):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **kwargs: Any) -> Any:
            image = super().get_cam_image(*args, **kwargs)
            made.append(image)
            return image

    return Keeping


def _rivals(at: _AtLayer, classes: Sequence[int]) -> list[list[int]]:
    """The three classes whose logits are nearest to each photo's, as FinerCAM takes."""
    with torch.no_grad():
        logits = at.copied(at.inputs)
    own = logits[range(len(classes)), list(classes)][:, None]
    distance = (logits - own).abs()
    distance[range(len(classes)), list(classes)] = -1.0
    order = distance.argsort(dim=1, stable=True)[:, 1:4]
    if not order.shape[1]:
        raise InputError(
            "FinerCAM compares classes, and there is one only: choose another method"
        )
    nearest: list[list[int]] = order.tolist()
    return nearest


def ablation_cam(
    model: Classifier, inputs: Tensor, classes: Sequence[int]
) -> Float[Tensor, "photo row col"]:
    """Ablation-CAM, times the logit by which it divides: weights are drops of the logit."""
    library = _library("pytorch_grad_cam", "grad-cam", "Ablation-CAM")
    layers = _library(
        "pytorch_grad_cam.ablation_layer", "grad-cam", "Ablation-CAM"
    )
    targets_of = _library(
        "pytorch_grad_cam.utils.model_targets", "grad-cam", "Ablation-CAM"
    )
    at = _AtLayer.of(model, inputs)
    if at.reshaping is not None:
        raise InputError(
            f"Ablation-CAM of pytorch-grad-cam replaces layers that give (photo, unit, row, "
            f"col), and '{at.layer.name}' does not: choose another method"
        )
    made: list[Any] = []
    method = _keeping(library.AblationCAM, made)
    with _of_peer("Ablation-CAM of pytorch-grad-cam"), at.copied.running():
        with torch.no_grad():
            logits = at.copied(at.inputs)[range(len(classes)), list(classes)]
        targets = [targets_of.ClassifierOutputTarget(c) for c in classes]
        layer = _zeroing(layers.AblationLayer)()
        with method(at.copied, [at.module], ablation_layer=layer) as caller:
            caller(at.inputs, targets)
    maps: Tensor = torch.as_tensor(made[0]).double().cpu()
    signed: Tensor = maps * logits.double().cpu()[:, None, None]
    return signed


def _zeroing(layer: Any) -> Any:
    """The class of its layer that switches units off as the paper does, to 0.

    Its own takes 0 only where that is the least activation, and else −10⁷.
    """

    class Zeroing(layer):  # type: ignore[misc]
        def __call__(self, x: Any) -> Tensor:
            output: Tensor = self.activations.clone()
            units = [int(unit) for unit in self.indices[: len(output)]]
            output[range(len(output)), units] = 0
            return output

    return Zeroing


def eigen_cam(
    model: Classifier, inputs: Tensor, classes: Sequence[int]
) -> Float[Tensor, "photo row col"]:
    """Eigen-CAM, with the sign by which it follows the mean activation of all units."""
    maps = _grad_cam("EigenCAM", model, inputs, classes)
    feature_map = model.explain(inputs, method=DEFAULT_METHOD).feature_map
    mean = feature_map.double().cpu().mean(dim=1)
    mean = mean - mean.mean(dim=(1, 2), keepdim=True)
    follows = (maps * mean).sum(dim=(1, 2), keepdim=True)
    return torch.where(follows < 0, -maps, maps)


# ---- torchcam


def _torchcam(
    kind: str,
    model: Classifier,
    inputs: Tensor,
    classes: Sequence[int],
) -> Float[Tensor, "photo row col"]:
    """Its map, not stretched to 0 … 1; what it clips at 0 stays clipped."""
    library = _library("torchcam.methods", "torchcam", kind)
    at = _AtLayer.of(model, inputs)
    options: dict[str, Any] = {}
    if at.reshaping is not None:
        options["reshape_transform"] = at.reshaping
    with (
        _of_peer(f"{kind} of torchcam"),
        at.copied.running(),
        getattr(library, kind)(
            at.copied,
            at.module,
            input_shape=tuple(inputs.shape[1:]),
            **options,
        ) as extractor,
    ):
        torch.manual_seed(
            0
        )  # some draw noise; the caller's generators are not touched
        scores = at.copied(at.inputs)
        (maps,) = extractor(list(classes), scores, normalized=False)
    signed: Tensor = maps.detach().double().cpu()
    return signed


# ---- captum


def integrated_gradients(
    model: Classifier, inputs: Tensor, classes: Sequence[int]
) -> Float[Tensor, "photo row col"]:
    """Integrated gradients from the input of zeros, 50 steps, summed over channels."""
    library = _library("captum.attr", "captum", "integrated gradients")
    copied = model.logits_module(inputs)
    with _of_peer("integrated gradients of captum"), copied.running():
        given = library.IntegratedGradients(copied).attribute(
            inputs.detach().clone(),
            target=torch.tensor(list(classes), device=inputs.device),
            n_steps=_STEPS,
            internal_batch_size=max(len(inputs), _AT_ONCE),
        )
    signed: Tensor = given.detach().double().cpu().sum(dim=1)
    return signed


def occlusion(
    model: Classifier, inputs: Tensor, classes: Sequence[int]
) -> Float[Tensor, "photo row col"]:
    """What the logit loses where a square of an eighth of the side becomes zeros.

    Squares overlap by half; a pixel has the mean of those that cover it.
    """
    library = _library("captum.attr", "captum", "occlusion")
    copied = model.logits_module(inputs)
    channels, rows, cols = inputs.shape[1:]
    sides = tuple(max(1, round(side / 8)) for side in (rows, cols))
    steps = tuple(max(1, side // 2) for side in sides)
    with (
        _of_peer("occlusion of captum"),
        copied.running(),
        torch.no_grad(),
    ):
        given = library.Occlusion(copied).attribute(
            inputs.detach().clone(),
            sliding_window_shapes=(channels, *sides),
            strides=(channels, *steps),
            baselines=0,
            target=torch.tensor(list(classes), device=inputs.device),
            perturbations_per_eval=max(1, _AT_ONCE // len(inputs)),
        )
    # All channels are occluded together, and have the same number.
    signed: Tensor = given.detach().double().cpu()[:, 0]
    return signed


# ---- what there is

_GRAD_CAM = {
    "gradcam++": (
        "GradCAMPlusPlus",
        "gradients above 0, weighted by their powers: a heat map in no unit; adds up to "
        "nothing",
    ),
    "layercam": (
        "LayerCAM",
        "activations times gradients above 0, cell by cell: what speaks against is left out",
    ),
    "scorecam": (
        "ScoreCAM",
        "activations weighted by a softmax of the logits of masked photos; no gradients; adds "
        "up to nothing",
    ),
    "xgradcam": (
        "XGradCAM",
        "gradients averaged by activation; its cells add up to gradient · activation, as those "
        "of HiResCAM do",
    ),
    "finercam": (
        "FinerCAM",
        "Grad-CAM of the class less the three with the nearest logits: what tells them apart",
    ),
}
_TORCHCAM = {
    "torchcam-gradcam++": "GradCAMpp",
    "torchcam-smoothgradcam++": "SmoothGradCAMpp",
    "torchcam-layercam": "LayerCAM",
    "torchcam-xgradcam": "XGradCAM",
    "torchcam-scorecam": "ScoreCAM",
}
_OTHERS = (
    Peer(
        "ablationcam",
        "pytorch-grad-cam",
        "activations weighted by what the logit loses without the unit; adds up to nothing "
        "where units interact",
        ablation_cam,
        "layer",
    ),
    Peer(
        "eigencam",
        "pytorch-grad-cam",
        "the first principal component of the activations: of no class; its sign is ours",
        eigen_cam,
        "layer",
    ),
    Peer(
        "integrated-gradients",
        "captum",
        "adds up to the logit less that of the input of zeros, but for 50 steps; in logits",
        integrated_gradients,
        "pixels",
    ),
    Peer(
        "occlusion",
        "captum",
        "what the logit loses where a square becomes zeros, the mean over squares; in logits",
        occlusion,
        "pixels",
    ),
)

PEERS: Mapping[str, Peer] = {
    each.name: each
    for each in (
        *(
            Peer(
                name,
                "pytorch-grad-cam",
                promise,
                functools.partial(_grad_cam, kind),
                "layer",
            )
            for name, (kind, promise) in _GRAD_CAM.items()
        ),
        *_OTHERS,
        *(
            Peer(
                name,
                "torchcam",
                f"{kind} as torchcam computes it, clipped at 0; adds up to nothing",
                functools.partial(_torchcam, kind),
                "layer",
            )
            for name, kind in _TORCHCAM.items()
        ),
    )
}
"""Every method of another library by its name."""
