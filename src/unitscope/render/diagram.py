"""Diagram: the network drawn as the volumes that pass through it, from the photo to the classes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup, escape

from unitscope.attribution.head import Head
from unitscope.network_facts import NetworkFacts
from unitscope.render.sheets import Sheet
from unitscope.render.words import clean, plural, shape
from unitscope.tracing.layers import Stage

KEY = (
    "Blocks are feature maps, units × rows × columns: as wide as their units, high and "
    "deep as their rows and columns "
    "(to the square root); beneath, the first layer of each stage."
)

_COLUMN = 118
_PER_ROW = 8
_TALLEST = 104.0
_WIDEST = 62.0
_DEPTH = 0.34
_TEXTS = 62
_GAP = 18
_FONTS = "system-ui, -apple-system, Segoe UI, Helvetica Neue, Arial, sans-serif"

Kind = Literal["input", "map", "pool", "classes"]
Point = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """One volume of the diagram: its front face, how far it reaches back, and what is written beneath.

    `stage` is the place of its stage among `drawn_stages`, None for what is of no
    stage.
    """

    kind: Kind
    stage: int | None
    left: float
    bottom: float
    width: float
    height: float
    depth: float
    lines: tuple[str, ...]
    title: str

    def faces(self) -> list[tuple[str, list[Point]]]:
        """The top, side and front faces as polygons, back to front."""
        left, right, bottom, top = (
            self.left,
            self.left + self.width,
            self.bottom,
            self.bottom - self.height,
        )
        back = self.depth
        return [
            (
                "top",
                [
                    (left, top),
                    (left + back, top - back),
                    (right + back, top - back),
                    (right, top),
                ],
            ),
            (
                "side",
                [
                    (right, top),
                    (right + back, top - back),
                    (right + back, bottom - back),
                    (right, bottom),
                ],
            ),
            ("front", [(left, top), (right, top), (right, bottom), (left, bottom)]),
        ]

    def texts(self) -> list[tuple[Point, str]]:
        """The lines beneath, each with the middle of its foot."""
        middle = self.left + (self.width + self.depth) / 2
        return [
            ((middle, self.bottom + 19 + 16 * row), line)
            for row, line in enumerate(self.lines)
        ]


@dataclass(frozen=True)
class Plan:
    """Where everything lies in the diagram, in pixels: parts, arrows between them, and the whole's size."""

    parts: tuple[Part, ...]
    arrows: tuple[tuple[Point, Point], ...]
    width: float
    height: float
    description: str


@dataclass
class _Volume:
    kind: Kind
    stage: int | None
    units: int
    rows: int
    cols: int
    lines: tuple[str, ...]
    title: str = field(default="")


def summary(network: NetworkFacts) -> str:
    """One line: parameters, convolutions, classes."""
    convolutions = sum(stage.convolutions for stage in network.stages)
    counts = plural(convolutions, "convolution"), plural(network.classes, "class")
    return f"{_amount(network.parameters)} parameters, {', '.join(counts)}"


def plan(network: NetworkFacts, across: int = _PER_ROW) -> Plan:
    """Lay the network out: input, a volume for every stage, the pool, the classes; rows of at most `across`."""
    volumes = _volumes(network)
    rows = [volumes[start : start + across] for start in range(0, len(volumes), across)]
    most_units = max((v.units for v in volumes if v.kind == "map"), default=1)
    most_cells = max(max(v.rows, v.cols) for v in volumes)
    tall = _TALLEST * (1 + _DEPTH) + 8
    parts, arrows = [], []
    for number, row in enumerate(rows):
        bottom = number * (tall + _TEXTS + _GAP) + tall
        middles = []
        for column, volume in enumerate(row):
            width, height, depth = _sides(volume, most_units, most_cells)
            left = column * _COLUMN + (_COLUMN - width - depth) / 2
            place = (left, bottom, width, height, depth)
            parts.append(
                Part(volume.kind, volume.stage, *place, volume.lines, volume.title)
            )
            middles.append((left, left + width + depth))
        height_of_arrows = bottom - 14
        for (_, end), (begin, _) in itertools.pairwise(middles):
            arrows.append(((end + 7, height_of_arrows), (begin - 7, height_of_arrows)))
        if number + 1 < len(rows):
            arrows.append(
                (
                    (middles[-1][1] + 7, height_of_arrows),
                    (middles[-1][1] + 27, height_of_arrows),
                )
            )
    description = " → ".join(volume.title for volume in volumes)
    size = (
        _COLUMN * max(map(len, rows)) + (16 if len(rows) > 1 else 0),
        len(rows) * (tall + _TEXTS + _GAP) - _GAP,
    )
    return Plan(tuple(parts), tuple(arrows), size[0], size[1], description)


def svg(
    network: NetworkFacts, *, alone: bool = False, prefix: str = "network"
) -> Markup:
    """The diagram as SVG: `alone` a file with its own colours, otherwise a part of a page, in the page's colours.

    `prefix` begins the ids of its title and description.
    """
    layout = plan(network)
    title = f"The network, {clean(network.architecture)}: {summary(network)}"
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    name, width, height = escape(prefix), round(layout.width), round(layout.height)
    lines = [
        f'<svg{namespace} class="network" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc" font-family="{_FONTS}" font-size="12">',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-desc">{escape(layout.description)}</desc>',
    ]
    if alone:
        lines.append(
            "<style>svg{color:#1c1f24;--accent:#b4480f}"
            "@media(prefers-color-scheme:dark){svg{color:#e8e6e1;--accent:#f0925a;background:#16181c}}</style>"
        )
    lines += [_arrow(begin, end) for begin, end in layout.arrows]
    lines += [_part(part) for part in layout.parts]
    return Markup("\n".join([*lines, "</svg>"]))


def draw_on_sheet(
    layout: Plan, sheet: Sheet, x: float, y: float, factor: float
) -> None:
    """The same diagram on a matplotlib sheet, `factor` inches a pixel, its top left corner at (x, y)."""
    shades = {"top": "#f5dccd", "side": "#dba587", "front": "#e9bfa5"}
    plain = {"top": "#eef0f3", "side": "#c3cad3", "front": "#dce0e6"}

    def at(point: Point) -> Point:
        return x + point[0] * factor, y + point[1] * factor

    for begin, end in layout.arrows:
        sheet.rule(*at(begin), *at(end), colour="#626a75", line=0.9)
        tip = at(end)
        sheet.polygon(
            [tip, (tip[0] - 0.06, tip[1] - 0.035), (tip[0] - 0.06, tip[1] + 0.035)],
            fill="#626a75",
            edge="none",
        )
    for part in layout.parts:
        for face, points in part.faces():
            sheet.polygon(
                [at(point) for point in points],
                fill=(plain if part.kind in ("input", "pool") else shades)[face],
            )
        for row, (place, line) in enumerate(part.texts()):
            size = 12 if row == 0 else 11
            sheet.text(
                *at(place),
                line,
                size=size * factor * 72,
                bold=row == 0,
                align="center",
                room=(_COLUMN - 6) * factor,
            )


def _volumes(network: NetworkFacts) -> list[_Volume]:
    channels, rows, cols = network.input_shape
    volumes = [
        _Volume(
            "input",
            None,
            channels,
            rows,
            cols,
            (shape((channels, rows, cols)), "input"),
            f"input {shape((channels, rows, cols))}",
        )
    ]
    pooled = False
    stages = drawn_stages(network)
    for place, stage in enumerate(stages):
        if len(stage.shape) == 3 and stage.shape[1] * stage.shape[2] > 1:
            volumes.append(_stage_volume(place, stage))
        elif len(stage.shape) == 3 and not pooled:
            pooled = True
            volumes.append(_pool_volume(place, stage.shape[0], network))
    head = network.head
    if not pooled and isinstance(head, Head):
        volumes.append(
            _pool_volume(
                None, head.weight.shape[0 if head.kind == "conv-gap" else 1], network
            )
        )
    ending = (
        "linear layer"
        if head is not None and head.kind in ("gap-linear", "gap-norm-linear")
        else "logits"
    )
    classes = plural(network.classes, "class")
    last = len(stages) - 1 if stages else None
    volumes.append(
        _Volume(
            "classes",
            last,
            network.classes,
            1,
            1,
            (classes, ending),
            f"{ending}, {classes}",
        )
    )
    return volumes


def _pool_volume(place: int | None, units: int, network: NetworkFacts) -> _Volume:
    exact = isinstance(network.head, Head)
    what = "global average" if exact else "pooled"
    return _Volume(
        "pool",
        place,
        units,
        1,
        1,
        (f"{units}", what, "pool" if exact else ""),
        f"{what} pool to {units} numbers",
    )


def _stage_volume(place: int, stage: Stage) -> _Volume:
    units, rows, cols = stage.shape
    convolutions = (
        plural(stage.convolutions, "convolution")
        if stage.convolutions
        else "no convolution"
    )
    names = clean(stage.first)
    names = names if len(names) <= 18 else f"…{names[-17:]}"
    title = f"{shape(stage.shape)} ({convolutions}, {clean(stage.first)} to {clean(stage.last)})"
    return _Volume(
        "map",
        place,
        units,
        rows,
        cols,
        (shape((units, rows, cols)), convolutions, names),
        title,
    )


def drawn_stages(network: NetworkFacts) -> list[Stage]:
    """Stages with (unit, row, col) shapes, neighbours of the same rows and columns drawn as one."""
    merged: list[Stage] = []
    for stage in network.stages:
        sides = stage.shape
        # Transformers of the Swin kind keep their units last.
        if (
            len(sides) == 3
            and sides[0] == sides[1] != sides[2]
            and {"LayerNorm", "Linear", "Permute"} & set(stage.kinds)
        ):
            sides = (sides[2], sides[0], sides[1])
        if merged and len(sides) == 3 and merged[-1].shape[1:] == sides[1:]:
            last = merged.pop()
            kinds = tuple(dict.fromkeys((*last.kinds, *stage.kinds)))
            merged.append(
                Stage(
                    last.first,
                    stage.last,
                    sides,
                    last.convolutions + stage.convolutions,
                    kinds,
                )
            )
        else:
            merged.append(
                Stage(stage.first, stage.last, sides, stage.convolutions, stage.kinds)
            )
    return merged


def _sides(
    volume: _Volume, most_units: int, most_cells: int
) -> tuple[float, float, float]:
    """Width, height and depth in pixels."""
    if volume.kind in ("pool", "classes"):
        return (
            9.0,
            _TALLEST
            * min(
                1.0, max(0.25, math.sqrt(volume.units / max(most_units, volume.units)))
            ),
            4.0,
        )
    width = max(4.0, _WIDEST * math.sqrt(min(1.0, volume.units / most_units)))
    height = max(5.0, _TALLEST * math.sqrt(volume.rows / most_cells))
    return (
        width,
        height,
        max(4.0, _DEPTH * _TALLEST * math.sqrt(volume.cols / most_cells)),
    )


def _arrow(begin: Point, end: Point) -> str:
    (x1, y), (x2, _) = begin, end
    return (
        f'<path d="M{x1:.1f} {y:.1f}H{x2 - 4:.1f}" stroke="currentColor" stroke-opacity=".55" fill="none"/>'
        f'<path d="M{x2:.1f} {y:.1f}l-6 -3.5v7z" fill="currentColor" fill-opacity=".55"/>'
    )


def _part(part: Part) -> str:
    colour = (
        "currentColor" if part.kind in ("input", "pool") else "var(--accent, #b4480f)"
    )
    opacity = {"top": 0.14, "side": 0.5, "front": 0.3}
    if colour == "currentColor":
        opacity = {"top": 0.05, "side": 0.22, "front": 0.12}
    faces = "".join(
        f'<path d="M{" ".join(f"{x:.1f} {y:.1f}" for x, y in points)}z" fill="{colour}" fill-opacity="{opacity[face]}" '
        'stroke="currentColor" stroke-width=".8" stroke-linejoin="round"/>'
        for face, points in part.faces()
    )
    texts = "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="currentColor"'
        + (' font-weight="600">' if row == 0 else ' font-size="11" fill-opacity=".75">')
        + f"{escape(line)}</text>"
        for row, ((x, y), line) in enumerate(part.texts())
        if line
    )
    return f"<g><title>{escape(part.title)}</title>{faces}{texts}</g>"


def _amount(count: int) -> str:
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} million"
    return f"{count:,}".replace(",", " ")
