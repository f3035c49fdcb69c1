"""Data sets: where images and labels come from, and concept masks for them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from unitscope.datasets.base import Dataset, Entry
from unitscope.datasets.files import EXPECTED, open_folder, walk
from unitscope.datasets.layout import SPLITS, choose_split, is_photo
from unitscope.datasets.lists import LIST_SUFFIXES, open_list, open_paths
from unitscope.datasets.tars import COMPRESSED, open_tars
from unitscope.errors import DatasetError
from unitscope.labels import LabelsSource, read_labels

__all__ = ["Dataset", "DatasetSource", "Entry", "open_dataset"]

DatasetSource: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_RANGE = re.compile(r"(?P<first>\d+)\.\.(?P<last>\d+)")
_MOST_SHARDS = 100_000


def open_dataset(source: DatasetSource, *, split: str | None = None, classes: LabelsSource | None = None) -> Dataset:
    """Open a data set of images, whatever form it has; nothing but names, labels and sizes is read yet.

    `source` is a folder (flat, with a folder for each class, or divided into splits, as MiniPlaces is), a photo, a list
    of photos (text with "path" or "path index" a line; CSV or TSV with columns), a tar or WebDataset shards, or Parquet
    files; several shards are a list, a folder, a glob pattern, or a range in braces (`train-{000..012}.tar`).
    `split` names one of the splits, which is needed only where there are several. `classes` are the names of the data
    set's own classes, needed only where its labels are numbers. Raises DatasetError, or LabelsError for `classes`.
    """
    names = None if classes is None else read_labels(classes)
    if isinstance(source, (str, os.PathLike)):
        return _open_one(os.fspath(source), split, names)
    if isinstance(source, bytes) or not isinstance(source, Sequence):
        raise DatasetError(f"a data set is opened from a path or a list of paths, not {type(source).__name__}")
    if not source:
        raise DatasetError(f"the list of paths is empty: expected {EXPECTED}")
    paths = [path for item in source for path in _expanded(os.fspath(item))]
    shown = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    return _open_several(shown, paths, split, names)


def _open_one(source: str, split: str | None, classes: Sequence[str] | None) -> Dataset:
    if re.match(r"[a-z][a-z0-9+]+://|pipe:", source):
        raise DatasetError(f"'{source}' is an address, and data sets are read from files: download it first")
    paths = _expanded(source)
    if len(paths) == 1 and paths[0].is_dir():
        return _open_folder(paths[0], split, classes)
    if len(paths) == 1 and paths[0].suffix.lower() in LIST_SUFFIXES:
        _refuse_split(source, split)
        if not paths[0].exists():
            raise _missing(paths[0])
        return open_list(paths[0], classes)
    return _open_several(source, paths, split, classes)


def _open_folder(root: Path, split: str | None, classes: Sequence[str] | None) -> Dataset:
    # Photos are looked for first: a folder of them may well have an archive beside them.
    try:
        return open_folder(root, split, classes)
    except _NoPhotos:
        pass
    raise AssertionError


def _open_several(source: str, paths: Sequence[Path], split: str | None, classes: Sequence[str] | None) -> Dataset:
    for path in paths:
        if not path.exists():
            raise _missing(path)
