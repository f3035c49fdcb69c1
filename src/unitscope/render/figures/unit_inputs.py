"""Unit inputs: the earlier units that a unit's pre-activation is the sum of."""

from __future__ import annotations

from collections import Counter

from matplotlib.figure import Figure

from unitscope.attribution.unit_inputs import Summand, UnitInputs
from unitscope.plurals import plural
from unitscope.render.figures.bars import Bar, bar_block
from unitscope.render.figures.blocks import (
    heading,
    note,
    page,
)
from unitscope.render.figures.panels import grid
from unitscope.render.figures.units import unit_panels
from unitscope.render.words import clean, number


def unit_inputs_figure(inputs: UnitInputs, *, count: int = 10) -> Figure:
    """The `count` earlier units that give most, all others by source, the bias, the sum."""
    bars = _bars(inputs, count)
    blocks = [
        heading(inputs_title(inputs)),
        bar_block(bars, names=3.4, values=0.9, step=0.3),
        note(inputs_words(inputs)),
    ]
    if inputs.maps is not None:
        blocks += grid(unit_panels(inputs.maps, 0, None))
    return page(blocks)


def inputs_title(inputs: UnitInputs) -> str:
    """What is taken apart, and where."""
    where = "mean over its map"
    if inputs.cell is not None:
        where = "cell ({}, {})".format(*inputs.cell)
    layer, name = clean(inputs.layer), clean(inputs.subject.name)
    return f"What unit {inputs.unit} of {layer} is made of: {name}, {where}"


def inputs_words(inputs: UnitInputs) -> str:
    """What the numbers are, and what comes after the sum."""
    after = ""
    if inputs.functions:
        functions = ", then ".join(inputs.functions)
        after = f" Then {functions} gives {number(inputs.output, 3)}."
    ends = "; ".join(
        f"{clean(source.name)}: {source.reason}" for source in inputs.sources
    )
    return (
        "Contributions of earlier units, each summed over its cells, in the units of the "
        "layer. They and the bias add up to the pre-activation; batch normalisations and "
        f"constant factors are folded into the weights.{after} Where the sum ends: {ends}."
    )


def summand_name(summand: Summand) -> str:
    """An earlier unit, with the layer that it comes from."""
    name = f"unit {summand.unit} of {clean(summand.source)}"
    if summand.origin is None:
        return name
    layer, unit = summand.origin
    return f"{name} ({clean(layer)}, {unit})"


def _bars(inputs: UnitInputs, count: int) -> list[Bar]:
    top = inputs.top(count)
    bars = [_bar(summand_name(each), each.contribution) for each in top]
    shown = Counter(each.source for each in top)
    for source in inputs.sources:
        others = len(source.units) - shown[source.name]
        if others:
            given = sum(
                each.contribution for each in top if each.source == source.name
            )
            name = f"{plural(others, 'other unit')} of {clean(source.name)}"
            bars.append(_bar(name, source.total - given))
    bars.append(_bar("bias", inputs.bias))
    total = f"= {number(inputs.value, 3)}"
    return [*bars, Bar("pre-activation", inputs.value, total)]


def _bar(name: str, value: float) -> Bar:
    return Bar(name, value, number(value, 3, sign=True))
