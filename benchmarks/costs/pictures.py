"""Pictures of noise and shapes, so that no photo need be downloaded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

_CELL = 32
_ELLIPSES = 12
_GRAIN = 6


def noise(
    size: tuple[int, int], seed: int, cells: tuple[int, int]
) -> Image.Image:
    """Coloured `cells` (columns, rows) of noise, enlarged smoothly to `size` (width, height)."""
    cols, rows = cells
    shape = (rows, cols, 3)
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 256, shape, dtype=np.uint8)
    small = Image.fromarray(levels)
    return small.resize(size, Image.Resampling.BICUBIC)


def scene(size: tuple[int, int], seed: int) -> Image.Image:
    """Noise with ellipses and grain on it, which costs a decoder what a photo does."""
    width, height = size
    cols = width // _CELL + 1
    rows = height // _CELL + 1
    picture = noise(size, seed, (cols, rows))

    generator = np.random.default_rng(seed + 1)
    draw = ImageDraw.Draw(picture)
    for _ in range(_ELLIPSES):
        left = int(generator.integers(0, width))
        top = int(generator.integers(0, height))
        right = left + width // 6
        bottom = top + height // 6
        red, green, blue = generator.integers(0, 256, 3).tolist()
        draw.ellipse((left, top, right, bottom), (red, green, blue))

    shape = (height, width, 3)
    grain = generator.normal(0, _GRAIN, shape)
    levels = np.asarray(picture) + grain
    clipped = levels.clip(0, 255)
    return Image.fromarray(clipped.astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=90)
    return buffer.getvalue()
