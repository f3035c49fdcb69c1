"""Scan folder: the folder of a scan, checked, locked and cleaned up."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from unitscope.atlas.disk.layout import (
    HEAD,
    MANIFEST,
    POOLED,
    ROWS,
    RUNS,
    SUMMARIES,
    TABLES,
    WORK,
    rows_file,
    stamps_file,
    table_file,
)
from unitscope.atlas.disk.manifest import (
    MERGING,
    existing_manifest,
    same_answers,
    unfinished_merge,
)
from unitscope.atlas.disk.tables import parquet, read_table
from unitscope.atlas.findings.image_tables import rows_of
from unitscope.atlas.identity import difference
from unitscope.atlas.image_hashes import digest_of
from unitscope.atlas.scan.plan import ScanPlan
from unitscope.atlas.storage import shards_in
from unitscope.datasets import Dataset
from unitscope.errors import (
    AtlasError,
    OutputError,
    UnitscopeError,
)
from unitscope.files import clean_up, make_folder, output_error

_REMEDY = "name another folder with --out, or remove this one"


def check_same(folder: Path, plan: ScanPlan) -> None:
    """Raise AtlasError unless a folder is new, empty, or has a scan by this plan."""
    manifest = checked_manifest(folder)
    if manifest is None:
        return
    if manifest["status"] == MERGING:
        raise unfinished_merge(folder)

    change = difference(manifest, plan.identity)
    if change:
        raise AtlasError(f"'{folder}' holds a scan of {change}: {_REMEDY}")
    # The fingerprint covers a network's weights, but not what its code does with them.
    if not same_answers(manifest, {"probe": plan.probe}):
        raise AtlasError(
            f"'{folder}' holds a scan of a model that gives other logits (for noise): "
            f"{_REMEDY}"
        )


def checked_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the atlas in a folder; None where the folder is new or empty.

    Raises AtlasError where the folder holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write into '{folder}': it is a file, not a folder: choose another "
            "path"
        )
    clean_up(folder)
    manifest = existing_manifest(folder)
    if manifest is None:
        _check_empty(folder)
    return manifest


def _check_empty(folder: Path) -> None:
    if not folder.exists():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != WORK)
    if others:
        raise AtlasError(
            f"'{folder}' holds other files ({others[0]} …) and no atlas: {_REMEDY}"
        )


def check_unchanged(folder: Path, dataset: Dataset) -> None:
    """Raise AtlasError where a scanned image has other bytes now.

    Only images whose file has another size or time are read.
    """
    columns = ["image", "size", "digest"]
    for shard in shards_in(folder):
        stamps = _stamps(folder, shard)
        rows = read_table(rows_file(folder, shard), columns).to_pydict()
        for image, size, digest in zip(*rows.values(), strict=True):
            entry = dataset.entries[image]
            touched = (entry.size, entry.stamp) != (size, stamps.get(image))
            if not touched or digest is None:
                continue
            if digest_of(dataset.read(image)) != digest:
                raise AtlasError(
                    f"image '{entry.id}' has changed since it was scanned into "
                    f"'{folder}': {_REMEDY}"
                )


def _stamps(folder: Path, shard: int) -> dict[int, int]:
    """The modification times of a shard's images; none in a copied or merged atlas."""
    file = stamps_file(folder, shard)
    if not file.is_file():
        return {}
    columns = read_table(file).to_pydict()
    return dict(zip(columns["image"], columns["stamp"], strict=True))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other scans, at most until the process ends."""
    # Fail without pyarrow now rather than after the first shard.
    parquet()

    make_folder(folder / WORK)
    try:
        with filelock.FileLock(folder / WORK / "lock", timeout=0):
            clean_up(folder / WORK)
            yield
    except filelock.Timeout:
        raise AtlasError(
            f"'{folder}' is being scanned by another process: wait for it, or name "
            "another folder with --out"
        ) from None
    except UnitscopeError:
        raise
    except OSError as error:
        raise output_error(folder, error) from None


def nothing_read(folder: Path) -> str:
    """An error message where no image of a scan could be read, else empty."""
    images = 0
    first_reason = ""
    for rows in rows_of(folder):
        reasons = rows.column("reason").to_pylist()
        if not all(reasons):
            return ""
        images += len(reasons)
        first_reason = first_reason or reasons[0]
    return (
        f"none of the {images} images could be read; the first: {first_reason}"
    )


def remove_scan(folder: Path, with_folder: bool) -> None:
    """Remove the files of a scan, and the folder itself if it is new."""
    if with_folder:
        shutil.rmtree(folder, ignore_errors=True)
        return
    remove_files(folder)
    shutil.rmtree(folder / WORK, ignore_errors=True)


def remove_files(folder: Path) -> None:
    """Remove the files of an atlas, but not its lock. The manifest goes last."""
    remove_tables(folder)
    for name in (POOLED, ROWS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (SUMMARIES, HEAD, RUNS, MANIFEST):
        (folder / name).unlink(missing_ok=True)


def remove_tables(folder: Path) -> None:
    """Remove the tables of an atlas, which the end of a scan writes."""
    for table in TABLES:
        table_file(folder, table).unlink(missing_ok=True)
