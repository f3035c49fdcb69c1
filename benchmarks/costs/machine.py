"""The machine: its processor, and what it reaches at its best."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from costs.timing import seconds_of

_TRIES = 12

# Channels, side and batch of convolutions in which a processor is at its best.
_CONVOLUTIONS = ((256, 14, 8), (512, 7, 8), (128, 28, 4))

_NUMBERS = 30_000_000
_BYTES_PER_ADDITION = 8


def processor(key: str) -> str:
    """A line of /proc/cpuinfo, such as "model name" or "flags"; elsewhere, what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()

    values = (line.split(":", 1)[1] for line in lines if line.startswith(key))
    return next(values, "").strip()


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16."""
    flags = processor("flags")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def multiplications(module: nn.Module, x: Tensor) -> float:
    """Multiplications (with an addition each) of the convolutions and linear layers of
    one forward pass."""
    total = 0.0

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        total += output.numel() * weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return total


def peaks() -> dict[str, float]:
    """The most multiplications a second in convolutions, and bytes a second of memory."""
    speeds = [_convolution_speed(*shape) for shape in _CONVOLUTIONS]

    numbers = torch.randn(_NUMBERS)
    into = torch.empty(_NUMBERS)
    fastest = min(
        seconds_of(lambda: torch.add(numbers, 1, out=into))
        for _ in range(_TRIES)
    )
    return {
        "multiplications_per_second": max(speeds),
        "bytes_per_second": _BYTES_PER_ADDITION * _NUMBERS / fastest,
    }


def _convolution_speed(channels: int, side: int, batch: int) -> float:
    """Multiplications a second of a 3×3 convolution, at its fastest."""
    noise = torch.randn(batch, channels, side, side)
    x = noise.contiguous(memory_format=torch.channels_last)
    module = nn.Conv2d(channels, channels, 3, padding=1, bias=False).eval()
    work = multiplications(module, x)

    fastest = float("inf")
    with torch.no_grad():
        for _ in range(_TRIES):
            begin = time.perf_counter()
            module(x)
            fastest = min(fastest, time.perf_counter() - begin)
    return work / fastest
