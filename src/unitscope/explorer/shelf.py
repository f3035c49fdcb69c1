"""Shelf: the photos that were given to look at, as many as there is room for."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from unitscope.errors import MissingError, PhotoError, one_line
from unitscope.inputs.photos import Encoded, open_header, open_photo, shown_name

# Nothing that Pillow hands to another program (EPS), and nothing rare that few have
# tried to break.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

# What these formats are opened by, where they go by another name once they are open.
_OPENED_BY = {"MPO": "JPEG"}

_LONGEST_NAME = 80


def _whole(_id: str, photo: Encoded) -> None:
    """Decode all of a photo, as small as may be."""
    open_photo(photo, longest=1)


class Shelf:
    """Photos as they were given, by an id that is their content's; the one not asked for longest makes room.

    Holds at most so many photos of so many bytes together. May be used from several
    threads.
    """

    def __init__(
        self, photos: int = 64, total_bytes: int = 256 << 20, pixels: int = 50_000_000
    ) -> None:
        self._most, self._room, self._pixels = photos, total_bytes, pixels
        self._photos: OrderedDict[str, Encoded] = OrderedDict()
        self._lock = threading.Lock()

    def add(
        self, data: bytes, name: str, look: Callable[[str, Encoded], object] = _whole
    ) -> str:
        """Keep a photo and return its id: the first 24 hexadecimal digits of its SHA-256.

        `name` is shortened to one line that can be shown. A photo that is not kept yet
        is decoded first, by `look`, which is given its id and itself. Raises PhotoError
        for what is no picture of a usual kind, too large, damaged or cut short.
        """
        name = _short(name)
        if len(data) > self._room:
            room = f"{self._room:,} bytes there is room for"
            raise PhotoError(
                f"'{name}' has {len(data):,} bytes, more than the {room}: shrink it"
            )
        # What else the file may be a picture of, in another format and of another size,
        # it is not for us.
        format = check_picture(data, name, self._pixels)
        photo, given = (
            hashlib.sha256(data).hexdigest()[:24],
            Encoded(name, lambda: data, len(data), (format,)),
        )
        with self._lock:
            is_known = photo in self._photos
        if not is_known:
            look(photo, given)
        with self._lock:
            self._photos[photo] = given
            self._photos.move_to_end(photo)
            while (
                len(self._photos) > self._most
                or sum(kept.size for kept in self._photos.values()) > self._room
            ):
                self._photos.popitem(last=False)
        return photo

    def find(self, photo: str) -> Encoded:
        """The photo of an id; raises MissingError where it is not kept, or not any more."""
        with self._lock:
            if photo not in self._photos:
                raise MissingError(
                    f"photo '{_short(photo)}' is not kept here (any more): give it "
                    "again"
                )
            self._photos.move_to_end(photo)
            return self._photos[photo]


def check_picture(data: bytes, name: str, pixels: int) -> str:
    """The format, one of `FORMATS`, as which `data` begins; raises PhotoError, also for more than so many pixels."""
    Image.init()
    formats = tuple(known for known in FORMATS if known in Image.OPEN)
    try:
        with open_header(io.BytesIO(data), formats) as image:
            (width, height), format = image.size, str(image.format)
    except UnidentifiedImageError:
        kinds = ", ".join(formats)
        raise PhotoError(
            f"'{name}' is no picture of a kind that is read here ({kinds}): make it a "
            "JPEG"
        ) from None
    except Image.DecompressionBombError as error:
        raise PhotoError(
            f"'{name}' is too large to decode safely ({one_line(error)}): shrink it "
            "first"
        ) from None
    except (
        Exception
    ) as error:  # Pillow's plug-ins report damage with all sorts of things.
        raise PhotoError(
            f"'{name}' cannot be read ({one_line(error)}): get a whole copy of it"
        ) from None
    if width * height > pixels:
        limit = f"{pixels / 1e6:g} megapixels"
        raise PhotoError(
            f"'{name}' has {width}×{height} pixels, more than {limit}: shrink it first"
        )
    return _OPENED_BY.get(format, format)


def _short(name: str) -> str:
    """A name that can be shown anywhere; where it is long its middle is left out, as its end says what it is."""
    shown = "".join(
        character
        for character in shown_name(name.replace("\\", "/"))
        if character.isprintable()
    )
    if len(shown) > _LONGEST_NAME:
        shown = f"{shown[: _LONGEST_NAME - 21]}…{shown[-20:]}"
    return shown.strip() or "photo"
