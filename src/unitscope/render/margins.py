"""Margins: how the lead of one class over another adds up, row by row."""

from __future__ import annotations

from typing import NamedTuple

from unitscope.attribution.contrast import Contrast, UnitContrast
from unitscope.plurals import plural
from unitscope.residual.account import THROUGH_HEADS


class MarginRow(NamedTuple):
    """One part of a margin: a name, its value in logits, and the unit where it is one."""

    name: str
    value: float
    unit: UnitContrast | None = None


def margin_rows(contrast: Contrast, image: int, count: int) -> list[MarginRow]:
    """The units for A, all other units, the units for B, and what they leave out.

    The rows add up to the margin. `count` units are named for each class.
    """
    top = contrast.top_units(count, image)
    head = contrast.explanation.head
    named = len(top.for_a) + len(top.for_b)
    for_a, for_b = (
        [
            MarginRow(head.unit_title(each.unit), each.contribution, each)
            for each in side
        ]
        for side in (top.for_a, reversed(top.for_b))
    )
    given = contrast.contributions[image]
    shown = sum(each.contribution for each in (*top.for_a, *top.for_b))
    others = len(given) - named
    rest = []
    if others:
        name = plural(others, f"other {head.unit_noun}")
        rest = [MarginRow(name, float(given.sum()) - shown)]
    return [*for_a, *rest, *for_b, *_left_out(contrast, image)]


def _left_out(contrast: Contrast, image: int) -> list[MarginRow]:
    """What the units leave out: of a residual stream by its parts."""
    head = contrast.explanation.head
    if head.maps_are_a_part:
        return [
            MarginRow(name, float(part[image]))
            for name, part in contrast.parts.items()
            if name not in THROUGH_HEADS
        ]
    name = "bias" if head.exact else "left out"
    return [MarginRow(name, float(contrast.left_out[image]))]


def lead(contrast: Contrast, image: int) -> str:
    """Who is ahead, in words: "coast is ahead of harbor"."""
    a, b = contrast.labels(image)
    margin = float(contrast.margin[image])
    if margin == 0:
        return f"{a} is level with {b}"
    return f"{a} is {'ahead of' if margin > 0 else 'behind'} {b}"


def adding_up(contrast: Contrast, layer: str) -> str:
    """What the rows of a margin are, and what they are not, in words."""
    head = contrast.explanation.head
    numbers = contrast.explanation.scores.numbers
    if head.exact:
        return (
            f"All rows add up to the difference of the two {numbers}, exactly."
        )
    if head.maps_are_a_part:
        return (
            f"All rows add up to the difference of the two {numbers}; the map shows what "
            "the patches gave of it."
        )
    return (
        f"A local answer: gradient × activation at {layer}. “Left out” is what it does not "
        f"account for in the difference of the two {numbers}."
    )
