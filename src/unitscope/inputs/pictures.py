"""Pictures: tensors turned into images to look at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny


def picture_of(tensor: Float[Tensor, "channel row col"]) -> Image.Image:
    """A picture of a tensor of unknown scale, whose range is stretched to 0–255.

    Of two channels the first is shown, of more than three the first three.
    """
    channels = 3
    if len(tensor) < 3:
        channels = 1
    values = tensor[:channels].detach()
    values = values.to("cpu", torch.float32)

    low = values.min()
    high = values.max()
    span = high - low
    # A tensor of equal numbers has no range to divide by.
    span = span.clamp(min=_TINY)
    shares = (values - low) / span
    return picture_of_shares(shares)


def picture_of_shares(shares: Float[Tensor, "channel row col"]) -> Image.Image:
    """A picture of values from 0 to 1 in one channel (grey) or three."""
    levels = shares.mul(255)
    levels = levels.round().to(torch.uint8)
    channels_last = levels.permute(1, 2, 0)
    # Pillow knows no third axis of length one.
    pixels = channels_last.squeeze(-1)
    image = Image.fromarray(pixels.numpy())
    return image.convert("RGB")
