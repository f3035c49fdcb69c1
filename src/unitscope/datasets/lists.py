"""Lists of photos: text with one path a line, tables with a column of paths, or paths in memory."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from unitscope.datasets.classes import FoundLabel, labelled
from unitscope.datasets.files import FileDataset, read_text
from unitscope.datasets.layout import is_photo
from unitscope.errors import DatasetError

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
PATH_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path", "photo",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "cls", "category", "target", "class_id", "class_index", "label_id", "class_name",
    "label_name", "fine_label",
)  # fmt: skip

_LINE_WITH_INDEX = re.compile(r"(?P<path>.*\S)\s+(?P<label>\d{1,9})")


def open_list(file: Path, classes: Sequence[str] | None) -> FileDataset:
    """Open the photos that a text file or a table names, in its order; their paths are relative to its folder.

    A line of text is a path; where every line ends in a whole number after a space,
    that is the label's index, and what stands behind a tab is the label in any case. A
    table (.csv, .tsv) has a column of paths and perhaps one of labels. Raises
    DatasetError.
    """
    text = read_text(file)
    table = file.suffix.lower() in (".csv", ".tsv")
    rows = _table_rows(text, file) if table else _line_rows(text)
    if not rows:
        raise DatasetError(
            f"the list '{file}' is empty: expected one path of a photo a line"
        )
    paths = [path for path, _ in rows]
    beside = file.parent / "categories.txt"
    labels = labelled(
        [label for _, label in rows],
        classes,
        f"the list '{file}'",
        beside if beside.is_file() else None,
    )
    return FileDataset(
        str(file), "list", file.parent, paths, [_as_id(path) for path in paths], labels
    )


def open_paths(
    paths: Sequence[str | os.PathLike[str]], classes: Sequence[str] | None
) -> FileDataset:
    """Open photos by their paths, in this order and without labels; they are named from their common folder on."""
    absolute = [Path(path).absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    relative = [path.relative_to(root).as_posix() for path in absolute]
    source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} photos in {root}"
    return FileDataset(
        source,
        "list",
        root,
        relative,
        relative,
        labelled([None] * len(paths), classes, source),
    )


def _as_id(path: str) -> str:
    return PurePath(path).as_posix().removeprefix("./")


def _line_rows(text: str) -> list[tuple[str, FoundLabel]]:
    # Only real line ends: names of files may hold what str.splitlines breaks at.
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if lines and all("\t" in line for line in lines):
        return [
            (path.strip(), label)
            for path, _, label in (line.rpartition("\t") for line in lines)
        ]
    matches = [_LINE_WITH_INDEX.fullmatch(line) for line in lines]
    if all(matches):
        return [(match["path"], int(match["label"])) for match in matches if match]
    return [(line, None) for line in lines]


def _table_rows(text: str, file: Path) -> list[tuple[str, FoundLabel]]:
    first = text.lstrip().partition("\n")[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        rows = [
            row
            for row in csv.reader(re.split(r"(?<=\n)", text), delimiter=delimiter)
            if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise DatasetError(
            f"the table '{file}' is not valid CSV ({error}): save it as CSV in UTF-8"
        ) from None
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    path = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
    label = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    if path is not None:
        rows = rows[1:]
        numbers = range(2, len(rows) + 2)
    elif is_photo(rows[0][0].strip()):
        path, label, numbers = (
            0,
            1 if len(rows[0]) > 1 else None,
            range(1, len(rows) + 1),
        )
    else:
        raise DatasetError(
            f"the table '{file}' has the columns {', '.join(header)[:80]!r} and none "
            "of paths: name one of them 'path'"
        )
    needed = max(path, -1 if label is None else label)
    for number, row in zip(numbers, rows, strict=True):
        if len(row) <= needed or not row[path].strip():
            raise DatasetError(
                f"the table '{file}' has no path or no label in row {number} "
                f"({delimiter.join(row)[:60]!r}): every row "
                f"needs {needed + 1} columns or more"
            )
    return [(row[path].strip(), None if label is None else row[label]) for row in rows]
