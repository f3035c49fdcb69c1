"""Tables: photos in a column of Parquet files, plain or as Hugging Face writes them."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from unitscope.datasets.base import EXPECTED, Dataset, Entry
from unitscope.datasets.classes import (
    FoundLabel,
    LabelledClasses,
    class_names_file,
    labelled,
)
from unitscope.datasets.files import distinct_names
from unitscope.datasets.parquet import ParquetFile
from unitscope.datasets.trial import check_readable
from unitscope.errors import DatasetError, PhotoError

# Row groups are cached while they are small; one is cached in any case.
_CACHED_BYTES = 64 << 20

# What is read once at opening to know the size of every image; beyond, the mean of a
# row group stands for them.
_MEASURED_BYTES = 4 << 30


@final
class TableDataset(Dataset):
    """Photos in Parquet files, in the order of their rows.

    Without a column of paths that are all different, the id of a photo is `file#row`,
    the row counted from 0.
    """

    def __init__(
        self, source: str, files: Sequence[Path], classes: Sequence[str] | None
    ) -> None:
        self.source = source
        self.kind = "parquet"
        for file in files:
            check_readable(file)
        tables = [ParquetFile(file) for file in files]
        if not any(table.rows for table in tables):
            raise DatasetError(
                f"'{source}' holds no photos: expected {EXPECTED}"
            )

        labels = _labels(tables, classes, source)
        self.classes = labels.classes
        image_bytes = sum(table.image_bytes for table in tables)
        measured = image_bytes <= _MEASURED_BYTES
        self.notes = labels.notes + _notes(tables, measured)

        sizes: list[int] = []
        stamps: list[int] = []
        for table in tables:
            sizes += table.sizes(measured)
            stamps += [table.stamp] * table.rows
        entries = map(Entry, _ids(tables), labels.labels, sizes, stamps)
        self.entries = tuple(entries)
        self._row_groups = _RowGroups(tables)

    def read(self, index: int) -> bytes:
        """The bytes in the row, from its row group."""
        # Negative indices count from the end, as everywhere.
        index = range(len(self))[index]
        image, file = self._row_groups.image(index)
        if image is None:
            name = self.entries[index].id
            raise PhotoError(f"{name!r} has no bytes in '{file}': leave it out")
        return image


class _RowGroups:
    """The row groups of several files, counted through; those read last are cached.

    It may be used from any thread.
    """

    def __init__(self, tables: Sequence[ParquetFile]) -> None:
        self._groups: list[tuple[ParquetFile, int]] = []
        # The rows before each group.
        self._starts: list[int] = []
        start = 0
        for table in tables:
            for group, rows in enumerate(table.group_rows):
                self._groups.append((table, group))
                self._starts.append(start)
                start += rows
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, row: int) -> tuple[bytes | None, Path]:
        """The bytes in a row of all files, and its file."""
        number = bisect_right(self._starts, row) - 1
        table, _ = self._groups[number]
        place = row - self._starts[number]
        with self._lock:
            images = self._images(number)
            image = images[place].as_py()
        return image, table.file

    def _images(self, number: int) -> Any:
        """The images of a row group, by its number among all."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]

        table, group = self._groups[number]
        # Room is made first, so that two large row groups are never held at once.
        room = _CACHED_BYTES - table.group_bytes[group]
        while self._cache and self._cached_bytes() > room:
            self._cache.popitem(last=False)
        try:
            images = table.images(group)
        except DatasetError as error:
            raise PhotoError(str(error)) from None
        self._cache[number] = images
        return images

    def _cached_bytes(self) -> int:
        cached = self._cache.values()
        return sum(images.nbytes for images in cached)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_cache"] = OrderedDict()
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _notes(tables: Sequence[ParquetFile], measured: bool) -> tuple[str, ...]:
    """Notes on columns that hold no labels, and on sizes that are not `measured`."""
    notes: tuple[str, ...] = ()
    unused: set[str] = set()
    for table in tables:
        unused.update(map(repr, table.unused))
    if unused:
        names = ", ".join(sorted(unused))
        notes += (f"no single label is in {names}: the images have no labels",)
    if not measured:
        notes += (
            "the data are large: sizes of images are the means of their row groups",
        )
    return notes


def _labels(
    tables: Sequence[ParquetFile], classes: Sequence[str] | None, source: str
) -> LabelledClasses:
    """The labels of all rows.

    The classes' names are the user's, or those in the metadata, or in a file beside.
    """
    written: list[FoundLabel] = []
    for table in tables:
        written += table.labels()
        classes = classes or table.class_names
    beside = class_names_file(tables[0].file.parent)
    return labelled(written, classes, f"'{source}'", beside)


def _ids(tables: Sequence[ParquetFile]) -> list[str]:
    """The paths in the rows where they are all different, or else `file#row`."""
    paths: list[str | None] = []
    for table in tables:
        paths += table.paths()
    ids = [path for path in paths if path]
    if len(set(ids)) == len(paths):
        return ids

    ids = []
    files = [table.file for table in tables]
    names = distinct_names(files)
    for name, table in zip(names, tables, strict=True):
        for row in range(table.rows):
            ids.append(f"{name}#{row}")
    return ids
