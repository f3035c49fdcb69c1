"""Hiding: what stands in the place of pixels that a photo loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import InputError, near_matches

_BLUR = 10 / 128
"""The deviation of the blur, as a share of the shorter side."""


def blurred(
    photos: Float[Tensor, "photo channel row col"], deviation: float
) -> Float[Tensor, "photo channel row col"]:
    """Photos after a Gaussian blur; the deviation is in pixels."""
    channels = photos.shape[1]
    reach = max(1, int(3 * deviation))
    places = torch.arange(
        -reach, reach + 1, dtype=photos.dtype, device=photos.device
    )
    weights = torch.exp(-places.square() / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(channels, 1, 1, -1)

    padded = F.pad(photos, (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, weights, groups=channels)
    return F.conv2d(rows, weights.mT, groups=channels)


def _blur(photos: Tensor) -> Tensor:
    shorter = min(photos.shape[2:])
    return blurred(photos, max(0.5, _BLUR * shorter))


def _mean(photos: Tensor) -> Tensor:
    return photos.mean(dim=(2, 3), keepdim=True).expand_as(photos)


class Hiding(NamedTuple):
    """A way to hide pixels, and what it does in words."""

    words: str
    hidden: Callable[[Tensor], Tensor]


HIDINGS: Mapping[str, Hiding] = {
    "blur": Hiding(
        "blurred: a Gaussian whose deviation is 10/128 of the shorter side",
        _blur,
    ),
    "mean": Hiding("the mean colour of the photo", _mean),
    "zero": Hiding("0 in the network's input", torch.zeros_like),
}
"""What stands in the place of hidden pixels, by name; the first is the default."""


def hiding_of(name: str) -> Hiding:
    """The way to hide of a name; raises InputError."""
    if name not in HIDINGS:
        known = ", ".join(map(repr, HIDINGS))
        raise InputError(
            f"hide is one of {known}, not {name!r}{near_matches(name, list(HIDINGS))}"
        )
    return HIDINGS[name]
