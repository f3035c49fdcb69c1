"""Lists of photos: text with one path a line, tables with a column of paths."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from unitscope.datasets.classes import FoundLabel, class_names_file, labelled
from unitscope.datasets.files import FileDataset
from unitscope.datasets.layout import is_photo
from unitscope.datasets.texts import read_text
from unitscope.errors import DatasetError

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
PATH_COLUMNS = tuple(
    """
    path file filename file_name filepath file_path image image_path img img_path photo
    """.split()
)
LABEL_COLUMNS = tuple(
    """
    label labels class cls category target class_id class_index label_id class_name
    label_name fine_label
    """.split()
)

_LINE_WITH_INDEX = re.compile(r"(?P<path>.*\S)\s+(?P<label>\d{1,9})")

_Photo: TypeAlias = tuple[str, FoundLabel]
"""A path as it is written, and the label."""


def open_list(file: Path, classes: Sequence[str] | None) -> FileDataset:
    """Open the photos that a text file or a table names, in its order.

    Their paths are relative to its folder. A line of text is a path; where every line
    ends in a whole number after a space, that is the label's index, and what stands
    behind a tab is the label in any case. A table (.csv, .tsv) has a column of paths
    and perhaps one of labels. Raises DatasetError.
    """
    text = read_text(file)
    if file.suffix.lower() in (".csv", ".tsv"):
        photos = _photos_of_table(text, file)
    else:
        photos = _photos_of_lines(text)
    if not photos:
        raise DatasetError(
            f"the list '{file}' is empty: expected one path of a photo a line"
        )

    paths = [path for path, _ in photos]
    written = [label for _, label in photos]
    folder = file.parent
    labels = labelled(written, classes, f"the list '{file}'", class_names_file(folder))
    ids = [PurePath(path).as_posix().removeprefix("./") for path in paths]
    return FileDataset(str(file), "list", folder, paths, ids, labels)


def open_paths(
    paths: Sequence[str | os.PathLike[str]], classes: Sequence[str] | None
) -> FileDataset:
    """Open photos by their paths, in this order and without labels.

    Their ids are the paths from their common folder on.
    """
    absolute = [Path(path).absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    relative = [path.relative_to(root).as_posix() for path in absolute]

    source = f"{len(paths)} photos in {root}"
    if len(paths) == 1:
        source = str(paths[0])
    labels = labelled([None] * len(paths), classes, source)
    return FileDataset(source, "list", root, relative, relative, labels)


def _photos_of_lines(text: str) -> list[_Photo]:
    # Only real line ends: names of files may hold what str.splitlines breaks at.
    every = (line.strip() for line in re.split(r"\r\n|\n|\r", text))
    lines = [line for line in every if line]
    if lines and all("\t" in line for line in lines):
        parts = (line.rpartition("\t") for line in lines)
        return [(path.strip(), label) for path, _, label in parts]

    matches = [_LINE_WITH_INDEX.fullmatch(line) for line in lines]
    if all(matches):
        return [(match["path"], int(match["label"])) for match in matches if match]
    return [(line, None) for line in lines]


def _photos_of_table(text: str, file: Path) -> list[_Photo]:
    delimiter = _delimiter(text, file)
    rows = _rows(text, delimiter, file)
    if not rows:
        return []

    columns = _Columns.of(rows[0], file)
    needed = max(columns.path, columns.label or 0) + 1
    photos: list[_Photo] = []
    for number, row in enumerate(rows[columns.header_rows :], columns.header_rows + 1):
        if len(row) < needed or not row[columns.path].strip():
            raise DatasetError(
                f"the table '{file}' has no path or no label in row {number} "
                f"({delimiter.join(row)[:60]!r}): every row needs {needed} columns or "
                "more"
            )
        label = None if columns.label is None else row[columns.label]
        photos.append((row[columns.path].strip(), label))
    return photos


def _delimiter(text: str, file: Path) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    first_line = text.lstrip().partition("\n")[0]
    return max(",;\t", key=first_line.count)


def _rows(text: str, delimiter: str, file: Path) -> list[list[str]]:
    """The rows of a table that are not empty; raises DatasetError."""
    lines = re.split(r"(?<=\n)", text)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise DatasetError(
            f"the table '{file}' is not valid CSV ({error}): save it as CSV in UTF-8"
        ) from None
    return [row for row in rows if any(map(str.strip, row))]


@dataclass(frozen=True)
class _Columns:
    """The columns of a table, counted from 0, and the number of rows that name them."""

    path: int
    label: int | None
    header_rows: int

    @classmethod
    def of(cls, row: Sequence[str], file: Path) -> _Columns:
        """The columns by a table's first row; raises DatasetError."""
        header = [cell.strip().lower() for cell in row]
        path = _first_of(PATH_COLUMNS, header)
        if path is not None:
            return cls(path, _first_of(LABEL_COLUMNS, header), header_rows=1)
        if is_photo(row[0].strip()):
            return cls(0, 1 if len(row) > 1 else None, header_rows=0)
        raise DatasetError(
            f"the table '{file}' has the columns {', '.join(header)[:80]!r} and none "
            "of paths: name one of them 'path'"
        )


def _first_of(names: Sequence[str], header: Sequence[str]) -> int | None:
    """The column that has the first of these names that is there."""
    for name in names:
        if name in header:
            return header.index(name)
    return None
