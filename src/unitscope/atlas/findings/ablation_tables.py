"""Ablation tables: what switching units off does to accuracy over the data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unitscope.atlas.ablation.pooled_features import (
    PooledFeatures,
    PooledSource,
)
from unitscope.atlas.ablation.removals import Removals, Row
from unitscope.atlas.ablation.study import AblationStudy
from unitscope.atlas.disk.layout import table_file
from unitscope.atlas.disk.tables import table_batches, write_table
from unitscope.atlas.image_hashes import hash_key_of
from unitscope.atlas.intervals import Estimate
from unitscope.atlas.storage import StoredAtlas


def write_ablation_tables(atlas: StoredAtlas) -> dict[str, Any] | None:
    """Write the tables `unit_ablation`, `class_ablation` and `set_ablation`.

    Units are ranked on the images whose hash key is even, and results are reported on
    the others. Returns the facts for the manifest; None, without tables, where no head
    is exact or no image has a class of the model.
    """
    readout = atlas.readout
    source = pooled_features(atlas)
    if readout is None or source is None:
        return None

    study = AblationStudy.measure(readout, source)
    _write_unit_ablation(atlas, study)
    _write_class_ablation(atlas, study)
    removals = study.removals(readout, source)
    _write_set_ablation(atlas, removals)
    return {
        "labels": atlas.manifest["data"]["labels"],
        "images": study.overall.all_on.photos,
        "ranking": study.ranking.all_on.photos,
        "reporting": study.reporting.all_on.photos,
        "accuracy": [float(number) for number in study.overall.all_on.accuracy],
        "sizes": list(removals.sizes),
    }


def pooled_features(atlas: StoredAtlas) -> PooledSource | None:
    """The pooled units of all images with their classes among the model's.

    Where the data set has no labels, the model's own predictions are the classes. None
    where no image has a class, or none can be right or wrong.
    """
    if atlas.no_accuracy:
        return None
    count = atlas.manifest["data"]["images"]
    targets = np.full(count, -1, np.int64)
    ranking = np.zeros(count, bool)
    column = "target" if atlas.labelled else "prediction"
    images = table_file(atlas.path, "images")
    for batch in table_batches(images, ["image", "id", column]):
        places = batch.column("image").to_numpy()
        targets[places] = [
            -1 if target is None else target
            for target in batch.column(column).to_pylist()
        ]
        ranking[places] = [
            hash_key_of(id_) % 2 == 0 for id_ in batch.column("id").to_pylist()
        ]
    if (targets < 0).all():
        return None

    def source() -> Iterator[PooledFeatures]:
        for pooled, places in atlas.pooled():
            yield PooledFeatures(pooled, targets[places], ranking[places])

    return source


def _write_unit_ablation(atlas: StoredAtlas, study: AblationStudy) -> None:
    overall = study.overall
    before = overall.all_on.accuracy
    without = overall.each_off.accuracy
    columns = {
        "unit": np.arange(len(study.contribution)),
        "accuracy": without.value,
        "accuracy_low": without.low,
        "accuracy_high": without.high,
        "accuracy_change": without.value - before.value,
    }
    write_table(table_file(atlas.path, "unit_ablation"), columns)


def _write_class_ablation(atlas: StoredAtlas, study: AblationStudy) -> None:
    overall = study.overall
    importance = overall.importance
    balanced = overall.each_off.balanced_accuracy

    judged = np.flatnonzero(overall.all_on.positives)
    count = len(study.contribution)
    units = np.repeat(np.arange(count), len(judged))
    classes = np.tile(judged, count)
    columns = {
        "unit": units,
        **_class_columns(atlas, classes.tolist()),
        "importance": importance.value[units, classes],
        "importance_low": importance.low[units, classes],
        "importance_high": importance.high[units, classes],
        "balanced_accuracy": balanced.value[units, classes],
        "contribution": study.contribution[units, classes],
    }
    write_table(table_file(atlas.path, "class_ablation"), columns)


def _write_set_ablation(atlas: StoredAtlas, removals: Removals) -> None:
    classes: list[int] = []
    rows: list[Row] = []
    for index in removals.classes:
        for row in removals.table(index):
            classes.append(index)
            rows.append(row)

    columns = {
        **_class_columns(atlas, classes),
        "removed": [row.removed for row in rows],
        "units": [row.units for row in rows],
        **_estimate_columns(
            "balanced_accuracy",
            [row.balanced_accuracy for row in rows],
        ),
        **_estimate_columns(
            "accuracy",
            [row.accuracy for row in rows],
        ),
    }
    write_table(table_file(atlas.path, "set_ablation"), columns)


def _estimate_columns(
    name: str, estimates: Sequence[Estimate]
) -> dict[str, list[float]]:
    return {
        name: [float(estimate.value) for estimate in estimates],
        f"{name}_low": [float(estimate.low) for estimate in estimates],
        f"{name}_high": [float(estimate.high) for estimate in estimates],
    }


def _class_columns(
    atlas: StoredAtlas, targets: Sequence[int]
) -> dict[str, list[Any]]:
    """The data set's class of each of the model's classes.

    It is the first where several are matched with it.
    """
    class_of: dict[int, int] = {}
    for index, target in enumerate(atlas.manifest["data"]["targets"]):
        if target is not None:
            class_of.setdefault(target, index)
    classes = [class_of[target] for target in targets]
    return {
        "class": classes,
        "class_name": [atlas.classes[index] for index in classes],
    }
