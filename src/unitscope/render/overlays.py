"""Overlays: maps laid on photos, as RGB and RGBA arrays of 8 bits."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from unitscope.geometry import Placement
from unitscope.inputs.subjects import Subject
from unitscope.render.colours import Scale, table

Style: TypeAlias = Literal["heat", "signed", "contour", "write-up", "plain"]
STYLES: tuple[str, ...] = get_args(Style)

_SMALLEST = 320
_LEVELS = (0.25, 0.5, 0.75)
_OPAQUE = 0.86
_ON_GREY = ("heat", "signed")


@dataclass(frozen=True, eq=False)
class View:
    """A photo at the size it is drawn at, and the network's crop on it.

    `photo` is the upright photo (RGB, 8 bits); `box` (left, top, right, bottom) is what
    the network saw, in pixels of the view; `whole` says that this is all of the photo.
    """

    photo: UInt8[np.ndarray, "height width 3"]
    box: tuple[float, float, float, float]
    whole: bool

    @classmethod
    def of(
        cls, subject: Subject, input_size: tuple[int, int], longest: int = 900
    ) -> View:
        """The view of a subject with its longer side shrunk to `longest` pixels (tiny photos are enlarged to 320)."""
        return _view(subject, input_size, longest)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.photo.shape[1], self.photo.shape[0]

    def outside(self) -> Bool[np.ndarray, "height width"]:
        """Where the network did not look, by pixel centres."""
        left, top, right, bottom = self.box
        across, down = np.arange(self.size[0]) + 0.5, np.arange(self.size[1]) + 0.5
        inside: np.ndarray = ((down >= top) & (down <= bottom))[:, None] & (
            (across >= left) & (across <= right)
        )[None, :]
        return ~inside

    def veiled(
        self, picture: UInt8[np.ndarray, "height width 3"] | None = None
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The photo (or a picture made of it) with all that the network did not see greyed, the crop outlined."""
        picture = self.photo if picture is None else picture
        if self.whole:
            return picture
        height, width = picture.shape[:2]
        veil = 0.38 * grey(self.photo) + 0.62 * 225
        pitch = max(6, round(max(width, height) / 64))
        diagonal = (
            np.arange(width)[None, :] + np.arange(height)[:, None]
        ) % pitch < max(1, pitch / 7)
        veil = np.where(diagonal[..., None], veil * 0.92, veil)
        outside = self.outside()[..., None]
        result = np.where(outside, veil, picture)
        line = max(1, round(max(width, height) / 450))
        edge = _grown(outside[..., 0], line) & ~outside[..., 0]
        result[edge] = 255
        result[_grown(edge, 1) & outside[..., 0]] = 40
        return np.asarray(np.round(result), np.uint8)


@functools.lru_cache(maxsize=4)  # a report draws the same photo twenty times
def _view(subject: Subject, input_size: tuple[int, int], longest: int) -> View:
    picture, placement = subject.picture(longest), subject.placement(input_size)
    factor = min(
        longest / max(picture.size),
        max(1.0, min(longest, _SMALLEST) / max(picture.size)),
    )
    size = (
        max(1, round(picture.width * factor)),
        max(1, round(picture.height * factor)),
    )
    # Small pictures are enlarged without smoothing, to be seen as the network sees
    # them.
    method = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    drawn = (
        picture
        if size == picture.size
        else picture.resize(size, method, reducing_gap=3.0)
    )
    return View(
        np.asarray(drawn, np.uint8), _scaled_box(placement, size), placement.is_whole
    )


def layer(
    laid: Float[np.ndarray, "height width"],
    scale: Scale,
    style: str = "heat",
    colours: str | None = None,
) -> UInt8[np.ndarray, "height width 4"]:
    """The colours of a map laid on a photo (NaN outside the crop), with the opacity they are to be laid on with (RGBA).

    "heat" and "signed": opacity grows with the distance from 0, so that cold places
    show the plain photo; "heat" drops negative values. "contour": lines at a quarter,
    half and three quarters of the scale. "write-up": the write-up's blending in JET.
    "plain" (or "plain map"): opaque colours. A map that is 0 everywhere is transparent
    (and of one colour when plain).
    """
    style = "plain" if style == "plain map" else style
    if style not in STYLES:
        raise ValueError(
            f"style is one of {', '.join(repr(known) for known in STYLES)}, not "
            f"{style!r}"
        )
    scale, lut = shown(scale, style, colours)
    position, strength = scale.position(laid), scale.strength(laid)
    if style == "write-up":
        # heat·(0.3·photo + 0.7·colour) + (1 − heat)·photo is a layer of opacity
        # 0.7·heat.
        return _rgba(lut, strength, 0.7 * strength)
    if style == "contour":
        return _contours(laid, scale, lut)
    if style == "plain":
        return _rgba(lut, position, np.where(np.isnan(laid), np.nan, 1.0))
    if scale.signed:
        # The pale middle of the colours would lie on the photo like mist: there the
        # opacity says how weak a value is.
        position = 0.5 + np.sign(position - 0.5) * (0.16 + 0.3 * strength)
    return _rgba(lut, position, _OPAQUE * strength**0.85)


def shown(
    scale: Scale, style: str, colours: str | None = None
) -> tuple[Scale, UInt8[np.ndarray, "256 3"]]:
    """The scale and colours as a style draws them, for the colour bar too: "heat" and "write-up" begin at 0."""
    if style in ("heat", "write-up") and scale.signed:
        scale = Scale(0.0, scale.high, False, scale.over)
    return scale, table(colours or ("jet" if style == "write-up" else scale.colours))


def blended(
    photo: UInt8[np.ndarray, "height width 3"],
    layer: UInt8[np.ndarray, "height width 4"],
) -> UInt8[np.ndarray, "height width 3"]:
    """The photo with a layer laid over it."""
    alpha = layer[..., 3:].astype(np.float64) / 255
    return np.asarray(np.round(alpha * layer[..., :3] + (1 - alpha) * photo), np.uint8)


def overlay(
    view: View,
    laid: Float[np.ndarray, "height width"],
    scale: Scale,
    style: str = "heat",
    colours: str | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """A map drawn on its photo, with all that the network did not see veiled; `laid` has the view's size.

    Beneath "signed" and "heat" the photo is grey, so that every colour in the picture
    is the map's: an orange evening sky is no evidence. Beneath "contour" and "write-up"
    it keeps its colours.
    """
    photo = grey(view.photo) if style in _ON_GREY else view.photo
    return view.veiled(blended(photo, layer(laid, scale, style, colours)))


def grey(
    photo: UInt8[np.ndarray, "height width 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """The photo without its colours (ITU-R BT.601 luma)."""
    luma = np.round(photo @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


def _rgba(
    lut: UInt8[np.ndarray, "256 3"],
    position: Float[np.ndarray, "height width"],
    alpha: Float[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 4"]:
    index = np.round(np.nan_to_num(position) * 255).astype(np.uint8)
    opacity = np.round(np.nan_to_num(alpha) * 255).astype(np.uint8)
    return np.concatenate([lut[index], opacity[..., None]], axis=-1)


def _contours(
    laid: Float[np.ndarray, "height width"],
    scale: Scale,
    lut: UInt8[np.ndarray, "256 3"],
) -> UInt8[np.ndarray, "height width 4"]:
    """Lines of equal value with a dark halo; the distance to a line is |value − level| / |gradient|."""
    rgba = np.zeros((*laid.shape, 4), np.uint8)
    if scale.is_blank or min(laid.shape) < 2:
        return rgba
    width = max(2.0, max(laid.shape) / 240)
    slope = np.hypot(*np.gradient(laid))
    flat = ~(slope > 1e-9 * scale.high)
    for level in [
        sign * part * scale.high
        for sign in ((1, -1) if scale.signed else (1,))
        for part in _LEVELS
    ]:
        distance = np.where(
            flat, np.inf, np.abs(laid - level) / np.where(flat, 1, slope)
        )
        line = np.clip(width / 2 + 0.5 - distance, 0, 1)
        halo = 0.6 * np.clip(width / 2 + 1.7 - distance, 0, 1)
        colour = lut[
            round(
                255
                * (
                    (0.5 + np.sign(level) * 0.27)
                    if scale.signed
                    else level / scale.high
                )
            )
        ]
        alpha = np.maximum(line, halo)
        stronger = alpha > rgba[..., 3] / 255
        mixed = line[..., None] * colour + (1 - line[..., None]) * 20
        rgba[stronger, :3] = np.round(mixed[stronger])
        rgba[stronger, 3] = np.round(255 * alpha[stronger])
    return rgba


def _scaled_box(
    placement: Placement, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    across, down = size[0] / placement.photo_size[0], size[1] / placement.photo_size[1]
    left, top, right, bottom = placement.box
    return (
        max(0.0, left * across),
        max(0.0, top * down),
        min(float(size[0]), right * across),
        min(float(size[1]), bottom * down),
    )


def _grown(
    mask: Bool[np.ndarray, "height width"], by: int
) -> Bool[np.ndarray, "height width"]:
    """The mask grown by some pixels to all four sides and their corners."""
    padded = np.pad(mask, by)
    height, width = mask.shape
    down = np.logical_or.reduce(
        [padded[shift : shift + height] for shift in range(2 * by + 1)]
    )
    return np.asarray(
        np.logical_or.reduce(
            [down[:, shift : shift + width] for shift in range(2 * by + 1)]
        )
    )
