"""JPEGs: files decoded by simplejpeg, where that is installed.

The pixels are those of Pillow, in less time.
"""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, features
from PIL.ExifTags import Base

try:
    from simplejpeg import decode_jpeg
except ImportError:
    decode_jpeg = None

# Some distributions build Pillow with another JPEG library, which gives other pixels.
_IS_SAME_LIBRARY = features.check_feature("libjpeg_turbo")

# MPO is what many phones write: a JPEG file with more pictures behind the first.
_FORMATS = ("JPEG", "MPO")


def decoded(
    header: Image.Image, data: bytes
) -> UInt8[ndarray, "row col 3"] | None:
    """The RGB pixels of a JPEG file whose header Pillow has read.

    None for files that Pillow must decode: all that are not upright 8-bit RGB or grey,
    and all that are damaged, since Pillow decides which of those can be shown.
    """
    if decode_jpeg is None or not _IS_SAME_LIBRARY:
        return None
    if header.format not in _FORMATS or header.mode not in ("RGB", "L"):
        return None
    if not _is_upright(header):
        return None

    try:
        pixels: ndarray = decode_jpeg(data)
    except Exception:
        # simplejpeg refuses some files that Pillow can read, with one kind of error for
        # all.
        return None
    expected = (header.height, header.width, 3)
    return pixels if pixels.shape == expected else None


def _is_upright(header: Image.Image) -> bool:
    try:
        orientation = header.getexif().get(Base.Orientation, 1)
    except Exception:
        # Broken EXIF raises many kinds of errors. The photo itself may still be sound.
        return True
    return bool(orientation == 1)
