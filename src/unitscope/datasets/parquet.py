"""A Parquet file: which columns hold images, labels and paths, and reading them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unitscope.datasets.classes import FoundLabel
from unitscope.datasets.lists import LABEL_COLUMNS, PATH_COLUMNS
from unitscope.errors import DatasetError, MissingExtraError, one_line

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise MissingExtraError(
        "pyarrow", "atlas", "reading Parquet data sets"
    ) from None

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

# How many images are read at once to measure their sizes.
_MEASURED_TOGETHER = 512


class ParquetFile:
    """One Parquet file: where its images, labels and paths are.

    `rows` is their number; `group_rows` and `group_bytes` are the rows of each row
    group and the size of its images; `image_bytes` is the size of all. `stamp` is the
    file's modification time (ns); `class_names` are those in its metadata, None without
    any; `unused` are the columns of labels that hold no single labels. Raises
    DatasetError.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._opened() as parquet:
            schema = parquet.schema_arrow
            metadata = parquet.metadata
            self.stamp = file.stat().st_mtime_ns
            self.rows: int = metadata.num_rows

            self._image = _image_column(schema, file)
            self._label = _label_column(schema)
            self._path = _path_column(schema, self._image)
            self.class_names = _class_names(schema, self._label)
            self.unused = []
            if self._label is None:
                self.unused = _names_in(schema, LABEL_COLUMNS)

            self.group_rows: list[int] = []
            self.group_bytes: list[int] = []
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                size = _column_bytes(group, self._image)
                self.group_rows.append(group.num_rows)
                self.group_bytes.append(size)
        self.image_bytes = sum(self.group_bytes)

    def images(self, group: int) -> Any:
        """The images of a row group as a column of pyarrow."""
        with self._opened() as parquet:
            if self.file.stat().st_mtime_ns != self.stamp:
                raise DatasetError(
                    f"'{self.file}' was written anew since it was opened: open the "
                    "data set again"
                )
            table = parquet.read_row_group(group, columns=[self._image])
            return _column(table, self._image)

    def labels(self) -> list[FoundLabel]:
        """The labels of all rows as they are written."""
        return self._values(self._label)

    def paths(self) -> list[str | None]:
        """The paths in all rows."""
        return self._values(self._path)

    def sizes(self, measured: bool) -> Iterator[int]:
        """The sizes of all images in bytes, or else the mean of each row group."""
        if not measured:
            for rows, size in zip(
                self.group_rows, self.group_bytes, strict=True
            ):
                mean = size // max(1, rows)
                yield from [mean] * rows
            return

        with self._opened() as parquet:
            batches = parquet.iter_batches(
                batch_size=_MEASURED_TOGETHER, columns=[self._image]
            )
            for batch in batches:
                lengths = pc.binary_length(_column(batch, self._image))
                for length in lengths.to_pylist():
                    yield length or 0

    def _values(self, name: str | None) -> list[Any]:
        if name is None:
            return [None] * self.rows
        with self._opened() as parquet:
            table = parquet.read(columns=[name])
            values: list[Any] = _column(table, name).to_pylist()
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
        except PermissionError:
            raise DatasetError(
                f"'{self.file}' may not be read: check its permissions"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(
                f"'{self.file}' is no whole Parquet file ({one_line(error)}): get a "
                "whole copy"
            ) from None


def _column(table: Any, name: str) -> Any:
    """A column, or a field of a column of structs (`image.bytes`)."""
    outer, _, inner = name.partition(".")
    if name in table.schema.names:
        return table.column(name)
    return pc.struct_field(table.column(outer), inner)


def _image_column(schema: Any, file: Path) -> str:
    """The column that holds the encoded images; raises DatasetError."""
    plain = [field.name for field in schema if _is_binary(field.type)]
    structs = [field.name for field in schema if _has_binary_bytes(field.type)]
    binary: list[str] = plain + [f"{name}.bytes" for name in structs]
    for image in _IMAGE_COLUMNS:
        for name in binary:
            if name in (image, f"{image}.bytes"):
                return name
    if len(binary) == 1:
        return binary[0]
    raise DatasetError(
        f"'{file}' has no column of images among {', '.join(schema.names)[:80]!r}: "
        "name the one that holds the encoded photos 'image'"
    )


def _label_column(schema: Any) -> str | None:
    for name in _names_in(schema, LABEL_COLUMNS):
        if _is_label(schema.field(name).type):
            return name
    return None


def _path_column(schema: Any, image: str) -> str | None:
    """The column of paths, or the field of them beside the images' bytes."""
    for name in _names_in(schema, PATH_COLUMNS):
        if _is_text(schema.field(name).type):
            return name

    outer = image.partition(".")[0]
    kind = schema.field(outer).type
    if pa.types.is_struct(kind) and any(field.name == "path" for field in kind):
        return f"{outer}.path"
    return None


def _names_in(schema: Any, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in schema.names]


def _column_bytes(group: Any, name: str) -> int:
    """The uncompressed size of a column in a row group."""
    size = 0
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema == name:
            size += chunk.total_uncompressed_size
    return size


def _has_binary_bytes(kind: Any) -> bool:
    """Whether a type is a struct with a field `bytes`, as Hugging Face has images."""
    if not pa.types.is_struct(kind):
        return False
    return any(
        field.name == "bytes" and _is_binary(field.type) for field in kind
    )


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    number = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return bool(number or _is_text(kind))


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """The classes' names in the metadata, as Hugging Face's `datasets` writes them."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        names = metadata["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list) or not names:
        return None
    return names if all(isinstance(name, str) for name in names) else None
