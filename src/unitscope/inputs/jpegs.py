"""JPEG files decoded by simplejpeg, where that is installed: the very pixels of Pillow, in less time."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, features
from PIL.ExifTags import Base

try:
    from simplejpeg import decode_jpeg
except ImportError:
    decode_jpeg = None

# Pillow may be built with another JPEG library, as by some distributions, whose pixels
# would be others.
_IS_SAME_LIBRARY = features.check_feature("libjpeg_turbo")

# MPO is what many phones write: a JPEG file with more pictures behind the first.
_FORMATS = ("JPEG", "MPO")


def decoded(header: Image.Image, data: bytes) -> UInt8[ndarray, "row col 3"] | None:
    """The RGB pixels of a JPEG file whose header Pillow has read; None for what is left to Pillow.

    That is all that is not upright 8-bit RGB or grey, and all that is damaged in the
    least: Pillow, which decides what may be shown, then meets the same bytes.
    """
    if decode_jpeg is None or not _IS_SAME_LIBRARY or header.format not in _FORMATS:
        return None
    if header.mode not in ("RGB", "L") or not _is_upright(header):
        return None
    try:
        pixels: ndarray = decode_jpeg(data)
    except Exception:  # It reports whatever is odd with a file as one kind of error, of which Pillow forgives some.
        return None
    return pixels if pixels.shape == (header.height, header.width, 3) else None


def _is_upright(header: Image.Image) -> bool:
    try:
        return bool(header.getexif().get(Base.Orientation, 1) == 1)
    except Exception:  # Broken EXIF raises all sorts of things, and a photo without its tag is still a photo.
        return True
