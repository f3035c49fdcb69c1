"""Bringing your own network: a plain PyTorch module in a file of its own, as you would
have it from training.

    unitscope explain photo.jpg --model python:examples/simplenet.py:SimpleNet \
        --weights simplenet.pth.tar \
        --labels categories.txt --preprocessing resize=144,crop=128
"""

import torch
from torch import nn


class SimpleNet(nn.Module):
    """A small scene classifier: convolutions, a global average over the last feature
    map, one linear layer.

    Anything that maps (batch, 3, row, col) to logits (batch, class) will do; this one
    ends in the head that makes class activation maps exact. Because it accepts
    `num_classes`, that is read off the weights file when one is given.
    """

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(64, 64, 1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.Conv2d(64, 256, 1), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(256, 128, 1), nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(),
            nn.Conv2d(128, 512, 1), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.features(x)
        logits: torch.Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits
