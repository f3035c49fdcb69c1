"""A small data set with masks: what is typical of a class is a bright square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

SIDE = 32
LABELS = ["red", "green", "blue"]


class Colours(nn.Module):
    """A logit for each colour: 8 · the mean of its channel over 4×4 patches.

    Its map of a class is the brightness of that colour, patch by patch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.units = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.units.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(8 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        units = self.units(self.pool(x)).relu()
        logits: Tensor = self.head(units.mean((2, 3)))
        return logits


def colours() -> Classifier:
    preprocessing = Preprocessing(
        resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1)
    )
    return wrap(Colours().eval(), LABELS, preprocessing)


def square(seed: int) -> tuple[slice, slice]:
    """Where the bright square of a photo is."""
    row, col = np.random.default_rng(seed).integers(0, 5, 2) * 4
    return slice(row, row + 12), slice(col, col + 12)


def photo(seed: int, channel: int) -> np.ndarray:
    """A grey photo (row, col, channel) with a square of a colour."""
    random = np.random.default_rng(seed)
    pixels = random.integers(40, 80, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[(*square(seed), channel)] = 250
    return pixels


def write(root: Path, photos: int = 24) -> Path:
    """Photos in class folders, and masks of their squares: the concept of the class."""
    for number in range(photos):
        channel = number % 3
        name = f"train/{LABELS[channel]}/{number:03}.png"
        image = root / "images" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number, channel)).save(image)

        index = np.zeros((SIDE, SIDE), np.uint8)
        index[square(number)] = channel + 1
        mask = root / "annotations" / name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(index).save(mask)
    (root / "names.txt").write_text("crimson\nemerald\nazure\n")
    return root
