"""Overlays: maps laid on photos, as RGB and RGBA arrays of 8 bits."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, UInt8

from unitscope.errors import InputError
from unitscope.render.colours import Scale, Table, table
from unitscope.render.views import Pixels, View, grey

Style: TypeAlias = Literal["heat", "signed", "contour", "write-up", "plain"]
STYLES: tuple[str, ...] = get_args(Style)

POSITIVE_STYLES = ("heat", "write-up")
"""The styles that draw values above 0 only."""

Rgba: TypeAlias = UInt8[np.ndarray, "height width 4"]
"""The colour and opacity (RGBA, 8 bits) of every pixel."""

_GREY_STYLES = ("heat", "signed")
_OPAQUE = 0.86
_LEVELS = (0.25, 0.5, 0.75)
_HALO = 20  # the grey value of a contour's halo


def layer(
    laid: Float[np.ndarray, "height width"],
    scale: Scale,
    style: str = "heat",
    colours: str | None = None,
) -> Rgba:
    """The colours of a map laid on a photo, with their opacity; NaN is transparent.

    - "heat" and "signed": opacity grows with the distance from 0, so that cold places
      show the plain photo; "heat" omits negative values.
    - "contour": lines at a quarter, half and three quarters of the scale.
    - "write-up": the write-up's blending in JET.
    - "plain" (or "plain map"): opaque colours.

    A map of zeros is transparent, and of a single colour where the style is plain.
    """
    if style == "plain map":
        style = "plain"
    if style not in STYLES:
        known = ", ".join(map(repr, STYLES))
        raise InputError(f"style is one of {known}, not {style!r}")

    scale, lut = shown(scale, style, colours)
    if style == "contour":
        return _contours(laid, scale, lut)

    position = scale.position(laid)
    strength = scale.strength(laid)
    if style == "plain":
        unknown = np.isnan(laid)
        alpha = np.where(unknown, np.nan, 1.0)
        return _rgba(lut, position, alpha)
    if style == "write-up":
        # The write-up's heat·(0.3·photo + 0.7·colour) + (1 − heat)·photo is a layer of
        # opacity 0.7·heat.
        return _rgba(lut, strength, 0.7 * strength)

    if scale.signed:
        # The pale middle of the colours would lie on the photo like mist. Opacity
        # already says that a value is weak.
        side = np.sign(position - 0.5)
        distance = 0.16 + 0.3 * strength
        position = 0.5 + side * distance

    alpha = _OPAQUE * strength**0.85
    return _rgba(lut, position, alpha)


def shown(
    scale: Scale, style: str, colours: str | None = None
) -> tuple[Scale, Table]:
    """The scale and colours that a style draws, and that its colour bar shows.

    Styles that draw values above 0 only have a scale that begins at 0.
    """
    if style in POSITIVE_STYLES and scale.signed:
        scale = Scale(
            low=0.0,
            high=scale.high,
            signed=False,
            over=scale.over,
        )
    if colours is None:
        colours = "jet" if style == "write-up" else scale.colours
    return scale, table(colours)


def blended(photo: Pixels, layer: Rgba) -> Pixels:
    """The photo with a layer laid over it."""
    colours = layer[..., :3]
    opacity = layer[..., 3:]
    alpha = opacity.astype(np.float64) / 255
    rest = 1 - alpha
    mixed = alpha * colours + rest * photo
    rounded = np.round(mixed)
    return np.asarray(rounded, np.uint8)


def overlay(
    view: View,
    laid: Float[np.ndarray, "height width"],
    scale: Scale,
    style: str = "heat",
    colours: str | None = None,
) -> Pixels:
    """A map of the view's size drawn on its photo, with a veil outside the crop.

    Under "signed" and "heat" the photo is grey, so that every colour in the picture is
    the map's: an orange evening sky is no evidence. The other styles keep its colours.
    """
    photo = view.photo
    if style in _GREY_STYLES:
        photo = grey(photo)
    over = layer(laid, scale, style, colours)
    return view.veiled(blended(photo, over))


def _rgba(
    lut: Table,
    position: Float[np.ndarray, "height width"],
    alpha: Float[np.ndarray, "height width"],
) -> Rgba:
    index = _eight_bit(position)
    opacity = _eight_bit(alpha)
    channels = [lut[index], opacity[..., None]]
    return np.concatenate(channels, axis=-1)


def _eight_bit(
    shares: Float[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"]:
    """Shares from 0 to 1 as bytes; NaN becomes 0."""
    known = np.nan_to_num(shares)
    levels: np.ndarray = np.round(known * 255)
    return levels.astype(np.uint8)


def _contours(
    laid: Float[np.ndarray, "height width"], scale: Scale, lut: Table
) -> Rgba:
    """Lines of equal value with a dark halo.

    The distance to a line is |value − level| / |gradient|, in pixels.
    """
    rgba = np.zeros((*laid.shape, 4), np.uint8)
    if scale.is_blank or min(laid.shape) < 2:
        return rgba

    longest = max(laid.shape)
    width = max(2.0, longest / 240)
    reach = width / 2 + 0.5
    reach_of_halo = width / 2 + 1.7

    across, down = np.gradient(laid)
    slope = np.hypot(across, down)
    steep = slope > 1e-9 * scale.high
    divisor = np.where(steep, slope, 1)

    for level in _levels(scale):
        difference = np.abs(laid - level)
        distance = difference / divisor
        distance = np.where(steep, distance, np.inf)
        line = _stroke(distance, reach)
        halo = 0.6 * _stroke(distance, reach_of_halo)
        alpha = np.maximum(line, halo)

        colour = _colour_of_level(level, scale, lut)
        share = line[..., None]
        rest = 1 - share
        mixed = share * colour + rest * _HALO

        present = rgba[..., 3] / 255
        stronger = alpha > present
        opacity = 255 * alpha
        rgba[stronger, :3] = np.round(mixed[stronger])
        rgba[stronger, 3] = np.round(opacity[stronger])
    return rgba


def _stroke(
    distance: Float[np.ndarray, "height width"], reach: float
) -> Float[np.ndarray, "height width"]:
    """The opacity of a line that fades to 0 over its last pixel, at a `reach`."""
    opacity: np.ndarray = np.clip(reach - distance, 0, 1)
    return opacity


def _levels(scale: Scale) -> list[float]:
    above = [share * scale.high for share in _LEVELS]
    if not scale.signed:
        return above
    below = [-level for level in above]
    return above + below


def _colour_of_level(
    level: float, scale: Scale, lut: Table
) -> UInt8[np.ndarray, " rgb"]:
    position = level / scale.high
    if scale.signed:
        # The two sides of a signed scale have one colour each.
        position = 0.77 if level > 0 else 0.23
    index = round(255 * position)
    colour: np.ndarray = lut[index]
    return colour
