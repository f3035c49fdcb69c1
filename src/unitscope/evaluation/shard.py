"""Shard: some photos, explained by every method and measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unitscope.evaluation.batch import Batch, logits_of
from unitscope.evaluation.hiding import Hiding
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure
from unitscope.evaluation.methods import Method
from unitscope.evaluation.nulls import NULLS, all_maps
from unitscope.evaluation.photos import Photos
from unitscope.model import Classifier


@dataclass(frozen=True)
class Question:
    """What is asked of every photo."""

    model: Classifier
    methods: list[Method]
    measures: list[Measure]
    hiding: Hiding
    explained: str
    seed: int
    memory: dict[str, Any] = field(default_factory=dict)


def measured(
    question: Question, photos: Photos, places: Sequence[int]
) -> dict[str, Any]:
    """The rows of some photos, as plain data.

    `photos` have (id, class explained, label); `values` are by measure and method, one
    for each photo, None where there is none; `skipped` have the reasons by id.
    """
    skipped: dict[str, str] = {}
    read = photos.read(places, skipped)
    if read is None:
        return {"photos": [], "values": {}, "skipped": skipped}

    labels = [photos.labels[place] for place in read.places]
    classes = [label for label in labels if label is not None]
    if question.explained == "predicted":
        logits = logits_of(question.model, read.inputs)
        classes = logits.argmax(dim=1).tolist()
    batch = Batch(
        question.model,
        read.inputs,
        tuple(photos.id(place) for place in read.places),
        tuple(classes),
        question.hiding,
        seed=question.seed,
        memory=question.memory,
    )
    return {
        "photos": [
            [id_, which, label]
            for id_, which, label in zip(
                batch.ids, batch.classes, labels, strict=True
            )
        ],
        "values": _values(question, batch, labels, read.masks),
        "skipped": skipped,
    }


def _values(
    question: Question,
    batch: Batch,
    labels: Sequence[int | None],
    masks: Sequence[np.ndarray],
) -> dict[str, dict[str, list[float | None]]]:
    maps = None
    if not all(measure.needs_masks for measure in question.measures):
        maps = all_maps(batch, question.methods)
    of_label, maps_of_label = batch, maps
    if masks:
        known = tuple(label for label in labels if label is not None)
        of_label = dataclasses.replace(
            batch, classes=known, masks=np.stack(masks)
        )
        if maps is None or known != batch.classes:
            maps_of_label = all_maps(of_label, question.methods)

    found = {}
    for measure in question.measures:
        if measure.needs_masks:
            found[measure.name] = _of(measure, of_label, maps_of_label or {})
        else:
            found[measure.name] = _of(measure, batch, maps or {})
    return found


def _of(
    measure: Measure, batch: Batch, maps: Mapping[str, Maps | None]
) -> dict[str, list[float | None]]:
    taken = {
        name: each
        for name, each in maps.items()
        if each is not None and (measure.of_nulls or name not in NULLS)
    }
    by_method = measure.of(batch, taken)
    return {
        name: [None if math.isnan(value) else float(value) for value in values]
        for name, values in by_method.items()
    }
