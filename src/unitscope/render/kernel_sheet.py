"""Kernel sheet: the filters of a layer in a single picture, for web pages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from unitscope.kernels import Filters

# Pixels.
_KERNEL = 42
_GAP = 6
_NUMBERS = 20


@dataclass(frozen=True, eq=False)
class KernelSheet:
    """All kernels in one picture (RGBA, 8 bits), enlarged without smoothing.

    `numbers` are the numbers of the filters, each with its place (x, y) in pixels.
    """

    pixels: UInt8[np.ndarray, "height width 4"]
    numbers: tuple[tuple[int, float, float], ...]

    @classmethod
    def of(cls, filters: Filters) -> KernelSheet:
        """Lay filters out in a grid.

        Where several channels are shown apart, each filter has a row without a number.
        """
        pictures = _colour_pictures(filters)
        count, channels, high, wide = pictures.shape[:4]
        numbered = channels == 1
        if numbered:
            columns = 16 if count > 24 else min(count, 12)
            pictures = pictures[:, 0]
        else:
            columns = channels
            pictures = pictures.reshape(-1, *pictures.shape[2:])

        across, down = wide + _GAP, high + (_NUMBERS if numbered else _GAP)
        rows = math.ceil(len(pictures) / columns)
        pixels = np.zeros((rows * down, columns * across - _GAP, 4), np.uint8)

        numbers = []
        for position, picture in enumerate(pictures):
            row, column = divmod(position, columns)
            x, y = column * across, row * down
            kernel = pixels[y : y + high, x : x + wide]
            kernel[..., :3] = np.round(255 * picture)
            kernel[..., 3] = 255
            if numbered:
                numbers.append((filters.filters[position], x + wide / 2, y + high + 13))
        return cls(pixels, tuple(numbers))


def _colour_pictures(
    filters: Filters,
) -> Float[np.ndarray, "filter channel row col rgb"]:
    longest = max(filters.weights.shape[-2:])
    pictures = filters.enlarged(max(1, _KERNEL // longest) * longest)
    if filters.rgb:
        return pictures[:, None]
    return np.repeat(pictures[..., None], 3, axis=-1)
