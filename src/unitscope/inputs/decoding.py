"""Decoding: a picture that Pillow has opened, as upright 8-bit RGB, with notes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from unitscope.errors import PhotoError, one_line
from unitscope.inputs import bands, depths

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
    """

    white: float | None = None
    original: Original | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """An upright RGB picture, the original where one was asked for, and notes.

    `notes` say what a reader must know: what was guessed, and what was left out.
    """

    rgb: Image.Image
    original: Image.Image | None = None
    notes: tuple[str, ...] = ()


Opener: TypeAlias = Callable[[], Image.Image]


def decode(
    header: Image.Image,
    name: str,
    reading: Reading,
    again: Opener | None = None,
    significant_bits: int | None = None,
) -> Decoded:
    """Decode a picture of which Pillow has read the header.

    `again` opens the same file another time, where there is one; `significant_bits` are
    those that a PNG file names. Raises PhotoError.
    """
    decoder = _Decoder(name, reading, header, significant_bits)
    decoder.note(_page_note(header, again))
    is_sixteen_bit = bands.has_sixteen_bits(header)

    picture = _upright(_loaded(header, name))
    if picture.mode in depths.DEEP_GREY:
        return decoder.from_grey(picture)
    if is_sixteen_bit and again is not None and reading.original != "file":
        picture = decoder.from_sixteen_bits(picture, again)
    return decoder.finished(picture, picture)


class _Decoder:
    """Decodes one picture, and collects the notes on it."""

    def __init__(
        self,
        name: str,
        reading: Reading,
        header: Image.Image,
        significant_bits: int | None,
    ) -> None:
        self._name = name
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
        elif self._left_out:
            picture = bands.without_last(picture)

        rgb = _to_rgb(picture, self._name)
        notes = tuple(self._notes)
        return Decoded(rgb, None if wanted is None else original, notes)

    def from_grey(self, picture: Image.Image) -> Decoded:
        """Decode grey of more than 8 bits: Pillow's own conversion clips it at 255."""
        samples = np.asarray(picture)
        if self._reading.original == "file":
            # The network sees the original: this is the picture to look at.
            levels = depths.stretched(samples)
        else:
            levels = self._levels(samples)
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
        samples = bands.joined(upper, lower, count)
        levels = self._levels(samples)
        return bands.with_levels(upper, levels)

    def _lower_bytes(self, again: Opener) -> Image.Image | None:
        """The lower bytes of a picture of 16 bits; None where Pillow has no way to them."""
        second = again()
        if not bands.read_lower_bytes(second):
            return None
        try:
            return _upright(_loaded(second, self._name))
        except PhotoError:
            # The file itself is sound: its upper bytes were read.
            return None

    def note(self, text: str) -> None:
        """Keep a note, if it has a text."""
        if text:
            self._notes.append(text)

    def _levels(self, samples: np.ndarray) -> np.ndarray:
        """Samples of more than 8 bits as levels from 0 to 255, with a note on white."""
        depths.check_finite(samples, self._name)
        own = self._reading.white
        if own is not None:
            self.note(depths.cut_off(samples, own))
            return depths.levels_of(samples, own)

        in_file = self._white_in_file(samples)
        if in_file is not None:
            return depths.levels_of(samples, in_file)
        white = depths.guessed_white(samples, self._name)
        self.note(white.note)
        return depths.levels_of(samples, white.value)

    def _white_in_file(self, samples: np.ndarray) -> float | None:
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


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as EXIF says, as an image of its own."""
    try:
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
