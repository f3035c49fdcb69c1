"""Unit tables: the facts of every unit, its classes, and its top and sample images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unitscope.atlas.disk.layout import table_file
from unitscope.atlas.disk.tables import write_table
from unitscope.atlas.intervals import mean_interval, selectivity
from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.atlas.summaries.layer import LayerSummary

QUANTILES = (0.5, 0.9, 0.99, 0.999)
LISTED = 10
"""The number of classes, and of concepts, that are listed for a unit."""


def write_unit_tables(atlas: StoredAtlas) -> None:
    """Write the tables `units`, `unit_classes`, `top_images` and `sample_images`."""
    units: dict[str, list[Any]] = {}
    classes: dict[str, list[Any]] = {}
    top_images: dict[str, list[Any]] = {}
    sample_images: dict[str, list[Any]] = {}
    for layer in atlas.layers:
        summary = atlas.summary(layer.name)
        extend(units, _units(atlas, layer, summary))
        extend(classes, _unit_classes(atlas, layer, summary))
        extend(top_images, _top_images(layer, summary))
        extend(sample_images, _sample_images(layer, summary))

    if any(layer.heads is not None for layer in atlas.layers):
        for layer in atlas.layers:
            extend(units, _heads(layer, atlas.summary(layer.name)))
    name_units(units)
    tables = {
        "units": units,
        "unit_classes": classes,
        "top_images": top_images,
        "sample_images": sample_images,
    }
    for name, columns in tables.items():
        write_table(table_file(atlas.path, name), columns)


def extend(columns: dict[str, list[Any]], more: Mapping[str, Any]) -> None:
    """Append rows to columns."""
    for name, values in more.items():
        if isinstance(values, np.ndarray):
            values = values.tolist()
        columns.setdefault(name, []).extend(values)


def name_units(units: dict[str, list[Any]]) -> None:
    """Add the columns `name` and `named_by` to those of the table `units`.

    A unit is named by the concept that it detects, or else by the class to which it
    responds most; a dead unit has no name. Heads of attention are named by concepts only:
    how much of its attention goes to patches tells little of what a head looks at.
    """
    count = len(units["unit"])
    names: list[str | None] = [None] * count
    heads = units.get("head", names)
    named_by: list[str | None] = [None] * count
    for place in range(count):
        class_name = units["best_class_name"][place]
        if units.get("detector") and units["detector"][place]:
            names[place] = units["concept_name"][place]
            named_by[place] = "concept"
        elif heads[place] is not None:
            continue
        elif class_name is not None and not units["dead"][place]:
            names[place] = class_name
            named_by[place] = "class"
    units["name"] = names
    units["named_by"] = named_by


def _units(
    atlas: StoredAtlas, layer: AtlasLayer, summary: LayerSummary
) -> dict[str, Any]:
    histogram = summary.histogram
    share = atlas.manifest["parameters"]["quantile"]
    thresholds, share_above = histogram.thresholds(share)
    quantiles = histogram.quantiles(QUANTILES)
    lower, _, counts = histogram.buckets()
    positive = counts[:, lower > 0].sum(axis=1)
    maxima = summary.top["maximum"].scores[:, 0]
    return {
        "layer": [layer.name] * layer.units,
        "unit": np.arange(layer.units),
        "maximum": maxima.astype(np.float64),
        "mean": summary.classes.overall_mean,
        "threshold": thresholds,
        "share_above": share_above,
        "share_positive": positive / np.maximum(histogram.total, 1),
        "dead": maxima <= 0,
        **{
            f"quantile_{quantile:g}": quantiles[:, place]
            for place, quantile in enumerate(QUANTILES)
        },
        **_class_preferences(atlas, layer, summary),
    }


def _heads(layer: AtlasLayer, summary: LayerSummary) -> dict[str, Any]:
    """The names of heads of attention, and what they give; null for other units."""
    nothing: list[None] = [None] * layer.units
    if layer.heads is None or summary.heads is None:
        names = ("head", "contribution_mean", "contribution_size")
        return dict.fromkeys(names, nothing)
    mean, size = summary.heads.contributions
    return {
        "head": list(layer.heads.names),
        "contribution_mean": mean,
        "contribution_size": size,
    }


def _class_preferences(
    atlas: StoredAtlas, layer: AtlasLayer, summary: LayerSummary
) -> dict[str, Any]:
    """The class to which each unit responds most, and its class selectivity."""
    classes = summary.classes
    means = classes.means
    estimate = selectivity(means, classes.counts, classes.variances)

    best: list[int | None] = [None] * layer.units
    names: list[str | None] = [None] * layer.units
    if classes.counts.any():
        best = _without_nan(means).argmax(axis=0).tolist()
        names = [atlas.classes[index] for index in best if index is not None]
    return {
        "best_class": best,
        "best_class_name": names,
        "selectivity": estimate.value,
        "selectivity_low": estimate.low,
        "selectivity_high": estimate.high,
    }


def _unit_classes(
    atlas: StoredAtlas, layer: AtlasLayer, summary: LayerSummary
) -> dict[str, Any]:
    classes = summary.classes
    means = classes.means
    interval = mean_interval(
        classes.sums,
        classes.squares,
        classes.counts[:, None],
    )

    present = np.count_nonzero(classes.counts)
    listed = min(LISTED, int(present))
    order = np.argsort(-_without_nan(means), axis=0, kind="stable")
    chosen = order[:listed].T.ravel()
    units = np.repeat(np.arange(layer.units), listed)
    ranks = np.arange(1, listed + 1)
    return {
        "layer": [layer.name] * len(units),
        "unit": units,
        "rank": np.tile(ranks, layer.units),
        "class": chosen,
        "class_name": [atlas.classes[index] for index in chosen],
        "images": classes.counts[chosen],
        "mean": means[chosen, units],
        "mean_low": interval.low[chosen, units],
        "mean_high": interval.high[chosen, units],
    }


def _without_nan(means: np.ndarray) -> np.ndarray:
    """Means with −∞ for classes without images, so that these rank last."""
    return np.where(np.isnan(means), -np.inf, means)


def _top_images(layer: AtlasLayer, summary: LayerSummary) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {}
    for criterion, top in summary.top.items():
        units, ranks = np.nonzero(top.images >= 0)
        rows = {
            "layer": [layer.name] * len(units),
            "unit": units,
            "criterion": [criterion] * len(units),
            "rank": ranks + 1,
            "image": top.images[units, ranks],
            "score": top.scores[units, ranks],
        }
        extend(columns, rows)
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
