"""Matching: the model's class of each class of a data set, by name where names fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from unitscope.datasets import Dataset, shown_id
from unitscope.errors import DatasetError, warn_user
from unitscope.labels import is_index

# The model's class of each class of a data set, None where it has none.
Targets: TypeAlias = tuple[int | None, ...]

_AS_INDICES = "labels are numbers, taken for the model's own classes"
_AS_NAMES = "labels are numbers, taken for names of the model's classes"
_REMEDY = "name the folders or labels after the model's classes"


@dataclass(frozen=True)
class Matching:
    """The classes of the images, and the model's class of each, None where it has none.

    Without labels the classes are the model's own, and an image belongs to the class
    that the model predicts. `notes` are lines for the reader of an atlas.
    """

    classes: tuple[str, ...]
    targets: Targets
    labelled: bool
    notes: tuple[str, ...]


def matched(dataset: Dataset, labels: Sequence[str]) -> Matching:
    """Match a data set's classes with a model's labels by name.

    Case, spaces, letter folders ("/a/abbey") and zeros before a number are ignored.
    Numbers are the model's own indices where they are no names of its classes; where
    they may be something else too, a warning and a note say so. Raises DatasetError
    where such a number is not a class of the model, and where two classes of the data
    set match one of the model's.
    """
    if not dataset.labelled:
        return _own_classes(
            labels,
            labelled=False,
            note="the images have no labels: they belong to the predicted classes",
        )
    if dataset.classes is None:
        return _by_index_of(dataset, labels)
    if tuple(dataset.classes) == tuple(labels):
        return _own_classes(labels)

    classes = tuple(map(shown_id, dataset.classes))
    targets = _targets(dataset.classes, labels)
    notes: tuple[str, ...] = ()
    if all(is_index(name) for name in dataset.classes):
        targets, notes = _of_numbers(dataset, labels, targets)
    if notes and notes[0].startswith(_AS_INDICES):
        classes = tuple(
            labels[target] for target in targets if target is not None
        )
    if not notes:
        count = sum(target is not None for target in targets)
        notes = (
            f"{count} of the data set's {len(targets)} classes are classes of the "
            "model, by name",
        )
    _check_unique(dataset, targets, labels)
    return Matching(
        classes=classes,
        targets=targets,
        labelled=True,
        notes=notes,
    )


def _by_index_of(dataset: Dataset, labels: Sequence[str]) -> Matching:
    """The matching of labels that are indices without names."""
    present = {entry.label for entry in dataset.entries} - {None}
    indices = tuple(sorted(index for index in present if index is not None))
    _check_indices(dataset, indices, labels)
    names = [str(index) for index in indices]
    by_name = _targets(names, labels)
    doubt = _doubt(indices, labels, ordered=False)
    if None not in by_name:
        doubt = _difference(names, indices, by_name, labels)
    return _own_classes(labels, note=_told(_AS_INDICES, doubt, dataset))


def _of_numbers(
    dataset: Dataset, labels: Sequence[str], by_name: Targets
) -> tuple[Targets, tuple[str, ...]]:
    """The targets of classes that are named by numbers, and a note on doubts.

    The note is empty where they are names beyond doubt.
    """
    assert dataset.classes is not None
    indices = tuple(map(int, dataset.classes))
    fit = max(indices) < len(labels)
    if None not in by_name:
        doubt = ""
        if fit:
            doubt = _difference(dataset.classes, by_name, indices, labels)
        if not doubt:
            return by_name, ()
        return by_name, (_told(_AS_NAMES, doubt, dataset),)

    named = [target for target in by_name if target is not None]
    if named and not fit:
        return by_name, ()
    _check_indices(dataset, indices, labels)
    # With zeros before them, numbers and their text have one order.
    padded = any(map(_is_padded, dataset.classes))
    doubt = _doubt(indices, labels, ordered=not padded)
    if named:
        doubt = f"{len(named)} of the {len(indices)} are names of classes too"
    return indices, (_told(_AS_INDICES, doubt, dataset),)


def _difference(
    numbers: Sequence[str],
    taken: Targets,
    other: Targets,
    labels: Sequence[str],
) -> str:
    """The first number that would be another class if it were read the other way."""
    for number, one, another in zip(numbers, taken, other, strict=True):
        if one is not None and another is not None and one != another:
            return (
                f"{number!r} is then the class {labels[one]!r}, and could be the class "
                f"{labels[another]!r}"
            )
    return ""


def _is_padded(number: str) -> bool:
    return len(number) > 1 and number.startswith("0")


def _doubt(indices: Sequence[int], labels: Sequence[str], ordered: bool) -> str:
    """Why numbers may be no indices; "" where there is no sign of that.

    `ordered` says that they are names of folders, or other text, which ImageFolder
    would number in the order of the text.
    """
    count = len(indices)
    if count > 1 and sorted(indices) == list(range(1, count + 1)):
        return (
            "there is no 0: if they count from 1, each is taken for the class behind "
            "its own"
        )
    as_text = sorted(map(str, range(len(labels))))
    if ordered and any(as_text[index] != str(index) for index in indices):
        return (
            "a model trained on torchvision's ImageFolder has its classes in the order "
            f"of the text, {', '.join(as_text[:3])} …"
        )
    return ""


def _told(reading: str, doubt: str, dataset: Dataset) -> str:
    """The note on how numbers were taken; warns of it where there is a doubt."""
    if not doubt:
        return reading
    note = f"{reading}, but {doubt}: if that is wrong, {_REMEDY}"
    warn_user(f"'{dataset.source}': {note}")
    return note


def _own_classes(
    labels: Sequence[str], labelled: bool = True, note: str = ""
) -> Matching:
    return Matching(
        classes=tuple(labels),
        targets=tuple(range(len(labels))),
        labelled=labelled,
        notes=(note,) if note else (),
    )


def _check_indices(
    dataset: Dataset, indices: Sequence[int], labels: Sequence[str]
) -> None:
    largest = max(indices)
    if largest >= len(labels):
        raise DatasetError(
            f"the labels of '{dataset.source}' go up to {largest}, and the model has "
            f"{len(labels)} classes: give the names of the data set's classes, so that "
            "they can be matched by name"
        )


def _targets(classes: Sequence[str], labels: Sequence[str]) -> Targets:
    """The model's class of each name, None where none or several match."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        places[_key(label)].append(index)

    matches = [places.get(_key(name), []) for name in classes]
    return tuple(
        indices[0] if len(indices) == 1 else None for indices in matches
    )


def _check_unique(
    dataset: Dataset, targets: Sequence[int | None], labels: Sequence[str]
) -> None:
    names: dict[int, list[str]] = defaultdict(list)
    for name, target in zip(dataset.classes or (), targets, strict=True):
        if target is not None:
            names[target].append(name)

    for target, same in names.items():
        if len(same) > 1:
            raise DatasetError(
                f"the classes {same[0]!r} and {same[1]!r} of '{dataset.source}' are "
                f"both the model's {labels[target]!r}: give one of them another name"
            )


def _key(name: str) -> str:
    """A name without case, letter folder, zeros before it, and differences in spaces."""
    if is_index(name):
        return str(int(name))
    lower = name.strip().casefold()
    without_folder = re.sub(r"^/?[a-z]/(?=.)", "", lower)
    return re.sub(r"[\s_-]+", " ", without_folder).strip()
