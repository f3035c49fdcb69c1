"""What training does to photos: a whole batch at once, on whatever device it lies."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, which every tool around classifiers assumes."""


@dataclass(frozen=True)
class Augmentation:
    """How far training photos are varied."""

    smallest_crop: float = 0.35
    """Least share of the photo's area in a crop; the largest is the whole photo."""
    aspect: float = 4 / 3
    """Most that a crop is stretched."""
    colour: float = 0.2
    """Brightness and contrast each vary by this share."""
    cast: float = 0.05
    """Red, green and blue each vary by this share."""
    erase: float = 0.0
    """Chance that a rectangle of the crop is blanked."""


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (batch, row, column, channel) → float (batch, channel, row, column), as the network wants it."""
    mean, std = (torch.tensor(values, device=pixels.device) for values in (MEAN, STD))
    return (
        pixels.permute(0, 3, 1, 2)
        .float()
        .div_(255)
        .sub_(mean[:, None, None])
        .div_(std[:, None, None])
    )


def augment(
    pixels: Tensor, size: int, how: Augmentation, generator: torch.Generator
) -> Tensor:
    """uint8 (batch, row, column, channel) → varied, normalised float (batch, channel, size, size).

    All random numbers are drawn on the CPU from `generator`, so that a batch is the
    same on every device.
    """
    count, stored, device = len(pixels), pixels.shape[1], pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    area, stretch = (
        uniform(how.smallest_crop, 1.0),
        uniform(-math.log(how.aspect), math.log(how.aspect)),
    )
    height = (area / stretch.exp()).sqrt().clamp_(max=1.0)
    width = (area * stretch.exp()).sqrt().clamp_(max=1.0)
    rows = _resampling(uniform(0, 1) * (1 - height), height, stored, size)
    columns = _resampling(uniform(0, 1) * (1 - width), width, stored, size)
    columns = torch.where(uniform(0, 1)[:, None, None] < 0.5, columns.flip(1), columns)
    # Crop, resize and flip are linear along each axis: two batched matrix products,
    # which on a CPU take a third of grid_sample's time and, unlike it, do not alias
    # where a crop shrinks.
    squeezed = rows.to(device) @ pixels.float().flatten(2)
    planes = squeezed.view(count, size, stored, 3).permute(0, 3, 1, 2)
    crops = (planes @ columns.to(device)[:, None].mT).contiguous(
        memory_format=torch.channels_last
    )

    gain = (
        uniform(1 - how.colour, 1 + how.colour)
        * uniform(1 - how.cast, 1 + how.cast, 3).T
    )
    contrast = uniform(1 - how.colour, 1 + how.colour)
    crops = _colour(crops, gain.T.to(device), contrast.to(device))
    return _erase(crops, uniform, how.erase) if how.erase else crops


def _resampling(start: Tensor, extent: Tensor, stored: int, size: int) -> Tensor:
    """(batch, size, stored): rows of weights that cut [start, start+extent] out of the unit interval and resize it.

    A triangle as wide as the larger of the two grids' spacings, which is Pillow's
    bilinear filter.
    """
    step = extent * stored / size
    centres = (start * stored)[:, None] + step[:, None] * (torch.arange(size) + 0.5)
    distance = (centres[:, :, None] - (torch.arange(stored) + 0.5)).abs()
    weights = (1 - distance / step.clamp(min=1.0)[:, None, None]).clamp_(min=0)
    return weights / weights.sum(2, keepdim=True)


def _colour(crops: Tensor, gain: Tensor, contrast: Tensor) -> Tensor:
    """Brightness, colour cast, contrast and normalisation are all linear: one multiplication and one addition."""
    mean, std = (torch.tensor(values, device=crops.device) for values in (MEAN, STD))
    middle = crops.mean((2, 3)) * gain / 255
    scale = gain * contrast[:, None] / std / 255
    offset = ((1 - contrast[:, None]) * middle - mean) / std
    return torch.addcmul(offset[:, :, None, None], crops, scale[:, :, None, None])


def _erase(crops: Tensor, uniform: Callable[..., Tensor], chance: float) -> Tensor:
    size = crops.shape[-1]
    side = torch.where(
        uniform(0, 1) < chance, uniform(0.2, 0.5), torch.zeros(len(crops))
    )
    left, top = uniform(0, 1) * (1 - side), uniform(0, 1) * (1 - side)
    position = (torch.arange(size) + 0.5) / size
    columns = (position >= left[:, None]) & (position < (left + side)[:, None])
    rows = (position >= top[:, None]) & (position < (top + side)[:, None])
    blank = (rows[:, :, None] & columns[:, None, :]).to(crops.device)
    return crops.masked_fill(blank[:, None], 0.0)
