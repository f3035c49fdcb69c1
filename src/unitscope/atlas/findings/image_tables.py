"""Image tables: the images of an atlas, those that were skipped, and the classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitscope.atlas.disk.layout import rows_file, table_file
from unitscope.atlas.disk.tables import read_table, streamed_table, write_table
from unitscope.atlas.findings.precisions import average_precisions
from unitscope.atlas.intervals import proportion
from unitscope.atlas.storage import StoredAtlas, shards_in
from unitscope.attribution.scores import Scores

_SKIPPED = {"image": "int64", "id": "string", "reason": "string"}
_PLACE = {
    "width": "int64",
    "height": "int64",
    "left": "double",
    "top": "double",
    "right": "double",
    "bottom": "double",
}
_IMAGES = {
    "image": "int64",
    "id": "string",
    "class": "int64",
    "class_name": "string",
    "target": "int64",
    "prediction": "int64",
    "prediction_name": "string",
    "probability": "double",
    "correct": "bool",
    **_PLACE,
    "digest": "string",
}


def rows_of(folder: Path) -> Iterator[Any]:
    """The rows of all scanned images in order, as one pyarrow.Table a shard."""
    return (read_table(rows_file(folder, shard)) for shard in shards_in(folder))


def photo_notes(folder: Path) -> list[str]:
    """What was guessed of photos and left out, with the number of photos of each kind."""
    counts: Counter[str] = Counter()
    for rows in rows_of(folder):
        # Scans of earlier versions have no notes.
        if "notes" in rows.column_names:
            for notes in rows.column("notes").to_pylist():
                counts.update((notes or "").splitlines())
    ordered = sorted(counts, key=lambda note: (-counts[note], note))
    return [f"{counts[note]} photos: {note}" for note in ordered]


def write_image_tables(atlas: StoredAtlas) -> tuple[int, int]:
    """Write the tables `images`, `skipped` and `classes`.

    They are written shard by shard, so that memory does not grow with the data set.
    Returns the numbers of images seen and skipped.
    """
    seen = skipped = 0
    counts = _ClassCounts(atlas)
    with (
        streamed_table(
            table_file(atlas.path, "images"), _image_types(atlas)
        ) as write_images,
        streamed_table(
            table_file(atlas.path, "skipped"), _SKIPPED
        ) as write_skipped,
    ):
        for rows in rows_of(atlas.path):
            reasons = rows.column("reason").to_pylist()
            was_read = np.array([reason is None for reason in reasons], bool)
            seen_rows = rows.filter(was_read)
            skipped_rows = rows.filter(~was_read)

            write_skipped(
                {name: skipped_rows.column(name) for name in _SKIPPED}
            )
            columns = _image_columns(atlas, seen_rows)
            write_images(columns)
            counts.add(
                columns["class"], columns["target"], columns["prediction"]
            )
            seen += seen_rows.num_rows
            skipped += skipped_rows.num_rows

    write_table(table_file(atlas.path, "classes"), counts.columns())
    return seen, skipped


def _image_columns(atlas: StoredAtlas, rows: Any) -> dict[str, Any]:
    """The columns of the table `images`, for the rows of one shard."""
    predictions = rows.column("prediction").to_pylist()
    if atlas.labelled:
        classes = rows.column("label").to_pylist()
        all_targets = atlas.manifest["data"]["targets"]
        targets = _looked_up(all_targets, classes)
    else:
        classes = predictions
        targets = [None] * len(predictions)

    columns = {
        "image": rows.column("image"),
        "id": rows.column("id"),
        "class": classes,
        "class_name": _looked_up(atlas.classes, classes),
        "target": targets,
        "prediction": predictions,
        "prediction_name": _looked_up(atlas.labels, predictions),
        "probability": rows.column("probability"),
        "correct": [
            None
            if target is None or atlas.no_accuracy
            else target == prediction
            for target, prediction in zip(targets, predictions, strict=True)
        ],
        **{name: rows.column(name) for name in (*_PLACE, "digest")},
    }
    return {name: columns[name] for name in _image_types(atlas)}


def _image_types(atlas: StoredAtlas) -> dict[str, str]:
    """The columns of the table `images`: probabilities only where there are any."""
    types = dict(_IMAGES)
    if not atlas.scores.has_probabilities:
        del types["probability"]
    return types


def _looked_up(
    values: Sequence[Any], indices: Iterable[int | None]
) -> list[Any]:
    return [None if index is None else values[index] for index in indices]


class _ClassCounts:
    """For every class of the data set the numbers of images, and of hits among them."""

    def __init__(self, atlas: StoredAtlas) -> None:
        count = len(atlas.classes)
        self._atlas = atlas
        self._names = atlas.classes
        self._targets = atlas.manifest["data"]["targets"]
        self._images = np.zeros(count, np.int64)
        self._judged = np.zeros(count, np.int64)
        self._found = np.zeros(count, np.int64)
        self._predicted = np.zeros(len(atlas.labels), np.int64)

    def add(
        self,
        classes: list[int | None],
        targets: list[int | None],
        predictions: list[int],
    ) -> None:
        """Count some images."""
        rows = zip(classes, targets, predictions, strict=True)
        for own_class, target, prediction in rows:
            self._predicted[prediction] += 1
            if own_class is None:
                continue
            self._images[own_class] += 1
            if target is not None and not self._atlas.no_accuracy:
                self._judged[own_class] += 1
                self._found[own_class] += target == prediction

    def columns(self) -> dict[str, Any]:
        """The columns of the table `classes`."""
        accuracy = proportion(self._found, self._judged)
        return {
            "class": np.arange(len(self._names)),
            "name": list(self._names),
            "target": list(self._targets),
            "images": self._images,
            "judged": self._judged,
            "found": self._found,
            "accuracy": accuracy.value,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "predicted": [
                None if target is None else int(self._predicted[target])
                for target in self._targets
            ],
            **self._precisions(),
        }

    def _precisions(self) -> dict[str, Any]:
        """The average precision of classes that stand each for itself, where it is known."""
        precisions = None
        if self._atlas.scores is Scores.SIGMOID:
            precisions = average_precisions(self._atlas)
        if precisions is None:
            return {}
        known = [
            None
            if target is None or math.isnan(precisions[target])
            else float(precisions[target])
            for target in self._targets
        ]
        return {"average_precision": known}
