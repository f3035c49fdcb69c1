"""A network whose last map has as many units, and that has as many classes, as a
ResNet-50 for Places365; untrained.

unitscope explore --model python:benchmarks/wide.py:Wide --photo photo.jpg
"""

import torch
from torch import nn


class Wide(nn.Module):
    """2,048 units of 7×7 cells on photos of 224×224, and 365 classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2048, 32, 32)
        self.fc = nn.Linear(2048, 365)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.conv(x))
        logits: torch.Tensor = self.fc(maps.mean((2, 3)))
        return logits
