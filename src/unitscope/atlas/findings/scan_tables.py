"""Findings: all tables of an atlas that follow from its scan."""

from __future__ import annotations

from unitscope.atlas.disk.layout import table_file
from unitscope.atlas.findings.image_tables import write_image_tables
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


def write_findings(atlas: StoredAtlas) -> tuple[int, int]:
    """Write the tables of images, classes and units again, and remove outdated ones.

    Returns the numbers of images seen and skipped.
    """
    counts = write_image_tables(atlas)
    write_unit_tables(atlas)
    for table in _OUTDATED:
        table_file(atlas.path, table).unlink(missing_ok=True)
    return counts
