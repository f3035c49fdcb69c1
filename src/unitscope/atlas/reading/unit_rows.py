"""Unit rows: the units of a layer as rows, filtered and sorted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.attribution.classes import class_index
from unitscope.errors import AtlasError, ClassError, near_matches

Row = dict[str, Any]

_EFFECTS = ("importance", "importance_low", "importance_high", "contribution")

SORTS: dict[str, Callable[[Row], Any]] = {
    "unit": lambda row: (row["layer"], row["unit"]),
    "maximum": lambda row: -row["maximum"],
    "selectivity": lambda row: -_number(row["selectivity"]),
    "iou": lambda row: -_number(row.get("iou")),
    "positive": lambda row: -row["share_positive"],
}


@dataclass(frozen=True)
class UnitFilter:
    """Which units of a layer to return, and in which order; see `Atlas.units`."""

    of_class: int | str | None = None
    concept: str | None = None
    detectors: bool = False
    dead: bool = False
    sort: str | None = None
    count: int | None = None


def unit_rows(
    atlas: StoredAtlas, layer: AtlasLayer, wanted: UnitFilter
) -> list[Row]:
    """The units of a layer that pass a filter, as rows of the table `units`."""
    where = [("layer", "=", layer.name)]
    rows: list[Row] = atlas.table("units", where=where).to_pylist()
    sort = wanted.sort
    if wanted.concept is not None or wanted.detectors:
        rows = _detectors(atlas, rows, wanted.concept)
        sort = sort or "iou"
    if wanted.dead:
        rows = [row for row in rows if row["dead"]]
    if wanted.of_class is not None:
        index = class_index(atlas.classes, wanted.of_class)
        rows = _by_class(atlas, layer, index, rows)

    if sort is not None or wanted.of_class is None:
        rows.sort(key=SORTS[sort or "unit"])
    return rows[: wanted.count]


def _detectors(
    atlas: StoredAtlas, rows: list[Row], concept: str | None
) -> list[Row]:
    """The detectors of a concept, or of any."""
    if "iou" not in rows[0]:
        raise AtlasError(
            "no concepts were measured for this atlas: add photos with masks, "
            "`unitscope scan … --concepts MASKS`"
        )
    detectors = [row for row in rows if row["detector"]]
    if concept is None:
        return detectors
    _check_concept(atlas, concept)
    return [row for row in detectors if row["concept_name"] == concept]


def _check_concept(atlas: StoredAtlas, name: str) -> None:
    names = atlas.table("concepts", ["name"]).column("name").to_pylist()
    if name not in names:
        raise AtlasError(
            f"there is no concept '{name}' among the "
            f"{len(names)}{near_matches(name, names)}"
        )


def _by_class(
    atlas: StoredAtlas, layer: AtlasLayer, index: int, rows: list[Row]
) -> list[Row]:
    """The units in the order in which they matter for a class, with its columns."""
    classes = atlas.summary(layer.name).classes
    if not classes.counts[index]:
        raise ClassError(
            f"no image of class {atlas.classes[index]!r} was scanned"
        )

    means = classes.means
    own_means = means[index]
    totals = np.nansum(np.abs(means), axis=0)
    with np.errstate(invalid="ignore"):
        shares = own_means / totals

    effects = _effects(atlas, layer, index)
    extended: list[Row] = []
    for row in rows:
        unit = row["unit"]
        effect = effects.get(unit, {})
        columns = {
            "class_mean": float(own_means[unit]),
            "class_share": _finite(shares[unit]),
            **{name: effect.get(name) for name in _EFFECTS},
        }
        extended.append(row | columns)
    extended.sort(key=_by_importance if effects else _by_share)
    return extended


def _effects(
    atlas: StoredAtlas, layer: AtlasLayer, index: int
) -> Mapping[int, Row]:
    """The rows of the table `class_ablation` for a class, by unit."""
    if not layer.is_head or not atlas.has("class_ablation"):
        return {}
    where = [("class", "=", index)]
    rows = atlas.table("class_ablation", where=where).to_pylist()
    return {row["unit"]: row for row in rows}


def _by_importance(row: Row) -> tuple[float, float, int]:
    importance = _number(row["importance"])
    contribution = _number(row["contribution"])
    return -importance, -contribution, row["unit"]


def _by_share(row: Row) -> tuple[float, int]:
    return -_number(row["class_share"]), row["unit"]


def _number(value: float | None) -> float:
    """A value to sort by, with missing ones last."""
    if value is None or np.isnan(value):
        return -np.inf
    return float(value)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
