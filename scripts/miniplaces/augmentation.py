"""What training does to photos: a whole batch at once, on whatever device it lies."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, which every tool around classifiers assumes."""

_Uniform = Callable[..., Tensor]


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
    """uint8 (batch, row, column, channel) → float (batch, channel, row, column), as
    the network wants it."""
    mean, std = _statistics(pixels.device)
    levels = pixels.permute(0, 3, 1, 2).float()
    shares = levels.div_(255)
    return shares.sub_(mean[:, None, None]).div_(std[:, None, None])


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (channel) of what the network expects."""
    return torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)


def augment(
    pixels: Tensor, size: int, how: Augmentation, generator: torch.Generator
) -> Tensor:
    """uint8 (batch, row, column, channel) → varied, normalised float (batch, channel, size, size).

    All random numbers are drawn on the CPU from `generator`, so that a batch is the
    same on every device.
    """
    count = len(pixels)
    device = pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        share = torch.rand(count, *shape, generator=generator)
        return share * (high - low) + low

    crops = _crop(pixels, size, how, uniform)

    brightness = uniform(1 - how.colour, 1 + how.colour)
    cast = uniform(1 - how.cast, 1 + how.cast, 3)
    contrast = uniform(1 - how.colour, 1 + how.colour)
    gain = (brightness * cast.T).T
    crops = _colour(crops, gain.to(device), contrast.to(device))

    if not how.erase:
        return crops
    return _erase(crops, uniform, how.erase)


def _crop(
    pixels: Tensor, size: int, how: Augmentation, uniform: _Uniform
) -> Tensor:
    """Cut a random rectangle out of every photo, resize it to a square, and mirror half of them."""
    count = len(pixels)
    stored = pixels.shape[1]
    area = uniform(how.smallest_crop, 1.0)
    longest = math.log(how.aspect)
    aspect = uniform(-longest, longest).exp()
    height = (area / aspect).sqrt().clamp_(max=1.0)
    width = (area * aspect).sqrt().clamp_(max=1.0)

    top = uniform(0, 1) * (1 - height)
    rows = _resampling(top, height, stored, size)
    left = uniform(0, 1) * (1 - width)
    columns = _resampling(left, width, stored, size)
    is_mirrored = uniform(0, 1)[:, None, None] < 0.5
    columns = torch.where(is_mirrored, columns.flip(1), columns)

    # Crop, resize and flip are linear along each axis: two batched matrix products,
    # which on a CPU take a third of grid_sample's time and, unlike it, do not alias
    # where a crop shrinks.
    rows = rows.to(pixels.device)
    columns = columns.to(pixels.device)[:, None]
    squeezed = rows @ pixels.float().flatten(2)
    planes = squeezed.view(count, size, stored, 3).permute(0, 3, 1, 2)
    crops = planes @ columns.mT
    return crops.contiguous(memory_format=torch.channels_last)


def _resampling(
    start: Tensor, extent: Tensor, stored: int, size: int
) -> Tensor:
    """(batch, size, stored): rows of weights that cut [start, start+extent] out of the
    unit interval and resize it.

    A triangle as wide as the larger of the two grids' spacings, which is Pillow's
    bilinear filter.
    """
    cells = torch.arange(size) + 0.5
    pixels = torch.arange(stored) + 0.5
    step = extent * stored / size
    begin = start * stored
    centres = begin[:, None] + step[:, None] * cells

    distance = (centres[:, :, None] - pixels).abs()
    reach = step.clamp(min=1.0)
    weights = (1 - distance / reach[:, None, None]).clamp_(min=0)
    return weights / weights.sum(2, keepdim=True)


def _colour(crops: Tensor, gain: Tensor, contrast: Tensor) -> Tensor:
    """Brightness, colour cast, contrast and normalisation are all linear: one
    multiplication and one addition."""
    mean, std = _statistics(crops.device)
    contrast = contrast[:, None]
    middle = crops.mean((2, 3)) * gain / 255
    scale = gain * contrast / std / 255
    offset = ((1 - contrast) * middle - mean) / std
    return torch.addcmul(
        offset[:, :, None, None], crops, scale[:, :, None, None]
    )


def _erase(crops: Tensor, uniform: _Uniform, chance: float) -> Tensor:
    """Blank a square in some crops."""
    size = crops.shape[-1]
    is_erased = uniform(0, 1) < chance
    nothing = torch.zeros(len(crops))
    side = torch.where(is_erased, uniform(0.2, 0.5), nothing)
    left = uniform(0, 1) * (1 - side)
    top = uniform(0, 1) * (1 - side)

    position = (torch.arange(size) + 0.5) / size
    columns = _between(position, left, left + side)
    rows = _between(position, top, top + side)
    blank = rows[:, :, None] & columns[:, None, :]
    return crops.masked_fill(blank.to(crops.device)[:, None], 0.0)


def _between(position: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(batch, position): whether a position lies in [low, high)."""
    return (position >= low[:, None]) & (position < high[:, None])
