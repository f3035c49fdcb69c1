"""Matching: the model's class of each class of a data set, by name, never by index."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from unitscope.datasets import Dataset, shown_id
from unitscope.errors import DatasetError


@dataclass(frozen=True)
class Matching:
    """The classes of the images, and the model's class of each, None where it has none.

    Without labels the classes are the model's own, and an image belongs to the class
    that the model predicts. `notes` are lines for the reader of an atlas.
    """

    classes: tuple[str, ...]
    targets: tuple[int | None, ...]
    labelled: bool
    notes: tuple[str, ...]


def matched(dataset: Dataset, labels: Sequence[str]) -> Matching:
    """Match a data set's classes with a model's labels by name.

    Case, spaces and letter folders ("/a/abbey") are ignored. Labels that are numbers
    without names are the model's own indices. Raises DatasetError where such a number
    is not a class of the model, and where two classes of the data set match one of the
    model's.
    """
    if not dataset.labelled:
        return _own_classes(
            labels,
            labelled=False,
            note="the images have no labels: they belong to the predicted classes",
        )
    if dataset.classes is None:
        _check_indices(dataset, labels)
        return _own_classes(
            labels,
            note="labels are numbers, taken for the model's own classes",
        )
    if tuple(dataset.classes) == tuple(labels):
        return _own_classes(labels)

    targets = _targets(dataset.classes, labels)
    _check_unique(dataset, targets, labels)
    count = sum(target is not None for target in targets)
    note = (
        f"{count} of the data set's {len(targets)} classes are classes of the model, "
        "by name"
    )
    return Matching(
        classes=tuple(map(shown_id, dataset.classes)),
        targets=targets,
        labelled=True,
        notes=(note,),
    )


def _own_classes(
    labels: Sequence[str], labelled: bool = True, note: str = ""
) -> Matching:
    return Matching(
        classes=tuple(labels),
        targets=tuple(range(len(labels))),
        labelled=labelled,
        notes=(note,) if note else (),
    )


def _check_indices(dataset: Dataset, labels: Sequence[str]) -> None:
    indices = (entry.label for entry in dataset.entries)
    largest = max(index for index in indices if index is not None)
    if largest >= len(labels):
        raise DatasetError(
            f"the labels of '{dataset.source}' go up to {largest}, and the model has "
            f"{len(labels)} classes: give the names of the data set's classes, so that "
            "they can be matched by name"
        )


def _targets(
    classes: Sequence[str], labels: Sequence[str]
) -> tuple[int | None, ...]:
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
    """A name without case, letter folder, and differences in spaces."""
    lower = name.strip().casefold()
    without_folder = re.sub(r"^/?[a-z]/(?=.)", "", lower)
    return re.sub(r"[\s_-]+", " ", without_folder).strip()
