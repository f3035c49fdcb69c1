"""Large pictures: resized while they are decoded, so that one takes little memory.

Smaller pictures are decoded whole, and their pixels do not depend on anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, ImageOps
from PIL.ExifTags import Base

from unitscope.errors import PhotoError

LARGE = 40_000_000
"""Pictures of more pixels are large."""

MOST_MEMORY = 1_000_000_000
"""Pictures that take more memory while they are decoded are refused, in bytes."""

NOTE = (
    f"photos of more than {LARGE // 1_000_000} megapixels are shrunk while they are "
    "decoded: inputs differ by a few of 255 levels from those of all pixels"
)

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# Before the filter, whole blocks of pixels are averaged, to a picture that is at least
# this many times as large as the one wanted. Pillow calls 3 nearly the same as without.
_GAP = 4.0

_STRIP_PIXELS = 4_000_000

# Pillow resizes these in place; others are converted first, strip by strip.
_DIRECT = ("RGB", "L", "CMYK", "YCbCr")

# What Pillow needs for a pixel, in bytes; 4 in other modes.
_OF_MODE = {
    "1": 1,
    "L": 1,
    "P": 1,
    "I;16": 2,
    "I;16L": 2,
    "I;16B": 2,
    "I;16N": 2,
}
_OF_WEBP = 16

# TIFF's tag.
_ROWS_PER_STRIP = 278

_JPEGS = ("JPEG", "MPO")

# (width, height), as Pillow has it.
_Size: TypeAlias = tuple[int, int]

# (left, top, right, bottom).
_Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Resize:
    """How a photo is resized: its shorter side, or (rows, cols), by one of FILTERS."""

    side: int | tuple[int, int]
    by: str

    @property
    def least_side(self) -> int:
        """The shorter side that is enough of a photo, whichever way it is turned."""
        return max(self.side) if isinstance(self.side, tuple) else self.side

    def size(self, of: _Size) -> _Size:
        """The size (width, height) that a photo of a size is resized to."""
        width, height = of
        if isinstance(self.side, tuple):
            rows, cols = self.side
            return cols, rows

        # torchvision truncates the longer side.
        shorter = self.side
        if width <= height:
            longer = int(shorter * height / width)
            return shorter, max(1, longer)
        longer = int(shorter * width / height)
        return max(1, longer), shorter


def is_large(size: _Size) -> bool:
    """Whether a picture of a size is large."""
    width, height = size
    return width * height > LARGE


class Shrinker:
    """Resizes one large picture to the size that a preprocessing, or a drawing, wants."""

    def __init__(self, header: Image.Image, resize: Resize) -> None:
        self._resize = resize
        self._size = header.size
        self._box: _Box | None = None
        if header.format in _JPEGS and resize.by != "nearest":
            # Decoded at an eighth, a quarter or a half of its size, as far as that is
            # enough.
            least = round(_GAP * resize.least_side)
            drafted = header.draft(None, (least, least))
            if drafted is not None:
                self._box = drafted[1]

    @classmethod
    def of(cls, header: Image.Image, resize: Resize | None) -> Shrinker | None:
        """The shrinker of a picture that is not decoded yet; None for most pictures."""
        if resize is None or not is_large(header.size):
            return None
        if resize.least_side > min(header.size):
            return None
        return cls(header, resize)

    def shrunk(
        self,
        picture: Image.Image,
        convert: Callable[[Image.Image], Image.Image],
    ) -> tuple[Image.Image, _Size]:
        """The decoded picture as upright RGB, small, and the upright size of all of it.

        `convert` makes RGB of a strip of the picture.
        """
        orientation = _orientation(picture)
        # Some decoders turn pictures themselves.
        whole = picture.size if self._box is None else self._size
        width, height = whole if orientation < 5 else whole[::-1]
        across, down = self._resize.size((width, height))
        to = (across, down) if orientation < 5 else (down, across)

        small = shrunk(picture, to, self._resize.by, convert, self._box)
        small.getexif()[Base.Orientation] = orientation
        return ImageOps.exif_transpose(small), (width, height)


def shrunk(
    picture: Image.Image,
    to: _Size,
    by: str,
    convert: Callable[[Image.Image], Image.Image] | None = None,
    box: _Box | None = None,
) -> Image.Image:
    """A large picture, or its part in a box, in a smaller size, by one of FILTERS.

    Whole blocks of pixels are averaged first. `convert`, where there is one, is applied
    to strips of the picture before they are averaged, or where that is the same, to
    what is left.
    """
    convert = convert or _unchanged
    box = box or (0, 0, *picture.size)
    is_plain = picture.mode in _DIRECT and "transparency" not in picture.info
    if is_plain or by == "nearest":
        small = picture.resize(to, FILTERS[by], box, reducing_gap=_GAP)
        return _plain(convert(small))

    across = max(1, int((box[2] - box[0]) / to[0] / _GAP))
    down = max(1, int((box[3] - box[1]) / to[1] / _GAP))
    left, top, right, bottom = box
    size = (-(-picture.width // across), -(-picture.height // down))
    blocks = Image.new("RGB", size)
    for row, strip in strips(picture, down):
        averaged = convert(strip).reduce((across, down))
        blocks.paste(averaged, (0, row // down))
    box = (left / across, top / down, right / across, bottom / down)
    return blocks.resize(to, FILTERS[by], box)


def check_memory(header: Image.Image, size: _Size, name: str) -> None:
    """Raise PhotoError where decoding a large picture takes too much memory.

    `size` is that in the file, of which a decoder may make fewer pixels. Pillow must not
    have read them yet.
    """
    if not is_large(size):
        return
    width, height = size
    needed, remedy = _memory(header, width * height)
    if needed > MOST_MEMORY:
        raise PhotoError(
            f"'{name}' ({width}×{height} pixels) would take {needed / 1e9:.1f} GB to "
            f"decode, more than {MOST_MEMORY / 1e9:g} GB: {remedy}, or shrink it first"
        )


def _memory(header: Image.Image, pixels: int) -> tuple[float, str]:
    """The bytes that decoding a picture takes, and what to do where that is too much."""
    if header.format == "WEBP":
        return pixels * _OF_WEBP, "save it as JPEG or PNG"

    held = header.width * header.height * _OF_MODE.get(header.mode, 4)
    if header.format in _JPEGS and header.info.get("progressive"):
        layers = getattr(header, "layer", [])
        sizes = [across * down for _, across, down, _ in layers]
        # A coefficient of two bytes for every sample.
        shares = sum(sizes) / max(sizes, default=1)
        return held + 2 * pixels * shares, "save it as baseline JPEG"

    tags = getattr(header, "tag_v2", {})
    if tags and header.info.get("compression") != "raw":
        rows = min(tags.get(_ROWS_PER_STRIP, 1), header.height)
        strip = rows * header.width * _OF_MODE.get(header.mode, 4)
        return held + strip, "save it in more strips, or in tiles"
    return held, "save it with 8 bits a band"


def strips(
    picture: Image.Image, multiple: int = 1
) -> Iterator[tuple[int, Image.Image]]:
    """The picture in parts of all its columns, each with the number of its first row.

    They have a multiple of so many rows, besides the last.
    """
    rows = max(1, _STRIP_PIXELS // picture.width // multiple) * multiple
    for top in range(0, picture.height, rows):
        bottom = min(picture.height, top + rows)
        yield top, picture.crop((0, top, picture.width, bottom))


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(Base.Orientation, 1))
    except Exception:
        # Broken EXIF raises many kinds of errors. The photo itself is sound.
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """The same pixels without what the file said besides."""
    image.info = {}
    return image


def _unchanged(image: Image.Image) -> Image.Image:
    return image
