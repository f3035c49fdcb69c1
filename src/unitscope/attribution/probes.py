"""Probes: the random inputs on which heads are proved."""

from __future__ import annotations

import torch
from torch import Tensor

_SCALES = (0.5, 1.0, 2.0)

# Noise of deviation 1 never reaches this.
_LARGEST_NOISE = 16


def probes(example: Tensor) -> list[Tensor]:
    """Three inputs (1, channel, row, col) of different scale, like `example`.

    Those for an example of pixels are pixels too. They come from a generator of their
    own: the user's random state is not touched.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, *example.shape[1:])
    # On the processor and in float32 whatever the user's defaults are: the probes are
    # always the same.
    noise = [
        torch.randn(
            shape, generator=generator, dtype=torch.float32, device="cpu"
        )
        * scale
        for scale in _SCALES
    ]
    if bool((example > _LARGEST_NOISE).any()):
        noise = [as_pixels(probe / _SCALES[-1]) for probe in noise]
    return [probe.to(example.device, example.dtype) for probe in noise]


def as_pixels(noise: Tensor) -> Tensor:
    """Noise of deviation 1 as whole numbers from 0 to 255."""
    return noise.mul(64).add(128).round().clamp(0, 255)
