"""Unit ablations: what every unit, off in turn, does to the logit of a class."""

from __future__ import annotations

from matplotlib.figure import Figure

from unitscope.attribution.unit_ablations import UnitAblations, UnitEffect
from unitscope.plurals import plural
from unitscope.render.figures.ablation import done_to
from unitscope.render.figures.bars import Bar, bar_block
from unitscope.render.figures.blocks import (
    Block,
    heading,
    note,
    page,
)
from unitscope.render.figures.panels import photos_shown
from unitscope.render.words import EFFECTS_IN_WORDS, number


def unit_ablations_figure(
    ablations: UnitAblations,
    *,
    which: int | str | None = None,
    image: int | None = None,
    count: int = 12,
) -> Figure:
    """The `count` units that change the logit of a class most when they are off alone.

    `which` is the class, each photo's first one when None.
    """
    blocks = []
    for photo in photos_shown(len(ablations.subjects), image):
        blocks += _blocks(ablations, which, photo, count)
    return page(blocks)


def _blocks(
    ablations: UnitAblations, which: int | str | None, photo: int, count: int
) -> list[Block]:
    effects = ablations.effects(which, photo)[:count]
    label = ablations.labels[ablations.class_of(which, photo)]
    first = ablations.labels[ablations.first_class(photo)]
    bars = [_bar(ablations, effect, first) for effect in effects]
    name = ablations.subjects[photo].name
    return [
        heading(f"{each_in_words(ablations)}: {name}"),
        bar_block(bars, names=1.2, values=2.6, step=0.34),
        note(_words(ablations, label, photo, len(effects))),
    ]


def each_in_words(ablations: UnitAblations) -> str:
    """What was done: "Without each unit of layer3 in turn"."""
    return done_to(
        f"each {ablations.noun} of {ablations.layer} in turn",
        ablations.replaced,
        ablations.where,
    )


def _bar(ablations: UnitAblations, effect: UnitEffect, first: str) -> Bar:
    text = f"{number(effect.change, sign=True)} → {number(effect.after)}"
    if effect.first != first:
        text += f", first is {effect.first}"
    return Bar(f"{ablations.noun} {effect.name}", effect.change, text)


def _words(ablations: UnitAblations, label: str, photo: int, shown: int) -> str:
    done = int(ablations.done[photo].sum())
    number_name = ablations.scores.number
    if ablations.effect is not None:
        how = EFFECTS_IN_WORDS[ablations.effect]
    elif ablations.exact:
        how = "exact algebra on one forward pass"
    else:
        how = f"real passes of what follows {ablations.layer}"
    turning = len(ablations.turning(photo))
    left = "" if ablations.complete else " The work was interrupted."
    return (
        f"Change of the {number_name} of {label}, and the {number_name} then. Shown are the "
        f"{shown} largest changes of {plural(done, ablations.noun)}, {turning} of which would "
        f"change the top prediction. Measured by {how}.{left}"
    )
