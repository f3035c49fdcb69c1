"""The diagram of a network as SVG."""

from __future__ import annotations

from markupsafe import Markup, escape

from unitscope.network_facts import NetworkFacts
from unitscope.render.diagram import Part, Point, plan, summary
from unitscope.render.words import clean

_FONTS = "system-ui, -apple-system, Segoe UI, Helvetica Neue, Arial, sans-serif"

# The colours of a file of its own; in a page the page has them.
_STYLE = (
    "<style>svg{color:#1c1f24;--accent:#b4480f}"
    "@media(prefers-color-scheme:dark)"
    "{svg{color:#e8e6e1;--accent:#f0925a;background:#16181c}}</style>"
)

# The opacity of each face, of coloured and of grey parts.
_COLOURED = {"top": 0.14, "side": 0.5, "front": 0.3}
_GREY = {"top": 0.05, "side": 0.22, "front": 0.12}


def svg(
    network: NetworkFacts, *, alone: bool = False, prefix: str = "network"
) -> Markup:
    """The diagram as a part of a page, or `alone` as a file with colours of its own.

    `prefix` begins the ids of its title and description.
    """
    layout = plan(network)
    width = round(layout.width)
    height = round(layout.height)
    name = escape(prefix)
    title = f"The network, {clean(network.architecture)}: {summary(network)}"
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""

    lines = [
        f'<svg{namespace} class="network" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img"'
        f' aria-labelledby="{name}-title {name}-desc"'
        f' font-family="{_FONTS}" font-size="12">',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-desc">{escape(layout.description)}</desc>',
    ]
    if alone:
        lines.append(_STYLE)
    lines += [_arrow(begin, end) for begin, end in layout.arrows]
    lines += [_part(part) for part in layout.parts]
    return Markup("\n".join([*lines, "</svg>"]))


def _arrow(begin: Point, end: Point) -> str:
    (x1, y), (x2, _) = begin, end
    return (
        f'<path d="M{x1:.1f} {y:.1f}H{x2 - 4:.1f}" stroke="currentColor"'
        ' stroke-opacity=".55" fill="none"/>'
        f'<path d="M{x2:.1f} {y:.1f}l-6 -3.5v7z" fill="currentColor"'
        ' fill-opacity=".55"/>'
    )


def _part(part: Part) -> str:
    shapes = ""
    for face, corners in part.faces():
        shapes += _face(part, face, corners)
    for row, (foot, line) in enumerate(part.texts()):
        if line:
            shapes += _text(foot, line, is_first=row == 0)
    return f"<g><title>{escape(part.title)}</title>{shapes}</g>"


def _face(part: Part, face: str, corners: list[Point]) -> str:
    if part.is_coloured:
        colour, opacity = "var(--accent, #b4480f)", _COLOURED[face]
    else:
        colour, opacity = "currentColor", _GREY[face]
    path = " ".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    return (
        f'<path d="M{path}z" fill="{colour}" fill-opacity="{opacity}"'
        ' stroke="currentColor" stroke-width=".8" stroke-linejoin="round"/>'
    )


def _text(foot: Point, line: str, *, is_first: bool) -> str:
    x, y = foot
    look = (
        ' font-weight="600"'
        if is_first
        else ' font-size="11" fill-opacity=".75"'
    )
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="currentColor"{look}>'
        f"{escape(line)}</text>"
    )
