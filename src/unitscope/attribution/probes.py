"""Probes: the random inputs on which heads are proved."""

from __future__ import annotations

import torch
from torch import Tensor

_SCALES = (0.5, 1.0, 2.0)


def probes(example: Tensor) -> list[Tensor]:
    """Three inputs (1, channel, row, col) of different scale, like `example`.

    They come from a generator of their own: the user's random state is not touched.
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
    return [probe.to(example.device, example.dtype) for probe in noise]
