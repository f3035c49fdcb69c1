"""Diagram: the network as the volumes that pass through it, from photo to classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from unitscope.attribution.exact_heads import ExactHead
from unitscope.network_facts import NetworkFacts
from unitscope.plurals import plural
from unitscope.render.words import clean, shape
from unitscope.residual.head import ResidualHead
from unitscope.tracing.stages import Stage

KEY = (
    "Each block is a feature map, units × rows × columns. Its width grows with the "
    "square root of the units, its height and depth with that of the rows and columns. "
    "The name below is the first layer of the stage."
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
_STEP = _ROW + _TEXTS + _GAP
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
        right = self.left + self.width
        top = self.bottom - self.height
        top_left = (self.left, top)
        top_right = (right, top)
        bottom_left = (self.left, self.bottom)
        bottom_right = (right, self.bottom)

        behind_left = self._behind(top_left)
        behind_right = self._behind(top_right)
        behind_bottom = self._behind(bottom_right)
        return [
            ("top", [top_left, behind_left, behind_right, top_right]),
            ("side", [top_right, behind_right, behind_bottom, bottom_right]),
            ("front", [top_left, top_right, bottom_right, bottom_left]),
        ]

    def _behind(self, corner: Point) -> Point:
        """The corner at the back that belongs to one at the front."""
        x, y = corner
        return x + self.depth, y - self.depth

    def texts(self) -> list[tuple[Point, str]]:
        """The lines below, each with the middle of its foot."""
        across = self.width + self.depth
        middle = self.left + across / 2
        first = self.bottom + 19

        texts = []
        for row, line in enumerate(self.lines):
            foot = (middle, first + 16 * row)
            texts.append((foot, line))
        return texts


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
    parameters = f"{_amount(network.parameters)} parameters"
    count = sum(stage.convolutions for stage in network.stages)
    convolutions = plural(count, "convolution")
    classes = plural(network.classes, "class")
    return f"{parameters}, {convolutions}, {classes}"


def _amount(count: int) -> str:
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} million"
    text = f"{count:,}"
    return text.replace(",", " ")


# ---- layout


def plan(network: NetworkFacts, across: int = _PER_ROW) -> Plan:
    """Lay the network out, at most `across` volumes in a row.

    The volumes are the input, one for every stage, the pool, and the classes.
    """
    volumes = list(_volumes(network))
    rows = [
        volumes[start : start + across]
        for start in range(0, len(volumes), across)
    ]
    units = [volume.units for volume in volumes if volume.kind == "map"]
    most_units = max(units, default=1)
    most_cells = max(max(volume.rows, volume.cols) for volume in volumes)

    parts: list[Part] = []
    arrows: list[tuple[Point, Point]] = []
    for number, row in enumerate(rows):
        bottom = number * _STEP + _ROW
        row_parts = []
        for column, volume in enumerate(row):
            sides = _sides(volume, most_units, most_cells)
            row_parts.append(_part(volume, column, bottom, sides))
        parts += row_parts
        is_last = number == len(rows) - 1
        arrows += _arrows(row_parts, goes_on=not is_last)

    longest = max(map(len, rows))
    room_for_arrow = 16 if len(rows) > 1 else 0
    titles = [volume.title for volume in volumes]
    return Plan(
        parts=tuple(parts),
        arrows=tuple(arrows),
        width=COLUMN * longest + room_for_arrow,
        height=len(rows) * _STEP - _GAP,
        description=" → ".join(titles),
    )


def _part(
    volume: _Volume,
    column: int,
    bottom: float,
    sides: tuple[float, float, float],
) -> Part:
    width, height, depth = sides
    space = COLUMN - width - depth
    return Part(
        kind=volume.kind,
        stage=volume.stage,
        left=column * COLUMN + space / 2,
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
        most = max(most_units, volume.units)
        share = math.sqrt(volume.units / most)
        height = _TALLEST * min(1.0, max(0.25, share))
        return 9.0, height, 4.0

    units = min(1.0, volume.units / most_units)
    rows = volume.rows / most_cells
    cols = volume.cols / most_cells
    width = _WIDEST * math.sqrt(units)
    height = _TALLEST * math.sqrt(rows)
    depth = _DEPTH * _TALLEST * math.sqrt(cols)
    return max(4.0, width), max(5.0, height), max(4.0, depth)


def _arrows(row: Sequence[Part], *, goes_on: bool) -> list[tuple[Point, Point]]:
    """The arrows between the parts of a row, and behind the last if it `goes_on`."""
    y = row[0].bottom - 14
    spans = []
    for before, after in itertools.pairwise(row):
        spans.append((before.right + 7, after.left - 7))
    if goes_on:
        end = row[-1].right
        spans.append((end + 7, end + 27))
    return [((begin, y), (end, y)) for begin, end in spans]


# ---- volumes


def _volumes(network: NetworkFacts) -> Iterator[_Volume]:
    yield _input_volume(network)

    stages = drawn_stages(network)
    pooled = False
    for place, stage in enumerate(stages):
        if len(stage.shape) != 3:
            continue
        units, rows, cols = stage.shape
        if rows * cols > 1:
            yield _stage_volume(place, stage)
        elif not pooled:
            pooled = True
            yield _pool_volume(place, units, network)

    head = network.head
    if not pooled and isinstance(head, ExactHead):
        yield _pool_volume(None, head.pooled_channels, network)
    if isinstance(head, ResidualHead):
        yield _token_volume(stages, head)

    last = len(stages) - 1 if stages else None
    yield _classes_volume(last, network)


def _input_volume(network: NetworkFacts) -> _Volume:
    channels, rows, cols = network.input_shape
    sides = shape(network.input_shape)
    return _Volume(
        kind="input",
        stage=None,
        units=channels,
        rows=rows,
        cols=cols,
        lines=(sides, "input"),
        title=f"input {sides}",
    )


def _stage_volume(place: int, stage: Stage) -> _Volume:
    units, rows, cols = stage.shape
    sides = shape(stage.shape)
    convolutions = "no convolution"
    if stage.convolutions:
        convolutions = plural(stage.convolutions, "convolution")

    first = clean(stage.first)
    last = clean(stage.last)
    name = first
    if len(first) > _LONGEST_NAME:
        ending = first[1 - _LONGEST_NAME :]
        name = f"…{ending}"
    return _Volume(
        kind="map",
        stage=place,
        units=units,
        rows=rows,
        cols=cols,
        lines=(sides, convolutions, name),
        title=f"{sides} ({convolutions}, {first} to {last})",
    )


def _pool_volume(
    place: int | None, units: int, network: NetworkFacts
) -> _Volume:
    name, noun = "pooled", ""
    if isinstance(network.head, ExactHead):
        name, noun = "global average", "pool"
    return _Volume(
        kind="pool",
        stage=place,
        units=units,
        rows=1,
        cols=1,
        lines=(str(units), name, noun),
        title=f"{name} pool to {units} numbers",
    )


def _token_volume(stages: Sequence[Stage], head: ResidualHead) -> _Volume:
    """What is read of the residual stream, behind all of its blocks."""
    maps = [stage.shape for stage in stages if len(stage.shape) == 3]
    blocks = plural(len(head.blocks), "block")
    heads = plural(len(head.unit_names), "head")
    tokens = plural(head.tokens, "token")
    return _Volume(
        kind="pool",
        stage=None,
        units=maps[-1][0] if maps else 1,
        rows=1,
        cols=1,
        lines=(tokens, f"read after {blocks}", f"with {heads}"),
        title=f"{tokens} read after {blocks} with {heads}",
    )


def _classes_volume(place: int | None, network: NetworkFacts) -> _Volume:
    head = network.head
    is_linear = head is not None and head.has_linear_layer
    ending = "linear layer" if is_linear else "logits"
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
    for original in network.stages:
        stage = replace(original, shape=_units_first(original))
        if merged and _are_alike(merged[-1], stage):
            stage = _merged(merged.pop(), stage)
        merged.append(stage)
    return merged


def _are_alike(before: Stage, after: Stage) -> bool:
    """Whether two stages have maps of the same rows and columns."""
    return len(after.shape) == 3 and before.shape[1:] == after.shape[1:]


def _units_first(stage: Stage) -> tuple[int, ...]:
    """The shape with the units first; transformers of the Swin kind keep them last."""
    kinds = set(stage.kinds)
    if len(stage.shape) != 3 or kinds.isdisjoint(_UNITS_LAST):
        return stage.shape
    rows, cols, units = stage.shape
    if rows == cols != units:
        return units, rows, cols
    return stage.shape


def _merged(before: Stage, after: Stage) -> Stage:
    kinds = dict.fromkeys((*before.kinds, *after.kinds))
    return Stage(
        first=before.first,
        last=after.last,
        shape=after.shape,
        convolutions=before.convolutions + after.convolutions,
        kinds=tuple(kinds),
    )
