"""Bands: which bands of a file are colour and which alpha, and their lower bytes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")

# TIFF's tags.
_SAMPLES_PER_PIXEL = 277
_EXTRA_SAMPLES = 338

# The kinds of extra samples that are alpha: associated and unassociated.
_ALPHA = (1, 2)

# What the last letter of a raw mode of 16 bits becomes to read the other byte: Pillow
# keeps the upper one of every sample.
_OTHER_BYTE = {
    "B": "L",
    "L": "B",
    "N": "B" if sys.byteorder == "little" else "L",
}

# 14 bits leave the two upper bits of every sample empty.
_UPPER_BYTE_OF_14_BITS = 63


def says_alpha(header: Image.Image) -> bool:
    """Whether the last band of a picture is alpha, if its mode has one.

    The last band of a TIFF file is alpha only where the file says so. Source: TIFF 6.0,
    ExtraSamples.
    """
    tags = getattr(header, "tag_v2", None)
    if tags is None:
        return True
    return any(kind in _ALPHA for kind in tags.get(_EXTRA_SAMPLES, ()))


def left_out_note(header: Image.Image, used: int) -> str:
    """A note where a file has more bands than are used."""
    tags = getattr(header, "tag_v2", {})
    count = int(tags.get(_SAMPLES_PER_PIXEL, 1))
    left_out = count - used
    if left_out <= 0:
        return ""
    return (
        f"{left_out} of {count} bands left out: the file calls them neither colour nor "
        "alpha"
    )


def without_last(image: Image.Image) -> Image.Image:
    """A picture without its last band: RGB or grey."""
    *colours, _ = image.split()
    return Image.merge("RGB" if len(colours) == 3 else "L", colours)


def has_sixteen_bits(header: Image.Image) -> bool:
    """Whether a file has 16 bits a band, of which Pillow will keep the upper 8.

    Pillow must not have read the pixels yet.
    """
    tiles = getattr(header, "tile", [])
    return bool(tiles) and ";16" in _raw_mode(tiles[0])


def may_be_shallow(upper: Image.Image, count: int) -> bool:
    """Whether the upper bytes of the first `count` bands are so small that 14 bits do."""
    extremes: Any = upper.getextrema()
    if len(upper.getbands()) == 1:
        extremes = (extremes,)
    return all(high <= _UPPER_BYTE_OF_14_BITS for _, high in extremes[:count])


def read_lower_bytes(header: Image.Image) -> bool:
    """Make Pillow read the lower bytes of 16-bit bands; False where it cannot."""
    tiles = []
    for tile in getattr(header, "tile", []):
        raw = _raw_mode(tile)
        other = _OTHER_BYTE.get(raw[-1:])
        if other is None or ";16" not in raw:
            return False
        tiles.append(_with_raw_mode(tile, raw[:-1] + other))
    header.tile = tiles  # type: ignore[attr-defined]
    return bool(tiles)


def joined(
    upper: Image.Image, lower: Image.Image, count: int
) -> UInt16[np.ndarray, "row col band"]:
    """The 16-bit samples of the first `count` bands of a picture."""
    high = _first(upper, count).astype(np.uint16)
    samples: np.ndarray = high * np.uint16(256) + _first(lower, count)
    return samples


def with_levels(
    image: Image.Image, levels: UInt8[np.ndarray, "row col band"]
) -> Image.Image:
    """A picture with other levels in its first bands."""
    planes = list(image.split())
    for band in range(levels.shape[2]):
        plane = np.ascontiguousarray(levels[..., band])
        planes[band] = Image.fromarray(plane)
    return Image.merge(image.mode, planes)


def _first(image: Image.Image, count: int) -> UInt8[np.ndarray, "row col band"]:
    pixels = np.asarray(image)
    rows, cols = pixels.shape[:2]
    bands = pixels.reshape(rows, cols, -1)
    first: np.ndarray = bands[..., :count]
    return first


def _raw_mode(tile: Any) -> str:
    """How the pixels of a part of a file are stored, by Pillow's names."""
    arguments = tile[3]
    raw = arguments[0] if isinstance(arguments, tuple) else arguments
    return raw if isinstance(raw, str) else ""


def _with_raw_mode(tile: Any, raw: str) -> Any:
    codec, extents, offset, arguments = tile
    new = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
    # Pillow 10 has plain tuples, later ones named ones.
    if type(tile) is tuple:
        return codec, extents, offset, new
    return type(tile)(codec, extents, offset, new)
