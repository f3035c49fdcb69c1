"""Views: photos at the size they are drawn at, with the network's crop on them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from unitscope.geometry import Placement
from unitscope.inputs.subjects import Subject

Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]
"""A picture (RGB, 8 bits)."""

_SMALLEST = 320


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
        return self.photo.shape[1], self.photo.shape[0]

    def outside(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels the network did not see, by their centres."""
        left, top, right, bottom = self.box
        width, height = self.size
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5

        columns = (x >= left) & (x <= right)
        rows = (y >= top) & (y <= bottom)
        inside: np.ndarray = rows[:, None] & columns[None, :]
        return ~inside

    def veiled(self, picture: Pixels | None = None) -> Pixels:
        """The photo with all that the network did not see greyed, the crop outlined.

        A `picture` of the photo takes the place of the photo.
        """
        picture = self.photo if picture is None else picture
        if self.whole:
            return picture

        outside = self.outside()
        result = np.where(outside[..., None], self._veil(), picture)

        line = max(1, round(max(self.size) / 450))
        edge = _grown(outside, line) & ~outside
        result[edge] = 255
        result[_grown(edge, 1) & outside] = 40
        return np.asarray(np.round(result), np.uint8)

    def _veil(self) -> np.ndarray:
        """The photo pale grey under diagonal lines."""
        width, height = self.size
        pale = 0.38 * grey(self.photo) + 0.62 * 225

        pitch = max(6, round(max(width, height) / 64))
        diagonal = np.arange(width)[None, :] + np.arange(height)[:, None]
        lines = diagonal % pitch < max(1, pitch / 7)
        return np.where(lines[..., None], pale * 0.92, pale)


@functools.lru_cache(maxsize=4)  # a report draws the same photo twenty times
def _view(subject: Subject, input_size: tuple[int, int], longest: int) -> View:
    picture, placement = subject.picture(longest), subject.placement(input_size)
    longer = max(picture.size)
    enlargement = max(1.0, min(longest, _SMALLEST) / longer)
    factor = min(longest / longer, enlargement)
    width, height = (max(1, round(side * factor)) for side in picture.size)

    if (width, height) != picture.size:
        # Small pictures are enlarged without smoothing, as the network sees them.
        method = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
        picture = picture.resize((width, height), method, reducing_gap=3.0)
    return View(
        photo=np.asarray(picture, np.uint8),
        box=_scaled_box(placement, (width, height)),
        whole=placement.is_whole,
    )


def grey(photo: Pixels) -> Pixels:
    """The photo without its colours (ITU-R BT.601 luma)."""
    luma = np.round(photo @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def _scaled_box(
    placement: Placement, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    width, height = size
    across, down = width / placement.photo_size[0], height / placement.photo_size[1]
    left, top, right, bottom = placement.box
    return (
        max(0.0, left * across),
        max(0.0, top * down),
        min(float(width), right * across),
        min(float(height), bottom * down),
    )


def _grown(
    mask: Bool[np.ndarray, "height width"], by: int
) -> Bool[np.ndarray, "height width"]:
    """The mask grown by some pixels to all four sides and their corners."""
    padded = np.pad(mask, by)
    height, width = mask.shape
    shifts = range(2 * by + 1)

    rows = [padded[shift : shift + height] for shift in shifts]
    grown_down = np.logical_or.reduce(rows)

    columns = [grown_down[:, shift : shift + width] for shift in shifts]
    return np.asarray(np.logical_or.reduce(columns))
