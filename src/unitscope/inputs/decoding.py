"""Decoding: a picture that Pillow has opened, as upright 8-bit RGB, with notes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from unitscope.errors import PhotoError, one_line
from unitscope.inputs import bands, depths
from unitscope.inputs.large import (
    NOTE,
    Resize,
    Shrinker,
    check_memory,
    is_large,
    strips,
)

# "bands": all bands as 8-bit levels, alpha not laid on white. "file": the picture as
# Pillow decodes it, in the file's own mode.
Original: TypeAlias = Literal["bands", "file"]

_WHITE = (255, 255, 255, 255)

# Formats whose further pictures are previews or layers of the first.
_ONE_PAGE = ("MPO", "PSD")


@dataclass(frozen=True)
class Reading:
    """How to read pictures that are not simply 8-bit RGB.

    `white` is the sample that is white in pictures of more than 8 bits, None where it
    is to be found. `original` is what to keep beside the RGB picture, if anything.
    `resize` is what is done to the picture next: large ones are decoded in that size,
    where no original is kept.
    """

    white: float | None = None
    original: Original | None = None
    resize: Resize | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """An upright RGB picture, the original where one was asked for, and notes.

    `size` is the (width, height) of the whole picture, of which `rgb` may be a smaller
    one. `notes` say what a reader must know: what was guessed, and what was left out.
    """

    rgb: Image.Image
    size: tuple[int, int]
    original: Image.Image | None = None
    notes: tuple[str, ...] = ()


Opener: TypeAlias = Callable[[], Image.Image]


def decode(
    header: Image.Image,
    name: str,
    reading: Reading,
    again: Opener | None = None,
    significant_bits: int | None = None,
    may_change: bool = False,
) -> Decoded:
    """Decode a picture of which Pillow has read the header.

    `again` opens the same file another time, where there is one; `significant_bits` are
    those that a PNG file names. A user's own picture may not be changed. Raises
    PhotoError.
    """
    decoder = _Decoder(name, reading, header, significant_bits, may_change)
    decoder.note(_page_note(header, again))
    is_sixteen_bit = bands.has_sixteen_bits(header)
    shrinker = None
    if may_change:
        size = header.size
        if reading.original is None:
            shrinker = Shrinker.of(header, reading.resize)
        check_memory(header, size, name)

    picture = _loaded(header, name)
    is_grey = picture.mode in depths.DEEP_GREY
    is_sixteen_bit = is_sixteen_bit and not is_grey
    if is_sixteen_bit and again is not None and reading.original != "file":
        picture = decoder.from_sixteen_bits(picture, again)
    if shrinker is not None:
        return decoder.shrunk(picture, shrinker)
    picture = _upright(picture, may_change)
    if is_grey:
        return decoder.from_grey(picture)
    return decoder.finished(picture, picture)


class _Decoder:
    """Decodes one picture, and collects the notes on it."""

    def __init__(
        self,
        name: str,
        reading: Reading,
        header: Image.Image,
        significant_bits: int | None,
        may_change: bool,
    ) -> None:
        self._name = name
        self._may_change = may_change
        self._reading = reading
        self._format = header.format
        self._significant_bits = significant_bits
        self._white_in_header = depths.white_in_header(header)

        self._has_alpha = header.mode in bands.WITH_ALPHA and bands.says_alpha(
            header
        )
        # Bands that are no alpha but stand in its place.
        self._left_out = int(
            header.mode in bands.WITH_ALPHA
            and not self._has_alpha
            and reading.original is None
        )
        used = len(header.getbands()) - self._left_out
        self._notes: list[str] = []
        self.note(bands.left_out_note(header, used))

    def finished(self, picture: Image.Image, original: Image.Image) -> Decoded:
        """The picture as RGB, with the original that was asked for."""
        wanted = self._reading.original
        if wanted == "bands":
            original = _with_plain_bands(picture)
            picture = _first_three(original)

        rgb = self._rgb(picture)
        notes = tuple(self._notes)
        kept = None if wanted is None else original
        return Decoded(rgb, rgb.size, kept, notes)

    def shrunk(self, picture: Image.Image, shrinker: Shrinker) -> Decoded:
        """The picture as RGB in the size that it is wanted in."""
        convert = self._rgb
        if picture.mode in depths.DEEP_GREY:
            levels_of = self._levels_of(map(np.asarray, _parts(picture)))
            convert = partial(_rgb_of_grey, levels_of)
        rgb, whole = shrinker.shrunk(picture, convert)
        self.note(NOTE)
        return Decoded(rgb, whole, None, tuple(self._notes))

    def _rgb(self, picture: Image.Image) -> Image.Image:
        if self._left_out:
            picture = bands.without_last(picture)
        return _to_rgb(picture, self._name)

    def from_grey(self, picture: Image.Image) -> Decoded:
        """Decode grey of more than 8 bits: Pillow's own conversion clips it at 255."""
        samples = np.asarray(picture)
        if self._reading.original == "file":
            # The network sees the original: this is the picture to look at.
            levels = depths.stretched(samples)
        else:
            levels = self._levels_of([samples])(samples)
        return self.finished(Image.fromarray(levels), picture)

    def from_sixteen_bits(
        self, upper: Image.Image, again: Opener
    ) -> Image.Image:
        """Decode colour of 16 bits, of which Pillow keeps the upper 8.

        That is enough where all 16 bits are used.
        """
        count = len(upper.getbands())
        if self._reading.original is None:
            count -= self._has_alpha or self._left_out
        is_bright = not bands.may_be_shallow(upper, count)
        if is_bright and self._reading.white is None:
            return upper
        lower = self._lower_bytes(again)
        if lower is None:
            if is_bright:
                return upper
            raise PhotoError(
                f"'{self._name}' has 16 bits a band, of which only the upper 8 can be "
                "read, and those are nearly black: save it with 8 bits a band"
            )
        pairs = zip(_parts(upper), _parts(lower), strict=True)
        levels_of = self._levels_of(
            bands.joined(high, low, count) for high, low in pairs
        )
        if not self._may_change:
            upper = upper.copy()
        for top, high in strips(upper):
            low = lower.crop((0, top, upper.width, top + high.height))
            levels = levels_of(bands.joined(high, low, count))
            upper.paste(bands.with_levels(high, levels), (0, top))
        return upper

    def _lower_bytes(self, again: Opener) -> Image.Image | None:
        """The lower bytes of a picture of 16 bits; None where Pillow has no way to them."""
        second = again()
        if not bands.read_lower_bytes(second):
            return None
        try:
            return _loaded(second, self._name)
        except PhotoError:
            # The file itself is sound: its upper bytes were read.
            return None

    def note(self, text: str) -> None:
        """Keep a note, if it has a text."""
        if text:
            self._notes.append(text)

    def _levels_of(
        self, parts: Iterable[np.ndarray]
    ) -> Callable[[np.ndarray], np.ndarray]:
        """What makes levels from 0 to 255 of samples of more than 8 bits.

        `parts` are all samples of the picture. Keeps a note on white.
        """
        samples = depths.Samples.of(parts)
        depths.check_finite(samples, self._name)
        white = self._reading.white
        if white is not None:
            self.note(depths.cut_off(samples, white))
        else:
            white = self._white_in_file(samples)
        if white is None:
            guessed = depths.guessed_white(samples, self._name)
            self.note(guessed.note)
            white = guessed.value
        return partial(depths.levels_of, white=white)

    def _white_in_file(self, samples: depths.Samples) -> float | None:
        if self._white_in_header is not None:
            return self._white_in_header
        if self._significant_bits is not None:
            return depths.white_by_significant_bits(
                samples, self._significant_bits
            )
        if self._format == "JPEG2000":
            return depths.white_of_jpeg_2000(samples)
        return None


def _page_note(header: Image.Image, again: Opener | None) -> str:
    """A note on the pages of a file, where it has several."""
    pages = _page_count(header, again)
    if pages < 2:
        return ""
    return (
        f"page {header.tell() + 1} of {pages} is read, the other pages or frames are "
        "left out; another one is read from PIL.Image.open(…) after .seek(…)"
    )


def _page_count(header: Image.Image, again: Opener | None) -> int:
    if header.format in _ONE_PAGE or again is None:
        return 1
    if not hasattr(type(header), "n_frames"):
        return int(vars(header).get("n_frames", 1))
    # Pillow turns the pages to count them, which must not happen to the user's image.
    # Damaged files raise many kinds of errors. Whether the page that is read is sound
    # shows when it is decoded.
    with contextlib.suppress(Exception), again() as other:
        return int(other.n_frames)  # type: ignore[attr-defined]
    return 1


def _loaded(header: Image.Image, name: str) -> Image.Image:
    try:
        header.load()
    except Image.DecompressionBombError as error:
        raise too_large(name, error) from None
    except Exception as error:
        # Pillow's plug-ins raise many kinds of errors, also for closed images.
        raise PhotoError(
            f"'{name}' is damaged or cut short ({one_line(error)}): get a whole copy "
            "of it"
        ) from None
    if 0 in header.size:
        raise PhotoError(
            f"'{name}' is empty ({header.width}×{header.height} pixels): a photo needs "
            "at least one pixel"
        )
    return header


def _rgb_of_grey(
    levels_of: Callable[[np.ndarray], np.ndarray], picture: Image.Image
) -> Image.Image:
    levels = levels_of(np.asarray(picture))
    return Image.fromarray(levels).convert("RGB")


def _parts(picture: Image.Image) -> Iterator[Image.Image]:
    return (strip for _, strip in strips(picture))


def _upright(image: Image.Image, may_change: bool) -> Image.Image:
    """The picture turned as EXIF says: a copy, unless it is large and may be changed."""
    try:
        if may_change and is_large(image.size):
            ImageOps.exif_transpose(image, in_place=True)
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        # Broken EXIF raises many kinds of errors. The photo itself is sound.
        return image.copy()


def _with_plain_bands(image: Image.Image) -> Image.Image:
    """A picture whose bands are levels: no palette, no bits, no colours times alpha."""
    if image.mode in ("P", "PA"):
        has_alpha = image.mode == "PA" or "transparency" in image.info
        return image.convert("RGBA" if has_alpha else "RGB")
    plain = {"1": "L", "RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)
    return image if plain == image.mode else image.convert(plain)


def _first_three(image: Image.Image) -> Image.Image:
    """The first three bands of a picture to look at."""
    return bands.without_last(image) if image.mode in ("RGBA", "LA") else image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode in bands.WITH_ALPHA or "transparency" in image.info:
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


def too_large(name: str, error: Exception) -> PhotoError:
    """The error for a picture of more pixels than Pillow decodes."""
    return PhotoError(
        f"'{name}' is too large to decode safely ({one_line(error)}): shrink it first"
    )
