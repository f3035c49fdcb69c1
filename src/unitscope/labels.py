"""Labels: the names of the classes, from the lists and files people have."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from unitscope.errors import LabelsError

LabelsSource: TypeAlias = str | os.PathLike[str] | Sequence[str]

# A label file of a million classes stays below this; anything larger is some other
# file.
_LARGEST_FILE = 64 * 2**20

_FORMATS = "one label a line, 'name index' lines, a JSON list or a JSON object of index to name"
_NAME_INDEX = re.compile(r"(?P<name>\S.*?)(?:\s*[,;]\s*|\s+)(?P<index>\d{1,9})")
_INDEX_NAME = re.compile(r"(?P<index>\d{1,9})(?:\s*[,;:]\s*|\s+)(?P<name>\S.*)")
_WORDNET = re.compile(r"n\d{8}\s+(?P<name>\S.*)")
_PLACES = re.compile(r"/[A-Za-z]/(?P<name>.+)", re.DOTALL)
_NAME_COLUMNS = (
    "label",
    "labels",
    "name",
    "names",
    "class_name",
    "class",
    "category",
    "title",
    "text",
)
_INDEX_COLUMNS = ("index", "idx", "id", "class_id", "class_index", "label_id", "number")


def read_labels(source: LabelsSource) -> tuple[str, ...]:
    """Read the labels of the classes, in the order of the classes, from a list or a file.

    A file is plain text with one label a line; lines of "name index" (`/a/airfield 0`,
    as Places365 and MiniPlaces publish them) or "index name"; WordNet's "n01440764
    tench"; a JSON list; a JSON object, or a Python dict as text, of index to name, to
    [id, name], or of name to index; or CSV with a column of names and perhaps one of
    indices. Indices count from 0 or from 1, and the lines may come in any order. The
    letter folders of the Places labels are taken off (`/a/apartment_building/outdoor` →
    `apartment_building/outdoor`).

    A label is data: line breaks in it become spaces, everything else is kept. Two
    classes may share a label. Raises LabelsError for a file that is missing or not
    text, and for indices with gaps or duplicates.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(source)
    if isinstance(source, (bytes, Mapping)) or not isinstance(source, Sequence):
        raise LabelsError(
            f"labels are a list of names or a file, not {type(source).__name__}: pass "
            "a list, or the path of a file"
        )
    return _clean(source, "the list of labels")


def check_label_count(labels: Sequence[str], classes: int, remedy: str = "") -> None:
    """Raise LabelsError unless there is one label for each of `classes`; `remedy` names one more way out."""
    if len(labels) != classes:
        raise LabelsError(
            f"{len(labels)} labels were given for {classes} classes: give one label "
            "for each class, in the order of "
            f"the classes{', or ' + remedy if remedy else ''}"
        )


def _read_file(source: str | os.PathLike[str]) -> tuple[str, ...]:
    path = Path(source)
    where = f"the labels file '{path}'"
    text = _text_of(path, where)
    begin = text.lstrip()[:1]
    if path.suffix.lower() == ".json" or begin in ("{", "["):
        structure = _structure(text)
        if structure is not None:
            return _from_structure(structure, where)
        if path.suffix.lower() == ".json":
            raise LabelsError(f"{where} is not valid JSON: give {_FORMATS}")
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_table(text, "\t" if path.suffix.lower() == ".tsv" else ",", where)
    return _from_lines(text, where)


def _text_of(path: Path, where: str) -> str:
    try:
        if path.is_dir():
            raise LabelsError(f"{where} is a folder: name the file in it")
        if path.stat().st_size > _LARGEST_FILE:
            raise LabelsError(
                f"{where} is larger than {_LARGEST_FILE >> 20} MiB and cannot be one: "
                f"give {_FORMATS}"
            )
        data = path.read_bytes()
    except LabelsError:
        raise
    except FileNotFoundError:
        raise LabelsError(
            f"there is no labels file '{path}': check the path (looked in "
            f"{Path.cwd()}), or pass the labels as a list"
        ) from None
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        raise LabelsError(
            f"{where} cannot be read ({error}): check the path and its permissions"
        ) from None
    # What PowerShell's redirection writes is UTF-16 with a byte-order mark.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise LabelsError(
            f"{where} is not UTF-8 text: save it as UTF-8, as {_FORMATS}"
        ) from None
    if "\0" in text:
        raise LabelsError(f"{where} is not text: give {_FORMATS}")
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
        raise LabelsError(
            f"{where} is a web page, not labels: download the raw file ({_FORMATS})"
        )
    return text


def _structure(text: str) -> Any:
    """JSON, or a Python literal such as the widespread `{0: 'tench, Tinca tinca', …}`; None when it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _from_structure(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, Mapping) and isinstance(value.get("id2label"), Mapping):
        value = value["id2label"]
    if isinstance(value, list):
        return _clean([_last(item) for item in value], where)
    if not isinstance(value, Mapping):
        raise LabelsError(f"{where} holds a {type(value).__name__}: give {_FORMATS}")
    if value and all(type(index) is int for index in value.values()):
        return _ordered([(index, str(name)) for name, index in value.items()], where)
    pairs = []
    for index, item in value.items():
        if not re.fullmatch(r"\d{1,9}", str(index)):
            raise LabelsError(
                f"{where} has {_shown(str(index))} where a class's index should be: "
                f"give {_FORMATS}"
            )
        pairs.append((int(index), _last(item)))
    return _ordered(pairs, where)


def _last(item: Any) -> Any:
    """ImageNet's class_index.json pairs a WordNet id with the name, in this order."""
    return item[-1] if isinstance(item, (list, tuple)) and item else item


def _from_table(text: str, delimiter: str, where: str) -> tuple[str, ...]:
    try:
        rows = [
            row
            for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise LabelsError(
            f"{where} is not valid CSV ({error}): give {_FORMATS}"
        ) from None
    if not rows:
        raise LabelsError(f"{where} is empty: give {_FORMATS}")
    width = len(rows[0])
    uneven = next(
        (number for number, row in enumerate(rows, start=1) if len(row) != width), None
    )
    if uneven is not None:
        raise LabelsError(
            f"{where} has {len(rows[uneven - 1])} columns in row {uneven} and {width} "
            "in row 1: "
            "put labels that hold a comma in double quotes"
        )
    header = [cell.strip().lower() for cell in rows[0]]
    titled = any(cell in _NAME_COLUMNS for cell in header) or (
        width > 1 and any(cell in _INDEX_COLUMNS for cell in header)
    )
    if titled:
        rows = rows[1:]
    numeric = [
        all(re.fullmatch(r"\s*\d{1,9}\s*", row[column]) for row in rows)
        for column in range(width)
    ]
    names = [column for column in range(width) if not numeric[column]] or [width - 1]
    named = [column for column in names if titled and header[column] in _NAME_COLUMNS]
    name = (named or names)[0]
    indices = [column for column in range(width) if numeric[column] and column != name]
    entitled = [
        column for column in indices if titled and header[column] in _INDEX_COLUMNS
    ]
    if not indices:
        return _clean([row[name] for row in rows], where)
    index = (entitled or indices)[0]
    return _ordered([(int(row[index]), row[name]) for row in rows], where)


def _from_lines(text: str, where: str) -> tuple[str, ...]:
    # Only real line ends: str.splitlines would also break a label at a form feed or a
    # Unicode separator.
    lines = [line.strip(" \t") for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()
    readings = [
        reading
        for pattern in (_NAME_INDEX, _INDEX_NAME)
        if (reading := _indexed(lines, pattern))
    ]
    readings.sort(key=lambda reading: not _in_sequence([index for index, _ in reading]))
    if readings:
        return _ordered(readings[0], where)
    wordnet = [_WORDNET.fullmatch(line) for line in lines]
    return _clean(
        _without_folders(
            [
                match["name"] if match else line
                for match, line in zip(wordnet, lines, strict=True)
            ]
        ),
        where,
    )


def _indexed(
    lines: Sequence[str], pattern: re.Pattern[str]
) -> list[tuple[int, str]] | None:
    """Read every line as a name and an index, or None when the lines are not of that kind."""
    matches = [pattern.fullmatch(line) for line in lines]
    found = [(int(match["index"]), match["name"]) for match in matches if match]
    if not found or len(found) != len(lines):
        return None
    # "class 0", "class 1" … are plain labels: without the number nothing would tell
    # them apart.
    if len(found) > 1 and len({name for _, name in found}) == 1:
        return None
    return found


def _in_sequence(indices: Sequence[int]) -> bool:
    """Whether the indices are 0…n−1 or 1…n, each once."""
    return bool(indices) and sorted(indices) in (
        list(range(len(indices))),
        list(range(1, len(indices) + 1)),
    )


def _ordered(pairs: Sequence[tuple[int, Any]], where: str) -> tuple[str, ...]:
    indices = [index for index, _ in pairs]
    if pairs and not _in_sequence(indices):
        seen = Counter(indices)
        twice = sorted(index for index, times in seen.items() if times > 1)
        if twice:
            raise LabelsError(
                f"{where} gives index {_few(twice)} more than once: every class needs "
                "its own index"
            )
        first = min(1, min(indices))
        absent = [
            index
            for index in range(first, min(max(indices), first + 2 * len(indices)))
            if index not in seen
        ]
        raise LabelsError(
            f"{where} has {len(indices)} labels with indices up to {max(indices)}, and "
            f"none for {_few(absent)}: "
            "indices run from 0 (or 1) without gaps; if the numbers belong to the "
            "names, give a JSON list"
        )
    ordered = [name for _, name in sorted(pairs, key=lambda pair: pair[0])]
    return _clean(_without_folders(ordered), where)


def _without_folders(names: Sequence[Any]) -> list[Any]:
    """Take "/a/" off "/a/airfield" where all the names have such a letter folder."""
    matches = [
        _PLACES.fullmatch(name) if isinstance(name, str) else None for name in names
    ]
    return (
        [match["name"] for match in matches if match] if all(matches) else list(names)
    )


def _clean(names: Sequence[Any], where: str) -> tuple[str, ...]:
    if not names:
        raise LabelsError(f"{where} is empty: give one label for each class")
    labels = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise LabelsError(
                f"{where} has a {type(name).__name__} ({_shown(str(name))}) for class "
                f"{index}: labels are strings"
            )
        label = re.sub(r"[\r\n]+", " ", name).strip()
        if not label:
            raise LabelsError(
                f"{where} has an empty label for class {index}: give one label for "
                "each class, without blank lines"
            )
        labels.append(label)
    return tuple(labels)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:3])) + (
        f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    )
