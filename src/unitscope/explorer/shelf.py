"""Shelf: the photos that were given to look at, as many as there is room for."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections import OrderedDict

from PIL import Image, UnidentifiedImageError

from unitscope.errors import MissingError, PhotoError, one_line
from unitscope.photos import Encoded, shown_name

# Nothing that Pillow hands to another program (EPS), and nothing rare that few have tried to break.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

_LONGEST_NAME = 80


class Shelf:
    """Photos as they were given, by an id that is their content's; the one not asked for longest makes room.

    Holds at most so many photos of so many bytes together. May be used from several threads.
    """

    def __init__(self, photos: int = 64, total_bytes: int = 256 << 20, pixels: int = 50_000_000) -> None:
        self._most, self._room, self._pixels = photos, total_bytes, pixels
        self._photos: OrderedDict[str, Encoded] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes, name: str) -> str:
        """Keep a photo and return its id: the first 24 hexadecimal digits of its SHA-256.

        `name` is shortened to one line that can be shown. Only the header is read: a photo that is cut short is told
        when it is decoded. Raises PhotoError for what is no picture of a usual kind, or too large.
        """
        name = _short(name)
        if len(data) > self._room:
            room = f"{self._room:,} bytes there is room for"
            raise PhotoError(f"'{name}' has {len(data):,} bytes, more than the {room}: shrink it")
        check_picture(data, name, self._pixels)
        photo = hashlib.sha256(data).hexdigest()[:24]
        with self._lock:
            self._photos[photo] = Encoded(name, lambda: data, len(data))
            self._photos.move_to_end(photo)
            while len(self._photos) > self._most or sum(kept.size for kept in self._photos.values()) > self._room:
                self._photos.popitem(last=False)
        return photo

    def find(self, photo: str) -> Encoded:
        """The photo of an id; raises MissingError where it is not kept, or not any more."""
        with self._lock:
            if photo not in self._photos:
                raise MissingError(f"photo '{_short(photo)}' is not kept here (any more): give it again")
            self._photos.move_to_end(photo)
            return self._photos[photo]


def check_picture(data: bytes, name: str, pixels: int) -> None:
    """Raise PhotoError unless `data` begins as a picture of one of `FORMATS`, of at most so many pixels."""
    Image.init()
    formats = [known for known in FORMATS if known in Image.OPEN]
    try:
        with warnings.catch_warnings():
            # Pillow's own limits lie higher than ours; the size is looked at below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as image:
                width, height = image.size
    except UnidentifiedImageError:
        kinds = ", ".join(formats)
        raise PhotoError(f"'{name}' is no picture of a kind that is read here ({kinds}): make it a JPEG") from None
    except Image.DecompressionBombError as error:
        raise PhotoError(f"'{name}' is too large to decode safely ({one_line(error)}): shrink it first") from None
    except Exception as error:  # Pillow's plug-ins report damage with all sorts of things.
        raise PhotoError(f"'{name}' cannot be read ({one_line(error)}): get a whole copy of it") from None
    if width * height > pixels:
        limit = f"{pixels / 1e6:g} megapixels"
        raise PhotoError(f"'{name}' has {width}×{height} pixels, more than {limit}: shrink it first")


def _short(name: str) -> str:
    """A name that can be shown anywhere; where it is long its middle is left out, as its end says what it is."""
    shown = "".join(character for character in shown_name(name.replace("\\", "/")) if character.isprintable())
    if len(shown) > _LONGEST_NAME:
        shown = f"{shown[: _LONGEST_NAME - 21]}…{shown[-20:]}"
    return shown.strip() or "photo"
