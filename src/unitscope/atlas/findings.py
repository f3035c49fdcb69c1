"""Findings: the tables of an atlas, from what a scan has kept of every unit and image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitscope.atlas.ablation_study import AblationStudy
from unitscope.atlas.dissection import RESOLUTION
from unitscope.atlas.intervals import mean_interval, proportion, selectivity
from unitscope.atlas.observing import draw_of
from unitscope.atlas.pooled_features import PooledFeatures, PooledSource
from unitscope.atlas.removals import Removals
from unitscope.atlas.storage import (
    AtlasLayer,
    StoredAtlas,
    read_table,
    rows_file,
    shards_in,
    streamed_table,
    table_batches,
    write_table,
)
from unitscope.atlas.summaries.concepts import (
    DETECTOR_THRESHOLD,
    SIGNIFICANCE,
    ConceptCounts,
)
from unitscope.atlas.summaries.layer import LayerSummary
from unitscope.datasets import Concept

QUANTILES = (0.5, 0.9, 0.99, 0.999)
LISTED = 10
"""How many classes, and how many concepts, are listed for a unit."""


def write_findings(atlas: StoredAtlas) -> tuple[int, int]:
    """Write all tables of an atlas anew; returns how many images were seen and how many skipped."""
    counts = _write_images(atlas)
    units: dict[str, list[Any]] = {}
    classes: dict[str, list[Any]] = {}
    tops: dict[str, list[Any]] = {}
    samples: dict[str, list[Any]] = {}
    for layer in atlas.layers:
        summary = atlas.summary(layer.name)
        _extend(units, _units(atlas, layer, summary))
        _extend(classes, _unit_classes(atlas, layer, summary))
        _extend(tops, _top_images(layer, summary))
        _extend(samples, _sample_images(layer, summary))
    _name(units)
    written = {
        "units": units,
        "unit_classes": classes,
        "top_images": tops,
        "sample_images": samples,
    }
    for name, columns in written.items():
        write_table(atlas.path / f"{name}.parquet", columns)
    # What was measured at other thresholds, or on other images, is not of this atlas
    # any more.
    for name in (
        "concepts",
        "unit_concepts",
        "unit_ablation",
        "class_ablation",
        "set_ablation",
    ):
        (atlas.path / f"{name}.parquet").unlink(missing_ok=True)
    return counts


def rows_of(folder: Path) -> Iterator[Any]:
    """The rows of all images that were scanned, in the data set's order, as one pyarrow.Table a shard."""
    return (read_table(rows_file(folder, shard)) for shard in shards_in(folder))


def _write_images(atlas: StoredAtlas) -> tuple[int, int]:
    """Write the tables of images, of those skipped, and of classes: shard by shard, so that memory does not grow."""
    seen = skipped = 0
    tally = _ClassTally(atlas)
    with (
        streamed_table(atlas.path / "images.parquet", _IMAGES) as write_images,
        streamed_table(atlas.path / "skipped.parquet", _SKIPPED) as write_skipped,
    ):
        for rows in rows_of(atlas.path):
            reason = rows.column("reason").to_pylist()
            read = np.array([one is None for one in reason], bool)
            left_out, kept = rows.filter(~read), rows.filter(read)
            write_skipped({name: left_out.column(name) for name in _SKIPPED})
            write_images(_images(atlas, kept, tally))
            seen, skipped = seen + kept.num_rows, skipped + left_out.num_rows
    write_table(atlas.path / "classes.parquet", tally.columns())
    return seen, skipped


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


def _images(atlas: StoredAtlas, kept: Any, tally: _ClassTally) -> dict[str, Any]:
    """The columns of the table of images, for the rows of one shard; they are counted too."""
    classes, targets, labels = (
        atlas.classes,
        atlas.manifest["data"]["targets"],
        atlas.labels,
    )
    given = atlas.manifest["data"]["labels"] == "given"
    predicted = kept.column("prediction").to_pylist()
    own = kept.column("label").to_pylist() if given else predicted
    truth = [None if label is None or not given else targets[label] for label in own]
    tally.add(own, truth, predicted)
    return {
        "image": kept.column("image"),
        "id": kept.column("id"),
        "class": own,
        "class_name": [None if label is None else classes[label] for label in own],
        "target": truth,
        "prediction": predicted,
        "prediction_name": [labels[index] for index in predicted],
        "probability": kept.column("probability"),
        "correct": [
            None if one is None else one == other
            for one, other in zip(truth, predicted, strict=True)
        ],
        **{name: kept.column(name) for name in (*_PLACE, "digest")},
    }


class _ClassTally:
    """Of every class of the data set how many images there are, and how many of them the model finds."""

    def __init__(self, atlas: StoredAtlas) -> None:
        self._names, self._targets = atlas.classes, atlas.manifest["data"]["targets"]
        count = len(self._names)
        self._images, self._judged, self._found = (
            np.zeros(count, np.int64) for _ in range(3)
        )
        self._guesses = np.zeros(len(atlas.labels), np.int64)

    def add(
        self, own: list[int | None], truth: list[int | None], predicted: list[int]
    ) -> None:
        """Count some images."""
        for label, target, guess in zip(own, truth, predicted, strict=True):
            self._guesses[guess] += 1
            if label is None:
                continue
            self._images[label] += 1
            if target is not None:
                self._judged[label] += 1
                self._found[label] += target == guess

    def columns(self) -> dict[str, Any]:
        """The table of classes."""
        share = proportion(self._found, self._judged)
        return {
            "class": np.arange(len(self._names)),
            "name": list(self._names),
            "target": list(self._targets),
            "images": self._images,
            "judged": self._judged,
            "found": self._found,
            "accuracy": share.value,
            "accuracy_low": share.low,
            "accuracy_high": share.high,
            "predicted": [
                None if target is None else int(self._guesses[target])
                for target in self._targets
            ],
        }


def _units(
    atlas: StoredAtlas, layer: AtlasLayer, summary: LayerSummary
) -> dict[str, Any]:
    histogram, classes = summary.histogram, summary.classes
    thresholds, reached = histogram.thresholds(atlas.manifest["parameters"]["quantile"])
    quantiles = histogram.quantiles(QUANTILES)
    lower, _, counts = histogram.buckets()
    total = np.maximum(histogram.total, 1)
    positive = counts[:, lower > 0].sum(axis=1)
    means, variances = classes.means, classes.variances
    found, low, high = selectivity(means, classes.counts, variances)
    best = np.where(np.isnan(means), -np.inf, means).argmax(axis=0)
    some = bool(classes.counts.any())
    largest = summary.top["maximum"].scores[:, 0]
    return {
        "layer": [layer.name] * layer.units,
        "unit": np.arange(layer.units),
        "maximum": largest.astype(np.float64),
        "mean": classes.overall_mean,
        "threshold": thresholds,
        "share_above": reached,
        "share_positive": positive / total,
        "dead": largest <= 0,
        **{
            f"quantile_{share:g}": quantiles[:, place]
            for place, share in enumerate(QUANTILES)
        },
        "best_class": best if some else [None] * layer.units,
        "best_class_name": [atlas.classes[one] if some else None for one in best],
        "selectivity": found,
        "selectivity_low": low,
        "selectivity_high": high,
    }


def _unit_classes(
    atlas: StoredAtlas, layer: AtlasLayer, summary: LayerSummary
) -> dict[str, Any]:
    classes = summary.classes
    means = classes.means
    _, low, high = mean_interval(classes.sums, classes.squares, classes.counts[:, None])
    present = int((classes.counts > 0).sum())
    kept = min(LISTED, present)
    order = np.argsort(
        -np.where(np.isnan(means), -np.inf, means), axis=0, kind="stable"
    )[:kept].T
    units = np.repeat(np.arange(layer.units), kept)
    chosen = order.ravel()
    return {
        "layer": [layer.name] * len(units),
        "unit": units,
        "rank": np.tile(np.arange(1, kept + 1), layer.units),
        "class": chosen,
        "class_name": [atlas.classes[one] for one in chosen],
        "images": classes.counts[chosen],
        "mean": means[chosen, units],
        "mean_low": low[chosen, units],
        "mean_high": high[chosen, units],
    }


def _top_images(layer: AtlasLayer, summary: LayerSummary) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {}
    for criterion, top in summary.top.items():
        units, ranks = np.nonzero(top.images >= 0)
        _extend(
            columns,
            {
                "layer": [layer.name] * len(units),
                "unit": units,
                "criterion": [criterion] * len(units),
                "rank": ranks + 1,
                "image": top.images[units, ranks],
                "score": top.scores[units, ranks],
            },
        )
    return columns


def _sample_images(layer: AtlasLayer, summary: LayerSummary) -> dict[str, Any]:
    sample = summary.sample
    count = len(sample.images)
    return {
        "layer": [layer.name] * (count * layer.units),
        "unit": np.repeat(np.arange(layer.units), count),
        "image": np.tile(sample.images, layer.units),
        "maximum": sample.maxima.T.ravel(),
        "mean": sample.means.T.ravel(),
    }


def _extend(columns: dict[str, list[Any]], more: Mapping[str, Any]) -> None:
    for name, values in more.items():
        columns.setdefault(name, []).extend(
            values.tolist() if isinstance(values, np.ndarray) else values
        )


def write_ablation(atlas: StoredAtlas) -> dict[str, Any] | None:
    """Measure what switching units off does to accuracy over the data set, and write the tables; for the manifest.

    Units are ranked on the images whose own random number is even, and results are
    reported on the others. None where no head is exact, or no image has a class of the
    model.
    """
    readout, source = atlas.readout, pooled_features(atlas)
    if readout is None or source is None:
        return None
    study = AblationStudy.measure(readout, source)
    _write_each_off(atlas, study)
    removals = study.removals(readout, source)
    _write_removals(atlas, removals)
    accuracy = study.overall.all_on.accuracy
    return {
        "labels": atlas.manifest["data"]["labels"],
        "images": study.overall.all_on.photos,
        "ranking": study.ranking.all_on.photos,
        "reporting": study.reporting.all_on.photos,
        "accuracy": [float(end) for end in accuracy],
        "sizes": list(removals.sizes),
    }


def pooled_features(atlas: StoredAtlas) -> PooledSource | None:
    """The pooled units of all images with their classes among the model's; None where no image has one.

    Where the data set has no labels, the model's own predictions stand for them.
    """
    given = atlas.manifest["data"]["labels"] == "given"
    truth = "target" if given else "prediction"
    count = atlas.manifest["data"]["images"]
    targets, ranking = np.full(count, -1, np.int64), np.zeros(count, bool)
    for batch in table_batches(atlas.path / "images.parquet", ["image", "id", truth]):
        places = batch.column("image").to_numpy()
        targets[places] = [
            -1 if one is None else one for one in batch.column(truth).to_pylist()
        ]
        ranking[places] = [
            draw_of(one) % 2 == 0 for one in batch.column("id").to_pylist()
        ]
    if (targets < 0).all():
        return None

    def source() -> Iterator[PooledFeatures]:
        for pooled, places in atlas.pooled():
            yield PooledFeatures(pooled, targets[places], ranking[places])

    return source


def _write_each_off(atlas: StoredAtlas, study: AblationStudy) -> None:
    overall = study.overall
    before, without = overall.all_on.accuracy, overall.each_off.accuracy
    units = len(study.contribution)
    write_table(
        atlas.path / "unit_ablation.parquet",
        {
            "unit": np.arange(units),
            "accuracy": without.value,
            "accuracy_low": without.low,
            "accuracy_high": without.high,
            "accuracy_change": without.value - before.value,
        },
    )
    judged = np.flatnonzero(overall.all_on.positives)
    importance, balanced = overall.importance, overall.each_off.balanced_accuracy
    of_unit, of_class = np.repeat(np.arange(units), len(judged)), np.tile(judged, units)
    columns = {
        "unit": of_unit,
        **_classes(atlas, of_class.tolist()),
        "importance": importance.value[of_unit, of_class],
        "importance_low": importance.low[of_unit, of_class],
        "importance_high": importance.high[of_unit, of_class],
        "balanced_accuracy": balanced.value[of_unit, of_class],
        "contribution": study.contribution[of_unit, of_class],
    }
    write_table(atlas.path / "class_ablation.parquet", columns)


def _classes(atlas: StoredAtlas, targets: Sequence[int]) -> dict[str, list[Any]]:
    """The data set's class of each of the model's classes, the first where several are matched with it."""
    own: dict[int, int] = {}
    for index, target in enumerate(atlas.manifest["data"]["targets"]):
        if target is not None:
            own.setdefault(target, index)
    return {
        "class": [own[one] for one in targets],
        "class_name": [atlas.classes[own[one]] for one in targets],
    }


def _write_removals(atlas: StoredAtlas, removals: Removals) -> None:
    lines = [
        (index, row) for index in removals.classes for row in removals.table(index)
    ]
    columns: dict[str, Any] = {
        **_classes(atlas, [index for index, _ in lines]),
        "removed": [row.removed for _, row in lines],
        "units": [row.units for _, row in lines],
    }
    for name in ("balanced_accuracy", "accuracy"):
        for end, suffix in zip(
            ("value", "low", "high"), ("", "_low", "_high"), strict=True
        ):
            columns[name + suffix] = [
                float(getattr(getattr(row, name), end)) for _, row in lines
            ]
    write_table(atlas.path / "set_ablation.parquet", columns)


def write_concepts(
    atlas: StoredAtlas, counts: Mapping[str, ConceptCounts], concepts: Sequence[Concept]
) -> dict[str, Any]:
    """Write what the units of every layer detect, and name them by it; returns the numbers of detectors by layer."""
    any_layer = next(iter(counts.values()))
    pixels = (
        any_layer.photos_of[any_layer.category_of].astype(np.float64) * RESOLUTION**2
    )
    write_table(
        atlas.path / "concepts.parquet",
        {
            "concept": np.arange(len(concepts)),
            "name": [one.name for one in concepts],
            "category": [one.category for one in concepts],
            "images": any_layer.photos_with,
            "share": np.divide(
                any_layer.l,
                pixels,
                out=np.full(len(concepts), np.nan),
                where=pixels > 0,
            ),
        },
    )
    columns: dict[str, list[Any]] = {}
    named: dict[str, list[Any]] = {}
    detectors: dict[str, Any] = {}
    for layer in atlas.layers:
        one = counts[layer.name]
        _extend(columns, _unit_concepts(layer, one, concepts))
        _extend(named, _best_concepts(one, concepts))
        found = one.detectors()
        detectors[layer.name] = {
            "units": found.units,
            "concepts": found.concepts,
            "units_by_chance": _numbers(found.units_by_chance),
            "concepts_by_chance": _numbers(found.concepts_by_chance),
        }
    write_table(atlas.path / "unit_concepts.parquet", columns)
    units = atlas.table("units").to_pydict() | named
    _name(units)
    write_table(atlas.path / "units.parquet", units)
    return detectors


def _unit_concepts(
    layer: AtlasLayer, counts: ConceptCounts, concepts: Sequence[Concept]
) -> dict[str, Any]:
    iou, interval = counts.iou(), counts.interval()
    mean, largest = counts.chance()
    order = np.argsort(-iou, axis=1, kind="stable")[:, :LISTED]
    units, ranks = np.nonzero(np.take_along_axis(iou, order, 1) > 0)
    chosen = order[units, ranks]
    columns = {
        "iou": iou,
        "iou_low": interval.low,
        "iou_high": interval.high,
        "chance": mean,
        "chance_high": largest,
    }
    return {
        "layer": [layer.name] * len(units),
        "unit": units,
        "rank": ranks + 1,
        "concept": chosen,
        "name": [concepts[one].name for one in chosen],
        "category": [concepts[one].category for one in chosen],
        **{name: values[units, chosen] for name, values in columns.items()},
    }


def _best_concepts(
    counts: ConceptCounts, concepts: Sequence[Concept]
) -> dict[str, Any]:
    best, interval = counts.best(), counts.interval()
    units = np.arange(len(best.concept))
    found = best.iou > 0
    detects = (best.iou > DETECTOR_THRESHOLD) & (best.p <= SIGNIFICANCE)
    chosen = best.concept.tolist()
    return {
        "concept": [one if ok else None for one, ok in zip(chosen, found, strict=True)],
        "concept_name": [
            concepts[one].name if ok else None
            for one, ok in zip(chosen, found, strict=True)
        ],
        "iou": best.iou,
        "iou_low": interval.low[units, best.concept],
        "iou_high": interval.high[units, best.concept],
        "p_value": best.p,
        "detector": detects,
    }


def _name(units: dict[str, list[Any]]) -> None:
    """Name units by the concept that they detect, or else by the class to which they answer most."""
    names: list[tuple[str | None, str | None]] = []
    for place, dead in enumerate(units["dead"]):
        if units.get("detector") and units["detector"][place]:
            names.append((units["concept_name"][place], "concept"))
        elif units["best_class_name"][place] is not None and not dead:
            names.append((units["best_class_name"][place], "class"))
        else:
            names.append((None, None))
    units["name"], units["named_by"] = (
        [name for name, _ in names],
        [by for _, by in names],
    )


def _numbers(values: Sequence[Any]) -> list[float | None]:
    """An estimate for JSON, which knows no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
