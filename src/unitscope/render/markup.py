"""Markup: the template engine, and the small pictures that pages are made of."""

from __future__ import annotations

import base64
import functools
import io
import re

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, features

from unitscope.render import words
from unitscope.render.colours import Scale
from unitscope.render.sheets import ticks


@functools.cache
def templates() -> Environment:
    """The templates; everything put into them is escaped, as labels and file names may hold anything."""
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
        difference=words.change,
        breakable=breakable,
    )
    environment.globals.update(plural=words.plural, source=source)
    return environment


def source(name: str) -> Markup:
    """A style sheet or script of this package, to be put into a page as it is."""
    loader = templates().loader
    assert loader is not None
    return Markup(loader.get_source(templates(), name)[0])


def breakable(text: str) -> Markup:
    """A label that may be broken after a slash or an underscore."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(Markup.escape(text))))


def data_uri(
    pixels: UInt8[np.ndarray, "height width channel"],
    *,
    quality: int = 80,
    lossless: bool = False,
) -> str:
    """A picture as a data: address: WebP, or PNG and JPEG where Pillow was built without it."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    options: dict[str, int]
    if lossless:
        kind, options = "png", {"optimize": True}
    elif features.check("webp"):
        kind, options = "webp", {"quality": quality, "method": 2, "alpha_quality": 70}
    else:
        kind, options = (
            ("png", {}) if pixels.shape[2] == 4 else ("jpeg", {"quality": quality})
        )
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def colour_bar(
    scale: Scale,
    lut: UInt8[np.ndarray, "256 3"],
    name: str,
    label: str,
    width: int = 420,
) -> Markup:
    """A colour bar as inline SVG with its real values; `name` is its gradient's id, `label` what is read out."""
    stops = "".join(
        f'<stop offset="{index / 255:.4f}" stop-color="#{"".join(f"{value:02x}" for value in lut[index])}"/>'
        for index in range(0, 256, 15)
    )
    marks = "".join(
        f'<path d="M{x:.1f} 14v4" stroke="currentColor" stroke-opacity=".6"/>'
        f'<text x="{x:.1f}" y="31" text-anchor="middle" fill="currentColor">{words.tick(value)}</text>'
        for value in ticks(scale, 6)
        for x in [14 + (width - 28) * (value - scale.low) / (scale.high - scale.low)]
    )
    return Markup(
        f'<svg class="colour-bar" viewBox="0 0 {width} 36" width="{width}" height="36" role="img" '
        f'aria-label="{Markup.escape(label)}" font-size="12"><defs><linearGradient id="{Markup.escape(name)}">{stops}'
        f'</linearGradient></defs><rect x="14" y="1" width="{width - 28}" height="13" '
        f'fill="url(#{Markup.escape(name)})" stroke="currentColor" stroke-opacity=".3" stroke-width=".7"/>{marks}</svg>'
    )


def bar(value: float, low: float, high: float, kind: str = "") -> Markup:
    """A bar from 0 to a value on a line from low to high, as wide as the place it is put into."""
    low, high = min(low, 0.0), max(high, 0.0)
    span = (high - low) or 1.0
    begin, end = sorted((100 * -low / span, 100 * (value - low) / span))
    return Markup(
        f'<svg class="bar {Markup.escape(kind)}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="{begin:.2f}" y="0" width="{max(end - begin, 0.3):.2f}" height="8"/></svg>'
    )
