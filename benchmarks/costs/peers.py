"""Peers: other libraries' class activation maps, where they are installed, on five
classes of each photo."""

from __future__ import annotations

from torch import Tensor, nn

from costs.timing import Timed

CLASSES = [0, 1, 2, 3, 4]


def torchcam(module: nn.Module, x: Tensor) -> Timed:
    """The CAM of torch-cam, which runs nothing backward, for networks like a ResNet."""
    try:
        from torchcam.methods import CAM
    except ImportError:
        return {}
    ends_in_fc = isinstance(getattr(module, "fc", None), nn.Linear)
    if not ends_in_fc or not hasattr(module, "layer4"):
        return {}

    def run() -> object:
        with CAM(module, target_layer="layer4") as extractor:
            scores = module(x)
            return [
                extractor([index] * len(x), scores, normalized=False)
                for index in CLASSES
            ]

    return {"torchcam: CAM, 5 classes": run}


def grad_cam(module: nn.Module, x: Tensor) -> Timed:
    """The GradCAM of pytorch-grad-cam."""
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        return {}
    layer = _last_maps(module)
    if layer is None:
        return {}

    def run() -> object:
        with GradCAM(model=module, target_layers=[layer]) as method:
            return [
                method(x, [ClassifierOutputTarget(index)] * len(x))
                for index in CLASSES
            ]

    return {"pytorch-grad-cam: GradCAM, 5 classes": run}


def captum(module: nn.Module, x: Tensor) -> Timed:
    """The LayerGradCam of captum."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        return {}
    layer = _last_maps(module)
    if layer is None:
        return {}

    method = LayerGradCam(module, layer)

    def run() -> object:
        return [method.attribute(x, target=index) for index in CLASSES]

    return {"captum: LayerGradCam, 5 classes": run}


def _last_maps(module: nn.Module) -> nn.Module | None:
    return getattr(module, "layer4", getattr(module, "features", None))
