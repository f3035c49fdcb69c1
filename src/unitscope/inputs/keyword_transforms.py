"""Keyword transforms: pipelines that are called as albumentations are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

# Larger than any crop, which would fail on a smaller picture.
_PROBE_SIDE = 1024

# A picture's last axis is that of its channels where it is no longer than this.
_MOST_CHANNELS = 4


class KeywordTransform:
    """A transform that is called with `image=` as a callable from a PIL image to a tensor.

    It takes an array (row, col, channel) and returns a mapping whose "image" is an
    array (row, col, channel) or a tensor (channel, row, col).
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform
        self.__name__ = type(transform).__name__

    def __call__(self, image: Image.Image) -> Any:
        """Apply the transform to one photo."""
        made = self.transform(image=np.array(image))["image"]
        return _as_tensor(made)


def takes_image_keyword(transform: Callable[..., Any]) -> bool:
    """Whether a callable takes `image=` and returns a mapping with "image".

    It is tried on a grey picture, if its signature allows for that.
    """
    if not _may_take_image(transform):
        return False
    picture = np.full((_PROBE_SIDE, _PROBE_SIDE, 3), 127, np.uint8)
    try:
        made = transform(image=picture)
    except Exception:
        # Whatever a callable raises that expects something else.
        return False
    return isinstance(made, Mapping) and "image" in made


def _may_take_image(transform: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(transform).parameters
    except (TypeError, ValueError):
        return False
    if "image" in parameters:
        return True
    kinds = [parameter.kind for parameter in parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _as_tensor(made: Any) -> Any:
    if not isinstance(made, np.ndarray):
        return made
    # A copy: torch takes no array that cannot be written to.
    tensor = torch.from_numpy(np.array(made))
    if tensor.ndim == 2:
        return tensor[None]
    if tensor.ndim == 3 and tensor.shape[2] <= _MOST_CHANNELS:
        return tensor.permute(2, 0, 1)
    return tensor
