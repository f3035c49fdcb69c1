"""Markup: the template engine, and the small pictures that pages are made of."""

from __future__ import annotations

import base64
import functools
import io
import re

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image, features

from unitscope.plurals import plural
from unitscope.render import words
from unitscope.render.colours import Scale, Table


@functools.cache
def templates() -> Environment:
    """The templates; whatever is put into them is escaped."""
    environment = Environment(
        loader=PackageLoader("unitscope.render", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=words.number,
        signed=functools.partial(words.number, sign=True),
        power=words.power,
        percent=words.percent,
        clean=words.clean,
        shorten=words.shorten,
        shape=words.shape,
        listing=words.listing,
        difference=words.difference,
        capitalised=words.capitalised,
        breakable=breakable,
    )
    environment.globals.update(plural=plural, source=source)
    return environment


def source(name: str) -> Markup:
    """A style sheet or script of this package, to be put into a page unchanged."""
    loader = templates().loader
    assert loader is not None
    return Markup(loader.get_source(templates(), name)[0])


def breakable(text: str) -> Markup:
    """A label, or a layer, that may be broken after a slash, an underscore or a dot."""
    return Markup(re.sub(r"([/_]|\.(?=\w))", r"\1<wbr>", str(escape(text))))


def data_uri(
    pixels: UInt8[np.ndarray, "height width channel"],
    *,
    quality: int = 80,
    lossless: bool = False,
) -> str:
    """A picture as a data: address.

    The format is PNG where `lossless`, else WebP. Where Pillow has no WebP it is PNG
    for a picture with opacity, JPEG for one without.
    """
    kind, options = _format(pixels.shape[2], quality, lossless)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    letters = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind};base64,{letters}"


def _format(
    channels: int, quality: int, lossless: bool
) -> tuple[str, dict[str, int]]:
    if lossless:
        return "png", {"optimize": True}
    if features.check("webp"):
        return "webp", {"quality": quality, "method": 2, "alpha_quality": 70}
    return ("png", {}) if channels == 4 else ("jpeg", {"quality": quality})


def colour_bar(
    scale: Scale, lut: Table, name: str, label: str, width: int = 420
) -> Markup:
    """A colour bar as inline SVG, with the values of its scale.

    `name` is the id of its gradient, `label` what a screen reader says.
    """
    gradient, inner = escape(name), width - 28
    stops = "".join(_stop(index, lut) for index in range(0, 256, 15))

    marks = ""
    for value in scale.ticks(6):
        share = inner * (value - scale.low) / (scale.high - scale.low)
        marks += _mark(14 + share, words.tick(value))

    return Markup(
        f'<svg class="colour-bar" viewBox="0 0 {width} 36" width="{width}" height="36"'
        f' role="img" aria-label="{escape(label)}" font-size="12">'
        f'<defs><linearGradient id="{gradient}">{stops}</linearGradient></defs>'
        f'<rect x="14" y="1" width="{inner}" height="13" fill="url(#{gradient})"'
        ' stroke="currentColor" stroke-opacity=".3" stroke-width=".7"/>'
        f"{marks}</svg>"
    )


def _stop(index: int, lut: Table) -> str:
    colour = "".join(f"{value:02x}" for value in lut[index])
    return f'<stop offset="{index / 255:.4f}" stop-color="#{colour}"/>'


def _mark(x: float, text: str) -> str:
    return (
        f'<path d="M{x:.1f} 14v4" stroke="currentColor" stroke-opacity=".6"/>'
        f'<text x="{x:.1f}" y="31" text-anchor="middle" fill="currentColor">'
        f"{text}</text>"
    )


def bar(value: float, low: float, high: float, kind: str = "") -> Markup:
    """A bar from 0 to a value, on a line from low to high as wide as its place."""
    low, high = min(low, 0.0), max(high, 0.0)
    span = (high - low) or 1.0
    begin, end = sorted((100 * -low / span, 100 * (value - low) / span))
    width = max(end - begin, 0.3)
    return Markup(
        f'<svg class="bar {escape(kind)}" viewBox="0 0 100 8"'
        ' preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="{begin:.2f}" y="0" width="{width:.2f}" height="8"/></svg>'
    )
