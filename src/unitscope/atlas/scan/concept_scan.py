"""Concept scan: adds the concepts that units detect to an atlas."""

from __future__ import annotations

import os
from pathlib import Path

from unitscope.atlas.disk.layout import SUMMARIES
from unitscope.atlas.disk.manifest import write_manifest
from unitscope.atlas.findings.concept_tables import write_concept_tables
from unitscope.atlas.identity import sha256_of
from unitscope.atlas.image_hashes import digest_of
from unitscope.atlas.scan.options import ScanOptions
from unitscope.atlas.scan.plan import absolute
from unitscope.atlas.scan.run_log import Run
from unitscope.atlas.shards.dissection import dissect
from unitscope.atlas.storage import StoredAtlas
from unitscope.atlas.summaries.concepts import DETECTOR_THRESHOLD
from unitscope.datasets import MaskedDataset, open_masks
from unitscope.errors import InputError
from unitscope.labels import LabelsSource
from unitscope.model import Classifier

# What the intervals of IoUs are; atlases without it have others.
_INTERVALS = "corrected for the choice among concepts"


def opened_masks(
    concepts: str | os.PathLike[str] | MaskedDataset | None,
    names: LabelsSource | None,
    split: str | None,
) -> MaskedDataset | None:
    """The photos with masks of a scan, None where there are none."""
    if concepts is None:
        if names is not None:
            raise InputError(
                "names of concepts are set, but no photos with masks: set `concepts` "
                "too"
            )
        return None
    if isinstance(concepts, MaskedDataset):
        return concepts
    return open_masks(concepts, split=split, names=names)


def add_concepts(
    folder: Path, model: Classifier, masked: MaskedDataset, options: ScanOptions
) -> None:
    """Measure concepts, unless that was done for these masks and these summaries."""
    atlas = StoredAtlas.open(folder)
    run = Run.start("concepts", options.workers)
    summaries = digest_of((folder / SUMMARIES).read_bytes())
    key = sha256_of(f"{masked.fingerprint()} {summaries}")
    # Tables of other intervals are written anew, from the counts that are kept.
    identity = sha256_of(f"{key} {_INTERVALS}")
    existing = atlas.manifest["concepts"] or {}
    if existing.get("identity") == identity:
        return

    def report(done: int, skipped: int, total: int) -> None:
        options.report("concepts", done, skipped, total)

    counts, facts = dissect(atlas, model, masked, options.pool, key, report)
    detectors = write_concept_tables(atlas, counts, masked.concepts)
    concepts = {
        "identity": identity,
        "source": absolute(masked.source),
        "kind": masked.kind,
        "notes": list(masked.notes),
        "threshold": DETECTOR_THRESHOLD,
        "intervals": _INTERVALS,
        **facts,
        "detectors": detectors,
    }
    write_manifest(folder, atlas.manifest | {"concepts": concepts})
    run.log(folder, facts["photos"], len(facts["skipped"]))
