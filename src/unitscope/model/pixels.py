"""Pixels: inputs from 0 to 255, and whether a network takes them as they are."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from jaxtyping import Num
from PIL import Image
from torch import Tensor, nn

from unitscope.errors import InputError, UnitscopeError, warn_user
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.model.network import Network
from unitscope.tracing.calling import holds_pixels

# Inputs that were scaled and normalised are smaller.
_LARGEST_SCALED = 16


def check_pixels(
    network: Network,
    inputs: Num[Tensor, "batch channel row col"],
    preprocessing: AnyPreprocessing,
) -> None:
    """Raise InputError for uint8 inputs that the network does not take.

    Warn of inputs from 0 to 255 that nothing scales before the first convolution. The
    network is given uint8 numbers where `inputs` are.
    """
    if not bool((inputs > _LARGEST_SCALED).any()) or not holds_pixels(inputs):
        if inputs.dtype is torch.uint8:
            _check_taken(network, inputs)
        return

    if inputs.dtype is torch.uint8:
        _check_taken(network, inputs)
    elif _makes_pixels(preprocessing):
        return
    if not _reads_pixels(network, inputs[:1]):
        return
    warn_user(
        "the inputs are whole numbers from 0 to 255, like pixels that were not "
        "preprocessed, and the network does not scale them before its first "
        "convolution: right if it was trained so, else scale and normalise them"
    )


def _check_taken(network: Network, inputs: Tensor) -> None:
    if network.runs(inputs[:1]):
        return
    raise InputError(
        "a tensor of inputs holds preprocessed floating-point numbers, not "
        "torch.uint8, which the network does not take: scale and normalise it as in "
        "training, or give the photos themselves"
    )


def _makes_pixels(preprocessing: AnyPreprocessing) -> bool:
    """Whether the preprocessing itself gives a network numbers up to 255."""
    try:
        white = preprocessing(Image.new("RGB", (256, 256), "white"))
    except UnitscopeError:
        return False
    return float(white.max()) > _LARGEST_SCALED


def _reads_pixels(network: Network, x: Tensor) -> bool:
    """Whether the first convolution reads numbers as large as pixels, or none runs.

    A network that does not run on them is another matter.
    """
    read: list[float] = []

    def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if not read and args and isinstance(args[0], Tensor):
            read.append(float(args[0].abs().max()))

    with contextlib.ExitStack() as stack:
        for module in network.module.modules():
            if isinstance(module, nn.Conv2d):
                handle = module.register_forward_pre_hook(look)
                stack.callback(handle.remove)
        if not network.runs(x):
            return False
    return not read or read[0] > _LARGEST_SCALED
