"""Labels: the names of the classes, from the lists and files people have."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from unitscope.errors import LabelsError
from unitscope.files import read_at_most

LabelsSource: TypeAlias = (
    str | os.PathLike[str] | Sequence[str] | Mapping[Any, Any]
)

# A label file of a million classes stays below this; anything larger is some other
# file.
_LARGEST_FILE = 64 * 2**20  # bytes

# Networks of fewer classes have no background class that labels leave out.
_FEWEST_WITH_BACKGROUND = 4

_LONGEST_SHOWN = 40
_MOST_SHOWN = 3

_FORMATS = (
    "one label a line, 'name index' lines, a JSON list or a JSON object of index to "
    "name"
)
_NAME_INDEX = re.compile(r"(?P<name>\S.*?)(?:\s*[,;]\s*|\s+)(?P<index>\d{1,9})")
_INDEX_NAME = re.compile(r"(?P<index>\d{1,9})(?:\s*[,;:]\s*|\s+)(?P<name>\S.*)")
_WORDNET = re.compile(r"^n\d{8}\s+(?P<name>\S.*)$")
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
_INDEX_COLUMNS = (
    "index",
    "idx",
    "id",
    "class_id",
    "class_index",
    "label_id",
    "number",
)


def read_labels(source: LabelsSource) -> tuple[str, ...]:
    """Read the labels of the classes, in their order, from a list, a dict or a file.

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
    if isinstance(source, Mapping):
        return _from_dict(source, "the dict of labels")
    given: object = source
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        raise LabelsError(
            f"labels are a list of names, a dict or a file, not {type(source).__name__}: "
            "pass a list, or the path of a file"
        )
    return _clean(source, "the list of labels")


def is_index(text: str) -> bool:
    """Whether a text is a whole number that may be an index: at most nine digits."""
    return re.fullmatch(r"\d{1,9}", text) is not None


def check_label_count(
    labels: Sequence[str], classes: int, remedy: str = ""
) -> None:
    """Raise LabelsError unless there is one label for each of `classes`.

    One class, of yes or no, may have two labels: of no, and of yes. `remedy` is one more
    remedy for the message.
    """
    count = len(labels)
    if count == classes or (count == 2 and classes == 1):
        return
    otherwise = f", or {remedy}" if remedy else ""
    raise LabelsError(
        f"{count} labels were given for {classes} classes: "
        f"{_background_remedy(labels, classes)}give one label for "
        f"each class, in the order of the classes{otherwise}"
    )


def _background_remedy(labels: Sequence[str], classes: int) -> str:
    """What to do where the counts differ by a background class; "" where they do not."""
    if classes < _FEWEST_WITH_BACKGROUND:
        return ""
    if classes == len(labels) + 1:
        return (
            "one class is probably the background; put a label for it in front "
            "('background', as TensorFlow's networks have it) or behind, or "
        )
    if classes == len(labels) - 1:
        return (
            "one label is probably the background, which is no class here; leave it out "
            f"(the first is {_shown(labels[0])}, the last {_shown(labels[-1])}), or "
        )
    return ""


def _read_file(source: str | os.PathLike[str]) -> tuple[str, ...]:
    path = Path(source)
    where = f"the labels file '{path}'"
    text = _text_of(path, where)
    suffix = path.suffix.lower()

    if suffix == ".json" or text.lstrip().startswith(("{", "[")):
        structure = _structure(text)
        if structure is not None:
            return _from_structure(structure, where)
        if suffix == ".json":
            raise LabelsError(f"{where} is not valid JSON: give {_FORMATS}")
    if suffix == ".csv":
        return _from_table(text, ",", where)
    if suffix == ".tsv":
        return _from_table(text, "\t", where)
    return _from_lines(text, where)


def _text_of(path: Path, where: str) -> str:
    """The text of a labels file; raises LabelsError where it cannot be one."""
    text = _decoded(_contents(path, where), where)
    if "\0" in text:
        raise LabelsError(f"{where} is not text: give {_FORMATS}")
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
        raise LabelsError(
            f"{where} is a web page, not labels: download the raw file ({_FORMATS})"
        )
    return text


def _contents(path: Path, where: str) -> bytes:
    try:
        if path.is_dir():
            raise LabelsError(f"{where} is a folder: name the file in it")
        data = read_at_most(path, _LARGEST_FILE)
        if data is None:
            raise LabelsError(
                f"{where} is larger than {_LARGEST_FILE >> 20} MiB and cannot be one: "
                f"give {_FORMATS}"
            )
        return data
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


def _decoded(data: bytes, where: str) -> str:
    # PowerShell's redirection writes UTF-16 with a byte-order mark.
    encoding = (
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise LabelsError(
            f"{where} is not UTF-8 text: save it as UTF-8, as {_FORMATS}"
        ) from None


def _structure(text: str) -> Any:
    """JSON, or a Python literal such as the widespread `{0: 'tench, Tinca tinca', …}`.

    None when the text is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _from_structure(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, list):
        return _clean([_name_in(entry) for entry in value], where)
    if not isinstance(value, Mapping):
        raise LabelsError(
            f"{where} holds a {type(value).__name__}: give {_FORMATS}"
        )

    return _from_dict(value, where)


def _from_dict(value: Mapping[Any, Any], where: str) -> tuple[str, ...]:
    """The labels of a dict of index to name, or of name to index."""
    # A configuration of transformers.
    if isinstance(value.get("id2label"), Mapping):
        value = value["id2label"]

    has_indices = bool(value) and all(map(_is_number, value.values()))
    if has_indices and any(map(_is_number, value)):
        raise LabelsError(
            f"{where} has numbers on both sides: give the names as text, or a list"
        )
    pairs: list[tuple[int, Any]] = []
    for key, entry in value.items():
        if has_indices:
            pairs.append((int(entry), str(key)))
        else:
            pairs.append((_as_index(key, where), _name_in(entry)))
    return _ordered(pairs, where)


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _as_index(key: Any, where: str) -> int:
    """The index of a class as the key of an object; raises LabelsError."""
    text = str(key)
    if not re.fullmatch(r"\d{1,9}", text):
        raise LabelsError(
            f"{where} has {_shown(text)} where a class's index should be: give "
            f"{_FORMATS}"
        )
    return int(key)


def _name_in(entry: Any) -> Any:
    """ImageNet's class_index.json pairs a WordNet id with the name, in this order."""
    if isinstance(entry, (list, tuple)) and entry:
        return entry[-1]
    return entry


def _from_table(text: str, delimiter: str, where: str) -> tuple[str, ...]:
    rows = _rows(text, delimiter, where)
    header = [cell.strip().lower() for cell in rows[0]]
    if _is_header(header):
        rows = rows[1:]
    else:
        header = [""] * len(header)

    columns = range(len(header))
    numeric = [column for column in columns if _is_numeric(column, rows)]
    texts = [column for column in columns if column not in numeric]
    name = _titled(texts or [columns[-1]], header, _NAME_COLUMNS)
    indices = [column for column in numeric if column != name]
    if not indices:
        return _clean([row[name] for row in rows], where)

    index = _titled(indices, header, _INDEX_COLUMNS)
    pairs = [(int(row[index]), row[name]) for row in rows]
    return _ordered(pairs, where)


def _rows(text: str, delimiter: str, where: str) -> list[list[str]]:
    """The rows of a table that are not empty, all of one length; raises LabelsError."""
    lines = text.splitlines(keepends=True)
    try:
        every = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise LabelsError(
            f"{where} is not valid CSV ({error}): give {_FORMATS}"
        ) from None
    rows = [row for row in every if any(map(str.strip, row))]
    if not rows:
        raise LabelsError(f"{where} is empty: give {_FORMATS}")

    width = len(rows[0])
    separator = "tab" if delimiter == "\t" else "comma"
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise LabelsError(
                f"{where} has {len(row)} columns in row {number} and {width} in row 1: "
                f"put labels that hold a {separator} in double quotes"
            )
    return rows


def _is_header(cells: Sequence[str]) -> bool:
    """Whether a table's first row names its columns."""
    if any(cell in _NAME_COLUMNS for cell in cells):
        return True
    return len(cells) > 1 and any(cell in _INDEX_COLUMNS for cell in cells)


def _is_numeric(column: int, rows: Sequence[Sequence[str]]) -> bool:
    return all(re.fullmatch(r"\s*\d{1,9}\s*", row[column]) for row in rows)


def _titled(
    columns: Sequence[int], header: Sequence[str], titles: Sequence[str]
) -> int:
    """The first column with one of these titles, or else the first of all."""
    for column in columns:
        if header[column] in titles:
            return column
    return columns[0]


def _from_lines(text: str, where: str) -> tuple[str, ...]:
    # Only real line ends: str.splitlines would also break a label at a form feed or a
    # Unicode separator.
    lines = [line.strip(" \t") for line in re.split(r"\r\n|\n|\r", text)]
    while lines and not lines[-1]:
        lines.pop()

    readings = []
    for pattern in (_NAME_INDEX, _INDEX_NAME):
        pairs = _indexed(lines, pattern)
        if pairs:
            readings.append(pairs)
    for pairs in readings:
        if _in_sequence([index for index, _ in pairs]):
            return _ordered(pairs, where)
    if readings:
        return _ordered(readings[0], where)

    names = [_WORDNET.sub(r"\g<name>", line) for line in lines]
    return _clean(_without_folders(names), where)


def _indexed(
    lines: Sequence[str], pattern: re.Pattern[str]
) -> list[tuple[int, str]] | None:
    """Read every line as an index and a name; None when one does not match."""
    pairs = []
    for line in lines:
        match = pattern.fullmatch(line)
        if match is None:
            return None
        index = int(match["index"])
        pairs.append((index, match["name"]))

    # "class 0", "class 1" … are plain labels: without the number nothing would tell
    # them apart.
    names = {name for _, name in pairs}
    if len(pairs) > 1 and len(names) == 1:
        return None
    return pairs


def _in_sequence(indices: Sequence[int]) -> bool:
    """Whether the indices are 0…n−1 or 1…n, each once."""
    if not indices:
        return False
    first = min(indices)
    expected = range(first, first + len(indices))
    return first in (0, 1) and sorted(indices) == list(expected)


def _ordered(pairs: Sequence[tuple[int, Any]], where: str) -> tuple[str, ...]:
    """The names in the order of their indices; raises LabelsError for gaps."""
    indices = [index for index, _ in pairs]
    if pairs and not _in_sequence(indices):
        raise _out_of_sequence(indices, where)
    ordered = sorted(pairs, key=lambda pair: pair[0])
    names = [name for _, name in ordered]
    return _clean(_without_folders(names), where)


def _out_of_sequence(indices: Sequence[int], where: str) -> LabelsError:
    """The error for indices with duplicates or gaps."""
    counts = Counter(indices)
    twice = sorted(index for index in counts if counts[index] > 1)
    if twice:
        return LabelsError(
            f"{where} gives index {_few(twice)} more than once: every class needs its "
            "own index"
        )

    first = min(1, *indices)
    highest = max(indices)
    # A few absent indices are enough, even where the highest is a billion.
    last = min(highest, first + 2 * len(indices))
    absent = [index for index in range(first, last) if index not in counts]
    return LabelsError(
        f"{where} has {len(indices)} labels with indices up to {highest}, and none for "
        f"{_few(absent)}: indices run from 0 (or 1) without gaps; if the numbers "
        "belong to the names, give a JSON list"
    )


def _without_folders(names: Sequence[Any]) -> list[Any]:
    """Take "/a/" off "/a/airfield" where all the names have such a letter folder."""
    inner = []
    for name in names:
        match = _PLACES.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            return list(names)
        inner.append(match["name"])
    return inner


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
    if len(text) > _LONGEST_SHOWN:
        text = text[:_LONGEST_SHOWN] + "…"
    return repr(text)


def _few(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:_MOST_SHOWN]))
    more = len(numbers) - _MOST_SHOWN
    return f"{listed} and {more} more" if more > 0 else listed
