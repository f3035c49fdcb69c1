"""Contributions: what the units add to the logit of a class."""

from __future__ import annotations

from matplotlib.figure import Figure

from unitscope.accounts.parts import parts_of
from unitscope.attribution.explanation import Explanation
from unitscope.plurals import plural
from unitscope.render.figures.bars import Bar, bar_block
from unitscope.render.figures.blocks import (
    Block,
    heading,
    note,
    page,
)
from unitscope.render.figures.panels import photos_shown
from unitscope.render.words import mean_of, number
from unitscope.residual.account import THROUGH_HEADS

_EXACT = (
    "Contribution in {numbers} = weight × {mean}; all contributions + the bias = the "
    "{number}."
)
_RESIDUAL = (
    "Contribution of a head in {numbers} = what it gives through all tokens, with the divisors "
    "of normalisations held; all heads + all other parts of the residual stream = the {number}."
)
_LOCAL = (
    "Contribution in {numbers} = gradient × activation, summed over the cells. This is a "
    "local answer, which leaves out the rest of the {number}."
)


def contributions_figure(
    explanation: Explanation,
    *,
    which: int | str | None = None,
    image: int = 0,
    count: int = 10,
) -> Figure:
    """What the `count` strongest units, all others and the bias add to a class's logit.

    `which` is the class, the photo's first one when None.
    """
    (photo,) = photos_shown(len(explanation), image)
    if which is None:
        (first,) = explanation.top(1)[photo]
        index = first.index
    else:
        index = explanation.class_index(which)
    return page(contribution_blocks(explanation, index, photo, count))


def contribution_blocks(
    explanation: Explanation, index: int, photo: int, count: int
) -> list[Block]:
    """The contributions to one class on one photo."""
    bars = _bars(explanation, index, photo, count)
    words, scores = _EXACT if explanation.exact else _LOCAL, explanation.scores
    if explanation.head.maps_are_a_part:
        words = _RESIDUAL
    count_of_units = explanation.feature_map.shape[1]
    mean = mean_of(explanation.head.maps_hold(range(count_of_units)))
    label = explanation.labels[index]
    name = explanation.subjects[photo].name
    return [
        heading(
            f"What the {explanation.head.unit_noun}s add to {label}: {name}"
        ),
        bar_block(bars, names=1.8, values=0.9, step=0.34),
        note(
            words.format(
                number=scores.number, numbers=scores.numbers, mean=mean
            )
        ),
    ]


def _bars(
    explanation: Explanation, index: int, photo: int, count: int
) -> list[Bar]:
    units = explanation.top_units(index, count, photo)
    logit = float(explanation.logits[photo, index])
    left_out_of_class = explanation[photo].left_out_of(index)
    left_out = float(left_out_of_class[0, 0])
    together = sum(unit.contribution for unit in units)
    count_of_units = explanation.feature_map.shape[1]
    others = count_of_units - len(units)

    bars = []
    for unit in units:
        title = explanation.head.unit_title(unit.unit)
        bars.append(_signed_bar(title, unit.contribution))
    if explanation.head.maps_are_a_part:
        bars += _other_parts(explanation[photo], index, together, others)
        return [*bars, _sum_bar(explanation.scores.number, logit)]
    if others:
        rest = logit - left_out - together
        bars.append(_signed_bar(plural(others, "other unit"), rest))
    name = "bias" if explanation.exact else "left out"
    bars.append(_signed_bar(name, left_out))
    return [*bars, _sum_bar(explanation.scores.number, logit)]


def _other_parts(
    explanation: Explanation, index: int, together: float, others: int
) -> list[Bar]:
    """All other heads of a residual stream, and the parts that no head gives."""
    given = float(explanation.contributions_of(index).sum())
    parts = parts_of(explanation, index)
    bars = []
    if others:
        name = plural(others, "other head")
        bars.append(_signed_bar(name, given - together))
    bars += [
        _signed_bar(name, part)
        for name, part in parts.items()
        if name not in THROUGH_HEADS
    ]
    return bars


def _sum_bar(name: str, logit: float) -> Bar:
    return Bar(name, logit, f"= {number(logit)}")


def _signed_bar(name: str, value: float) -> Bar:
    text = number(value, sign=True)
    return Bar(name, value, text)
