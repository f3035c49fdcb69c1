"""Parts: what every part of a network's ending gives of the logits of some classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from unitscope.accounts.parts import parts_of
from unitscope.attribution.classes import class_indices
from unitscope.attribution.explanation import Explanation
from unitscope.render.figures.bars import NAMES, ValueAxis
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    Block,
    heading,
    note,
    page,
)
from unitscope.render.figures.panels import photos_shown
from unitscope.render.fonts import text_width
from unitscope.render.sheets import INK, SOFT, Sheet
from unitscope.render.stacks import MEANINGS, colours_of, reach, stack
from unitscope.render.words import capitalised, clean, number

# Inches: one class, the room for its logit, and one line of the key.
_STEP = 0.34
_VALUES = 0.75
_KEY = 0.24
_SIZE = 8


def parts_figure(
    explanation: Explanation,
    *,
    image: int | None = None,
    classes: int | str | Sequence[int | str] | None = None,
    top: int = 5,
) -> Figure:
    """What every part gives of the logits: the bars of a class add up to its logit.

    `image` is one photo of the batch (all when None). `classes` are labels or indices,
    each photo's `top` classes when None.
    """
    blocks = []
    for photo in photos_shown(len(explanation), image):
        if classes is None:
            shown = [entry.index for entry in explanation.top(top)[photo]]
        else:
            shown = class_indices(explanation.labels, classes)
        name = explanation.subjects[photo].name
        blocks.append(
            heading(f"What the {_numbers(explanation)} consist of: {name}")
        )
        blocks += part_blocks(explanation, photo, shown)
    return page(blocks)


def part_blocks(
    explanation: Explanation, photo: int, classes: Sequence[int]
) -> list[Block]:
    """The parts of some classes' logits on one photo, without a heading."""
    several = [parts_of(explanation[photo], index) for index in classes]
    labels = [explanation.labels[index] for index in classes]
    low, high = reach(several)

    def draw(sheet: Sheet, y: float) -> None:
        left = MARGIN + NAMES + 0.12
        room = INNER - NAMES - 0.12 - _VALUES
        axis = ValueAxis.between(low, high, left, room)
        for row, (label, parts) in enumerate(zip(labels, several, strict=True)):
            _draw_row(sheet, y + row * _STEP, label, parts, axis)
        bottom = y + _STEP * len(several) - 0.06
        sheet.rule(axis.zero, y - 0.02, axis.zero, bottom, colour=SOFT)

    names = list(several[0])
    lines = _key_lines(names, several[0])
    return [
        Block(_STEP * len(several) + 0.1, draw),
        _key(lines, colours_of(names)),
        note(
            f"The numbers are those of {clean(labels[0])}. {_words(explanation)}"
        ),
    ]


def _numbers(explanation: Explanation) -> str:
    return explanation.scores.numbers


def _words(explanation: Explanation) -> str:
    what = explanation.scores.number
    words = f"All parts of a class add up to its {what}, the dark line."
    if not explanation.adds_up:
        return words
    meanings = [
        f"{name}: {MEANINGS[name]}"
        for name in explanation.parts
        if name in MEANINGS and not explanation.exact
    ]
    return f"{words} {capitalised('; '.join(meanings))}." if meanings else words


def _draw_row(
    sheet: Sheet,
    y: float,
    label: str,
    parts: Mapping[str, float],
    axis: ValueAxis,
) -> None:
    sheet.text(
        MARGIN + NAMES,
        y + 0.17,
        label,
        size=9.5,
        align="right",
        room=NAMES,
    )
    for segment in stack(parts):
        left, right = sorted((axis.end(segment.begin), axis.end(segment.end)))
        sheet.box(left, y + 0.04, right - left, 0.19, fill=segment.colour)
    total = sum(parts.values())
    there = axis.end(total)
    sheet.rule(there, y, there, y + 0.27, colour=INK, line=1.4)
    sheet.text(
        MARGIN + INNER,
        y + 0.17,
        f"= {number(total)}",
        size=8.5,
        align="right",
        room=_VALUES,
    )


def _key_lines(
    names: Sequence[str], parts: Mapping[str, float]
) -> list[list[tuple[str, str]]]:
    """The names of all parts, with the first class's values, on as many lines as needed."""
    lines: list[list[tuple[str, str]]] = [[]]
    x = 0.0
    for name in names:
        text = f"{name} {number(parts[name], sign=True)}"
        width = 0.42 + text_width(text, _SIZE)
        if x + width > INNER and lines[-1]:
            lines.append([])
            x = 0.0
        lines[-1].append((name, text))
        x += width
    return lines


def _key(
    lines: Sequence[Sequence[tuple[str, str]]], colours: Mapping[str, str]
) -> Block:
    def draw(sheet: Sheet, y: float) -> None:
        for row, line in enumerate(lines):
            x = MARGIN
            for name, text in line:
                top = y + row * _KEY
                sheet.box(x, top + 0.03, 0.14, 0.11, fill=colours[name])
                sheet.text(x + 0.2, top + 0.135, text, size=_SIZE, colour=SOFT)
                x += 0.42 + text_width(text, _SIZE)

    return Block(_KEY * len(lines), draw)
