"""Classes of a data set: what files, folders, columns and lists say of labels, as indices and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from unitscope.errors import DatasetError, LabelsError, near_matches
from unitscope.labels import read_labels

FoundLabel: TypeAlias = int | str | None
"""What was found of one image's label: an index, a name, or an index as text; None for nothing."""


@dataclass(frozen=True)
class LabelledClasses:
    """The label of each image as an index, and the names of the classes where they have names."""

    labels: Sequence[int | None]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def class_of(path: str) -> str:
    """Name the class of a photo by its folders: `a/abbey/1.jpg` → `abbey`, `b/bakery/shop/1.jpg` → `bakery/shop`.

    Empty for a photo in no folder. Places sorts its classes into folders by first
    letter, which is no part of the name.
    """
    parts = PurePosixPath(path).parts[:-1]
    if len(parts) > 1 and len(parts[0]) == 1 and parts[1].startswith(parts[0]):
        parts = parts[1:]
    return "/".join(parts)


def labelled(
    found: Iterable[FoundLabel],
    classes: Sequence[str] | None,
    where: str,
    names_file: Path | None = None,
) -> LabelledClasses:
    """Turn what was found of the labels into indices; `where` begins the messages, e.g. "the list 'val.txt'".

    Numbers, also those written as text, are indices, and negative ones no labels. Names
    are looked up in `classes`, or numbered in sorted order where there are none.
    `names_file`, which lies there without being asked for, gives the classes only where
    it fits. Raises DatasetError.
    """
    values = [
        value.strip() or None if isinstance(value, str) else value for value in found
    ]
    present = {value for value in values if value is not None}
    if not present:
        unused = "there are no labels: the names of classes that were given are unused"
        return LabelledClasses(
            _indices(values, {}), None, () if classes is None else (unused,)
        )
    names = {str(value) for value in present}
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    notes: tuple[str, ...] = ()
    if classes is None and names_file is not None:
        classes, notes = _beside(names_file, names, numbers)
    if numbers and (classes is None or not names <= set(classes)):
        index_of = {value: int(value) for value in present}
        highest = max(index_of.values())
        if classes is not None and highest >= len(classes):
            raise DatasetError(
                f"{where} has label {highest}, and there are {len(classes)} classes: "
                "labels run from 0 to "
                f"{len(classes) - 1}"
            )
    else:
        classes = sorted(names) if classes is None else classes
        _check_names(names, classes, where)
        order = {name: index for index, name in enumerate(classes)}
        index_of = {value: order[str(value)] for value in present}
    return LabelledClasses(
        _indices(values, index_of), None if classes is None else tuple(classes), notes
    )


def _indices(
    values: Sequence[FoundLabel], index_of: dict[int | str, int]
) -> list[int | None]:
    """Look every label up; None for none and for a negative index, which Hugging Face writes for none."""
    indices = [None if value is None else index_of[value] for value in values]
    return [None if index is None or index < 0 else index for index in indices]


def _beside(
    file: Path, names: set[str], numbers: bool
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The classes of a file that lies beside the data, if it is about these labels, and a note of what was done."""
    try:
        known = read_labels(file)
    except LabelsError:
        known = ()
    fits = names <= set(known) or (numbers and max(map(int, names)) < len(known))
    if fits:
        return known, (
            f"the classes are named and numbered by '{file.name}' beside the photos",
        )
    return None, (
        f"'{file.name}' beside the photos does not fit their labels, and is not used",
    )


def _check_names(names: set[str], classes: Sequence[str], where: str) -> None:
    unknown = sorted(names - set(classes))
    if unknown:
        raise DatasetError(
            f"{where} has the class {unknown[0]!r}, which is none of the "
            f"{len(classes)} classes"
            f"{near_matches(unknown[0], classes)}: give the names of the data set's "
            "own classes"
        )
    twice = sorted(
        name for name, times in Counter(classes).items() if times > 1 and name in names
    )
    if twice:
        raise DatasetError(
            f"{where} has the class {twice[0]!r}, and two classes have this name: give "
            "labels as indices instead"
        )
