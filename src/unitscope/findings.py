"""Findings: the tables of an atlas, from what a scan has kept of every unit and image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from unitscope.atlas import WORK, Atlas, AtlasLayer, parquet, write_table
from unitscope.intervals import mean_interval, proportion, selectivity
from unitscope.observing import ROWS
from unitscope.summaries.layer import LayerSummary

QUANTILES = (0.5, 0.9, 0.99, 0.999)
CLASSES_KEPT = 10
"""How many classes are listed for a unit, those to which it answers most."""


def write_findings(atlas: Atlas) -> tuple[int, int]:
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
    for name, columns in (
        ("units", units),
        ("unit_classes", classes),
        ("top_images", tops),
        ("sample_images", samples),
    ):
        write_table(atlas.path / f"{name}.parquet", columns)
    return counts


def rows_of(folder: Path) -> Any:
    """The rows of all images that were scanned, in the data set's order, as a pyarrow.Table."""
    import pyarrow

    tables = [parquet().read_table(path) for path in sorted((folder / WORK / ROWS).glob("*.parquet"))]
    # A column of nothing but missing values has no kind of its own.
    return pyarrow.concat_tables(tables, promote_options="default")


def _write_images(atlas: Atlas) -> tuple[int, int]:
    rows = rows_of(atlas.path)
    reason = rows.column("reason").to_numpy(zero_copy_only=False)
    seen = np.array([one is None for one in reason])
    skipped = rows.filter(~seen)
    write_table(atlas.path / "skipped.parquet", {name: skipped.column(name) for name in ("image", "id", "reason")})
    kept = rows.filter(seen)
    columns: dict[str, Any] = {name: kept.column(name) for name in ("image", "id")}
    classes, targets, labels = atlas.classes, atlas.manifest["data"]["targets"], atlas.labels
    given = atlas.manifest["data"]["labels"] == "given"
    predicted = kept.column("prediction").to_pylist()
    own = kept.column("label").to_pylist() if given else predicted
    truth = [None if label is None or not given else targets[label] for label in own]
    columns |= {
        "class": own,
        "class_name": [None if label is None else classes[label] for label in own],
        "target": truth,
        "prediction": predicted,
        "prediction_name": [labels[index] for index in predicted],
        "probability": kept.column("probability"),
        "correct": [None if one is None else one == other for one, other in zip(truth, predicted, strict=True)],
    }
    columns |= {name: kept.column(name) for name in ("width", "height", "left", "top", "right", "bottom", "digest")}
    write_table(atlas.path / "images.parquet", columns)
    _write_classes(atlas, own, truth, predicted)
    return kept.num_rows, skipped.num_rows


def _write_classes(atlas: Atlas, own: list[Any], truth: list[Any], predicted: list[Any]) -> None:
    """Of every class how many images there are, and how many of them the model finds."""
    count, targets = len(atlas.classes), atlas.manifest["data"]["targets"]
    images = np.bincount([one for one in own if one is not None], minlength=count)
    told = zip(own, truth, predicted, strict=True)
    judgements = [(one, target == guess) for one, target, guess in told if target is not None]
    found = np.bincount([one for one, right in judgements if right], minlength=count)
    judged = np.bincount([one for one, _ in judgements], minlength=count)
    share = proportion(found, judged)
    guesses = np.bincount(predicted, minlength=len(atlas.labels))
    columns = {
        "class": np.arange(count),
        "name": list(atlas.classes),
        "target": list(targets),
        "images": images,
        "judged": judged,
        "found": found,
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "predicted": [None if target is None else int(guesses[target]) for target in targets],
    }
    write_table(atlas.path / "classes.parquet", columns)


def _units(atlas: Atlas, layer: AtlasLayer, summary: LayerSummary) -> dict[str, Any]:
    histogram, classes = summary.histogram, summary.classes
    thresholds, reached = histogram.thresholds(atlas.manifest["parameters"]["quantile"])
    quantiles = histogram.quantiles(QUANTILES)
    lower, _, counts = histogram.buckets()
    total = np.maximum(histogram.total, 1)
    positive = counts[:, lower > 0].sum(axis=1)
    means, variances = class_means(summary)
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
        **{f"quantile_{share:g}": quantiles[:, place] for place, share in enumerate(QUANTILES)},
        "best_class": best if some else [None] * layer.units,
        "best_class_name": [atlas.classes[one] if some else None for one in best],
        "selectivity": found,
        "selectivity_low": low,
        "selectivity_high": high,
    }


def class_means(summary: LayerSummary) -> tuple[Float[np.ndarray, "class unit"], Float[np.ndarray, "class unit"]]:
    """Each unit's mean activation on the images of each class, and its variance between them; NaN without images."""
    counts = summary.classes.counts[:, None].astype(np.float64)
    means = np.divide(summary.classes.sums, counts, out=np.full(summary.classes.sums.shape, np.nan), where=counts > 0)
    spread = summary.classes.squares - counts * np.nan_to_num(means) ** 2
    variances = np.divide(spread.clip(min=0), counts - 1, out=np.full(means.shape, np.nan), where=counts > 1)
    return means, variances


def _unit_classes(atlas: Atlas, layer: AtlasLayer, summary: LayerSummary) -> dict[str, Any]:
    classes = summary.classes
    means, _ = class_means(summary)
    _, low, high = mean_interval(classes.sums, classes.squares, classes.counts[:, None])
    present = int((classes.counts > 0).sum())
    kept = min(CLASSES_KEPT, present)
    order = np.argsort(-np.where(np.isnan(means), -np.inf, means), axis=0, kind="stable")[:kept].T
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
        columns.setdefault(name, []).extend(values.tolist() if isinstance(values, np.ndarray) else values)
