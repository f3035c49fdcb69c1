"""Pictures of noise and shapes, so that no photo need be downloaded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

_ELLIPSES = 12
_GRAIN = 6


def noise(size: tuple[int, int], seed: int, cells: tuple[int, int]) -> Image.Image:
    """Coloured `cells` (columns, rows) of noise, enlarged smoothly to `size` (width, height)."""
    cols, rows = cells
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (rows, cols, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def scene(size: tuple[int, int], seed: int) -> Image.Image:
    """Noise with ellipses and grain on it, which costs a decoder what a photo does."""
    width, height = size
    picture = noise(size, seed, (width // 32 + 1, height // 32 + 1))

    generator = np.random.default_rng(seed + 1)
    draw = ImageDraw.Draw(picture)
    for _ in range(_ELLIPSES):
        left = int(generator.integers(0, width))
        top = int(generator.integers(0, height))
        red, green, blue = generator.integers(0, 256, 3).tolist()
        box = (left, top, left + width // 6, top + height // 6)
        draw.ellipse(box, (red, green, blue))

    grain = generator.normal(0, _GRAIN, (height, width, 3))
    grainy = (np.asarray(picture) + grain).clip(0, 255)
    return Image.fromarray(grainy.astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=90)
    return buffer.getvalue()
