"""Photos: any picture file people really have, decoded to upright 8-bit RGB."""

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
    """A photo that is no file of its own: `read` gives its encoded bytes, `size` of them, whenever they are needed.

    `formats` are those, by Pillow's names, that it may have; None for all that Pillow
    reads.
    """

    name: str
    read: Callable[[], bytes]
    size: int
    formats: tuple[str, ...] | None = None


PhotoSource: TypeAlias = str | os.PathLike[str] | Image.Image | Encoded

_LARGE_FILE = 64 << 20

# Filters of warnings belong to all threads: two that put back what they found would put
# back each other's.
_WARNINGS = threading.Lock()

_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


# A photo's pixels, upright and RGB: a PIL image, or an array (row, col, channel) of
# uint8, as the decoder gave them.
Pixels: TypeAlias = Image.Image | UInt8[np.ndarray, "photo_row photo_col 3"]


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo that could be decoded: upright, RGB, 8 bits, with the name to show for it.

    `name` is the file's name, or "photo" for an image that came from memory; `source`
    is what it was opened from; `size` is (width, height) in pixels, after the EXIF
    rotation was applied. `pixels` are None where they were needed no more.
    """

    name: str
    source: PhotoSource
    size: tuple[int, int]
    pixels: Pixels | None = field(default=None, repr=False)

    @property
    def held(self) -> Pixels:
        """The pixels, decoded again where they were let go."""
        return open_photo(self.source).held if self.pixels is None else self.pixels

    @property
    def image(self) -> Image.Image:
        """The photo as a PIL image of mode RGB, decoded again where its pixels were let go."""
        return image_of(self.held)

    def without_pixels(self) -> Photo:
        """The same photo, without keeping its pixels in memory."""
        return replace(self, pixels=None)


def image_of(pixels: Pixels) -> Image.Image:
    """A photo's pixels as a PIL image."""
    return pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)


def open_photo(source: PhotoSource, longest: int | None = None) -> Photo:
    """Decode a photo from a path, a PIL image or encoded bytes to upright 8-bit RGB.

    EXIF orientation is applied; transparency is laid on white; 16-bit samples are
    scaled by 1/257; an animated file gives its first frame, a PIL image the frame it
    stands at; CMYK and palettes are converted. Colour profiles are ignored, as by the
    usual training pipelines. `longest` is for drawing: a JPEG file may then be decoded
    smaller, with its shorter side still at least that many pixels, which is several
    times faster for large photos.

    Raises PhotoError when the file is missing, not a picture, damaged, or larger than
    Pillow's decompression limit (about 179 megapixels).
    """
    return opened(source, longest)()


def opened(source: PhotoSource, longest: int | None = None) -> Callable[[], Photo]:
    """Open a photo and read its header; what is returned decodes the rest, in any thread. See `open_photo`."""
    if isinstance(source, Image.Image):
        return partial(_from_image, source)
    if isinstance(source, Encoded):
        with _told(source.name):
            data = source.read()
            image = open_header(io.BytesIO(data), source.formats)
            return partial(_from_file, image, data, source.name, source, longest)
    if not isinstance(source, (str, os.PathLike)):
        raise PhotoError(
            f"a photo is a path or a PIL image, not {type(source).__name__}: open it "
            "with PIL.Image first"
        )
    if not os.fspath(source):
        raise PhotoError("a photo's path is empty: name a file")
    path = Path(source)
    with _told(path):
        try:
            contents = _contents(path)
        except OSError:
            if path.is_dir():
                raise PhotoError(
                    f"'{path}' is a folder: name the photos in it, e.g. {path}/*.jpg"
                ) from None
            raise
        # Absolute below, as it is opened again when it is drawn, wherever the program
        # has gone meanwhile.
        image = open_header(
            io.BytesIO(contents) if isinstance(contents, bytes) else contents
        )
        return partial(_from_file, image, contents, path, path.absolute(), longest)


def open_header(
    contents: Path | io.BytesIO, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """A picture of one of the formats, or of any, of which only the header was read; raises what Pillow raises."""
    with _WARNINGS, warnings.catch_warnings():
        # Pillow warns from 89 megapixels on and refuses from 179 on; we serve
        # everything up to its refusal.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(contents, formats=formats)


def _from_image(source: Image.Image) -> Photo:
    name = shown_name(str(getattr(source, "filename", "") or "photo"))
    # Not the user's own image: they may close it, or turn to another frame, before the
    # photo is drawn.
    image = _decode(source, name)
    return Photo(name, image, image.size, image)


def _from_file(
    image: Image.Image,
    contents: bytes | Path,
    path: Path | str,
    source: PhotoSource,
    longest: int | None,
) -> Photo:
    with _told(path), image:
        if longest is not None:
            # Of a JPEG only as much is decoded as is drawn, to the next of an eighth, a
            # quarter and a half.
            image.draft(None, (longest, longest))
        elif (
            isinstance(contents, bytes)
            and (pixels := decoded(image, contents)) is not None
        ):
            return Photo(shown_name(path), source, image.size, pixels)
        upright = _decode(image, str(path))
        return Photo(shown_name(path), source, upright.size, upright)


@contextlib.contextmanager
def _told(path: Path | str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a PhotoError that says what to do."""
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
        raise PhotoError(f"'{path}' may not be read: check its permissions") from None
    except (
        Exception
    ) as error:  # Pillow's plug-ins report damage with all sorts of things.
        raise PhotoError(
            f"'{path}' cannot be read ({one_line(error)}): check the path and the file"
        ) from None


def shown_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path as text that can be shown anywhere: one line, and no bytes that are not characters."""
    # Bytes that are no characters are half surrogates in Python, and whoever writes
    # JSON may put in others.
    name = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", Path(path).name)
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(name.split()) or "photo"


def _contents(path: Path) -> bytes | Path:
    """The file's bytes, read at once: headers are read in dozens of pieces, at each of which threads would change over.

    A pipe, which cannot be read twice, too; of a very large file the path itself.
    """
    with path.open("rb", buffering=0) as file:
        return path if os.fstat(file.fileno()).st_size > _LARGE_FILE else file.read()


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(name, error) from None
    except Exception as error:  # As above; a closed image is among them.
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
    except Exception:  # Broken EXIF raises all sorts of things, and a photo without its tag is still a photo.
        image = image.copy()
    return _to_rgb(image, name)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        return _from_deep_grey(image, name)
    try:
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            return Image.alpha_composite(paper, rgba).convert("RGB")
        return image.convert("RGB") if image.mode != "RGB" else image
    except ValueError as error:
        raise PhotoError(
            f"'{name}' has pixels of mode {image.mode}, not RGB ({one_line(error)}): "
            "save it as RGB"
        ) from None


def _from_deep_grey(image: Image.Image, name: str) -> Image.Image:
    """Grey of more than 8 bits; Pillow's own conversion clips at 255, which turns most such photos white."""
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
    return Image.fromarray(np.round(grey).astype(np.uint8), mode=None).convert("RGB")


def _too_large(name: str, error: Exception) -> PhotoError:
    return PhotoError(
        f"'{name}' is too large to decode safely ({one_line(error)}): shrink it first"
    )
