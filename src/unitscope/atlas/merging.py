"""Merging: atlases of parts of one data set, put together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.findings import write_ablation, write_findings
from unitscope.atlas.storage import (
    HEAD,
    identity_of,
    pooled_file,
    rows_file,
    same_answers,
    write_manifest,
    write_summaries,
)
from unitscope.errors import AtlasError
from unitscope.files import folder_written_whole


def merge(
    parts: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]
) -> Atlas:
    """Put atlases of different shards of one scan together, into the folder `out`: what one scan of them all had given.

    Concepts are measured at the thresholds of the whole: add them by `scan` with
    `concepts`. Shards that no part has can be scanned into the result, as into any
    other.

    Raises AtlasError where the parts are of different models, data sets or parameters,
    or have a shard in common.
    """
    atlases = [Atlas.open(part) for part in parts]
    if not atlases:
        raise AtlasError("there is nothing to merge: name the atlases of the parts")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AtlasError(
            f"'{folder}' is not empty: name another folder for the merged atlas"
        )
    first, owners = atlases[0], _owners(atlases)
    summaries = {layer.name: first.summary(layer.name) for layer in first.layers}
    for atlas in atlases[1:]:
        for name, summary in summaries.items():
            summary.merge(atlas.summary(name))
    with folder_written_whole(folder) as staging:
        for shard, source in owners.items():
            for file in _files(shard, first.readout is not None):
                (staging / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / file, staging / file)
        if (first.path / HEAD).is_file():
            shutil.copyfile(first.path / HEAD, staging / HEAD)
        write_summaries(staging, summaries, owners)
        manifest = first.manifest | {
            "status": "scanning",
            "concepts": None,
            "ablation": None,
        }
        write_manifest(staging, manifest)
        merged = Atlas.open(staging)
        images, skipped = write_findings(merged)
        complete = len(owners) == manifest["parameters"]["shards"]
        manifest |= {
            "status": "complete" if complete else "part",
            "scanned": {"images": images, "skipped": skipped},
            "ablation": write_ablation(merged),
        }
        write_manifest(staging, manifest)
    return Atlas.open(folder)


def _files(shard: int, pooled: bool) -> list[Path]:
    """What an atlas has of a shard beside the summaries."""
    rows = rows_file(Path(), shard)
    return [rows, pooled_file(Path(), shard)] if pooled else [rows]


def _owners(atlases: Sequence[Atlas]) -> dict[int, Path]:
    """Which atlas has which shard; raises AtlasError unless they are parts of one scan."""
    first = atlases[0]
    owners: dict[int, Path] = {}
    for atlas in atlases:
        one, other = identity_of(first.manifest), identity_of(atlas.manifest)
        different = [name for name, value in one.items() if other.get(name) != value]
        if not same_answers(first.manifest, atlas.manifest):
            different.append("what the model answers to noise")
        if different or atlas.manifest["layers"] != first.manifest["layers"]:
            raise AtlasError(
                f"'{first.path}' and '{atlas.path}' are no parts of one scan: they "
                "differ in "
                f"{(different or ['layers'])[0]}"
            )
        for shard in atlas.shards():
            if shard in owners:
                raise AtlasError(
                    f"shard {shard} is in '{owners[shard]}' and in '{atlas.path}': "
                    "leave one of them out"
                )
            for file in _files(shard, first.readout is not None):
                if not (atlas.path / file).is_file():
                    raise AtlasError(
                        f"'{atlas.path / file}' is missing: the part is not whole, get "
                        "all of its files"
                    )
            owners[shard] = atlas.path
    return owners
