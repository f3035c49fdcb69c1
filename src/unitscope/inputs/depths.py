"""Depths: grey and colour of more than 8 bits, brought to 8 bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unitscope.errors import PhotoError

# Pillow's modes of grey with more than 8 bits.
DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")

# The bits of a sample that cameras, scanners and sensors use.
USUAL_DEPTHS = (8, 10, 12, 14, 16)

_MOST_BITS = 16
_MOST = 2**_MOST_BITS - 1

# TIFF's tag.
_BITS_PER_SAMPLE = 258

_SAY_WHITE = (
    "if white is another value, say so for all photos of a set alike, e.g. white=65535 "
    "in the preprocessing, or put your own callable into unitscope.RawPictures"
)


@dataclass(frozen=True)
class White:
    """The sample that is white, and what a reader must know of that.

    `note` is empty where the file or the user says what is white.
    """

    value: float
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """What must be known of a picture's samples to say which one is white.

    `low` and `high` are the least and the largest, `bits` are those that are set in any
    whole-numbered sample.
    """

    low: float
    high: float
    bits: int
    is_float: bool
    is_finite: bool

    @classmethod
    def of(cls, parts: Iterable[np.ndarray]) -> Samples:
        """The samples of a picture that comes in parts."""
        lows, highs, bits = [], [], 0
        is_float, is_finite = False, True
        for part in parts:
            lows.append(float(part.min()))
            highs.append(float(part.max()))
            is_float = part.dtype.kind == "f"
            if is_float:
                is_finite = is_finite and bool(np.isfinite(part).all())
            else:
                bits |= int(np.bitwise_or.reduce(part, axis=None))
        return cls(min(lows), max(highs), bits, is_float, is_finite)


def white_in_header(header: Image.Image) -> float | None:
    """The sample that is white as a file's header says it; None where it does not.

    16 bits a sample say nothing: data of 10, 12 and 14 bits are stored so too. A PPM
    file says its largest value, by which Pillow scales to 16 bits.
    """
    tiles = getattr(header, "tile", [])
    if header.format == "PPM" and tiles and tiles[0][0] != "raw":
        return float(_MOST)
    tags = getattr(header, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (0,))[0]
    if 8 < bits < _MOST_BITS:
        return float(2**bits - 1)
    return None


def white_by_significant_bits(samples: Samples, bits: int) -> float:
    """The sample that is white in a PNG file that says how many bits are significant.

    The format wants them to be the upper bits, so that white is 65535. Some programs
    leave them in the lower bits: then samples are small, and no multiples of the step.
    Source: PNG specification, sBIT and sample depth scaling.
    """
    white = 2**bits - 1
    step = 2 ** (_MOST_BITS - bits)
    are_lower_bits = samples.high <= white and samples.bits % step != 0
    return float(white if are_lower_bits else _MOST)


def white_of_jpeg_2000(samples: Samples) -> float | None:
    """White of a JPEG 2000 picture: Pillow spreads fewer bits over all 16.

    None where all 16 bits were stored.
    """
    is_spread = samples.bits % 4 == 0
    return float(_MOST) if is_spread else None


def guessed_white(samples: Samples, name: str) -> White:
    """The sample that is white where nobody says so.

    It is the largest number of the least usual depth that holds all samples, or 1 for
    floating-point numbers up to 1. Raises PhotoError where no usual depth does.
    """
    low, high = samples.low, samples.high
    if low < 0 or high > _MOST:
        raise PhotoError(
            f"'{name}' has pixel values from {low:g} to {high:g}, outside 0–{_MOST}: "
            "say which value is white, white=… in the preprocessing, or take the "
            "picture as it is by unitscope.RawPictures(your_function)"
        )
    if high == 0:
        return White(_MOST)

    is_float = samples.is_float
    if is_float and high <= 1:
        note = f"floating-point samples up to 1 are read on the scale 0–1; {_SAY_WHITE}"
        return White(1.0, note)

    bits = next(bits for bits in USUAL_DEPTHS if high < 2**bits)
    white = float(2**bits - 1)
    if bits == _MOST_BITS and not is_float:
        return White(white)
    return White(white, _guess(bits, is_float))


def _guess(bits: int, is_float: bool) -> str:
    kind = "floating-point samples" if is_float else "samples of 16 bits"
    note = (
        f"{kind} that fit {bits} bits are read as {bits} bits (white is "
        f"{2**bits - 1})"
    )
    if bits == 8:
        note += ", but a dark picture of more bits looks the same"
    return f"{note}; {_SAY_WHITE}"


def cut_off(samples: Samples, white: float) -> str:
    """A note where samples lie beyond black and the white that the user gave."""
    if samples.low >= 0 and samples.high <= white:
        return ""
    return f"samples below 0 and above white={white:g} are cut off"


def levels_of(
    samples: np.ndarray, white: float
) -> UInt8[np.ndarray, "row col *band"]:
    """Samples as levels from 0 to 255, rounded; beyond black and white they are cut off."""
    scaled = samples.astype(np.float64) * 255 / white
    levels = np.clip(np.round(scaled), 0, 255)
    return levels.astype(np.uint8)


def stretched(samples: np.ndarray) -> UInt8[np.ndarray, "row col"]:
    """Samples of unknown scale to look at: the least black, the largest white."""
    finite = np.where(np.isfinite(samples), samples, 0).astype(np.float64)
    low = float(finite.min())
    span = float(finite.max()) - low
    return levels_of(finite - low, span or 1.0)


def check_finite(samples: Samples, name: str) -> None:
    """Raise PhotoError where samples are NaN or infinite."""
    if not samples.is_finite:
        raise PhotoError(
            f"'{name}' holds NaN or infinite pixels: save it as an 8-bit or 16-bit "
            "picture"
        )
