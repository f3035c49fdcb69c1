"""Class contents: the classes of an atlas, columns of them all, and their details."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

from unitscope.atlas.storage import StoredAtlas
from unitscope.explorer.atlas_tables import (
    Rows,
    Where,
    class_importance,
    plain_values,
    ranked,
    rows_by,
)

_UNITS_A_CLASS = 12
_REMOVALS = (
    "removed",
    "units",
    "balanced_accuracy",
    "balanced_accuracy_low",
    "balanced_accuracy_high",
    "accuracy",
)


class ClassContents:
    """The classes: columns of them all, and the page of each with `images` images."""

    def __init__(self, atlas: StoredAtlas, images: int) -> None:
        self._atlas = atlas
        self._most_images = images
        self._table = atlas.table("classes").to_pydict()

    def __len__(self) -> int:
        return len(self._table["class"])

    @functools.cached_property
    def _responding(self) -> dict[int, Rows]:
        return _responding_units(self._atlas)

    @functools.cached_property
    def _images(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        return _images_by_class(self._atlas)

    def plain(self) -> dict[str, list[Any]]:
        """The columns about all classes."""
        return {
            name: plain_values(values)
            for name, values in self._table.items()
            if name != "class"
        }

    def pages(self, begin: int, end: int) -> list[dict[str, Any]]:
        """The pages of classes, beyond the columns; absent keys were not measured."""
        where: Where = [("class", ">=", begin), ("class", "<", end)]
        removals = rows_by(
            "class", self._atlas, "set_ablation", _REMOVALS, where
        )
        important = _important_units(self._atlas, where)
        correct, missed = self._images

        pages = []
        for index in range(begin, end):
            correct_images = correct.get(index, [])
            missed_images = missed.get(index, [])
            page: dict[str, Any] = {
                "found": correct_images[: self._most_images],
                "missed": missed_images[: self._most_images],
                "answering": self._responding.get(index, []),
            }
            if index in removals:
                page["removals"] = removals[index]
            if index in important:
                page["important"] = important[index]
            pages.append(page)
        return pages


def _important_units(atlas: StoredAtlas, where: Where) -> dict[int, Rows]:
    """For each class the units without which it loses most."""
    columns = class_importance(atlas, where)
    if columns is None:
        return {}
    order = -columns["importance"]
    units = ranked(columns, "class", "unit", order, _UNITS_A_CLASS)

    important = {}
    for index, rows in units.items():
        important[index] = [row for row in rows if row[1] > 0]
    return important


def _responding_units(atlas: StoredAtlas) -> dict[int, Rows]:
    """For each class the units whose mean rises most on it, layer by layer.

    Rows are [layer, unit, ratio, mean, low, high]. Means of different units cannot be
    compared, so units are ranked by the ratio to their own mean over all images.
    """
    by_layer: dict[tuple[int, int], Rows] = defaultdict(list)
    for index, place, row in _class_ratios(atlas):
        by_layer[index, place].append(row)

    responding: dict[int, Rows] = defaultdict(list)
    for index, place in sorted(by_layer):
        rows = by_layer[index, place]
        rows.sort(key=_ratio, reverse=True)
        for row in rows[:_UNITS_A_CLASS]:
            values = plain_values(row)
            responding[index].append([place, *values])
    return dict(responding)


def _ratio(row: list[Any]) -> float:
    _, ratio, *_ = row
    return float(ratio)


def _class_ratios(atlas: StoredAtlas) -> list[tuple[int, int, list[Any]]]:
    """Class, place of the layer, and [unit, ratio, mean, low, high], for each mean."""
    own_means = _unit_means(atlas)
    places = {layer.name: place for place, layer in enumerate(atlas.layers)}

    columns = ["class", "layer", "unit", "mean", "mean_low", "mean_high"]
    table = atlas.table("unit_classes", columns).to_pydict()
    ratios = []
    for index, layer, unit, mean, low, high in zip(
        *table.values(), strict=True
    ):
        own_mean = own_means[layer, unit]
        if own_mean is None or mean is None or own_mean <= 0:
            continue
        row = [unit, mean / own_mean, mean, low, high]
        ratios.append((index, places[layer], row))
    return ratios


def _unit_means(atlas: StoredAtlas) -> dict[tuple[str, int], float | None]:
    """Each unit's mean over all images, by layer and unit."""
    table = atlas.table("units", ["layer", "unit", "mean"]).to_pydict()
    means = {}
    for layer, unit, mean in zip(*table.values(), strict=True):
        means[layer, unit] = mean
    return means


def _images_by_class(
    atlas: StoredAtlas,
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Each class's correctly classified images, and its misclassified ones.

    Both are ordered by confidence, highest first. Where labels are predictions, or the
    model lacks the class, no image is right or wrong, and all count as correct.
    """
    columns = ["image", "class", "correct"]
    if atlas.scores.has_probabilities:
        columns.append("probability")
    table = atlas.table("images", columns).to_pydict()
    rows = list(zip(*table.values(), strict=True))
    # By probability where there is one, and then by image.
    rows.sort(key=lambda row: (*(-share for share in row[3:]), row[0]))

    correct: dict[int, list[int]] = defaultdict(list)
    missed: dict[int, list[int]] = defaultdict(list)
    for image, index, is_correct, *_ in rows:
        if index is None:
            continue
        images = missed if is_correct is False else correct
        images[index].append(image)
    return correct, missed
