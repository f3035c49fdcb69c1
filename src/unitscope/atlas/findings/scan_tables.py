"""Findings: all tables of an atlas that follow from its scan."""

from __future__ import annotations

from typing import Any

from unitscope.atlas.disk.layout import table_file
from unitscope.atlas.findings.image_tables import (
    photo_notes,
    write_image_tables,
)
from unitscope.atlas.findings.unit_tables import write_unit_tables
from unitscope.atlas.storage import StoredAtlas

# Tables that are measured at the thresholds, and on the images, of an earlier scan.
_OUTDATED = (
    "concepts",
    "unit_concepts",
    "unit_ablation",
    "class_ablation",
    "set_ablation",
)


def write_findings(atlas: StoredAtlas) -> dict[str, Any]:
    """Write the tables of images, classes and units again, and remove outdated ones.

    Returns the numbers of images seen and skipped, and notes on photos, as they stand
    in the manifest.
    """
    images, skipped = write_image_tables(atlas)
    write_unit_tables(atlas)
    for table in _OUTDATED:
        table_file(atlas.path, table).unlink(missing_ok=True)
    notes = photo_notes(atlas.path)
    return {"images": images, "skipped": skipped, "notes": notes}
