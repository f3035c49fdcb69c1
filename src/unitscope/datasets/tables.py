"""Tables: photos in a column of Parquet files, plain or as Hugging Face writes them."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, final

from unitscope.datasets.base import Dataset, Entry
from unitscope.datasets.classes import FoundLabel, labelled
from unitscope.datasets.files import EXPECTED, distinct_names
from unitscope.datasets.lists import LABEL_COLUMNS, PATH_COLUMNS
from unitscope.errors import DatasetError, MissingExtraError, PhotoError, one_line

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise MissingExtraError("pyarrow", "atlas", "reading Parquet data sets") from None

_IMAGE_COLUMNS = (
    "image",
    "img",
    "bytes",
    "image_bytes",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "photo",
    "picture",
    "content",
)

# Row groups are kept while they are small; one is kept in any case.
_KEPT_BYTES = 64 << 20

# What is read once at opening to know the size of every image; beyond, the mean of a
# row group stands for them.
_MEASURED_BYTES = 4 << 30


@final
class TableDataset(Dataset):
    """Photos in Parquet files, in the order of their rows; a row group at a time is kept for the reads that follow.

    Without a column of paths that are all different, the id of a photo is `file#row`,
    the row counted from 0.
    """

    def __init__(
        self, source: str, files: Sequence[Path], classes: Sequence[str] | None
    ) -> None:
        self.source, self.kind = source, "parquet"
        self._tables = [_Table(file) for file in files]
        self._groups = [
            (table, group) for table in self._tables for group in range(table.groups)
        ]
        self._starts = [
            0,
            *accumulate(table.rows_of(group) for table, group in self._groups),
        ]
        if not self._starts[-1]:
            raise DatasetError(f"'{source}' holds no photos: expected {EXPECTED}")
        found = [label for table in self._tables for label in table.labels()]
        beside = files[0].parent / "categories.txt"
        names = next(
            (table.class_names for table in self._tables if table.class_names), None
        )
        labels = labelled(
            found, classes or names, f"'{source}'", beside if beside.is_file() else None
        )
        self.classes, self.notes = labels.classes, labels.notes
        unused = sorted({name for table in self._tables for name in table.unused})
        if unused:
            self.notes += (
                f"no single label is in {', '.join(map(repr, unused))}: the images "
                "have no labels",
            )
        measured = sum(table.image_bytes for table in self._tables) <= _MEASURED_BYTES
        if not measured:
            self.notes += (
                "the data are large: sizes of images are the means of their row groups",
            )
        sizes = [size for table in self._tables for size in table.sizes(measured)]
        stamps = [table.stamp for table in self._tables for _ in range(table.rows)]
        paths = [path for table in self._tables for path in table.paths()]
        ids = [path for path in paths if path]
        if len(set(ids)) < len(paths):
            names = distinct_names(files)
            ids = [
                f"{name}#{row}"
                for name, table in zip(names, self._tables, strict=True)
                for row in range(table.rows)
            ]
        self.entries = tuple(map(Entry, ids, labels.labels, sizes, stamps))
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The bytes in the row, from a row group that was read already, or else reads it."""
        # Negative indices count from the end, as everywhere.
        index = range(len(self.entries))[index]
        number = bisect_right(self._starts, index) - 1
        with self._lock:
            image = self._images(number)[index - self._starts[number]].as_py()
        if image is None:
            raise PhotoError(
                f"{self.entries[index].id!r} has no bytes in "
                f"'{self._groups[number][0].file}'"
            )
        return bytes(image)

    def _images(self, number: int) -> Any:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        table, group = self._groups[number]
        # Room is made first, so that two large row groups are never held at once.
        while (
            self._kept
            and sum(kept.nbytes for kept in self._kept.values()) + table.bytes_of(group)
            > _KEPT_BYTES
        ):
            self._kept.popitem(last=False)
        try:
            self._kept[number] = table.images(group)
        except DatasetError as error:
            raise PhotoError(str(error)) from None
        return self._kept[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class _Table:
    """One Parquet file: where its images, labels and paths are."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._opened() as parquet:
            schema, metadata = parquet.schema_arrow, parquet.metadata
            self.stamp = file.stat().st_mtime_ns
            self.rows, self.groups = metadata.num_rows, metadata.num_row_groups
            self._image = self._image_column(schema)
            self._label = next(
                (name for name in LABEL_COLUMNS if _is_label(schema, name)), None
            )
            self.unused = [
                name
                for name in LABEL_COLUMNS
                if name in schema.names and self._label is None
            ]
            struct = schema.field(self._image.partition(".")[0]).type
            inner = (
                [field.name for field in struct] if pa.types.is_struct(struct) else []
            )
            columns = [
                name
                for name in PATH_COLUMNS
                if name in schema.names and _is_text(schema.field(name).type)
            ]
            self._path = (
                columns[0]
                if columns
                else f"{self._image.partition('.')[0]}.path"
                if "path" in inner
                else None
            )
            self.class_names = _class_names(schema, self._label)
            groups = [metadata.row_group(group) for group in range(self.groups)]
            self._rows_of: list[int] = [group.num_rows for group in groups]
            chunks = [
                [group.column(column) for column in range(metadata.num_columns)]
                for group in groups
            ]
            self._bytes_of: list[int] = [
                sum(
                    chunk.total_uncompressed_size
                    for chunk in chunks_of
                    if chunk.path_in_schema == self._image
                )
                for chunks_of in chunks
            ]
            self.image_bytes = sum(self._bytes_of)

    def rows_of(self, group: int) -> int:
        return self._rows_of[group]

    def bytes_of(self, group: int) -> int:
        return self._bytes_of[group]

    def images(self, group: int) -> Any:
        with self._opened() as parquet:
            if self.file.stat().st_mtime_ns != self.stamp:
                raise DatasetError(
                    f"'{self.file}' was written anew since it was opened: open the "
                    "data set again"
                )
            return _column(
                parquet.read_row_group(group, columns=[self._image]), self._image
            )

    def labels(self) -> list[FoundLabel]:
        return self._values(self._label)

    def paths(self) -> list[str | None]:
        return self._values(self._path)

    def sizes(self, measured: bool) -> Iterator[int]:
        """The sizes of all images in bytes: read in small pieces, or the mean of each row group."""
        if not measured:
            for rows, size in zip(self._rows_of, self._bytes_of, strict=True):
                yield from [size // max(1, rows)] * rows
            return
        with self._opened() as parquet:
            for batch in parquet.iter_batches(batch_size=512, columns=[self._image]):
                for size in pc.binary_length(_column(batch, self._image)).to_pylist():
                    yield size or 0

    def _values(self, name: str | None) -> list[Any]:
        if name is None:
            return [None] * self.rows
        with self._opened() as parquet:
            values: list[Any] = _column(parquet.read(columns=[name]), name).to_pylist()
        return values

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with pq.ParquetFile(self.file) as parquet:
                yield parquet
        except FileNotFoundError:
            raise DatasetError(
                f"there is no Parquet file '{self.file}': check the path"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(
                f"'{self.file}' is no whole Parquet file ({one_line(error)}): get a "
                "whole copy"
            ) from None

    def _image_column(self, schema: Any) -> str:
        binary: list[str] = [field.name for field in schema if _is_binary(field.type)]
        for field in schema:
            if pa.types.is_struct(field.type) and any(
                f.name == "bytes" and _is_binary(f.type) for f in field.type
            ):
                binary.append(f"{field.name}.bytes")
        known = [
            name
            for image in _IMAGE_COLUMNS
            for name in binary
            if name in (image, f"{image}.bytes")
        ]
        if known or len(binary) == 1:
            return (known or binary)[0]
        raise DatasetError(
            f"'{self.file}' has no column of images among "
            f"{', '.join(schema.names)[:80]!r}: "
            "name the one that holds the encoded photos 'image'"
        )


def _column(table: Any, name: str) -> Any:
    """A column, or a field of a column of structs (`image.bytes`)."""
    outer, _, inner = name.partition(".")
    if name in table.schema.names:
        return table.column(name)
    return pc.struct_field(table.column(outer), inner)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(schema: Any, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind)
    )


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """The names that Hugging Face's `datasets` keeps of a ClassLabel, in the schema's metadata."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"][
            "features"
        ][label]
        names = feature["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return (
        names
        if isinstance(names, list)
        and names
        and all(isinstance(name, str) for name in names)
        else None
    )
