"""Evaluating: methods measured over a data set, shard by shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitscope.atlas.identity import fingerprint
from unitscope.datasets import MaskedDataset
from unitscope.errors import InputError
from unitscope.evaluation.evaluation import (
    Compared,
    EvaluatedPhoto,
    Evaluation,
)
from unitscope.evaluation.folder import EvaluationFolder
from unitscope.evaluation.hiding import hiding_of
from unitscope.evaluation.measures import SomeMeasures, chosen_measures
from unitscope.evaluation.methods import Method, SomeMethods, chosen_methods
from unitscope.evaluation.nulls import NULLS
from unitscope.evaluation.photos import AnySource, Photos
from unitscope.evaluation.shard import Question, measured
from unitscope.labels import LabelsSource
from unitscope.model import Classifier

_SHARD = 16


def evaluate(
    model: Classifier,
    source: AnySource,
    methods: SomeMethods = None,
    measures: SomeMeasures = None,
    *,
    count: int | None = None,
    seed: int = 0,
    explained: str = "predicted",
    hide: str = "blur",
    out: str | os.PathLike[str] | None = None,
    split: str | None = None,
    classes: LabelsSource | None = None,
    names: LabelsSource | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure what methods' maps are worth over the photos of a data set.

    `methods` are names (`unitscope.evaluation.methods.METHODS`), functions
    (model, photo, class) → array, or a dict of functions by name; by default all that
    the network has of our own. The first is the one that others are compared with. Random
    maps, the middle of the photo, and the map of another photo are always measured too.
    `measures` are names (`unitscope.evaluation.measures.MEASURES`); by default deletion and
    insertion, and with masks the pointing game and the energy inside.

    `source`, `split` and `classes` are those of `open_dataset`, or a `MaskedDataset`.
    Measures that need masks open it as `open_masks` does, with `names`. `count` photos
    are drawn by `seed`, all by default. `explained` is the "predicted" class of each
    photo, or its "label"; measures with masks are about the label. `hide` is what stands
    in the place of hidden pixels: "blur", "mean" or "zero".

    With a folder `out` the rows are kept there as they come, and the same call goes on
    where it was stopped. `progress` is called with the photos done and all of them. The
    network runs compiled where it can.

    Raises InputError, DatasetError, HeadError, and OutputError where `out` holds another
    evaluation.
    """
    chosen = chosen_methods(model, methods, list(NULLS))
    wanted = chosen_measures(measures, _has_masks(source))
    _check(count, explained)
    photos = Photos.of(
        model,
        source,
        needs_masks=any(measure.needs_masks for measure in wanted),
        split=split,
        classes=classes,
        names=names,
    ).drawn(count, seed, explained == "label")
    question = Question(model, chosen, wanted, hiding_of(hide), explained, seed)
    folder = None
    if out is not None:
        identity = _identity(question, photos, hide)
        folder = EvaluationFolder(Path(out), identity)
    with model.frozen():
        found = _all_rows(question, photos, folder, progress)
    return _evaluation(question, photos, found)


def _all_rows(
    question: Question,
    photos: Photos,
    folder: EvaluationFolder | None,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    """The rows of every shard: those in the folder, and others measured now."""
    found = []
    done = 0
    for shard, places in enumerate(photos.shards(_SHARD)):
        rows = None if folder is None else folder.rows(shard)
        if rows is None:
            rows = measured(question, photos, places)
            if folder is not None:
                folder.keep(shard, rows)
        found.append(rows)
        done += len(places)
        if progress is not None:
            progress(done, len(photos.places))
    return found


def _has_masks(source: object) -> bool:
    return isinstance(source, MaskedDataset)


def _check(count: int | None, explained: str) -> None:
    if explained not in ("predicted", "label"):
        raise InputError(
            f"explained is 'predicted' or 'label', not {explained!r}"
        )
    is_number = isinstance(count, int) and not isinstance(count, bool)
    if count is not None and (not is_number or count < 1):
        raise InputError(f"count must be a number from 1 on, not {count!r}")


def _identity(question: Question, photos: Photos, hide: str) -> dict[str, Any]:
    """What two evaluations share so that the rows of one are those of the other."""
    model = question.model
    return {
        "schema": "unitscope-evaluation/1",
        "model": fingerprint(model),
        "preprocessing": model.preprocessing.describe(),
        "data set": photos.fingerprint(),
        "methods": [method.name for method in question.methods],
        "measures": [measure.name for measure in question.measures],
        "class explained": question.explained,
        "hiding": hide,
        "seed": question.seed,
        "number of photos": len(photos.places),
    }


def _evaluation(
    question: Question, photos: Photos, found: Sequence[Mapping[str, Any]]
) -> Evaluation:
    methods = list(_compared(question.methods))
    values = {
        measure.name: np.concatenate(
            [_values(rows, measure.name, methods) for rows in found], axis=1
        )
        for measure in question.measures
    }
    skipped: dict[str, str] = {}
    for rows in found:
        skipped |= rows["skipped"]
    model = question.model
    about = {
        "model": model.provenance.spec,
        "weights": str(model.provenance.weights or ""),
        "data set": photos.dataset.source,
        "photos": photos.about,
        "class explained": question.explained,
        "hidden pixels": question.hiding.words,
        "score": "probability"
        if model.scores.has_probabilities
        else f"the network's {model.scores.number}",
        "intervals": "95 %, bootstrap over photos (percentiles of 4000 resampled means)",
    }
    if photos.targets:
        about["masks"] = photos.words
        about["class explained"] += "; of measures with masks the label"
    return Evaluation(
        methods=tuple(methods),
        measures=tuple(question.measures),
        photos=tuple(
            EvaluatedPhoto(*photo) for rows in found for photo in rows["photos"]
        ),
        values=values,
        labels=model.labels,
        about=about,
        skipped=skipped,
    )


def _compared(methods: Sequence[Method]) -> Iterator[Compared]:
    for method in methods:
        yield Compared(method.name, method.promise, is_null=False)
    for null in NULLS.values():
        yield Compared(null.name, null.promise, is_null=True)


def _values(
    rows: Mapping[str, Any], measure: str, methods: Sequence[Compared]
) -> np.ndarray:
    """The values of a shard (method, photo), NaN where there are none."""
    nothing = [None] * len(rows["photos"])
    by_method = rows["values"].get(measure, {})
    table = [by_method.get(method.name, nothing) for method in methods]
    return np.array(table, dtype=np.float64).reshape(len(methods), -1)
