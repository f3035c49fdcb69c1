"""Kernel sheet: the filters of a layer in a single picture, for web pages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

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
        count, channels, *picture = pictures.shape
        if channels > 1:
            kernels = pictures.reshape(-1, *picture)
            pixels, _ = _laid_out(
                kernels,
                columns=channels,
                below=_GAP,
            )
            return cls(pixels, ())

        columns = 16 if count > 24 else min(count, 12)
        pixels, corners = _laid_out(
            pictures[:, 0],
            columns=columns,
            below=_NUMBERS,
        )

        high, wide, _ = picture
        numbers = []
        for index, corner in zip(filters.filters, corners, strict=True):
            x, y = corner
            middle = x + wide / 2
            baseline = y + high + 13
            numbers.append((index, middle, baseline))
        return cls(pixels, tuple(numbers))


def _laid_out(
    pictures: Float[np.ndarray, "picture row col rgb"], columns: int, below: int
) -> tuple[UInt8[np.ndarray, "height width 4"], list[tuple[int, int]]]:
    """Pictures in rows of `columns`, with room `below` each; returns their corners too.

    The corners are the top left ones (x, y), in pixels.
    """
    count, high, wide, _ = pictures.shape
    across = wide + _GAP
    down = high + below
    rows = math.ceil(count / columns)
    width = columns * across - _GAP
    height = rows * down
    sheet = Image.new("RGBA", (width, height))

    corners = []
    for position, picture in enumerate(pictures):
        row, column = divmod(position, columns)
        x = column * across
        y = row * down
        levels = np.round(255 * picture)
        kernel = Image.fromarray(levels.astype(np.uint8))
        sheet.paste(kernel, (x, y))
        corners.append((x, y))
    return np.asarray(sheet), corners


def _colour_pictures(
    filters: Filters,
) -> Float[np.ndarray, "filter channel row col rgb"]:
    rows, cols = filters.weights.shape[-2:]
    longest = max(rows, cols)
    factor = max(1, _KERNEL // longest)
    pictures = filters.enlarged(factor * longest)
    if filters.rgb:
        return pictures[:, None]
    return np.repeat(pictures[..., None], 3, axis=-1)
