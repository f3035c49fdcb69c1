"""Transformed: what a user's own callable returned, checked, with the remedy that fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.errors import PreprocessingError

# An axis of at most so many is that of channels, where another one is longer.
_MOST_CHANNELS = 4

_TO_TENSOR = "end it with a conversion to a tensor"
_ONE_TENSOR = "return one (channel, row, col) tensor alone"
_CHANNELS_FIRST = "put the channels first, .permute(2, 0, 1)"


def as_input(returned: Any, name: str) -> Float[Tensor, "channel row col"]:
    """The network's input in what the callable `name` returned, without gradients.

    A batch of one is taken apart. Raises PreprocessingError for anything else than a
    floating-point (channel, row, col) tensor.
    """
    if not isinstance(returned, Tensor):
        raise PreprocessingError(
            f"the preprocessing {name} gave {type(returned).__name__}, not a "
            f"(channel, row, col) tensor: {_remedy_for(returned)}"
        )
    tensor = returned.detach()
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]

    remedy = _remedy_for_tensor(tensor)
    if remedy:
        kind = f"a {tensor.dtype}" if tensor.numel() else "an empty"
        raise PreprocessingError(
            f"the preprocessing {name} gave {kind} tensor of shape "
            f"{tuple(returned.shape)}, not floating-point (channel, row, col): {remedy}"
        )
    return tensor


def fitting_argument(transform: Any, image: Image.Image) -> str:
    """What to do about a callable that fails on a PIL image, found by trying others."""
    pixels = np.array(image)
    levels = torch.from_numpy(pixels).permute(2, 0, 1)
    others = {
        "it takes arrays (row, col, channel): begin it with numpy.asarray": pixels,
        "it takes tensors: begin it with torchvision.transforms.ToTensor()": (
            levels / 255
        ),
    }
    for remedy, other in others.items():
        try:
            transform(other)
        except Exception:  # the user's code may raise anything
            continue
        return remedy
    return "it must map a PIL image to a (channel, row, col) tensor"


def _remedy_for(returned: Any) -> str:
    """What to do about a result that is no tensor."""
    if isinstance(returned, Image.Image):
        return f"{_TO_TENSOR}, torchvision.transforms.ToTensor()"
    if isinstance(returned, np.ndarray):
        if _is_channels_last(returned.shape):
            return f"{_TO_TENSOR}, torchvision.transforms.ToTensor()"
        return f"{_TO_TENSOR}, torch.from_numpy"
    if isinstance(returned, Mapping):
        names = [
            key for key, value in returned.items() if isinstance(value, Tensor)
        ]
        example = f", e.g. its {names[0]!r}" if names else ""
        return f"{_ONE_TENSOR}{example}"
    if isinstance(returned, (list, tuple)):
        return _ONE_TENSOR
    return _TO_TENSOR


def _remedy_for_tensor(tensor: Tensor) -> str:
    """What to do about a tensor that is no network's input; "" where it is one."""
    if not tensor.numel():
        return "it must keep some of the photo"
    if tensor.ndim == 2:
        return "add the axis of channels, .unsqueeze(0)"
    if tensor.ndim != 3:
        return f"{_ONE_TENSOR}, of one crop of the photo"
    if _is_channels_last(tensor.shape):
        return _CHANNELS_FIRST
    if not tensor.is_floating_point():
        return (
            "end it with a scaling to floating point as the network was trained on, e.g. "
            "torchvision's v2.ToDtype(torch.float32, scale=True) or albumentations' "
            "Normalize"
        )
    return ""


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    if len(shape) != 3:
        return False
    return shape[2] <= _MOST_CHANNELS < min(shape[:2])
