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
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from unitscope.errors import PhotoError, one_line
from unitscope.inputs.jpegs import decoded


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


PhotoSource: TypeAlias = str | os.PathLike[str] | Image.Image | Encoded

_LARGE_FILE = 64 << 20

# All threads share the warning filters: two threads at once would restore each other's.
_WARNINGS = threading.Lock()

# Pillow's modes of grey with more than 8 bits.
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")

_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa")
_WHITE = (255, 255, 255, 255)


# A photo's pixels, upright and RGB, as the decoder returned them: a PIL image or an
# array (row, col, channel).
Pixels: TypeAlias = Image.Image | UInt8[np.ndarray, "photo_row photo_col 3"]


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that was decoded: upright, RGB, 8 bits.

    `name` is the file's name, or "photo" for an image from memory. `source` is what the
    photo was opened from. `size` is (width, height) in pixels, after EXIF rotation.
    `pixels` are None where they were dropped to save memory.
    """

    name: str
    source: PhotoSource
    size: tuple[int, int]
    pixels: Pixels | None = field(default=None, repr=False)

    @property
    def held(self) -> Pixels:
        """The pixels, decoded again where they were dropped."""
        if self.pixels is not None:
            return self.pixels
        return open_photo(self.source).held

    @property
    def image(self) -> Image.Image:
        """The photo as a PIL image of mode RGB."""
        return image_of(self.held)

    def without_pixels(self) -> Photo:
        """The same photo without pixels, which take memory."""
        return replace(self, pixels=None)


def image_of(pixels: Pixels) -> Image.Image:
    """A photo's pixels as a PIL image."""
    if isinstance(pixels, Image.Image):
        return pixels
    return Image.fromarray(pixels)


def open_photo(source: PhotoSource, longest: int | None = None) -> Photo:
    """Decode a photo from a path, a PIL image or encoded bytes to upright 8-bit RGB.

    EXIF orientation is applied. Transparent pixels are laid on white. 16-bit samples
    are scaled by 1/257. CMYK and palettes are converted. An animated file gives its
    first frame, a PIL image its current frame. Colour profiles are ignored, as in the
    usual training pipelines. `longest` is for drawing: a JPEG file may be decoded
    smaller, with at least so many pixels on its shorter side, which is several times
    faster for large photos.

    Raises PhotoError where the file is missing, not a picture, damaged, or larger than
    Pillow's decompression limit (about 179 megapixels).
    """
    return opened(source, longest)()


def opened(
    source: PhotoSource, longest: int | None = None
) -> Callable[[], Photo]:
    """Open a photo and read its header, as `open_photo` does.

    The function that is returned decodes the rest, in any thread.
    """
    if isinstance(source, Image.Image):
        return partial(_from_image, source)
    if isinstance(source, Encoded):
        file = _open_encoded(source)
    else:
        file = _open_path(_checked_path(source))
    return partial(_from_file, file, longest)


@dataclass(frozen=True)
class _File:
    """A picture file whose header was read.

    `contents` is the path of a file that is too large to hold in memory.
    """

    path: Path | str
    source: PhotoSource
    contents: bytes | Path
    image: Image.Image


def _open_encoded(source: Encoded) -> _File:
    with _as_photo_errors(source.name):
        data = source.read()
        image = open_header(io.BytesIO(data), source.formats)
        return _File(source.name, source, data, image)


def _open_path(path: Path) -> _File:
    with _as_photo_errors(path):
        contents = _contents(path)
        if isinstance(contents, bytes):
            image = open_header(io.BytesIO(contents))
        else:
            image = open_header(contents)
        # The photo is opened again when it is drawn: the program may have changed its
        # folder by then.
        source = path.absolute()
        return _File(path, source, contents, image)


def _checked_path(source: object) -> Path:
    if not isinstance(source, (str, os.PathLike)):
        raise PhotoError(
            f"a photo is a path or a PIL image, not {type(source).__name__}: open it "
            "with PIL.Image first"
        )
    if not os.fspath(source):
        raise PhotoError("a photo's path is empty: name a file")
    return Path(source)


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


def _from_file(file: _File, longest: int | None) -> Photo:
    with _as_photo_errors(file.path), file.image as image:
        name = shown_name(file.path)
        if longest is not None:
            # A JPEG file is decoded at an eighth, a quarter or a half of its size, as
            # far as that is enough.
            image.draft(None, (longest, longest))
        elif isinstance(file.contents, bytes):
            pixels = decoded(image, file.contents)
            if pixels is not None:
                return Photo(name, file.source, image.size, pixels)
        upright = _decode(image, str(file.path))
        return Photo(name, file.source, upright.size, upright)


def _from_image(source: Image.Image) -> Photo:
    file_name = getattr(source, "filename", "")
    name = shown_name(str(file_name or "photo"))
    # The photo's source is a copy: the user may close the image, or turn to another
    # frame, before the photo is drawn.
    image = _decode(source, name)
    return Photo(name, image, image.size, image)


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
        raise _too_large(str(path), error) from None
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


def _contents(path: Path) -> bytes | Path:
    """The file's bytes, or the path of a very large file.

    They are read at once: Pillow reads headers in dozens of pieces, and threads would
    switch at each. A pipe cannot be read twice.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            return path if size > _LARGE_FILE else file.read()
    except OSError:
        if path.is_dir():
            raise PhotoError(
                f"'{path}' is a folder: name the photos in it, e.g. {path}/*.jpg"
            ) from None
        raise


def _decode(image: Image.Image, name: str) -> Image.Image:
    """The picture as an upright RGB image of its own."""
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(name, error) from None
    except Exception as error:
        # Pillow's plug-ins raise many kinds of errors, also for closed images.
        raise PhotoError(
            f"'{name}' is damaged or cut short ({one_line(error)}): get a whole copy "
            "of it"
        ) from None
    if 0 in image.size:
        raise PhotoError(
            f"'{name}' is empty ({image.width}×{image.height} pixels): a photo needs "
            "at least one pixel"
        )
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:
        # Broken EXIF raises many kinds of errors. The photo itself is sound.
        image = image.copy()
    return _to_rgb(image, name)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _DEEP_GREY:
        return _from_deep_grey(image, name)
    try:
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode in _TRANSPARENT or "transparency" in image.info:
            rgba = image.convert("RGBA")
            paper = Image.new("RGBA", rgba.size, _WHITE)
            return Image.alpha_composite(paper, rgba).convert("RGB")
        if image.mode == "RGB":
            return image
        return image.convert("RGB")
    except ValueError as error:
        raise PhotoError(
            f"'{name}' has pixels of mode {image.mode}, not RGB ({one_line(error)}): "
            "save it as RGB"
        ) from None


def _from_deep_grey(image: Image.Image, name: str) -> Image.Image:
    """The RGB image of grey with more than 8 bits.

    Pillow's own conversion clips at 255, which turns most such photos white.
    """
    grey = np.asarray(image, dtype=np.float64)
    if not np.isfinite(grey).all():
        raise PhotoError(
            f"'{name}' holds NaN or infinite pixels: save it as an 8-bit or 16-bit "
            "picture"
        )
    low, high = float(grey.min()), float(grey.max())
    if low < 0 or high > 65535:
        raise PhotoError(
            f"'{name}' has pixel values from {low:g} to {high:g}, outside 0–65535: "
            "save it as 8-bit or 16-bit"
        )
    if image.mode == "F" and high <= 1:
        grey = grey * 255
    elif image.mode != "F" or high > 255:
        grey = grey / 257
    levels = np.round(grey).astype(np.uint8)
    return Image.fromarray(levels, mode=None).convert("RGB")


def _too_large(name: str, error: Exception) -> PhotoError:
    return PhotoError(
        f"'{name}' is too large to decode safely ({one_line(error)}): shrink it first"
    )
