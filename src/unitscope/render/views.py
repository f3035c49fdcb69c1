"""Views: photos at the size they are drawn at, with the network's crop on them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from PIL.Image import Resampling

from unitscope.geometry import Placement
from unitscope.inputs.subjects import Subject

Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]
"""A picture (RGB, 8 bits)."""

_SMALLEST = 320
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class View:
    """A photo at the size it is drawn at, and the network's crop on it.

    `photo` is the upright photo; `box` (left, top, right, bottom) is the part that the
    network saw, in pixels of the view; `whole` says that it saw all of the photo.
    """

    photo: Pixels
    box: tuple[float, float, float, float]
    whole: bool

    @classmethod
    def of(
        cls, subject: Subject, input_size: tuple[int, int], longest: int = 900
    ) -> View:
        """The view of a subject, its longer side shrunk to `longest` pixels.

        Smaller photos keep their size, and tiny ones are enlarged to 320 pixels.
        """
        return _view(subject, input_size, longest)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.photo.shape[:2]
        return width, height

    def outside(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels the network did not see, by their centres."""
        left, top, right, bottom = self.box
        width, height = self.size
        columns = _centres_between(left, right, width)
        rows = _centres_between(top, bottom, height)
        inside: np.ndarray = np.logical_and.outer(rows, columns)
        return ~inside

    def veiled(self, picture: Pixels | None = None) -> Pixels:
        """The photo with all that the network did not see greyed, the crop outlined.

        A `picture` of the photo takes the place of the photo.
        """
        if picture is None:
            picture = self.photo
        if self.whole:
            return picture

        outside = self.outside()
        veil = self._veil()
        result = np.where(outside[..., None], veil, picture)

        longest = max(self.size)
        line = max(1, round(longest / 450))
        light = _grown(outside, line)
        light &= ~outside
        dark = _grown(light, 1)
        dark &= outside
        result[light] = 255
        result[dark] = 40
        rounded = np.round(result)
        return np.asarray(rounded, np.uint8)

    def _veil(self) -> np.ndarray:
        """The photo pale grey under diagonal lines."""
        pale = 0.38 * grey(self.photo) + 0.62 * 225
        darker = pale * 0.92

        longest = max(self.size)
        pitch = max(6, round(longest / 64))
        line = max(1, pitch / 7)

        width, height = self.size
        columns = np.arange(width)
        rows = np.arange(height)
        diagonal = np.add.outer(rows, columns)
        on_line = diagonal % pitch < line
        return np.where(on_line[..., None], darker, pale)


@functools.lru_cache(maxsize=4)  # a report draws the same photo twenty times
def _view(subject: Subject, input_size: tuple[int, int], longest: int) -> View:
    picture = subject.picture(longest)
    placement = subject.placement(input_size)
    longer = max(picture.size)
    smallest = min(longest, _SMALLEST)
    enlargement = max(1.0, smallest / longer)
    factor = min(longest / longer, enlargement)

    width = max(1, round(picture.width * factor))
    height = max(1, round(picture.height * factor))
    size = (width, height)
    if size != picture.size:
        # Small pictures are enlarged without smoothing, as the network sees them.
        method = Resampling.LANCZOS if factor < 1 else Resampling.NEAREST
        picture = picture.resize(size, method, reducing_gap=3.0)

    return View(
        photo=np.asarray(picture, np.uint8),
        box=_scaled_box(placement, size),
        whole=placement.is_whole,
    )


def grey(photo: Pixels) -> Pixels:
    """The photo without its colours (ITU-R BT.601 luma)."""
    luma = photo @ np.array(_LUMA)
    rounded = np.round(luma).astype(np.uint8)
    return np.repeat(rounded[..., None], 3, axis=2)


def _scaled_box(
    placement: Placement, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    width, height = size
    photo_width, photo_height = placement.photo_size
    across = width / photo_width
    down = height / photo_height
    left, top, right, bottom = placement.box
    return (
        max(0.0, left * across),
        max(0.0, top * down),
        min(float(width), right * across),
        min(float(height), bottom * down),
    )


def _centres_between(
    low: float, high: float, count: int
) -> Bool[np.ndarray, " {count}"]:
    """Which of `count` pixels in a row have their centres between two places."""
    centres = np.arange(count) + 0.5
    above = centres >= low
    below = centres <= high
    return np.logical_and(above, below)


def _grown(
    mask: Bool[np.ndarray, "height width"], by: int
) -> Bool[np.ndarray, "height width"]:
    """The mask grown by some pixels to all four sides and their corners."""
    padded = np.pad(mask, by)
    height, width = mask.shape
    shifts = range(2 * by + 1)

    moved_down = [padded[shift : shift + height] for shift in shifts]
    taller = np.logical_or.reduce(moved_down)

    moved_across = [taller[:, shift : shift + width] for shift in shifts]
    grown = np.logical_or.reduce(moved_across)
    return np.asarray(grown)
