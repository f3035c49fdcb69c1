"""Head ablations: units of the explained map, or heads of attention, by their algebra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.effects import (
    Effect,
)
from unitscope.attribution.explanation import Explanation, Units
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.unit_ablations import (
    UnitAblations,
)
from unitscope.attribution.value import UnitMeans, Value
from unitscope.errors import InputError
from unitscope.model.explaining import Asked, explained
from unitscope.model.intervention import (
    Intervention,
    Piece,
    another_size,
    blank_table,
    check_count,
)
from unitscope.model.question import Question
from unitscope.residual.explanation import ResidualExplanation
from unitscope.residual.head import HEADS
from unitscope.residual.replacement import HeadMeans


def ablation_of_head(
    batches: Iterable[Asked], wanted: Intervention
) -> Ablation:
    """The ablation of units of the explained map, or of heads of attention."""
    explanation = explained(batches, question_of(wanted))
    units = _units_of(explanation, wanted.units)
    if isinstance(explanation, ResidualExplanation):
        by = _replacement(explanation, wanted)
        after = explanation.logits_replaced(units, by, wanted.effect)
        words = _words_of_heads(by)
        return Ablation.of(explanation, units, wanted.effect, after, words)

    change = _change_of(explanation, wanted)
    changed = explanation.changed(units, change)
    return Ablation.of(
        explanation,
        units,
        wanted.effect,
        changed.logits,
        change.replaced,
        change.where,
    )


def question_of(wanted: Intervention) -> Question:
    """The question that explains the map, or the heads, that an intervention is about."""
    return Question(HEADS if wanted.layer == HEADS else None)


def _units_of(explanation: Explanation, units: Units | None) -> list[int]:
    if units is None:
        return list(range(explanation.feature_map.shape[1]))
    return list(explanation.unit_maps(units).units)


def _change_of(explanation: Explanation, wanted: Intervention) -> MapChange:
    """What is done to the explained map."""
    photos: Value | None = None
    if isinstance(wanted.put, list):
        others = explained(wanted.put, question_of(wanted))
        if others.feature_map.shape[1:] != explanation.feature_map.shape[1:]:
            raise another_size(others.feature_map, explanation.feature_map)
        check_count(len(others), len(explanation))
        names = [subject.name for subject in others.subjects]
        photos = Value.of_photos(others.feature_map, None, names)
    shape = tuple(explanation.feature_map.shape[1:])
    return wanted.change_of(explanation.layer, shape, photos)


def _replacement(
    explanation: ResidualExplanation, wanted: Intervention
) -> ResidualExplanation | HeadMeans | None:
    """What is put in place of heads of attention; None where they are silent.

    Raises InputError for anything else than a photo or the means of heads.
    """
    put = wanted.put
    if isinstance(put, list):
        others = explained(put, question_of(wanted))
        check_count(len(others), 1)
        assert isinstance(others, ResidualExplanation)
        return others
    if isinstance(put, HeadMeans):
        return put
    if isinstance(put, UnitMeans):
        raise InputError(
            f"value has the means of units of layer '{put.layer}', and heads of attention take "
            "those of heads: Atlas.head_means(model), or name that layer"
        )
    shape = tuple(explanation.feature_map.shape[1:])
    explanation.check_whole(wanted.change_of(HEADS, shape, None))
    return None


def _words_of_heads(by: ResidualExplanation | HeadMeans | None) -> str:
    if by is None:
        return ""
    if isinstance(by, HeadMeans):
        return f"their means over {by.images:,} images"
    return f"their values on {by.subjects[0].name}"


def each_of_head(
    explanation: Explanation, wanted: Intervention
) -> tuple[UnitAblations, Iterator[Piece]]:
    """An empty table of the explained map's units, and what fills it."""
    units = _units_of(explanation, wanted.units)
    pieces: Iterator[Piece]
    if isinstance(explanation, ResidualExplanation):
        by = _replacement(explanation, wanted)
        pieces = _each_head(explanation, units, by, wanted.effect)
        replaced, where = _words_of_heads(by), ""
    else:
        change = _change_of(explanation, wanted)
        pieces = _each_unit(explanation, units, change)
        replaced, where = change.replaced, change.where

    head = explanation.head
    reacts = head.maps_are_a_part
    table = UnitAblations(
        layer=head.map_name,
        units=tuple(units),
        before=explanation.logits,
        after=blank_table(explanation.logits, units),
        done=torch.zeros((len(explanation), len(units)), dtype=torch.bool),
        labels=explanation.labels,
        subjects=explanation.subjects,
        scores=explanation.scores,
        exact=explanation.exact or (reacts and wanted.effect == "direct"),
        noun=head.unit_noun,
        names=tuple(map(head.unit_name, units)),
        replaced=replaced,
        where=where,
        effect=wanted.effect if reacts else None,
    )
    return table, pieces


def _each_head(
    explanation: ResidualExplanation,
    units: list[int],
    by: ResidualExplanation | HeadMeans | None,
    effect: Effect,
) -> Iterator[Piece]:
    for image in range(len(explanation)):
        photo = explanation[image]
        assert isinstance(photo, ResidualExplanation)
        for piece in photo.each_replaced(units, by, effect):
            yield image, piece


def _each_unit(
    explanation: Explanation, units: list[int], change: MapChange
) -> Iterator[Piece]:
    for image in range(len(explanation)):
        own = change.rows(image, image + 1)
        for piece in explanation[image].each_changed(units, own):
            yield image, piece
