"""Stacks: the parts of a logit end to end, the positive ones right of 0, others left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# They differ for all kinds of colour vision, and none is a colour of the maps' scale but
# that of the patches, which the maps are made of.
_COLOURS = {
    "patches": "#e2761f",
    "class token": "#2f7ab5",
    "other tokens": "#79b8dd",
    "MLPs": "#2c8f6d",
    "other layers": "#a3b541",
    "embedding": "#b08968",
    "bias": "#8d97a5",
}
_FURTHER = ("#e2761f", "#2f7ab5", "#2c8f6d", "#a3b541", "#b08968")

MEANINGS = {
    "patches": "what attention took from the patches: the maps",
    "class token": "what attention took from the token that is read itself",
    "other tokens": "what attention took from further tokens",
    "MLPs": "what the MLPs of all blocks wrote",
    "other layers": "what other layers wrote",
    "embedding": "what the token was before the first block",
    "bias": "biases of the layers",
}
"""What every part of a residual stream is, in words."""


class Segment(NamedTuple):
    """One part of a stack: its name, value and colour, and where it begins and ends."""

    name: str
    value: float
    colour: str
    begin: float
    end: float


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for every part."""
    return {
        name: _COLOURS.get(name, _FURTHER[place % len(_FURTHER)])
        for place, name in enumerate(names)
    }


def stack(parts: Mapping[str, float]) -> list[Segment]:
    """The parts of one logit, end to end from 0."""
    colours = colours_of(list(parts))
    ends = {True: 0.0, False: 0.0}
    segments = []
    for name, value in parts.items():
        begin = ends[value >= 0]
        end = ends[value >= 0] = begin + value
        segments.append(Segment(name, value, colours[name], begin, end))
    return segments


def reach(several: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """How far the stacks of several logits reach left and right of 0."""
    ends = [0.0]
    for parts in several:
        ends += [segment.end for segment in stack(parts)]
    return min(ends), max(ends)
