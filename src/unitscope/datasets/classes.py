"""Classes of a data set: labels from files, folders, columns and lists, as indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from unitscope.errors import (
    DatasetError,
    LabelsError,
    near_matches,
    warn_user,
)
from unitscope.labels import is_index, read_labels

FoundLabel: TypeAlias = int | str | None
"""The label of one image as it is written: an index, a name, an index as text, or None
for nothing."""


@dataclass(frozen=True)
class LabelledClasses:
    """The label of each image as an index, and the names of the classes, if any."""

    labels: Sequence[int | None]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def class_of(path: str) -> str:
    """Name the class of a photo by its folders; "" for a photo in no folder.

    `a/abbey/1.jpg` → `abbey`, `b/bakery/shop/1.jpg` → `bakery/shop`: Places sorts its
    classes into folders by first letter, which is no part of the name.
    """
    folders = PurePosixPath(path).parts[:-1]
    if len(folders) > 1:
        letter, inner, *_ = folders
        if len(letter) == 1 and inner.startswith(letter):
            folders = folders[1:]
    return "/".join(folders)


def class_names_file(folder: Path) -> Path | None:
    """The file in a folder that may name the classes; None where it is not there."""
    file = folder / "categories.txt"
    return file if file.is_file() else None


def labelled(
    written: Iterable[FoundLabel],
    classes: Sequence[str] | None,
    where: str,
    names_file: Path | None = None,
) -> LabelledClasses:
    """Turn labels as they are written into indices.

    Names are looked up in `classes`, or numbered in sorted order where there are none.
    Text that is a number is a name too: it is an index only where `classes` have no
    such names. Numbers are indices, and negative ones no labels. `names_file`, which
    lies there without being asked for, gives the classes only where it fits. `where`
    begins the messages, e.g. "the list 'val.txt'". Raises DatasetError.
    """
    values = [_stripped(value) for value in written]
    present = set(values) - {None}
    if not present:
        unused = "there are no labels: the names of classes that were given are unused"
        no_labels = [None] * len(values)
        return LabelledClasses(
            no_labels, None, () if classes is None else (unused,)
        )

    names = {str(value) for value in present}
    numbers = all(map(_is_number, names))
    notes: tuple[str, ...] = ()
    if classes is None and names_file is not None:
        classes, notes = _classes_in(names_file, names, numbers)

    unlabelled = {name for name in names if numbers and name.startswith("-")}
    names -= unlabelled
    if classes is not None and numbers:
        notes += _either_way(names, classes, where)
    elif classes is None and _are_names(present, numbers):
        classes = sorted(names, key=_by_value if numbers else None)

    if classes is not None and names <= set(classes):
        _check_distinct(names, classes, where)
        index_of = {name: index for index, name in enumerate(classes)}
    elif numbers:
        index_of = {name: int(name) for name in names}
        _check_indices(index_of.values(), classes, where)
    else:
        raise _unknown_class(names, classes or (), where)

    index_of |= dict.fromkeys(unlabelled, -1)
    labels = [_index(value, index_of) for value in values]
    if classes is not None:
        classes = tuple(classes)
    return LabelledClasses(labels, classes, notes)


def _are_names(values: Iterable[FoundLabel], numbers: bool) -> bool:
    """Whether labels are names: other text than numbers, or numbers that are all text."""
    return not numbers or all(isinstance(value, str) for value in values)


def _by_value(number: str) -> tuple[int, str]:
    return int(number), number


def _is_number(name: str) -> bool:
    """Whether a name is a number; −1 stands for no class."""
    return is_index(name.removeprefix("-"))


def _stripped(value: FoundLabel) -> FoundLabel:
    """A label without spaces around it; None for one of spaces alone."""
    if isinstance(value, str):
        return value.strip() or None
    return value


def _index(value: FoundLabel, index_of: Mapping[str, int]) -> int | None:
    """The index of a label.

    None for no label and for a negative index, which Hugging Face writes for none.
    """
    if value is None:
        return None
    index = index_of[str(value)]
    return None if index < 0 else index


def _classes_in(
    file: Path, names: set[str], numbers: bool
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The classes in a file beside the data, if it fits these labels, and a note."""
    try:
        classes = read_labels(file)
    except LabelsError:
        classes = ()
    fits = names <= set(classes)
    if numbers and not fits:
        fits = max(map(int, names)) < len(classes)

    if not fits:
        note = (
            f"'{file.name}' beside the photos does not fit their labels, and is not "
            "used"
        )
        return None, (note,)
    note = (
        f"the classes are named and numbered by '{file.name}' beside the photos"
    )
    return classes, (note,)


def _either_way(
    numbers: set[str], classes: Sequence[str], where: str
) -> tuple[str, ...]:
    """A warning and a note where numbers may be both names and indices of classes."""
    if not numbers <= set(classes):
        return ()
    for number in sorted(numbers, key=int):
        place = list(classes).index(number)
        if int(number) != place and max(map(int, numbers)) < len(classes):
            note = (
                f"the labels are numbers, taken for names of classes: {number!r} is "
                f"class {place}; as an index it would be the class {classes[int(number)]!r}"
            )
            warn_user(f"{where}: {note}")
            return (note,)
    return ()


def _check_indices(
    indices: Iterable[int], classes: Sequence[str] | None, where: str
) -> None:
    highest = max(indices, default=-1)
    if classes is not None and highest >= len(classes):
        raise DatasetError(
            f"{where} has label {highest}, and there are {len(classes)} classes: "
            f"labels run from 0 to {len(classes) - 1}"
        )


def _unknown_class(
    names: set[str], classes: Sequence[str], where: str
) -> DatasetError:
    name = min(names.difference(classes))
    return DatasetError(
        f"{where} has the class {name!r}, which is none of the {len(classes)} "
        f"classes{near_matches(name, classes)}: give the names of the data set's own "
        "classes"
    )


def _check_distinct(
    names: set[str], classes: Sequence[str], where: str
) -> None:
    counts = Counter(classes)
    twice = sorted(name for name in names if counts[name] > 1)
    if twice:
        raise DatasetError(
            f"{where} has the class {twice[0]!r}, and two classes have this name: give "
            "labels as indices instead"
        )
