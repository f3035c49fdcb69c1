"""Data sets: images with labels, in any form that people have, and concept masks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from unitscope.datasets.base import EXPECTED, Dataset, Entry, shown_id
from unitscope.datasets.broden import BrodenMasks
from unitscope.datasets.folders import open_folder, walk
from unitscope.datasets.index_maps import (
    IndexMaps,
    read_object_info,
    without_none,
)
from unitscope.datasets.layout import (
    ANNOTATIONS,
    SPLITS,
    choose_split,
    is_photo,
    split_of,
)
from unitscope.datasets.lists import LIST_SUFFIXES, open_list, open_paths
from unitscope.datasets.masks import Concept, MaskedDataset, Masks
from unitscope.datasets.patterns import expanded
from unitscope.datasets.polygons import PolygonMasks
from unitscope.datasets.tar_file import COMPRESSED
from unitscope.datasets.tars import open_tars
from unitscope.errors import DatasetError
from unitscope.labels import LabelsSource, read_labels

__all__ = [
    "Concept",
    "Dataset",
    "DatasetSource",
    "Entry",
    "MaskedDataset",
    "Masks",
    "open_dataset",
    "open_masks",
    "shown_id",
]

_SHARDS = (".tar", ".parquet")

DatasetSource: TypeAlias = (
    str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
)


def open_dataset(
    source: DatasetSource,
    *,
    split: str | None = None,
    classes: LabelsSource | None = None,
) -> Dataset:
    """Open a data set of images, whatever form it has.

    Only names, labels and sizes are read yet. `source` is a folder (flat, with a folder
    for each class, or divided into splits, as MiniPlaces is), a photo, a list of photos
    (text with "path" or "path index" a line; CSV or TSV with columns), a tar or
    WebDataset shards, or Parquet files; several shards are a list, a folder, a glob
    pattern, or a range in braces (`train-{000..012}.tar`). `split` names one of the
    splits, which is needed only where there are several. `classes` are the names of the
    data set's own classes, needed only where its labels are numbers. Raises
    DatasetError, or LabelsError for `classes`.
    """
    dataset = _opened(source, split, _read(classes))

    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    absolute = (Path(path).absolute() for path in paths)
    dataset.opened_paths = tuple(map(str, absolute))
    dataset.split = split
    return dataset


def _opened(
    source: DatasetSource, split: str | None, names: Sequence[str] | None
) -> Dataset:
    if isinstance(source, (str, os.PathLike)):
        return _open_one(os.fspath(source), split, names)
    if not _is_list_of_paths(source):
        raise DatasetError(
            "a data set is opened from a path or a list of paths, not "
            f"{type(source).__name__}: expected {EXPECTED}"
        )
    if not source:
        raise DatasetError(f"the list of paths is empty: expected {EXPECTED}")

    paths = []
    for item in source:
        paths += expanded(os.fspath(item))
    shown = str(paths[0])
    if len(paths) > 1:
        shown += f" and {len(paths) - 1} more"
    return _open_several(shown, paths, split, names)


def _is_list_of_paths(source: object) -> bool:
    if not isinstance(source, Sequence):
        return False
    return all(isinstance(item, (str, os.PathLike)) for item in source)


def open_masks(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    classes: LabelsSource | None = None,
    names: LabelsSource | None = None,
) -> MaskedDataset:
    """Open the photos of a folder that have concept masks.

    The layouts are MiniPlaces (`images/` and `objects/`), index maps (`images/` and
    `annotations/`, `labels/` or `masks/`, as SceneParse150), and Broden (`index.csv`,
    `label.csv`). `names` are those of the concepts, for index maps from the number 1
    on; they are looked for in the folder (object_categories.txt, objectInfo150.txt,
    names.txt). `split` may be left out where only one has masks, and of Broden gives
    all. Raises DatasetError, or LabelsError.
    """
    root = Path(source).expanduser()
    _check_folder(root)
    if (root / "index.csv").is_file() and (root / "label.csv").is_file():
        return BrodenMasks(root, split)

    folder = _annotations_folder(root)
    if split is None:
        split = _only_split(root / folder)

    concepts = _read(names)
    photos, others = walk(root)
    dataset = open_folder(root, photos, others, split, _read(classes))
    if folder == "objects":
        concepts = concepts or _names_of_objects(root)
        return PolygonMasks(dataset, concepts)
    concepts = concepts or _names_of_numbers(root)
    return IndexMaps(dataset, folder, without_none(concepts))


def _read(names: LabelsSource | None) -> tuple[str, ...] | None:
    return None if names is None else read_labels(names)


def _check_folder(root: Path) -> None:
    if root.is_dir():
        return
    problem = "is not there: check the path"
    if root.exists():
        problem = "is a file: give the folder (unpack an archive first)"
    raise DatasetError(
        f"'{root}' {problem} (annotated photos are read from a folder)"
    )


def _annotations_folder(root: Path) -> str:
    for name in ANNOTATIONS:
        if (root / name).is_dir():
            return name
    raise DatasetError(
        f"'{root}' has no annotations: expected images/ with objects/, "
        f"{'/, '.join(ANNOTATIONS[1:])}/ beside it, or Broden's index.csv and label.csv"
    )


def _only_split(folder: Path) -> str | None:
    """The split of which a folder has masks, where it is one.

    Photos of other splits may well lie beside it without masks.
    """
    splits = []
    for name in SPLITS:
        if (folder / name).is_dir():
            splits.append(name)
    if len(splits) != 1:
        return None
    return splits[0]


def _names_of_objects(root: Path) -> tuple[str, ...] | None:
    for folder in (root, root / "objects", root.parent):
        file = folder / "object_categories.txt"
        if file.is_file():
            return read_labels(file)
    return None


def _names_of_numbers(root: Path) -> tuple[str, ...]:
    if (root / "objectInfo150.txt").is_file():
        return read_object_info(root / "objectInfo150.txt")
    for name in ("names.txt", "classes.txt", "labels.txt", "categories.txt"):
        if (root / name).is_file():
            return read_labels(root / name)
    raise DatasetError(
        f"'{root}' does not name its concepts: lay names.txt there, one name a line, "
        "or give names= (scan: concept_names=, --concept-names)"
    )


def _open_one(
    source: str, split: str | None, classes: Sequence[str] | None
) -> Dataset:
    if re.match(r"[a-z][a-z0-9+]+://|pipe:", source):
        raise DatasetError(
            f"'{source}' is an address, and data sets are read from files: download it "
            "first"
        )
    paths = expanded(source)
    if len(paths) > 1:
        return _open_several(source, paths, split, classes)
    path = paths[0]
    if path.is_dir():
        return _open_folder(path, split, classes)
    if path.suffix.lower() in LIST_SUFFIXES:
        _refuse_split(source, split)
        return open_list(path, classes)
    return _open_several(source, paths, split, classes)


def _open_folder(
    root: Path, split: str | None, classes: Sequence[str] | None
) -> Dataset:
    photos, others = walk(root)
    shards = [root / path for path in others if path.lower().endswith(_SHARDS)]
    if photos or not shards:
        return open_folder(root, photos, others, split, classes)
    source = str(root)
    chosen = _of_split(shards, split, f"'{source}'")
    return _open_shards(source, chosen, None, classes)


def _open_several(
    source: str,
    paths: Sequence[Path],
    split: str | None,
    classes: Sequence[str] | None,
) -> Dataset:
    for path in paths:
        # One photo of many may be missing, but no tar or table.
        if path.is_dir():
            raise DatasetError(
                f"'{path}' is a folder among files: open one folder, or name the files "
                "in it"
            )
        if not path.exists() and (len(paths) == 1 or not is_photo(path.name)):
            raise DatasetError(
                f"there is no '{path}': check the path (looked in {Path.cwd()})"
            )
    if all(is_photo(path.name) for path in paths):
        _refuse_split(source, split)
        return open_paths(paths, classes)
    if (
        split is not None
        and len(paths) > 1
        and any(split_of(path) for path in paths)
    ):
        chosen = _of_split(paths, split, f"'{source}'")
        return _open_shards(source, chosen, None, classes)
    return _open_shards(source, paths, split, classes)


def _open_shards(
    source: str,
    paths: Sequence[Path],
    split: str | None,
    classes: Sequence[str] | None,
) -> Dataset:
    names = [path.name.lower() for path in paths]
    if all(name.endswith((".tar", *COMPRESSED)) for name in names):
        return open_tars(source, paths, split, classes)
    if all(name.endswith(".parquet") for name in names):
        splits = {split_of(path) for path in paths}
        if splits != {split}:
            _refuse_split(source, split)
        # pyarrow loads only where it is needed.
        from unitscope.datasets.tables import TableDataset

        return TableDataset(source, paths, classes)

    kinds = {path.suffix or path.name for path in paths}
    listed = ", ".join(sorted(kinds))[:80]
    raise DatasetError(
        f"'{source}' is no data set that can be read ({listed}): expected {EXPECTED}"
    )


def _of_split(
    shards: Sequence[Path], split: str | None, where: str
) -> list[Path]:
    """The shards of one split, by their names or folders.

    `train-00000-of-00004.parquet` is of "train". All shards are taken where none was
    asked for and some shard names no split.
    """
    splits = {split_of(path) for path in shards}
    if split is None and None in splits:
        return list(shards)
    named = [name for name in SPLITS if name in splits]
    chosen = choose_split(named, split, where)
    return [path for path in shards if split_of(path) == chosen]


def _refuse_split(source: str, split: str | None) -> None:
    if split is not None:
        raise DatasetError(
            f"'{source}' is not divided into splits: leave split={split!r} out"
        )
