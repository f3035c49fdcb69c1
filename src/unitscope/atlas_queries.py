"""Atlas queries: which units, which classes, which concepts, as rows to be printed, sorted and put into tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unitscope.ablation_study import confusion_without
from unitscope.atlas import Atlas
from unitscope.classes import class_index
from unitscope.errors import AtlasError, ClassError, near_matches
from unitscope.findings import class_means, pooled_features
from unitscope.intervals import Estimate
from unitscope.layers import check_units

Row = dict[str, Any]

SORTS: dict[str, Callable[[Row], Any]] = {
    "unit": lambda row: (row["layer"], row["unit"]),
    "maximum": lambda row: -row["maximum"],
    "selectivity": lambda row: -_number(row["selectivity"]),
    "iou": lambda row: -_number(row.get("iou")),
    "positive": lambda row: -row["share_positive"],
}


def units(
    atlas: Atlas,
    layer: str | None = None,
    *,
    of_class: int | str | None = None,
    concept: str | None = None,
    detectors: bool = False,
    dead: bool = False,
    sort: str | None = None,
    count: int | None = None,
) -> list[Row]:
    """Units of a layer (the head's where none is named), as rows of the table `units`.

    With `of_class` those to which the class's images give the largest share of what they answer to any class: rows with
    `class_mean`, `class_mean_low`, `class_mean_high` and, where ablation was measured on this layer, the class's
    `importance` and the mean `contribution` to its logit; the most important first. With `concept` the detectors of
    that concept, or with `detectors` of any, the best first. With `dead` those that are never above 0.

    Raises AtlasError, and ClassError for a class that the data set does not have.
    """
    found = atlas.layer(layer)
    rows: list[Row] = atlas.table("units", where=[("layer", "=", found.name)]).to_pylist()
    if (concept is not None or detectors) and "iou" not in rows[0]:
        raise AtlasError(
            "no concepts were measured for this atlas: give photos with masks, `unitscope scan … --concepts MASKS`"
        )
    if concept is not None:
        concept = _concept(atlas, concept)
        rows = [row for row in rows if row["concept_name"] == concept]
    if concept is not None or detectors:
        rows = [row for row in rows if row["detector"]]
        sort = sort or "iou"
    if dead:
        rows = [row for row in rows if row["dead"]]
    if of_class is not None:
        rows = _of_class(atlas, found.name, found.is_head, class_index(atlas.classes, of_class), rows)
    if sort is not None or of_class is None:
        rows.sort(key=SORTS[sort or "unit"])
    return rows[:count]


def _of_class(atlas: Atlas, layer: str, is_head: bool, index: int, rows: list[Row]) -> list[Row]:
    """The units by what they are to a class."""
    summary = atlas.summary(layer).classes
    if not summary.counts[index]:
        raise ClassError(f"no image of class {atlas.classes[index]!r} was scanned")
    means, _ = class_means(atlas.summary(layer))
    with np.errstate(invalid="ignore"):
        shares = means[index] / np.nansum(np.abs(means), axis=0)
    effects: dict[int, Row] = {}
    if is_head and atlas.has("class_ablation"):
        chosen = atlas.table("class_ablation", where=[("class", "=", index)]).to_pylist()
        effects = {row["unit"]: row for row in chosen}
    told = []
    for row in rows:
        effect = effects.get(row["unit"], {})
        more = {"class_mean": float(means[index, row["unit"]]), "class_share": _finite(shares[row["unit"]])}
        more |= {name: effect.get(name) for name in ("importance", "importance_low", "importance_high", "contribution")}
        told.append(row | more)
    if effects:
        told.sort(key=lambda row: (-_number(row["importance"]), -_number(row["contribution"]), row["unit"]))
    else:
        told.sort(key=lambda row: (-_number(row["class_share"]), row["unit"]))
    return told


def classes_of(atlas: Atlas, unit: int, layer: str | None = None) -> list[Row]:
    """The classes to which a unit answers most, as rows of the table `unit_classes`; raises UnitError."""
    found = atlas.layer(layer)
    check_units(unit, found.units, f"layer '{found.name}'")
    return _rows(atlas, "unit_classes", found.name, unit)


def concepts_of(atlas: Atlas, unit: int, layer: str | None = None) -> list[Row]:
    """The concepts that a unit agrees with best, as rows of the table `unit_concepts`; raises UnitError."""
    found = atlas.layer(layer)
    check_units(unit, found.units, f"layer '{found.name}'")
    return _rows(atlas, "unit_concepts", found.name, unit) if atlas.has("unit_concepts") else []


def removals(atlas: Atlas, which: int | str) -> list[Row]:
    """What is left of a class without its most and its least important units: rows of the table `set_ablation`.

    Raises ClassError for a class that was not measured.
    """
    index = class_index(atlas.classes, which)
    found: list[Row] = atlas.table("set_ablation", where=[("class", "=", index)]).to_pylist()
    if not found:
        raise ClassError(
            f"class {atlas.classes[index]!r} has too few images, in the half on which units are ranked or in the other"
        )
    return found


def without(atlas: Atlas, units: Sequence[int]) -> tuple[Estimate, Estimate, list[Row]]:
    """The accuracy over the data set with all units on, and with any set of units off, exactly and without the photos.

    And for every class the share of its images that are found, before and after, those that lose most first. Where the
    data set has no labels, the model's own predictions stand for them. Raises UnitError, and AtlasError where the head
    is not exact.
    """
    readout = atlas.readout
    if readout is None:
        raise AtlasError("units can only be switched off where the head is exact: this atlas has no pooled features")
    off = check_units(units, readout.weight.shape[1], "the head's feature map")
    source = pooled_features(atlas)
    if source is None:
        raise AtlasError("no image of this atlas has a class of the model: there is nothing to be right or wrong about")
    counts = confusion_without(readout, source, [[], off], on="all")
    accuracy = counts.accuracy
    rows: list[Row] = [
        {
            "class": atlas.labels[index],
            "images": int(positives),
            "found_before": int(counts.tp[0, index]),
            "found_after": int(counts.tp[1, index]),
        }
        for index, positives in enumerate(counts.positives)
        if positives
    ]
    rows.sort(key=lambda row: (row["found_after"] - row["found_before"]) / row["images"])
    before, after = (Estimate(*(float(end[place]) for end in accuracy)) for place in (0, 1))
    return before, after, rows


def _rows(atlas: Atlas, table: str, layer: str, unit: int) -> list[Row]:
    rows: list[Row] = atlas.table(table, where=[("layer", "=", layer), ("unit", "=", unit)]).to_pylist()
    return rows


def _concept(atlas: Atlas, name: str) -> str:
    names = atlas.table("concepts", ["name"]).column("name").to_pylist()
    if name not in names:
        raise AtlasError(f"there is no concept '{name}' among the {len(names)}{near_matches(name, names)}")
    return name


def _number(value: float | None) -> float:
    """A value to sort by, with missing ones last."""
    return -np.inf if value is None or np.isnan(value) else float(value)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
