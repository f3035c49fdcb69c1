"""Atlas contents: what the pages of a unit atlas tell of layers, units and classes, as plain data."""

from __future__ import annotations

import base64
import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.atlas.summaries.histogram import Histogram
from unitscope.atlas.summaries.top_images import CRITERIA
from unitscope.geometry import Axis
from unitscope.render.words import shorten

RANGE = 8
"""How many images of the uniform sample show a unit across its range."""

_OCTAVES = 11
# Parts of an octave that are nearly thirds of it, and edges of the summaries' buckets.
_THIRDS = (1.0, 1 + 17 / 64, 1 + 38 / 64)
_MOST_CELLS = 32
_STEPS = 254
_CHUNK_BYTES = 400_000
_CHUNK_UNITS = 64
_SPARK = "0123456789abcdefghijklmnopqrstuvwxyz"
_LISTED = 5
_LABEL = 120


class LayerContents:
    """One layer: what the grid tells of all its units at once, and the page of each unit.

    Of the maps only those of the units that are asked for are read.
    """

    def __init__(self, atlas: StoredAtlas, layer: AtlasLayer, images: int) -> None:
        self.layer = layer
        self._atlas = atlas
        self._tops = {
            criterion: _Maps(atlas, layer, f"top.{criterion}", images)
            for criterion in CRITERIA
        }
        self._bins = _Bins(atlas, layer)
        self._rows = atlas.table(
            "units", where=[("layer", "=", layer.name)]
        ).to_pydict()
        self._ablation = _ablation_of_units(atlas) if layer.is_head else {}
        # Documents of about this many bytes are loaded together, and of not more units
        # than these.
        maps = (
            (2 * images + RANGE)
            * -(-layer.cells[0] // self.factor)
            * -(-layer.cells[1] // self.factor)
            * 4
            / 3
        )
        self.chunk = int(max(1, min(_CHUNK_UNITS, _CHUNK_BYTES // maps)))

    @property
    def factor(self) -> int:
        """Of squares of so many cells a side the largest is told."""
        return _factor(self.layer.cells)

    @functools.cached_property
    def _sample(self) -> _Sample:
        return _Sample(self._atlas, self.layer)

    def plain(self) -> dict[str, Any]:
        """The layer itself and one column for each thing told of its units."""
        layer, factor = self.layer, self.factor
        rows, cols = (
            _reduced(axis, factor) for axis in (layer.grid.rows, layer.grid.cols)
        )
        return {
            "name": layer.name,
            "kind": layer.kind,
            "units": layer.units,
            "cells": list(layer.cells),
            "head": layer.is_head,
            "chunk": self.chunk,
            "signed": self._bins.signed,
            "factor": factor,
            "map": {
                "rows": -(-layer.cells[0] // factor),
                "cols": -(-layer.cells[1] // factor),
                "down": [rows.start, rows.step],
                "across": [cols.start, cols.step],
            },
            "bins": self._bins.plain(),
            "columns": self._columns(),
        }

    def _columns(self) -> dict[str, list[Any]]:
        columns = {
            name: _plain(values)
            for name, values in self._rows.items()
            if name not in _NOT_TOLD
        }
        if "concept" in columns:
            categories = categories_of(self._atlas)
            columns["category"] = [
                categories.get(concept) for concept in columns["concept"]
            ]
        for name in _ABLATED if self._ablation else ():
            columns[name] = _plain(self._ablation[name])
        return {**columns, "spark": self._bins.sparks()}

    def units(self, begin: int, end: int) -> list[dict[str, Any]]:
        """What the pages of units tell beyond the columns; absent keys were not measured."""
        atlas, signed = self._atlas, self._bins.signed
        tops = {
            criterion: maps.of(begin, end, signed)
            for criterion, maps in self._tops.items()
        }
        sample = self._sample.of(begin, end, signed)
        where = [
            ("layer", "=", self.layer.name),
            ("unit", ">=", begin),
            ("unit", "<", end),
        ]
        classes = _grouped(atlas, "unit_classes", _CLASS_MEANS, where=where)
        concepts = _grouped(atlas, "unit_concepts", _CONCEPTS, where=where)
        effects = _most_and_least(atlas, where[1:]) if self.layer.is_head else None
        told = []
        for unit in range(begin, end):
            one: dict[str, Any] = {
                "histogram": _plain(self._bins.shares[unit].tolist()),
                "zero": _plain([self._bins.zero[unit]])[0],
                "less": _plain([self._bins.less[unit]])[0],
                **{criterion: maps[unit - begin] for criterion, maps in tops.items()},
                "range": sample[unit - begin],
                "classes": classes.get(unit, []),
            }
            if atlas.has("unit_concepts"):
                one["concepts"] = concepts.get(unit, [])
            if effects is not None:
                one |= {name: rows.get(unit, []) for name, rows in effects.items()}
            told.append(one)
        return told

    def shown(self, unit: int) -> list[int]:
        """The images on which a unit is most active, as many as are told of."""
        return self._tops[CRITERIA[0]].images(unit)


class ClassContents:
    """The classes: a table of them all, and the page of each."""

    def __init__(self, atlas: StoredAtlas, shown: int) -> None:
        self._atlas, self._shown = atlas, shown
        self._table = atlas.table("classes").to_pydict()

    @functools.cached_property
    def _answering(self) -> Ranked:
        return _answering_units(self._atlas)

    @functools.cached_property
    def _images(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        return _images_of_classes(self._atlas)

    def plain(self) -> dict[str, list[Any]]:
        """One column for each thing told of all classes."""
        return {
            name: _plain(values)
            for name, values in self._table.items()
            if name != "class"
        }

    def __len__(self) -> int:
        return len(self._table["class"])

    def of(self, begin: int, end: int) -> list[dict[str, Any]]:
        """What the pages of classes tell beyond the columns."""
        where = [("class", ">=", begin), ("class", "<", end)]
        removals = _grouped(
            self._atlas, "set_ablation", _REMOVALS, by="class", where=where
        )
        important = _important_units(self._atlas, where)
        found, missed = self._images
        told = []
        for index in range(begin, end):
            one: dict[str, Any] = {
                "found": found.get(index, [])[: self._shown],
                "missed": missed.get(index, [])[: self._shown],
                "answering": self._answering.get(index, []),
            }
            if index in removals:
                one["removals"] = removals[index]
            if index in important:
                one["important"] = important[index]
            told.append(one)
        return told


class _Maps:
    """Units' maps on their top images, as the summaries keep them: shares of their own peak, in half precision."""

    def __init__(
        self, atlas: StoredAtlas, layer: AtlasLayer, part: str, images: int
    ) -> None:
        self._atlas, self._name, self._most = atlas, f"{layer.name}/{part}", images
        self._factor = _factor(layer.cells)

    def of(self, begin: int, end: int, signed: bool) -> list[dict[str, Any]]:
        """Of each unit its images, with scores, peaks and maps."""
        images, scores, peaks, maps = (
            self._read(name, begin, end)
            for name in ("images", "scores", "peaks", "maps")
        )
        told = []
        for unit in range(end - begin):
            there = np.flatnonzero(images[unit] >= 0)
            told.append(
                {
                    "images": images[unit, there].tolist(),
                    "scores": _plain(scores[unit, there].tolist()),
                    "peaks": _plain(peaks[unit, there].tolist()),
                    "maps": _packed(maps[unit, there], self._factor, signed),
                }
            )
        return told

    def images(self, unit: int) -> list[int]:
        """A unit's top images."""
        (images,) = self._read("images", unit, unit + 1)
        return [int(image) for image in images[images >= 0]]

    def _read(self, array: str, begin: int, end: int) -> np.ndarray:
        return self._atlas.part(
            f"{self._name}/{array}", slice(begin, end), slice(self._most)
        )


class _Sample:
    """All units' maps on the same images, drawn at random."""

    def __init__(self, atlas: StoredAtlas, layer: AtlasLayer) -> None:
        self._atlas, self._name, self._factor = (
            atlas,
            f"{layer.name}/sample",
            _factor(layer.cells),
        )
        self._images = atlas.part(f"{self._name}/images", slice(None))

    def of(self, begin: int, end: int, signed: bool) -> list[dict[str, Any]]:
        """Of each unit images from its lowest score to its highest, evenly spaced in rank."""
        maxima, peaks, maps = (
            self._atlas.part(f"{self._name}/{array}", slice(None), slice(begin, end))
            for array in ("maxima", "peaks", "maps")
        )
        count, told = len(self._images), []
        ranks = np.unique(
            np.linspace(0, count - 1, min(RANGE, count)).round().astype(np.int64)
        )
        for unit in range(end - begin):
            chosen = np.lexsort((self._images, maxima[:, unit]))[ranks]
            told.append(
                {
                    "images": self._images[chosen].tolist(),
                    "scores": _plain(maxima[chosen, unit].tolist()),
                    "peaks": _plain(peaks[chosen, unit].tolist()),
                    "maps": _packed(maps[chosen, unit], self._factor, signed),
                    "ranks": (ranks + 1).tolist(),
                    "of": count,
                }
            )
        return told


class _Bins:
    """Histograms in thirds of an octave, on one axis for all units of a layer."""

    def __init__(self, atlas: StoredAtlas, layer: AtlasLayer) -> None:
        histogram = Histogram(layer.units)
        histogram.restore(atlas.arrays(f"{layer.name}/histogram"))
        lower, upper, counts = histogram.buckets()
        total = counts.sum(axis=1, keepdims=True).clip(min=1)
        largest = float(upper.max(initial=0.0))
        top = int(np.ceil(np.log2(largest))) if largest > 0 else 0
        octaves = np.arange(top - _OCTAVES, top) if largest > 0 else np.zeros(0)
        self._edges = np.concatenate(
            [np.outer(np.exp2(octaves), _THIRDS).ravel(), [2.0**top]]
        )
        places = np.searchsorted(self._edges, lower, side="right") - 1
        binned = np.zeros((layer.units, len(self._edges) - 1))
        within = (lower > 0) & (places >= 0)
        np.add.at(binned.T, places[within], counts[:, within].T)
        self.shares = binned / total
        # Bucket 0, of edges 0 and 0, stands for zero.
        self.zero = (
            counts[:, (lower == 0) & (upper == 0)].sum(axis=1, keepdims=True) / total
        )[:, 0]
        self.less = (
            counts[:, (lower > 0) & (places < 0)].sum(axis=1, keepdims=True) / total
        )[:, 0]
        self.signed = bool(counts[:, lower < 0].any())
        self._floor = float(10.0 ** np.floor(np.log10(1 / total.max())))

    def plain(self) -> dict[str, Any]:
        return {"edges": _plain(self._edges.tolist(), 8), "floor": self._floor}

    def sparks(self) -> list[str]:
        """The histograms as letters, one a bin: the logarithm of its share, from one cell of all to the largest bin."""
        most = max(float(self.shares.max(initial=0.0)), 10 * self._floor)
        with np.errstate(divide="ignore"):
            height = 1 - np.log(self.shares / most) / np.log(self._floor / most)
        steps = np.where(self.shares > 0, (height * 35).clip(1, 35).round(), 0).astype(
            int
        )
        return ["".join(_SPARK[step] for step in unit) for unit in steps]


def categories_of(atlas: StoredAtlas) -> dict[int, str]:
    """The category of each concept; none where concepts were not measured."""
    if not atlas.has("concepts"):
        return {}
    table = atlas.table("concepts", ["concept", "category"])
    return dict(
        zip(
            table.column("concept").to_pylist(),
            table.column("category").to_pylist(),
            strict=True,
        )
    )


_NOT_TOLD = ("layer", "unit")
_ABLATED = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_change")
_CLASS_MEANS = ("class", "images", "mean", "mean_low", "mean_high")
_CONCEPTS = ("name", "category", "iou", "iou_low", "iou_high", "chance", "chance_high")
_REMOVALS = (
    "removed",
    "units",
    "balanced_accuracy",
    "balanced_accuracy_low",
    "balanced_accuracy_high",
    "accuracy",
)

# Which rows of a table are read, as pyarrow takes it.
Where = list[tuple[str, str, Any]] | None


def _factor(cells: tuple[int, int]) -> int:
    return -(-max(cells) // _MOST_CELLS)


def _reduced(axis: Axis, factor: int) -> Axis:
    return Axis(axis.start + axis.step * (factor - 1) / 2, axis.step * factor)


def _packed(
    shares: Float[np.ndarray, "image row col"], factor: int, signed: bool
) -> str:
    """Maps in 255 steps of their own peak, as base64; of large maps the largest value of each square of cells.

    The first step is 0, or minus the peak in a layer with negative values, where 0 is
    step 127.
    """
    count, rows, cols = shares.shape
    values: np.ndarray = shares.astype(np.float32)
    if factor > 1:
        values = np.pad(
            values, ((0, 0), (0, -rows % factor), (0, -cols % factor)), mode="edge"
        )
        squares = values.reshape(
            count, values.shape[1] // factor, factor, values.shape[2] // factor, factor
        )
        values = squares.max(axis=(2, 4))
    if signed:
        values = (values + 1) / 2
    steps = np.round(values.clip(0, 1) * _STEPS).astype(np.uint8)
    return base64.b64encode(steps.tobytes()).decode("ascii")


def _plain(values: Iterable[Any], digits: int = 5) -> list[Any]:
    """Values for JSON: numbers shortened, labels cleaned, missing ones None."""
    return [_plain_one(value, digits) for value in values]


def _plain_one(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    return shorten(value, _LABEL) if isinstance(value, str) else value


def _grouped(
    atlas: StoredAtlas,
    table: str,
    columns: Sequence[str],
    *,
    by: str = "unit",
    where: Where = None,
) -> dict[int, list[list[Any]]]:
    """The rows of a table by unit or class, in the table's order; none where the atlas lacks the table."""
    if not atlas.has(table):
        return {}
    found = atlas.table(table, [by, *columns], where)
    values = [_plain(found.column(name).to_pylist()) for name in columns]
    groups: dict[int, list[list[Any]]] = defaultdict(list)
    for key, *row in zip(found.column(by).to_pylist(), *values, strict=True):
        groups[key].append(row)
    return dict(groups)


def _arrays(
    atlas: StoredAtlas, table: str, columns: Sequence[str], where: Where
) -> dict[str, Shaped[np.ndarray, " row"]]:
    found = atlas.table(table, columns, where)
    return {name: found.column(name).to_numpy(zero_copy_only=False) for name in columns}


def _ablation_of_units(atlas: StoredAtlas) -> dict[str, list[Any]]:
    if not atlas.has("unit_ablation"):
        return {}
    table = atlas.table("unit_ablation", ["unit", *_ABLATED]).sort_by("unit")
    return {name: table.column(name).to_pylist() for name in _ABLATED}


_IMPORTANCE = (
    "importance",
    "importance_low",
    "importance_high",
    "balanced_accuracy",
    "contribution",
)
Ranked = dict[int, list[list[Any]]]


def _most_and_least(atlas: StoredAtlas, where: Where) -> dict[str, Ranked] | None:
    """For units the classes that need each most, and those that gain most by its being off; None if not measured."""
    if not atlas.has("class_ablation"):
        return None
    found = _arrays(atlas, "class_ablation", ("unit", "class", *_IMPORTANCE), where)
    hurt = _ranked(found, "unit", "class", -found["importance"], _LISTED)
    helped = _ranked(found, "unit", "class", found["importance"], _LISTED)
    return {
        "hurt": {
            unit: [row for row in rows if row[1] > 0] for unit, rows in hurt.items()
        },
        "helped": {
            unit: [row for row in rows if row[1] < 0] for unit, rows in helped.items()
        },
    }


def _important_units(atlas: StoredAtlas, where: Where, listed: int = 12) -> Ranked:
    """For classes the units that each needs most."""
    if not atlas.has("class_ablation"):
        return {}
    found = _arrays(atlas, "class_ablation", ("unit", "class", *_IMPORTANCE), where)
    ranked = _ranked(found, "class", "unit", -found["importance"], listed)
    return {
        index: [row for row in rows if row[1] > 0] for index, rows in ranked.items()
    }


def _ranked(
    found: Mapping[str, Shaped[np.ndarray, " row"]],
    group: str,
    member: str,
    least: Float[np.ndarray, " row"],
    listed: int,
) -> Ranked:
    """The first `listed` rows [member, importance, …] of each group, by rising `least`; missing ones are left out."""
    order = np.lexsort((found[member], least, found[group]))
    order = order[np.isfinite(least[order])]
    keys, starts = np.unique(found[group][order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    return {
        int(key): [
            [
                int(found[member][row]),
                *_plain([float(found[name][row]) for name in _IMPORTANCE]),
            ]
            for row in rows[:listed]
        ]
        for key, rows in zip(keys, groups, strict=True)
    }


def _answering_units(atlas: StoredAtlas, listed: int = 12) -> Ranked:
    """For every class the units of each layer whose mean on it is most above their mean over all images.

    Rows are [layer, unit, times, mean, low, high]; means of different units cannot be
    compared, but how many times its own mean a unit gives can.
    """
    units = atlas.table("units", ["layer", "unit", "mean"]).to_pydict()
    overall = dict(
        zip(zip(units["layer"], units["unit"], strict=True), units["mean"], strict=True)
    )
    names = [layer.name for layer in atlas.layers]
    table = atlas.table(
        "unit_classes", ["class", "layer", "unit", "mean", "mean_low", "mean_high"]
    ).to_pydict()
    found: dict[int, dict[int, list[list[Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for index, layer, unit, *means in zip(*table.values(), strict=True):
        mean = overall[layer, unit]
        if mean is not None and means[0] is not None and mean > 0:
            found[index][names.index(layer)].append([unit, means[0] / mean, *means])
    answering: Ranked = {}
    for index, layers in found.items():
        answering[index] = [
            [place, *_plain(row)]
            for place in sorted(layers)
            for row in sorted(layers[place], key=lambda one: -one[1])[:listed]
        ]
    return answering


def _images_of_classes(
    atlas: StoredAtlas,
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """The images of every class that the model finds, and those that it misses, the surest first.

    Where labels are predictions, or the model lacks the class, none is right or wrong:
    all count as found.
    """
    table = atlas.table(
        "images", ["image", "class", "probability", "correct"]
    ).to_pydict()
    rows = sorted(zip(*table.values(), strict=True), key=lambda row: (-row[2], row[0]))
    found: dict[int, list[int]] = defaultdict(list)
    missed: dict[int, list[int]] = defaultdict(list)
    for image, index, _, correct in rows:
        if index is not None:
            (missed if correct is False else found)[index].append(image)
    return found, missed
