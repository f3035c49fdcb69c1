"""Diagram: the network as the volumes that pass through it, from photo to classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from unitscope.attribution.head import Head
from unitscope.network_facts import NetworkFacts
from unitscope.render.words import clean, plural, shape
from unitscope.tracing.layers import Stage

KEY = (
    "Blocks are feature maps, units × rows × columns: as wide as their units, high and "
    "deep as their rows and columns (to the square root); beneath, the first layer of "
    "each stage."
)

Kind = Literal["input", "map", "pool", "classes"]
Point: TypeAlias = tuple[float, float]

COLUMN = 118
"""The width of one volume with the space around it, in pixels."""

_PER_ROW = 8
_TALLEST = 104.0
_WIDEST = 62.0
_DEPTH = 0.34
_TEXTS = 62
_GAP = 18
_ROW = _TALLEST * (1 + _DEPTH) + 8
_LONGEST_NAME = 18  # characters

# Layers of networks that keep their units last.
_UNITS_LAST = {"LayerNorm", "Linear", "Permute"}


@dataclass(frozen=True)
class Part:
    """One volume of the diagram: its front face, its depth, and the lines below it.

    `stage` is the place of its stage among `drawn_stages`, None where it has none.
    Lengths are in pixels.
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

    @property
    def is_coloured(self) -> bool:
        """Whether it is drawn in colour: input and pool are grey."""
        return self.kind not in ("input", "pool")

    @property
    def right(self) -> float:
        """Where it ends, its depth included."""
        return self.left + self.width + self.depth

    def faces(self) -> list[tuple[str, list[Point]]]:
        """The top, side and front faces as polygons, back to front."""
        left, right = self.left, self.left + self.width
        bottom, top = self.bottom, self.bottom - self.height
        top_left, top_right = (left, top), (right, top)
        bottom_left, bottom_right = (left, bottom), (right, bottom)

        behind = self._behind
        return [
            ("top", [top_left, behind(top_left), behind(top_right), top_right]),
            (
                "side",
                [top_right, behind(top_right), behind(bottom_right), bottom_right],
            ),
            ("front", [top_left, top_right, bottom_right, bottom_left]),
        ]

    def _behind(self, corner: Point) -> Point:
        """The corner at the back that belongs to one at the front."""
        x, y = corner
        return x + self.depth, y - self.depth

    def texts(self) -> list[tuple[Point, str]]:
        """The lines below, each with the middle of its foot."""
        middle = self.left + (self.width + self.depth) / 2
        first = self.bottom + 19
        return [
            ((middle, first + 16 * row), line) for row, line in enumerate(self.lines)
        ]


@dataclass(frozen=True)
class Plan:
    """The parts of the diagram and the arrows between them, and its size, in pixels."""

    parts: tuple[Part, ...]
    arrows: tuple[tuple[Point, Point], ...]
    width: float
    height: float
    description: str


@dataclass(frozen=True)
class _Volume:
    """A volume of the network before it is laid out."""

    kind: Kind
    stage: int | None
    units: int
    rows: int
    cols: int
    lines: tuple[str, ...]
    title: str


def summary(network: NetworkFacts) -> str:
    """One line: parameters, convolutions, classes."""
    convolutions = sum(stage.convolutions for stage in network.stages)
    return (
        f"{_amount(network.parameters)} parameters, "
        f"{plural(convolutions, 'convolution')}, {plural(network.classes, 'class')}"
    )


def _amount(count: int) -> str:
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} million"
    return f"{count:,}".replace(",", " ")


# ---- layout


def plan(network: NetworkFacts, across: int = _PER_ROW) -> Plan:
    """Lay the network out, at most `across` volumes in a row.

    The volumes are the input, one for every stage, the pool, and the classes.
    """
    volumes = list(_volumes(network))
    rows = [volumes[start : start + across] for start in range(0, len(volumes), across)]
    most_units = max((each.units for each in volumes if each.kind == "map"), default=1)
    most_cells = max(max(each.rows, each.cols) for each in volumes)

    parts: list[Part] = []
    arrows: list[tuple[Point, Point]] = []
    for number, row in enumerate(rows):
        bottom = number * (_ROW + _TEXTS + _GAP) + _ROW
        row_parts = [
            _part(volume, column, bottom, _sides(volume, most_units, most_cells))
            for column, volume in enumerate(row)
        ]
        parts += row_parts
        arrows += _arrows(row_parts, goes_on=number + 1 < len(rows))

    return Plan(
        parts=tuple(parts),
        arrows=tuple(arrows),
        width=COLUMN * max(map(len, rows)) + (16 if len(rows) > 1 else 0),
        height=len(rows) * (_ROW + _TEXTS + _GAP) - _GAP,
        description=" → ".join(volume.title for volume in volumes),
    )


def _part(
    volume: _Volume, column: int, bottom: float, sides: tuple[float, float, float]
) -> Part:
    width, height, depth = sides
    return Part(
        kind=volume.kind,
        stage=volume.stage,
        left=column * COLUMN + (COLUMN - width - depth) / 2,
        bottom=bottom,
        width=width,
        height=height,
        depth=depth,
        lines=volume.lines,
        title=volume.title,
    )


def _sides(
    volume: _Volume, most_units: int, most_cells: int
) -> tuple[float, float, float]:
    """Width, height and depth in pixels."""
    if volume.kind in ("pool", "classes"):
        share = math.sqrt(volume.units / max(most_units, volume.units))
        return 9.0, _TALLEST * min(1.0, max(0.25, share)), 4.0

    width = _WIDEST * math.sqrt(min(1.0, volume.units / most_units))
    height = _TALLEST * math.sqrt(volume.rows / most_cells)
    depth = _DEPTH * _TALLEST * math.sqrt(volume.cols / most_cells)
    return max(4.0, width), max(5.0, height), max(4.0, depth)


def _arrows(row: Sequence[Part], *, goes_on: bool) -> list[tuple[Point, Point]]:
    """The arrows between the parts of a row, and one to the next row if it `goes_on`."""
    y = row[0].bottom - 14
    arrows: list[tuple[Point, Point]] = [
        ((before.right + 7, y), (after.left - 7, y))
        for before, after in itertools.pairwise(row)
    ]
    if goes_on:
        end = row[-1].right
        arrows.append(((end + 7, y), (end + 27, y)))
    return arrows


# ---- volumes


def _volumes(network: NetworkFacts) -> Iterator[_Volume]:
    yield _input_volume(network)

    stages = drawn_stages(network)
    pooled = False
    for place, stage in enumerate(stages):
        if len(stage.shape) != 3:
            continue
        if stage.shape[1] * stage.shape[2] > 1:
            yield _stage_volume(place, stage)
        elif not pooled:
            pooled = True
            yield _pool_volume(place, stage.shape[0], network)

    head = network.head
    if not pooled and isinstance(head, Head):
        classes, units = head.weight.shape
        yield _pool_volume(None, classes if head.kind == "conv-gap" else units, network)
    yield _classes_volume(len(stages) - 1 if stages else None, network)


def _input_volume(network: NetworkFacts) -> _Volume:
    sides = shape(network.input_shape)
    lines, title = (sides, "input"), f"input {sides}"
    return _Volume("input", None, *network.input_shape, lines, title)


def _stage_volume(place: int, stage: Stage) -> _Volume:
    units, rows, cols = stage.shape
    sides = shape(stage.shape)
    convolutions = "no convolution"
    if stage.convolutions:
        convolutions = plural(stage.convolutions, "convolution")

    first, last = clean(stage.first), clean(stage.last)
    name = first if len(first) <= _LONGEST_NAME else f"…{first[1 - _LONGEST_NAME :]}"
    title = f"{sides} ({convolutions}, {first} to {last})"
    return _Volume("map", place, units, rows, cols, (sides, convolutions, name), title)


def _pool_volume(place: int | None, units: int, network: NetworkFacts) -> _Volume:
    if isinstance(network.head, Head):
        name, lines = "global average", (f"{units}", "global average", "pool")
    else:
        name, lines = "pooled", (f"{units}", "pooled", "")
    title = f"{name} pool to {units} numbers"
    return _Volume("pool", place, units, 1, 1, lines, title)


def _classes_volume(place: int | None, network: NetworkFacts) -> _Volume:
    head = network.head
    linear = head is not None and head.kind in ("gap-linear", "gap-norm-linear")
    ending = "linear layer" if linear else "logits"
    count = plural(network.classes, "class")
    return _Volume(
        kind="classes",
        stage=place,
        units=network.classes,
        rows=1,
        cols=1,
        lines=(count, ending),
        title=f"{ending}, {count}",
    )


# ---- stages


def drawn_stages(network: NetworkFacts) -> list[Stage]:
    """Stages with shapes (unit, row, col).

    Neighbours with the same rows and columns are drawn as one stage.
    """
    merged: list[Stage] = []
    for stage in network.stages:
        stage = replace(stage, shape=_units_first(stage))
        alike = (
            merged and len(stage.shape) == 3 and merged[-1].shape[1:] == stage.shape[1:]
        )
        merged.append(_merged(merged.pop(), stage) if alike else stage)
    return merged


def _units_first(stage: Stage) -> tuple[int, ...]:
    """The shape with the units first; transformers of the Swin kind keep them last."""
    sides = stage.shape
    if len(sides) != 3 or not _UNITS_LAST & set(stage.kinds):
        return sides
    rows, cols, units = sides
    return (units, rows, cols) if rows == cols != units else sides


def _merged(before: Stage, after: Stage) -> Stage:
    return Stage(
        first=before.first,
        last=after.last,
        shape=after.shape,
        convolutions=before.convolutions + after.convolutions,
        kinds=tuple(dict.fromkeys((*before.kinds, *after.kinds))),
    )
