"""Photos: picture files of all kinds, decoded to upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from unitscope.errors import PhotoError, one_line
from unitscope.inputs.contents import contents_of
from unitscope.inputs.decoding import Decoded, Reading, decode, too_large
from unitscope.inputs.jpegs import decoded
from unitscope.inputs.large import Resize, is_large
from unitscope.inputs.pngs import significant_bits


@dataclass(frozen=True, eq=False)
class Encoded:
    """A photo that is not a file of its own, such as a member of an archive.

    `read` returns its `size` encoded bytes whenever they are needed. `formats` are the
    formats it may have, by Pillow's names; None for all.
    """

    name: str
    read: Callable[[], bytes]
    size: int
    formats: tuple[str, ...] | None = None


@runtime_checkable
class OpenFile(Protocol):
    """A file that is open in binary mode, or whatever reads like one."""

    def read(self, size: int = -1, /) -> bytes:
        """The bytes from where it stands."""


PhotoSource: TypeAlias = str | os.PathLike[str] | Image.Image | Encoded

_BYTES = (bytes, bytearray, memoryview)

# Also encoded bytes, and files that are open in binary mode.
AnyPhoto: TypeAlias = PhotoSource | bytes | bytearray | memoryview | OpenFile

_PLAIN = Reading()

# Photos are read in several threads; large ones wait for each other.
_ONE_LARGE = threading.Lock()

# All threads share the warning filters: two threads at once would restore each other's.
_WARNINGS = threading.Lock()

# Addresses, also as a path: pathlib makes one slash of two. One letter before a colon
# is a drive on Windows.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}|data:", re.IGNORECASE)

# A photo's pixels, upright and RGB, as the decoder returned them: a PIL image or an
# array (row, col, channel).
Pixels: TypeAlias = Image.Image | UInt8[np.ndarray, "photo_row photo_col 3"]


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that was decoded: upright, RGB, 8 bits.

    `name` is the file's name, or "photo" for an image from memory. `source` is what the
    photo was opened from. `size` is (width, height) in pixels, after EXIF rotation.
    `pixels` are None where they were dropped to save memory, and fewer for a large photo
    (see `inputs.large`). `reading` is how it was read; `original` the upright picture
    that was to be kept beside the RGB one; `notes` say what was guessed and what was
    left out.
    """

    name: str
    source: PhotoSource
    size: tuple[int, int]
    pixels: Pixels | None = field(default=None, repr=False)
    reading: Reading = _PLAIN
    original: Image.Image | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> Pixels:
        """The pixels, decoded again where they were dropped."""
        if self.pixels is not None:
            return self.pixels
        return open_photo(self.source, reading=self.reading).held

    @property
    def image(self) -> Image.Image:
        """The photo as a PIL image of mode RGB."""
        return image_of(self.held)

    @property
    def given(self) -> Pixels:
        """What a preprocessing takes: the original where one was kept, else RGB."""
        return self.held if self.original is None else self.original

    def is_read_by(self, reading: Reading) -> bool:
        """Whether these are the pixels that a photo that is read so has."""
        if not is_large(self.size):
            reading = replace(reading, resize=self.reading.resize)
        return self.reading == reading

    def without_pixels(self) -> Photo:
        """The same photo without pixels, which take memory."""
        return replace(self, pixels=None, original=None)


def image_of(pixels: Pixels) -> Image.Image:
    """A photo's pixels as a PIL image."""
    if isinstance(pixels, Image.Image):
        return pixels
    return Image.fromarray(pixels)


def size_of(pixels: Pixels) -> tuple[int, int]:
    """(width, height) of a photo's pixels."""
    if isinstance(pixels, Image.Image):
        return pixels.size
    rows, cols = pixels.shape[:2]
    return cols, rows


def is_photo(value: object) -> bool:
    """Whether a value is one photo: a path, a picture, encoded bytes, an open file."""
    kinds = (str, os.PathLike, Image.Image, Encoded, Photo, *_BYTES)
    return isinstance(value, kinds) or _is_open_file(value)


def open_photo(
    source: AnyPhoto, longest: int | None = None, reading: Reading = _PLAIN
) -> Photo:
    """Decode a photo to upright 8-bit RGB.

    `source` is a path, a PIL image, the encoded bytes of a file, or a file that is open
    in binary mode. EXIF orientation is applied. Transparent pixels are laid on white;
    the last band of a TIFF file is transparency only where the file says so. Of grey
    and colour with more than 8 bits white is what the file or `reading` says, or else
    guessed (see `inputs.depths`). CMYK and palettes are converted. An animated file or
    a stack gives its first page, a PIL image its current one. Colour profiles are
    ignored, as in the usual training pipelines. The photo's `notes` say what was
    guessed or left out.

    `longest` is for drawing: a JPEG file may be decoded smaller, with at least so many
    pixels on its shorter side, which is several times faster for large photos.

    Photos of more than 40 megapixels are decoded in the size that `reading` wants.

    Raises PhotoError where the file is missing, not a picture, damaged, or larger than
    Pillow's decompression limit (about 179 megapixels).
    """
    return opened(source, longest, reading)()


def opened(
    source: AnyPhoto, longest: int | None = None, reading: Reading = _PLAIN
) -> Callable[[], Photo]:
    """Open a photo and read its header, as `open_photo` does.

    The function that is returned decodes the rest, in any thread.
    """
    if isinstance(source, Image.Image):
        return partial(_from_image, source, reading)
    if isinstance(source, _BYTES):
        source = Encoded("photo", partial(bytes, source), len(source))
    elif _is_open_file(source):
        source = _of_open_file(source)

    if isinstance(source, Encoded):
        file = _open_encoded(source)
    else:
        file = _open_path(_checked_path(source))
    return partial(_from_file, file, longest, reading)


@dataclass(frozen=True)
class _File:
    """A picture file whose header was read.

    `contents` is the path of a file that is too large to hold in memory.
    """

    path: Path | str
    source: PhotoSource
    contents: bytes | Path
    image: Image.Image
    formats: tuple[str, ...] | None = None

    def header(self) -> Image.Image:
        """The picture opened anew."""
        if isinstance(self.contents, bytes):
            return open_header(io.BytesIO(self.contents), self.formats)
        return open_header(self.contents, self.formats)


def _open_encoded(source: Encoded) -> _File:
    with _as_photo_errors(source.name):
        data = source.read()
        image = open_header(io.BytesIO(data), source.formats)
        return _File(source.name, source, data, image, source.formats)


def _open_path(path: Path) -> _File:
    with _as_photo_errors(path):
        contents = contents_of(path)
        if isinstance(contents, bytes):
            image = open_header(io.BytesIO(contents))
        else:
            image = open_header(contents)
        # The photo is opened again when it is drawn: the program may have changed its
        # folder by then.
        source = path.absolute()
        return _File(path, source, contents, image)


def _is_open_file(value: object) -> bool:
    if isinstance(value, (str, os.PathLike, Encoded)):
        return False
    return isinstance(value, OpenFile)


def _of_open_file(file: Any) -> Encoded:
    """The whole contents of an open file, which is left where it stands."""
    name = getattr(file, "name", "photo")
    name = shown_name(name) if isinstance(name, str) else "photo"
    try:
        place = file.tell() if file.seekable() else None
        if place:
            file.seek(0)
        data = file.read()
        if place is not None:
            file.seek(place)
    except Exception as error:
        raise PhotoError(
            f"the open file '{name}' cannot be read ({one_line(error)}): open it again"
        ) from None
    if not isinstance(data, bytes):
        raise PhotoError(
            f"the open file '{name}' gives {type(data).__name__}, not bytes: open it in "
            "binary mode, 'rb'"
        )
    return Encoded(name, lambda: data, len(data))


def _checked_path(source: object) -> Path:
    if not isinstance(source, (str, os.PathLike)):
        raise PhotoError(
            "a photo is a path, a PIL image, the bytes of a file, or a file open in "
            f"binary mode, not {type(source).__name__}: make an array a picture with "
            "PIL.Image.fromarray"
        )
    text = os.fspath(source)
    if not text:
        raise PhotoError("a photo's path is empty: name a file")
    path = Path(source)
    address = _ADDRESS.match(text)
    if address and not _exists(path):
        raise PhotoError(_address_refused(text, address[1] or "data"))
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _address_refused(text: str, kind: str) -> str:
    shown = text if len(text) <= 80 else f"{text[:77]}…"
    if kind.lower() == "file":
        return f"'{shown}' is an address: give the path behind file://"
    if kind.lower() == "data":
        return (
            f"'{shown}' is an address: decode it, and give the picture's bytes"
        )
    return (
        f"'{shown}' is an address, and photos are read from files: download it first, "
        "and give the path or the bytes"
    )


def open_header(
    contents: Path | io.BytesIO, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """A picture of which only the header was read; raises what Pillow raises.

    `formats` are the formats it may have; None for all.
    """
    with _WARNINGS, warnings.catch_warnings():
        # Pillow warns from 89 megapixels on and refuses from 179 on. We read everything
        # that it does not refuse.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(contents, formats=formats)


def _from_file(file: _File, longest: int | None, reading: Reading) -> Photo:
    large = is_large(file.image.size)
    turn = _ONE_LARGE if large else contextlib.nullcontext()
    with _as_photo_errors(file.path), file.image as image, turn:
        if longest is not None:
            return _for_drawing(file, longest, reading)

        name = shown_name(file.path)
        is_plain = reading.original is None and not large
        if isinstance(file.contents, bytes) and is_plain:
            pixels = decoded(image, file.contents)
            if pixels is not None:
                return Photo(name, file.source, image.size, pixels, reading)
        return _photo(name, file.source, _decode(file, reading), reading)


def _for_drawing(file: _File, longest: int, reading: Reading) -> Photo:
    # A JPEG file is decoded at an eighth, a quarter or a half of its size, as far as
    # that is enough.
    file.image.draft(None, (longest, longest))
    smaller = replace(reading, resize=Resize(longest, "box"))
    made = _decode(file, smaller)
    made = replace(made, size=made.rgb.size)
    return _photo(shown_name(file.path), file.source, made, reading)


def _decode(file: _File, reading: Reading) -> Decoded:
    bits = None
    if isinstance(file.contents, bytes):
        bits = significant_bits(file.contents)
    return decode(
        file.image,
        str(file.path),
        reading,
        file.header,
        bits,
        may_change=True,
    )


def _from_image(source: Image.Image, reading: Reading) -> Photo:
    file_name = getattr(source, "filename", "")
    name = shown_name(str(file_name or "photo"))
    path = Path(str(file_name))
    again = None
    if file_name and path.is_file():
        again = partial(_page, path, getattr(source, "tell", int)())
    made = decode(source, name, reading, again)
    # The photo's source is a copy: the user may close the image, or turn to another
    # frame, before the photo is drawn.
    kept = made.rgb if made.original is None else made.original
    return _photo(name, kept, made, reading)


def _page(path: Path, page: int) -> Image.Image:
    image = open_header(path)
    if page:
        image.seek(page)
    return image


def _photo(
    name: str, source: PhotoSource, made: Decoded, reading: Reading
) -> Photo:
    return Photo(
        name=name,
        source=source,
        size=made.size,
        pixels=made.rgb,
        reading=reading,
        original=made.original,
        notes=made.notes,
    )


@contextlib.contextmanager
def _as_photo_errors(path: Path | str) -> Iterator[None]:
    """Turn all errors of reading a file into PhotoErrors that say what to do."""
    try:
        yield
    except FileNotFoundError:
        raise PhotoError(
            f"there is no photo '{path}': check the path (looked in {Path.cwd()})"
        ) from None
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError(
            f"'{path}' is not a picture that Pillow can read: convert it to JPEG or PNG"
        ) from None
    except Image.DecompressionBombError as error:
        raise too_large(str(path), error) from None
    except PermissionError:
        raise PhotoError(
            f"'{path}' may not be read: check its permissions"
        ) from None
    except Exception as error:
        # Pillow's plug-ins raise many kinds of errors for damaged files.
        raise PhotoError(
            f"'{path}' cannot be read ({one_line(error)}): check the path and the file"
        ) from None


def shown_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path as one line of text that can be shown anywhere."""
    # Python decodes bytes that are not characters to half surrogates, and JSON may hold
    # others.
    name = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", Path(path).name)
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(name.split()) or "photo"
