"""Merging: atlases of parts of one data set, joined into one."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.disk.layout import HEAD, pooled_file, rows_file
from unitscope.atlas.disk.manifest import (
    MERGING,
    identity_of,
    same_answers,
    write_manifest,
)
from unitscope.atlas.findings.ablation_tables import write_ablation_tables
from unitscope.atlas.findings.scan_tables import write_findings
from unitscope.atlas.scan.folder import (
    checked_manifest,
    locked,
    remove_files,
    remove_scan,
)
from unitscope.atlas.storage import shards_in, write_summaries
from unitscope.errors import AtlasError
from unitscope.files import make_folder, written_whole


def merge(
    parts: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]
) -> Atlas:
    """Merge atlases of different shards of one scan into the folder `out`.

    The result is that of a single scan of all these shards. Concepts depend on the
    thresholds of the whole: add them by `scan` with `concepts`. Shards that are in no
    part can be scanned into the result like into any other atlas. Where `out` holds the
    merge of these very parts already, it stays as it is.

    Raises AtlasError where the parts are of different models, data sets or parameters,
    or have a shard in common.
    """
    atlases = [Atlas.open(part) for part in parts]
    if not atlases:
        raise AtlasError(
            "there is nothing to merge: name the atlases of the parts"
        )
    folder = Path(out)
    _check_parts(atlases)
    owners = _owners(atlases)
    if _is_merged(atlases[0], owners, folder):
        # As where a merge was killed when all but its lock was done.
        return Atlas.open(folder)
    _check_free(folder)

    is_new = not folder.exists()
    with locked(folder):
        _check_free(folder)
        try:
            # An interrupted merge begins anew.
            remove_files(folder)
            _merge(atlases, owners, folder)
        except BaseException:
            remove_scan(folder, with_folder=is_new)
            raise
    return Atlas.open(folder)


def _check_free(folder: Path) -> None:
    """Raise AtlasError unless a folder is new, empty, or has an interrupted merge."""
    manifest = checked_manifest(folder)
    if manifest is not None and manifest["status"] != MERGING:
        raise AtlasError(
            f"'{folder}' holds an atlas: name another folder for the merged one"
        )


def _is_merged(first: Atlas, owners: dict[int, Path], folder: Path) -> bool:
    """Whether a folder holds what these very parts merge into, and nothing added since."""
    manifest = checked_manifest(folder)
    if manifest is None or manifest["status"] != _status(first, owners):
        return False
    same = (
        identity_of(manifest) == identity_of(first.manifest)
        and same_answers(manifest, first.manifest)
        and manifest["layers"] == first.manifest["layers"]
        and manifest.get("concepts") is None
        and set(shards_in(folder)) == set(owners)
    )
    return same and all(
        _same_bytes(source / file, folder / file)
        for shard, source in owners.items()
        for file in _files(first, shard)
    )


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def _check_parts(atlases: Sequence[Atlas]) -> None:
    """Raise AtlasError unless the atlases are parts of one scan."""
    first = atlases[0]
    identity = identity_of(first.manifest)
    for atlas in atlases:
        other = identity_of(atlas.manifest)
        differences = [
            name for name in identity if other.get(name) != identity[name]
        ]
        if not same_answers(first.manifest, atlas.manifest):
            differences.append("the model's logits for noise")
        if atlas.manifest["layers"] != first.manifest["layers"]:
            differences.append("layers")
        if differences:
            raise AtlasError(
                f"'{first.path}' and '{atlas.path}' are no parts of one scan: they "
                f"differ in {differences[0]}; merge atlases of the same model, data "
                "set and parameters"
            )


def _owners(atlases: Sequence[Atlas]) -> dict[int, Path]:
    """The folder of the atlas that has each shard.

    Raises AtlasError where two atlases have a shard, or a file is missing.
    """
    owners: dict[int, Path] = {}
    for atlas in atlases:
        for shard in atlas.shards():
            if shard in owners:
                raise AtlasError(
                    f"shard {shard} is in '{owners[shard]}' and in '{atlas.path}': "
                    "leave one of them out"
                )
            _check_files(atlas, shard)
            owners[shard] = atlas.path
    return owners


def _check_files(atlas: Atlas, shard: int) -> None:
    for file in _files(atlas, shard):
        if not (atlas.path / file).is_file():
            raise AtlasError(
                f"'{atlas.path / file}' is missing: copy the part again, with all of "
                "its files"
            )


def _files(atlas: Atlas, shard: int) -> list[Path]:
    """The files of a shard besides the summaries, relative to an atlas's folder."""
    files = [rows_file(Path(), shard)]
    if atlas.readout is not None:
        files.append(pooled_file(Path(), shard))
    return files


def _merge(
    atlases: Sequence[Atlas], owners: dict[int, Path], folder: Path
) -> None:
    """Write the merged atlas; the manifest that says so comes last."""
    manifest = atlases[0].manifest | {
        "status": MERGING,
        "concepts": None,
        "ablation": None,
    }
    write_manifest(folder, manifest)
    _copy_files(atlases[0], owners, folder)
    _write_summaries(atlases, owners, folder)

    merged = Atlas(folder, manifest)
    scanned = write_findings(merged)
    manifest |= {
        "status": _status(merged, owners),
        "scanned": scanned,
        "ablation": write_ablation_tables(merged),
    }
    write_manifest(folder, manifest)


def _status(atlas: Atlas, owners: dict[int, Path]) -> str:
    """What a merge of these shards is in the end."""
    is_whole = len(owners) == atlas.manifest["parameters"]["shards"]
    return "complete" if is_whole else "part"


def _copy_files(first: Atlas, owners: dict[int, Path], folder: Path) -> None:
    for shard, source in owners.items():
        for file in _files(first, shard):
            _copy(source / file, folder / file)
    if (first.path / HEAD).is_file():
        _copy(first.path / HEAD, folder / HEAD)


def _copy(source: Path, target: Path) -> None:
    make_folder(target.parent)
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_summaries(
    atlases: Sequence[Atlas], owners: dict[int, Path], folder: Path
) -> None:
    first, *others = atlases
    summaries = {
        layer.name: first.summary(layer.name) for layer in first.layers
    }
    for atlas in others:
        for name, summary in summaries.items():
            summary.merge(atlas.summary(name))
    write_summaries(folder, summaries, owners)
