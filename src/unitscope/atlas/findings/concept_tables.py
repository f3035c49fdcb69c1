"""Concept tables: the concepts, and the units that detect them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unitscope.atlas.disk.layout import table_file
from unitscope.atlas.disk.tables import write_table
from unitscope.atlas.findings.unit_tables import LISTED, extend, name_units
from unitscope.atlas.shards.concept_task import RESOLUTION
from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.atlas.summaries.concepts import (
    DETECTOR_THRESHOLD,
    SIGNIFICANCE,
    ConceptCounts,
)
from unitscope.datasets import Concept


def write_concept_tables(
    atlas: StoredAtlas,
    counts: Mapping[str, ConceptCounts],
    concepts: Sequence[Concept],
) -> dict[str, Any]:
    """Write the tables `concepts` and `unit_concepts`, and name units by concepts.

    Returns the numbers of detectors by layer, for the manifest.
    """
    any_layer = next(iter(counts.values()))
    _write_concepts(atlas, any_layer, concepts)

    unit_concepts: dict[str, list[Any]] = {}
    best_concepts: dict[str, list[Any]] = {}
    for layer in atlas.layers:
        of_layer = counts[layer.name]
        extend(unit_concepts, _unit_concepts(layer, of_layer, concepts))
        extend(best_concepts, _best_concepts(of_layer, concepts))
    write_table(table_file(atlas.path, "unit_concepts"), unit_concepts)

    units = atlas.table("units").to_pydict() | best_concepts
    name_units(units)
    write_table(table_file(atlas.path, "units"), units)
    return {
        layer.name: _detector_facts(counts[layer.name])
        for layer in atlas.layers
    }


def _write_concepts(
    atlas: StoredAtlas, counts: ConceptCounts, concepts: Sequence[Concept]
) -> None:
    photos = counts.photos_of[counts.category_of]
    pixels = photos.astype(np.float64) * RESOLUTION**2
    share = np.divide(
        counts.l,
        pixels,
        out=np.full(len(concepts), np.nan),
        where=pixels > 0,
    )
    columns = {
        "concept": np.arange(len(concepts)),
        "name": [concept.name for concept in concepts],
        "category": [concept.category for concept in concepts],
        "images": counts.photos_with,
        "share": share,
    }
    write_table(table_file(atlas.path, "concepts"), columns)


def _unit_concepts(
    layer: AtlasLayer, counts: ConceptCounts, concepts: Sequence[Concept]
) -> dict[str, Any]:
    iou = counts.iou()
    chance, chance_high = counts.chance()

    order = np.argsort(-iou, axis=1, kind="stable")[:, :LISTED]
    interval = counts.chosen_interval(order)
    units, ranks = np.nonzero(np.take_along_axis(iou, order, 1) > 0)
    chosen = order[units, ranks]
    return {
        "layer": [layer.name] * len(units),
        "unit": units,
        "rank": ranks + 1,
        "concept": chosen,
        "name": [concepts[index].name for index in chosen],
        "category": [concepts[index].category for index in chosen],
        "iou": iou[units, chosen],
        "iou_low": interval.low[units, ranks],
        "iou_high": interval.high[units, ranks],
        "chance": chance[units, chosen],
        "chance_high": chance_high[units, chosen],
    }


def _best_concepts(
    counts: ConceptCounts, concepts: Sequence[Concept]
) -> dict[str, Any]:
    """The columns of the table `units` about each unit's best concept."""
    best = counts.best()
    interval = counts.chosen_interval(best.concept[:, None])
    detector = (best.iou > DETECTOR_THRESHOLD) & (best.p <= SIGNIFICANCE)
    chosen = [
        index if iou > 0 else None
        for index, iou in zip(best.concept.tolist(), best.iou, strict=True)
    ]
    return {
        "concept": chosen,
        "concept_name": [
            None if index is None else concepts[index].name for index in chosen
        ],
        "iou": best.iou,
        "iou_low": interval.low[:, 0],
        "iou_high": interval.high[:, 0],
        "p_value": best.p,
        "detector": detector,
    }


def _detector_facts(counts: ConceptCounts) -> dict[str, Any]:
    detectors = counts.detectors()
    return {
        "units": detectors.units,
        "concepts": detectors.concepts,
        "units_by_chance": _json_numbers(detectors.units_by_chance),
        "concepts_by_chance": _json_numbers(detectors.concepts_by_chance),
    }


def _json_numbers(values: Sequence[Any]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
