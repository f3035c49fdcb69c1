"""Networks that a record explains: one or more for every kind of head, with seeded weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

import unitscope
from comparison.inputs import DATA

# Local answers run the network backward once for every class.
_CLASSES = 12
_SQUEEZENET_WEIGHTS = DATA / "weights" / "squeezenet1_1-imagenet-fp16.pth"

LOCAL = ("hirescam", "gradcam")


@dataclass(frozen=True)
class Case:
    """One network, and how it is explained; a method of None is the default answer."""

    name: str
    make: Callable[[], Any]
    methods: tuple[str | None, ...] = (None,)
    frozen: bool = False
    precision: str | None = None


def _torchvision(name: str) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(0)
        module = torchvision.models.get_model(name, num_classes=_CLASSES)
        _fill_zero_layers(module)
        return unitscope.wrap(
            module.eval(), [f"class-{i}" for i in range(_CLASSES)]
        )

    return make


def _fill_zero_layers(module: nn.Module) -> None:
    """Some last layers begin at zero, and then there is nothing to explain."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.02)


def _squeezenet() -> Any:
    if not _SQUEEZENET_WEIGHTS.exists():
        return _torchvision("squeezenet1_1")()

    module = torchvision.models.squeezenet1_1()
    weights = torch.load(_SQUEEZENET_WEIGHTS, weights_only=True)
    module.load_state_dict(
        {name: value.float() for name, value in weights.items()}
    )
    return unitscope.wrap(module.eval())


def _bundled() -> Any:
    return unitscope.load()


CASES = (
    Case("miniplaces", _bundled),
    Case("miniplaces-local", _bundled, LOCAL),
    Case("miniplaces-frozen", _bundled, frozen=True),
    Case("miniplaces-bfloat16", _bundled, precision="bfloat16"),
    Case("resnet18", _torchvision("resnet18"), (None, *LOCAL)),
    Case("resnet18-frozen", _torchvision("resnet18"), frozen=True),
    Case("resnet50", _torchvision("resnet50")),
    Case("convnext_tiny", _torchvision("convnext_tiny")),
    Case("squeezenet1_1", _squeezenet),
    Case("densenet121", _torchvision("densenet121")),
    Case("swin_t", _torchvision("swin_t")),
    Case("vit_b_16", _torchvision("vit_b_16"), ("hirescam",)),
    Case("vgg11", _torchvision("vgg11"), ("hirescam",)),
    Case("alexnet", _torchvision("alexnet"), LOCAL),
    Case("mobilenet_v3_small", _torchvision("mobilenet_v3_small")),
)
