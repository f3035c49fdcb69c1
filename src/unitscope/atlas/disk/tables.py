"""Tables: Parquet files of an atlas, written whole and read by column."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitscope.errors import (
    AtlasError,
    MissingExtraError,
    near_matches,
    one_line,
)
from unitscope.files import make_folder, written_whole

_ROWS_A_BATCH = 4096


def parquet() -> Any:
    """Pyarrow's module for Parquet; raises MissingExtraError without pyarrow."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "atlas", "an atlas") from None
    return pyarrow.parquet


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns as a Parquet table, whole or not at all.

    A column is an array or a list, with None for missing values.
    """
    table = _table(columns)
    make_folder(path.parent)
    with written_whole(path) as temporary:
        parquet().write_table(table, temporary, compression="zstd")


@contextlib.contextmanager
def streamed_table(
    path: Path, types: Mapping[str, str]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A Parquet table that is written some rows at a time, whole or not at all.

    `types` are pyarrow's types of its columns. Yields the function that writes rows.
    """
    import pyarrow

    schema = pyarrow.schema(list(types.items()))
    make_folder(path.parent)
    with (
        written_whole(path) as temporary,
        parquet().ParquetWriter(
            temporary, schema, compression="zstd"
        ) as writer,
    ):

        def write(columns: Mapping[str, Any]) -> None:
            table = _table(columns).cast(schema)
            if table.num_rows:
                writer.write_table(table)

        yield write


def table_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Some columns of a Parquet table, a few thousand rows at a time."""
    with parquet().ParquetFile(path) as file:
        yield from file.iter_batches(
            batch_size=_ROWS_A_BATCH,
            columns=list(columns),
        )


def read_table(
    path: Path, columns: Sequence[str] | None = None, where: Any = None
) -> Any:
    """A Parquet table, or some columns of it.

    Raises AtlasError where it is missing or damaged.
    """
    try:
        return parquet().read_table(
            path,
            columns=None if columns is None else list(columns),
            filters=where,
        )
    except FileNotFoundError:
        raise AtlasError(
            f"'{path}' is missing: copy the atlas again, with all of its files"
        ) from None
    except PermissionError:
        raise AtlasError(
            f"'{path}' may not be read: check its permissions"
        ) from None
    except (OSError, ValueError) as error:
        _check_columns(path, columns)
        raise AtlasError(
            f"'{path}' cannot be read ({one_line(error)}): scan again into another "
            "folder"
        ) from None


def _table(columns: Mapping[str, Any]) -> Any:
    import pyarrow

    arrays = {name: _column(values) for name, values in columns.items()}
    return pyarrow.table(arrays)


def _column(values: Any) -> Any:
    import pyarrow

    if isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)):
        return values
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        # This writes NaN as a missing value.
        return pyarrow.array(values, from_pandas=True)
    return pyarrow.array(values)


def _check_columns(path: Path, columns: Sequence[str] | None) -> None:
    """Raise AtlasError where a table that can be read has no such column."""
    try:
        known = parquet().read_schema(path).names
    except (OSError, ValueError):
        return
    for name in columns or ():
        if name not in known:
            raise AtlasError(
                f"'{path}' has no column '{name}'{near_matches(name, known)}: it has "
                f"{', '.join(known)}"
            ) from None
