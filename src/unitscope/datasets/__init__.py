"""Data sets: where images and labels come from, and concept masks for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from unitscope.datasets.base import Dataset, Entry, shown_id
from unitscope.datasets.broden import BrodenMasks
from unitscope.datasets.files import EXPECTED, open_folder, walk
from unitscope.datasets.index_maps import IndexMaps, read_object_info, without_none
from unitscope.datasets.layout import (
    ANNOTATIONS,
    SPLITS,
    choose_split,
    is_photo,
    split_of,
)
from unitscope.datasets.lists import LIST_SUFFIXES, open_list, open_paths
from unitscope.datasets.masks import Concept, MaskedDataset, Masks
from unitscope.datasets.polygons import PolygonMasks
from unitscope.datasets.tars import COMPRESSED, open_tars
from unitscope.errors import DatasetError, one_line
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

DatasetSource: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_BRACES = re.compile(
    r"\{(?:(?P<first>\d{1,9})\.\.(?P<last>\d{1,9})|(?P<choices>[^{}]*,[^{}]*))\}"
)
_MOST_SHARDS = 100_000


def open_dataset(
    source: DatasetSource,
    *,
    split: str | None = None,
    classes: LabelsSource | None = None,
) -> Dataset:
    """Open a data set of images, whatever form it has; nothing but names, labels and sizes is read yet.

    `source` is a folder (flat, with a folder for each class, or divided into splits, as
    MiniPlaces is), a photo, a list of photos (text with "path" or "path index" a line;
    CSV or TSV with columns), a tar or WebDataset shards, or Parquet files; several
    shards are a list, a folder, a glob pattern, or a range in braces
    (`train-{000..012}.tar`). `split` names one of the splits, which is needed only
    where there are several. `classes` are the names of the data set's own classes,
    needed only where its labels are numbers. Raises DatasetError, or LabelsError for
    `classes`.
    """
    found = _opened(source, split, None if classes is None else read_labels(classes))
    given = [source] if isinstance(source, (str, os.PathLike)) else source
    found.given, found.split = (
        tuple(str(Path(path).absolute()) for path in given),
        split,
    )
    return found


def _opened(
    source: DatasetSource, split: str | None, names: Sequence[str] | None
) -> Dataset:
    if isinstance(source, (str, os.PathLike)):
        return _open_one(os.fspath(source), split, names)
    if not isinstance(source, Sequence) or not all(
        isinstance(item, (str, os.PathLike)) for item in source
    ):
        raise DatasetError(
            "a data set is opened from a path or a list of paths, not "
            f"{type(source).__name__}"
        )
    if not source:
        raise DatasetError(f"the list of paths is empty: expected {EXPECTED}")
    paths = [path for item in source for path in _expanded(os.fspath(item))]
    shown = (
        str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    )
    return _open_several(shown, paths, split, names)


def open_masks(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    classes: LabelsSource | None = None,
    names: LabelsSource | None = None,
) -> MaskedDataset:
    """Open a folder of photos with concept masks: those photos only that have some.

    The layouts are MiniPlaces (`images/` and `objects/`), index maps (`images/` and
    `annotations/`, `labels/` or `masks/`, as SceneParse150), and Broden (`index.csv`,
    `label.csv`). `names` are those of the concepts, for index maps from the number 1
    on; they are looked for in the folder (object_categories.txt, objectInfo150.txt,
    names.txt). `split` may be left out where only one has masks, and of Broden gives
    all. Raises DatasetError, or LabelsError.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        why = (
            "is a file: unpack it, and give the folder"
            if root.exists()
            else "is not there: check the path"
        )
        raise DatasetError(f"'{root}' {why} (annotated photos are read from a folder)")
    if (root / "index.csv").is_file() and (root / "label.csv").is_file():
        return BrodenMasks(root, split)
    folder = next((name for name in ANNOTATIONS if (root / name).is_dir()), None)
    if folder is None:
        raise DatasetError(
            f"'{root}' has no annotations: expected images/ with objects/, "
            f"{'/, '.join(ANNOTATIONS[1:])}/ "
            "beside it, or Broden's index.csv and label.csv"
        )
    if split is None:
        # Photos of other splits may well lie there without masks.
        masked = [name for name in SPLITS if (root / folder / name).is_dir()]
        split = masked[0] if len(masked) == 1 else None
    concepts = None if names is None else read_labels(names)
    photos = open_folder(
        root, *walk(root), split, None if classes is None else read_labels(classes)
    )
    if folder == "objects":
        return PolygonMasks(photos, concepts or _names_of_objects(root))
    return IndexMaps(photos, folder, without_none(concepts or _names_of_numbers(root)))


def _names_of_objects(root: Path) -> tuple[str, ...] | None:
    files = [
        place / "object_categories.txt"
        for place in (root, root / "objects", root.parent)
    ]
    return next((read_labels(file) for file in files if file.is_file()), None)


def _names_of_numbers(root: Path) -> tuple[str, ...]:
    if (root / "objectInfo150.txt").is_file():
        return read_object_info(root / "objectInfo150.txt")
    files = [
        root / name
        for name in ("names.txt", "classes.txt", "labels.txt", "categories.txt")
    ]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise DatasetError(
            f"'{root}' does not name its concepts: lay names.txt there, one name a "
            "line, or give names="
        )
    return read_labels(file)


def _open_one(source: str, split: str | None, classes: Sequence[str] | None) -> Dataset:
    if re.match(r"[a-z][a-z0-9+]+://|pipe:", source):
        raise DatasetError(
            f"'{source}' is an address, and data sets are read from files: download it "
            "first"
        )
    paths = _expanded(source)
    if len(paths) == 1 and paths[0].is_dir():
        return _open_folder(paths[0], split, classes)
    if len(paths) == 1 and paths[0].suffix.lower() in LIST_SUFFIXES:
        _refuse_split(source, split)
        return open_list(paths[0], classes)
    return _open_several(source, paths, split, classes)


def _open_folder(
    root: Path, split: str | None, classes: Sequence[str] | None
) -> Dataset:
    photos, others = walk(root)
    shards = [
        root / path for path in others if path.lower().endswith((".tar", ".parquet"))
    ]
    if photos or not shards:
        return open_folder(root, photos, others, split, classes)
    return _open_shards(str(root), _of_split(shards, split, f"'{root}'"), None, classes)


def _open_several(
    source: str, paths: Sequence[Path], split: str | None, classes: Sequence[str] | None
) -> Dataset:
    for path in paths:
        # A tar or table that is not there is told by its name; one photo of many may be
        # missing.
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
    if split is not None and len(paths) > 1 and any(split_of(path) for path in paths):
        return _open_shards(
            source, _of_split(paths, split, f"'{source}'"), None, classes
        )
    return _open_shards(source, paths, split, classes)


def _open_shards(
    source: str, paths: Sequence[Path], split: str | None, classes: Sequence[str] | None
) -> Dataset:
    if all(path.name.lower().endswith((".tar", *COMPRESSED)) for path in paths):
        return open_tars(source, paths, split, classes)
    if all(path.suffix.lower() == ".parquet" for path in paths):
        if any(split_of(path) != split for path in paths):
            _refuse_split(source, split)
        # Loads pyarrow.
        from unitscope.datasets.tables import TableDataset

        return TableDataset(source, paths, classes)
    kinds = ", ".join(sorted({path.suffix or path.name for path in paths}))
    raise DatasetError(
        f"'{source}' is no data set that can be read ({kinds[:80]}): expected "
        f"{EXPECTED}"
    )


def _of_split(shards: Sequence[Path], split: str | None, where: str) -> list[Path]:
    """The shards of one split, by their names or folders (`train-00000-of-00004.parquet`); all where those say none."""
    splits = {path: split_of(path) for path in shards}
    there = [name for name in SPLITS if name in splits.values()]
    if None in splits.values() and split is None:
        return list(shards)
    chosen = choose_split(there, split, where)
    return [path for path in shards if splits[path] == chosen]


def _refuse_split(source: str, split: str | None) -> None:
    if split is not None:
        raise DatasetError(
            f"'{source}' is not divided into splits: leave split={split!r} out"
        )


def _expanded(source: str) -> list[Path]:
    """A path, or the paths that its braces and stars stand for, in sorted order."""
    path = Path(source).expanduser()
    if not source:
        raise DatasetError(f"the path is empty: expected {EXPECTED}")
    if "\0" in source:
        raise DatasetError(f"{source!r} is no path: it has a NUL character in it")
    try:
        plain = path.exists() or not re.search(r"[*?\[{]", source)
    except OSError as error:
        raise DatasetError(
            f"'{source[:80]}' cannot be looked for ({one_line(error)}): check the path"
        ) from None
    if plain:
        return [path]
    paths: list[Path] = []
    for pattern in _braces(str(path)):
        relative = Path(pattern).relative_to(path.anchor)
        matches = (
            sorted(Path(path.anchor).glob(str(relative)))
            if re.search(r"[*?\[]", pattern)
            else [Path(pattern)]
        )
        if not matches:
            raise DatasetError(
                f"no file is named like '{pattern}': check the pattern (looked in "
                f"{Path.cwd()})"
            )
        paths += matches
    return paths


def _braces(pattern: str) -> Iterator[str]:
    """`a-{08..10}.tar` → a-08.tar, a-09.tar, a-10.tar; `{train,val}.tar` → train.tar, val.tar."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    if match["choices"] is not None:
        parts = match["choices"].split(",")
    else:
        first, last = int(match["first"]), int(match["last"])
        if not 0 <= last - first < _MOST_SHARDS:
            raise DatasetError(
                f"'{match[0]}' in '{pattern}' is no range of shards: expected e.g. "
                f"{{000..012}}"
            )
        parts = [
            str(number).zfill(len(match["first"])) for number in range(first, last + 1)
        ]
    for part in parts:
        yield from _braces(pattern[: match.start()] + part + pattern[match.end() :])
