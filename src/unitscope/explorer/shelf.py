"""Shelf: uploaded photos, checked and held in memory."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from unitscope.errors import MissingError, PhotoError, one_line
from unitscope.explorer.recent import Recent
from unitscope.inputs.photos import Encoded, open_header, open_photo, shown_name

# Formats that Pillow decodes itself (EPS it hands to another program) and that are
# common enough to be well tested against damaged files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

# Formats that Pillow names differently once a file is open.
_OPENED_BY = {"MPO": "JPEG"}

_LONGEST_NAME = 80
_END = 20


class Shelf:
    """Uploaded photos by an id made from their content; the least recent make room.

    Holds at most `count` photos of `total_bytes` together, each of at most `pixels`
    pixels. May be used from several threads.
    """

    def __init__(
        self,
        count: int = 64,
        total_bytes: int = 256 << 20,
        pixels: int = 50_000_000,
    ) -> None:
        self._total_bytes = total_bytes
        self._pixels = pixels
        self._photos: Recent[str, Encoded] = Recent(
            count, total_bytes, lambda photo: photo.size
        )
        self._lock = threading.Lock()

    def add(
        self,
        data: bytes,
        name: str,
        decode: Callable[[str, Encoded], object] | None = None,
    ) -> str:
        """Store a photo, and return the first 24 hexadecimal digits of its SHA-256.

        `name` is shortened to one printable line. A new photo is decoded first, by
        `decode(id, photo)` where that is passed. Raises PhotoError for files that are
        not photos in a usual format, too large, damaged or cut short.
        """
        name = _printable(name)
        if len(data) > self._total_bytes:
            raise PhotoError(
                f"'{name}' has {len(data):,} bytes, more than the "
                f"{self._total_bytes:,} bytes there is room for: shrink it"
            )

        # A file can be a valid picture in several formats, with a size in each. It is
        # opened only in the one that was checked.
        format = check_picture(data, name, self._pixels)
        photo = Encoded(name, lambda: data, len(data), (format,))
        id = hashlib.sha256(data).hexdigest()[:24]

        with self._lock:
            is_known = id in self._photos
        if not is_known:
            (decode or _decode)(id, photo)
        with self._lock:
            self._photos.put(id, photo)
        return id

    def find(self, id: str) -> Encoded:
        """The photo of an id; raises MissingError where it is not stored, or no longer."""
        with self._lock:
            photo = self._photos.get(id)
        if photo is None:
            raise MissingError(
                f"photo '{_printable(id)}' is not stored here (any more): send it again"
            )
        return photo


def _decode(_id: str, photo: Encoded) -> None:
    """Decode all of a photo, at the smallest size."""
    open_photo(photo, longest=1)


def check_picture(data: bytes, name: str, pixels: int) -> str:
    """The format of a picture, one of `FORMATS`.

    Raises PhotoError for other formats, and for more than `pixels` pixels.
    """
    Image.init()
    formats = tuple(format for format in FORMATS if format in Image.OPEN)
    (width, height), format = _header(data, name, formats)

    if width * height > pixels:
        raise PhotoError(
            f"'{name}' has {width}×{height} pixels, more than {pixels / 1e6:g} "
            "megapixels: shrink it first"
        )
    return _OPENED_BY.get(format, format)


def _header(
    data: bytes, name: str, formats: tuple[str, ...]
) -> tuple[tuple[int, int], str]:
    """Width and height of a picture, and its format; raises PhotoError."""
    try:
        with open_header(io.BytesIO(data), formats) as image:
            return image.size, str(image.format)
    except UnidentifiedImageError:
        raise PhotoError(
            f"'{name}' is not in a supported image format ({', '.join(formats)}): "
            "convert it to JPEG"
        ) from None
    except Image.DecompressionBombError as error:
        raise PhotoError(
            f"'{name}' is too large to decode safely ({one_line(error)}): shrink it "
            "first"
        ) from None
    # Pillow's plug-ins raise errors of many kinds for damaged files.
    except Exception as error:
        raise PhotoError(
            f"'{name}' cannot be read ({one_line(error)}): use an undamaged copy"
        ) from None


def _printable(name: str) -> str:
    """A name without its folder, on one line; a long one without its middle.

    The end of a name says what kind of file it is.
    """
    characters = shown_name(name.replace("\\", "/"))
    shown = "".join(filter(str.isprintable, characters))
    if len(shown) > _LONGEST_NAME:
        shown = f"{shown[: _LONGEST_NAME - 1 - _END]}…{shown[-_END:]}"
    return shown.strip() or "photo"
