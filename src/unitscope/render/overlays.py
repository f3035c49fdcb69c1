"""Overlays: maps laid on photos, as RGB and RGBA arrays of 8 bits."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, UInt8

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
    style = "plain" if style == "plain map" else style
    if style not in STYLES:
        known = ", ".join(map(repr, STYLES))
        raise ValueError(f"style is one of {known}, not {style!r}")

    scale, lut = shown(scale, style, colours)
    position, strength = scale.position(laid), scale.strength(laid)

    if style == "write-up":
        # The write-up's heat·(0.3·photo + 0.7·colour) + (1 − heat)·photo is a layer of
        # opacity 0.7·heat.
        return _rgba(lut, strength, 0.7 * strength)
    if style == "contour":
        return _contours(laid, scale, lut)
    if style == "plain":
        return _rgba(lut, position, np.where(np.isnan(laid), np.nan, 1.0))
    if scale.signed:
        # The pale middle of the colours would lie on the photo like mist. Opacity
        # already says that a value is weak.
        position = 0.5 + np.sign(position - 0.5) * (0.16 + 0.3 * strength)
    return _rgba(lut, position, _OPAQUE * strength**0.85)


def shown(scale: Scale, style: str, colours: str | None = None) -> tuple[Scale, Table]:
    """The scale and colours that a style draws, and that its colour bar shows.

    Styles that draw values above 0 only have a scale that begins at 0.
    """
    if style in POSITIVE_STYLES and scale.signed:
        scale = Scale(0.0, scale.high, False, scale.over)
    default = "jet" if style == "write-up" else scale.colours
    return scale, table(colours or default)


def blended(photo: Pixels, layer: Rgba) -> Pixels:
    """The photo with a layer laid over it."""
    alpha = layer[..., 3:].astype(np.float64) / 255
    return np.asarray(np.round(alpha * layer[..., :3] + (1 - alpha) * photo), np.uint8)


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
    photo = grey(view.photo) if style in _GREY_STYLES else view.photo
    return view.veiled(blended(photo, layer(laid, scale, style, colours)))


def _rgba(
    lut: Table,
    position: Float[np.ndarray, "height width"],
    alpha: Float[np.ndarray, "height width"],
) -> Rgba:
    index = np.round(np.nan_to_num(position) * 255).astype(np.uint8)
    opacity = np.round(np.nan_to_num(alpha) * 255).astype(np.uint8)
    return np.concatenate([lut[index], opacity[..., None]], axis=-1)


def _contours(
    laid: Float[np.ndarray, "height width"], scale: Scale, lut: Table
) -> Rgba:
    """Lines of equal value with a dark halo.

    The distance to a line is |value − level| / |gradient|, in pixels.
    """
    rgba = np.zeros((*laid.shape, 4), np.uint8)
    if scale.is_blank or min(laid.shape) < 2:
        return rgba

    width = max(2.0, max(laid.shape) / 240)
    slope = np.hypot(*np.gradient(laid))
    flat = ~(slope > 1e-9 * scale.high)
    divisor = np.where(flat, 1, slope)

    for level in _levels(scale):
        distance = np.where(flat, np.inf, np.abs(laid - level) / divisor)
        line = np.clip(width / 2 + 0.5 - distance, 0, 1)
        halo = 0.6 * np.clip(width / 2 + 1.7 - distance, 0, 1)
        alpha = np.maximum(line, halo)

        colour = _colour_of_level(level, scale, lut)
        mixed = line[..., None] * colour + (1 - line[..., None]) * 20

        stronger = alpha > rgba[..., 3] / 255
        rgba[stronger, :3] = np.round(mixed[stronger])
        rgba[stronger, 3] = np.round(255 * alpha[stronger])
    return rgba


def _levels(scale: Scale) -> list[float]:
    signs = (1, -1) if scale.signed else (1,)
    return [sign * part * scale.high for sign in signs for part in _LEVELS]


def _colour_of_level(level: float, scale: Scale, lut: Table) -> UInt8[np.ndarray, 3]:
    # The two sides of a signed scale have one colour each.
    signed_position = 0.5 + np.sign(level) * 0.27
    position = signed_position if scale.signed else level / scale.high
    colour: np.ndarray = lut[round(255 * position)]
    return colour
