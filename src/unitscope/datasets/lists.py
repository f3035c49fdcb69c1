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
from unitscope.datasets.files import FileDataset, relative_to_common_folder
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

    folder = file.parent
    paths = [path for path, _ in photos]
    written = [label for _, label in photos]
    names_file = class_names_file(folder)
    return FileDataset(
        source=str(file),
        kind="list",
        root=folder,
        paths=paths,
        ids=[_id_of(path) for path in paths],
        labels=labelled(written, classes, f"the list '{file}'", names_file),
    )


def open_paths(
    paths: Sequence[str | os.PathLike[str]], classes: Sequence[str] | None
) -> FileDataset:
    """Open photos by their paths, in this order and without labels.

    Their ids are the paths from their common folder on.
    """
    absolute = [Path(path).absolute() for path in paths]
    root, relative = relative_to_common_folder(absolute)
    source = f"{len(paths)} photos in {root}"
    if len(paths) == 1:
        source = str(paths[0])
    return FileDataset(
        source=source,
        kind="list",
        root=root,
        paths=relative,
        ids=relative,
        labels=labelled([None] * len(paths), classes, source),
    )


def _id_of(path: str) -> str:
    return PurePath(path).as_posix().removeprefix("./")


def _photos_of_lines(text: str) -> list[_Photo]:
    # Only real line ends: names of files may hold what str.splitlines breaks at.
    every = map(str.strip, re.split(r"\r\n|\n|\r", text))
    lines = [line for line in every if line]
    for read_line in (_with_tab, _with_index):
        photos = [read_line(line) for line in lines]
        complete = [photo for photo in photos if photo is not None]
        if len(complete) == len(lines):
            return complete
    return [(line, None) for line in lines]


def _with_tab(line: str) -> _Photo | None:
    """The path before the last tab of a line and the label behind it."""
    path, tab, label = line.rpartition("\t")
    return (path.strip(), label) if tab else None


def _with_index(line: str) -> _Photo | None:
    """The path and the index behind a space at the end of a line."""
    match = _LINE_WITH_INDEX.fullmatch(line)
    if match is None:
        return None
    return match["path"], int(match["label"])


def _photos_of_table(text: str, file: Path) -> list[_Photo]:
    delimiter = _delimiter(text, file)
    rows = _rows(text, delimiter, file)
    if not rows:
        return []

    columns = _Columns.of(rows[0], file)
    photos: list[_Photo] = []
    for number, row in enumerate(rows, start=1):
        if number <= columns.header_rows:
            continue
        photo = columns.photo(row)
        if photo is None:
            shown = delimiter.join(row)[:60]
            raise DatasetError(
                f"the table '{file}' has no path or no label in row {number} "
                f"({shown!r}): every row needs {columns.needed} columns or more"
            )
        photos.append(photo)
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

    @property
    def needed(self) -> int:
        """How many columns a row must have."""
        return 1 + max(self.path, self.label or 0)

    def photo(self, row: Sequence[str]) -> _Photo | None:
        """The photo in a row; None where the path or the label is absent."""
        if len(row) < self.needed:
            return None
        path = row[self.path].strip()
        label = None if self.label is None else row[self.label]
        return (path, label) if path else None

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
