"""Inner tables: screenings and inputs of units as tables, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unitscope.attribution.screening import Screening
from unitscope.attribution.unit_inputs import UnitInputs
from unitscope.render.figures.layers import (
    words_of_correlation,
    words_of_scale,
)
from unitscope.render.figures.unit_inputs import (
    inputs_title,
    inputs_words,
    summand_name,
)
from unitscope.render.words import clean, number, percent

_MOST_UNITS = 12


class Table(NamedTuple):
    """A table with its heading, and what its numbers are in words."""

    heading: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def layers_table(
    screening: Screening, photo: int, shown: Sequence[str]
) -> Table:
    """What the units of the layers shown carry on one photo, by their estimates."""
    strengths = [
        row for row in screening.strengths(photo) if row.layer in shown
    ]
    rows = [
        [
            clean(row.layer),
            number(row.largest, 3),
            str(row.unit),
            number(row.total, 3),
            percent(row.share),
        ]
        for row in strengths
    ]

    text = words_of_scale(screening, photo, len(rows))
    if screening.verified:
        verified = screening.verified[photo]
        text = f"{text} {words_of_correlation(verified, screening.scores)}"
    name = clean(screening.subjects[photo].name)
    label = clean(screening.label(photo))
    return Table(
        f"Which layers carry {label}: {name}",
        text,
        ("layer", "largest", "unit", "sum", "units that give 90 %"),
        rows,
    )


def inputs_table(inputs: UnitInputs) -> Table:
    """What the earlier units that give most give to a unit, and the sum."""
    top = inputs.top(_MOST_UNITS)
    rows = [
        [summand_name(each), number(each.contribution, 3, sign=True)]
        for each in top
    ]

    others = len(inputs.summands) - len(top)
    if others:
        given = sum(each.contribution for each in top)
        total = sum(source.total for source in inputs.sources)
        rest = number(total - given, 3, sign=True)
        rows.append([f"{others} others", rest])
    rows.append(["bias", number(inputs.bias, 3, sign=True)])
    rows.append(["pre-activation", number(inputs.value, 3)])
    return Table(
        inputs_title(inputs),
        inputs_words(inputs),
        ("earlier unit", "contribution"),
        rows,
    )
