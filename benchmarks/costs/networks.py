"""Networks that are measured, by name: the bundled one, or any of torchvision's with
random weights."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

import unitscope

BUNDLED = "miniplaces"
NETWORKS = [
    "resnet50",
    BUNDLED,
    "squeezenet1_1",
    "convnext_tiny",
    "efficientnet_b0",
    "densenet121",
    "vit_b_16",
]


def network(name: str) -> nn.Module:
    """The network of this name, in evaluation mode."""
    if name == BUNDLED:
        return unitscope.load().module

    module = torchvision.models.get_model(name)
    fill_zero_layers(module)
    network: nn.Module = module.eval()
    return network


def fill_zero_layers(module: nn.Module) -> None:
    """Some last layers begin at zero, and then there is nothing to explain."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.02)


def inputs(name: str, batch: int, device: str = "cpu") -> Tensor:
    """Noise of the network's usual size (batch, channel, row, col)."""
    side = 128 if name == BUNDLED else 224
    shape = (batch, 3, side, side)
    return torch.randn(shape, device=device)
