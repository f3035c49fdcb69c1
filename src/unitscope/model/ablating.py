"""Ablating: units of any layer switched off or replaced, together or one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeAlias

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.effects import (
    no_direct_effect,
)
from unitscope.attribution.unit_ablations import (
    AblationsInterrupted,
    UnitAblations,
)
from unitscope.model.explaining import Asked, explained
from unitscope.model.head_ablations import (
    ablation_of_head,
    each_of_head,
    question_of,
)
from unitscope.model.intervention import Intervention, check_changed
from unitscope.model.layer_ablations import each_of_layer, measured
from unitscope.residual.head import HEADS

Progress: TypeAlias = Callable[[int], None]


def ablation(batches: Iterator[Asked], wanted: Intervention) -> Ablation:
    """The ablation of units of a layer, all together."""
    batches, is_head = _at_head(batches, wanted)
    run = ablation_of_head if is_head else measured
    found = run(list(batches), wanted)
    check_changed(found.after, found.layer, found.replaced)
    return found


def ablations(
    batches: Iterator[Asked],
    wanted: Intervention,
    progress: Progress | None = None,
) -> UnitAblations:
    """The ablations of units of a layer, one at a time, at the cost of what follows it.

    `progress` is called with the number of units done. Raises AblationsInterrupted, with
    what was done until then, on Ctrl-C.
    """
    batches, is_head = _at_head(batches, wanted)
    if is_head:
        explanation = explained(batches, question_of(wanted))
        table, pieces = each_of_head(explanation, wanted)
    else:
        table, pieces = each_of_layer(list(batches), wanted)

    places = {unit: place for place, unit in enumerate(table.units)}
    try:
        for image, (units, logits) in pieces:
            row = [places[unit] for unit in units]
            check_changed(logits, table.layer, table.replaced)
            table.after[image, row] = logits.to(table.after)
            table.done[image, row] = True
            if progress is not None:
                progress(len(units))
    except KeyboardInterrupt:
        raise AblationsInterrupted(table) from None
    return table


def _at_head(
    batches: Iterator[Asked], wanted: Intervention
) -> tuple[Iterator[Asked], bool]:
    """The batches, and whether the layer is the explained one."""
    if wanted.layer in (None, HEADS):
        return batches, True
    first = next(batches)
    batches = chain([first], batches)
    if _has_algebra(first, wanted):
        return batches, True
    if wanted.effect == "direct":
        raise no_direct_effect(wanted.layer)
    return batches, False


def _has_algebra(asked: Asked, wanted: Intervention) -> bool:
    """Whether the named layer is that of an exact head, whose algebra knows the change."""
    assert wanted.layer is not None
    if not asked.is_head_layer(wanted.layer):
        return False
    if wanted.is_plain:
        return True
    shape = tuple(asked.inputs.shape[1:])
    head = asked.explainer.structures.head(shape)
    return head.gives_activations(range(head.map_shape[0]))
