"""Layer contents: a layer of an atlas, columns of all its units, and their details."""

from __future__ import annotations

import functools
from typing import Any

from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.atlas.summaries.top_images import CRITERIA
from unitscope.explorer.atlas_tables import (
    Rows,
    Where,
    class_importance,
    plain_value,
    plain_values,
    ranked,
    rows_by,
)
from unitscope.explorer.histogram_contents import HistogramContents
from unitscope.explorer.map_contents import (
    RANGE,
    SampleImages,
    TopImages,
    pooling_factor,
)
from unitscope.geometry import Axis

_CHUNK_BYTES = 400_000
_CHUNK_UNITS = 64
_BASE64 = 4 / 3
_CLASSES_A_UNIT = 5

_KEYS = ("layer", "unit", "head")
_ABLATION = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_change")
_CLASS_MEANS = ("class", "images", "mean", "mean_low", "mean_high")
_CONCEPTS = (
    "name",
    "category",
    "iou",
    "iou_low",
    "iou_high",
    "chance",
    "chance_high",
)


class LayerContents:
    """One layer: what the grid shows of all its units, and the page of each unit.

    Only the maps of the units that are asked for are read. Every unit has `images`
    images by its maximum and by its mean.
    """

    def __init__(
        self, atlas: StoredAtlas, layer: AtlasLayer, images: int
    ) -> None:
        self.layer = layer
        self.factor = pooling_factor(layer.cells)
        """Large maps give the largest of every square of so many cells a side."""

        self._atlas = atlas
        self._top_images = {
            criterion: TopImages(atlas, layer, f"top.{criterion}", images)
            for criterion in CRITERIA
        }
        self._histogram = HistogramContents(atlas, layer)
        self._units = atlas.table(
            "units", where=[("layer", "=", layer.name)]
        ).to_pydict()
        self._ablation = _unit_ablation(atlas) if layer.is_head else {}
        self.chunk = self._chunk(images)
        """How many units one document is about."""

    def _chunk(self, images: int) -> int:
        rows, cols = self._packed_cells
        maps = 2 * images + RANGE
        unit_bytes = maps * rows * cols * _BASE64
        return int(max(1, min(_CHUNK_UNITS, _CHUNK_BYTES // unit_bytes)))

    @property
    def _packed_cells(self) -> tuple[int, int]:
        """Rows and columns of the maps in documents."""
        rows, cols = self.layer.cells
        return -(-rows // self.factor), -(-cols // self.factor)

    @functools.cached_property
    def _sample(self) -> SampleImages:
        return SampleImages(self._atlas, self.layer)

    def plain(self) -> dict[str, Any]:
        """The layer itself, and columns about all its units."""
        layer = self.layer
        rows, cols = self._packed_cells
        down = _pooled(layer.grid.rows, self.factor)
        across = _pooled(layer.grid.cols, self.factor)
        return {
            "name": layer.name,
            "kind": layer.kind,
            "units": layer.units,
            "cells": list(layer.cells),
            "head": layer.is_head,
            **(
                {}
                if layer.heads is None
                else {"names": list(layer.heads.names)}
            ),
            "chunk": self.chunk,
            "signed": self._histogram.signed,
            "factor": self.factor,
            "map": {
                "rows": rows,
                "cols": cols,
                "down": [down.start, down.step],
                "across": [across.start, across.step],
            },
            "bins": self._histogram.plain(),
            "columns": self._columns(),
        }

    def _columns(self) -> dict[str, list[Any]]:
        columns = {
            name: plain_values(values)
            for name, values in self._units.items()
            if name not in _KEYS
        }
        if "concept" in columns:
            categories = concept_categories(self._atlas)
            columns["category"] = [
                categories.get(concept) for concept in columns["concept"]
            ]
        for name, values in self._ablation.items():
            columns[name] = plain_values(values)
        columns["spark"] = self._histogram.sparks()
        return columns

    def units(self, begin: int, end: int) -> list[dict[str, Any]]:
        """The pages of units, beyond the columns; absent keys were not measured."""
        atlas, signed = self._atlas, self._histogram.signed
        is_within: Where = [
            ("unit", ">=", begin),
            ("unit", "<", end),
        ]
        where: Where = [("layer", "=", self.layer.name), *is_within]

        images = {
            criterion: top_images.plain(begin, end, signed)
            for criterion, top_images in self._top_images.items()
        }
        sample = self._sample.plain(begin, end, signed)
        classes = rows_by("unit", atlas, "unit_classes", _CLASS_MEANS, where)
        concepts = rows_by("unit", atlas, "unit_concepts", _CONCEPTS, where)
        effects: dict[str, dict[int, Rows]] = {}
        if self.layer.is_head:
            effects = _effects(atlas, is_within)

        pages = []
        for unit in range(begin, end):
            page = self._histogram_of(unit)
            for criterion, units in images.items():
                page[criterion] = units[unit - begin]
            page["range"] = sample[unit - begin]
            page["classes"] = classes.get(unit, [])
            if atlas.has("unit_concepts"):
                page["concepts"] = concepts.get(unit, [])
            for name, rows in effects.items():
                page[name] = rows.get(unit, [])
            pages.append(page)
        return pages

    def _histogram_of(self, unit: int) -> dict[str, Any]:
        histogram = self._histogram
        return {
            "histogram": plain_values(histogram.shares[unit].tolist()),
            "zero": plain_value(histogram.zero[unit]),
            "less": plain_value(histogram.below[unit]),
        }

    def top_images(self, unit: int) -> list[int]:
        """The images on which a unit is most active, as many as its page shows."""
        return self._top_images[CRITERIA[0]].images(unit)


def concept_categories(atlas: StoredAtlas) -> dict[int, str]:
    """The category of each concept; empty where concepts were not measured."""
    if not atlas.has("concepts"):
        return {}
    table = atlas.table("concepts", ["concept", "category"])
    concepts = table.column("concept").to_pylist()
    categories = table.column("category").to_pylist()
    return dict(zip(concepts, categories, strict=True))


def _unit_ablation(atlas: StoredAtlas) -> dict[str, list[Any]]:
    """The columns about switching units off, by unit."""
    if not atlas.has("unit_ablation"):
        return {}
    table = atlas.table("unit_ablation", ["unit", *_ABLATION]).sort_by("unit")
    return {name: table.column(name).to_pylist() for name in _ABLATION}


def _effects(atlas: StoredAtlas, where: Where) -> dict[str, dict[int, Rows]]:
    """For each unit the classes that its ablation hurts most and helps most.

    Empty where that was not measured.
    """
    columns = class_importance(atlas, where)
    if columns is None:
        return {}

    importance = columns["importance"]
    hurt = ranked(columns, "unit", "class", -importance, _CLASSES_A_UNIT)
    for unit, rows in hurt.items():
        hurt[unit] = [row for row in rows if row[1] > 0]

    helped = ranked(columns, "unit", "class", importance, _CLASSES_A_UNIT)
    for unit, rows in helped.items():
        helped[unit] = [row for row in rows if row[1] < 0]
    return {"hurt": hurt, "helped": helped}


def _pooled(axis: Axis, factor: int) -> Axis:
    """The axis of maps in which `factor` cells were pooled."""
    return Axis(axis.start + axis.step * (factor - 1) / 2, axis.step * factor)
