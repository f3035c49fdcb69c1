"""Matching: which class of a model a data set's own class is, by name and never by chance."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from unitscope.datasets import Dataset, shown_id
from unitscope.errors import DatasetError


@dataclass(frozen=True)
class Matching:
    """The classes by which images are told apart, and for each the model's class of that name, None where it has none.

    Without labels the classes are the model's own, and images belong to the one that it
    predicts.
    """

    classes: tuple[str, ...]
    targets: tuple[int | None, ...]
    labelled: bool
    notes: tuple[str, ...]


def matched(dataset: Dataset, labels: Sequence[str]) -> Matching:
    """Match a data set's classes with a model's labels: by name, whatever their case, spaces and letter folders.

    Labels that are numbers without names are taken for the model's own indices. Raises
    DatasetError where such a number is no class of the model, and where two of the data
    set's classes would be one of the model's.
    """
    own = tuple(range(len(labels)))
    if not dataset.labelled:
        return Matching(
            tuple(labels),
            own,
            False,
            ("the images have no labels: they belong to the predicted classes",),
        )
    if dataset.classes is None:
        largest = max(
            entry.label for entry in dataset.entries if entry.label is not None
        )
        if largest >= len(labels):
            raise DatasetError(
                f"the labels of '{dataset.source}' go up to {largest}, and the model "
                f"has {len(labels)} classes: give "
                "the names of the data set's classes, so that they can be matched by "
                "name"
            )
        return Matching(
            tuple(labels),
            own,
            True,
            ("labels are numbers, taken for the model's own classes",),
        )
    if tuple(dataset.classes) == tuple(labels):
        return Matching(tuple(labels), own, True, ())
    places: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        places[_key(label)].append(index)
    found = [places.get(_key(name), []) for name in dataset.classes]
    targets = tuple(those[0] if len(those) == 1 else None for those in found)
    for target, times in Counter(
        target for target in targets if target is not None
    ).items():
        if times > 1:
            names = [
                name
                for name, own_ in zip(dataset.classes, targets, strict=True)
                if own_ == target
            ]
            raise DatasetError(
                f"the classes {' and '.join(map(repr, names[:2]))} of "
                f"'{dataset.source}' are both the model's "
                f"{labels[target]!r}: give one of them another name"
            )
    count = sum(target is not None for target in targets)
    note = f"{count} of the data set's {len(targets)} classes are classes of the model, by name"
    return Matching(tuple(map(shown_id, dataset.classes)), targets, True, (note,))


def _key(name: str) -> str:
    return re.sub(
        r"[\s_-]+", " ", re.sub(r"^/?[a-z]/(?=.)", "", name.strip().casefold())
    ).strip()
