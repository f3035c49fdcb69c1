"""Sidecars: what lies beside the photos of WebDataset shards, under the same key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from unitscope.datasets.classes import FoundLabel
from unitscope.datasets.lists import LABEL_COLUMNS
from unitscope.datasets.tar_file import TarFile
from unitscope.datasets.texts import decoded
from unitscope.errors import DatasetError
from unitscope.labels import is_index

_KINDS = ("cls", "json", "txt")


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A photo in a tar."""

    tar: TarFile
    name: str

    @property
    def key(self) -> str:
        """WebDataset's key: everything up to the first dot of the file's name."""
        folder, slash, file = self.name.rpartition("/")
        stem, _, _ = file.partition(".")
        return folder + slash + stem

    @property
    def full_name(self) -> str:
        """The name with that of the tar before it."""
        return f"{self.tar.name}/{self.name}"

    @property
    def offset(self) -> int:
        """Where the photo begins in the tar, in bytes."""
        offset, _ = self.tar.members[self.name]
        return offset

    @property
    def size(self) -> int:
        """The size of the photo in bytes."""
        _, size = self.tar.members[self.name]
        return size

    def sidecar(self, kind: str) -> str | None:
        """The member of the same key and this kind."""
        name = f"{self.key}.{kind}"
        if name not in self.tar.members:
            return None
        return name


LabelledMembers: TypeAlias = tuple[
    list[Member], Sequence[FoundLabel], tuple[str, ...]
]
"""Photos, their labels as they are written, and notes."""


def from_sidecars(
    photos: list[Member], classes: Sequence[str] | None
) -> LabelledMembers | None:
    """The labels beside the photos (`key.cls`, `key.json`, `key.txt`).

    Each key has one photo. None where nothing lies beside them.
    """
    chosen = _one_of_each_key(photos)
    kinds = [
        kind for kind in _KINDS if any(photo.sidecar(kind) for photo in chosen)
    ]
    if not kinds:
        return None

    notes: tuple[str, ...] = ()
    left_out = len(photos) - len(chosen)
    if left_out:
        notes += (
            f"{left_out} further pictures of the same keys (masks, depths …) are left "
            "out",
        )
    for kind in kinds:
        labels = [_label(photo, kind) for photo in chosen]
        if kind == "txt" and _are_captions(labels, classes):
            notes += (
                "the texts beside the photos are taken for captions, not labels",
            )
        elif any(label is not None for label in labels):
            return chosen, labels, notes
    return chosen, [None] * len(chosen), notes


def _one_of_each_key(photos: list[Member]) -> list[Member]:
    """The photo of each key, in the order of `photos`."""
    by_key: dict[tuple[str, str], Member] = {}
    # `key.jpg` is the photo, `key.mask.png` something else about it.
    for photo in sorted(photos, key=_has_two_suffixes):
        key = (photo.tar.name, photo.key)
        by_key.setdefault(key, photo)
    chosen = set(by_key.values())
    return [photo for photo in photos if photo in chosen]


def _has_two_suffixes(photo: Member) -> bool:
    name = photo.name.rpartition("/")[2]
    return name.count(".") > 1


def _label(photo: Member, kind: str) -> FoundLabel:
    """The label in the sidecar of this kind; None without one."""
    member = photo.sidecar(kind)
    if member is None:
        return None
    where = f"'{member}' in '{photo.tar.path}'"
    text = decoded(photo.tar.read(member), where).strip()
    if kind == "cls" and is_index(text.removeprefix("-")):
        # WebDataset's convention: an index, where other texts may be names.
        return int(text)
    if kind != "json":
        return text or None

    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise DatasetError(
            f"{where} is not valid JSON: expected an object with a 'label'"
        ) from None
    values = [record]
    if isinstance(record, dict):
        values = [record.get(key) for key in LABEL_COLUMNS]
    for value in values:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return value
    return None


def _are_captions(
    labels: Sequence[FoundLabel], classes: Sequence[str] | None
) -> bool:
    """Whether texts are captions rather than labels.

    Hardly any comes twice, and they are neither numbers nor known classes.
    """
    texts = set(labels)
    texts.discard(None)
    few = max(1, len(labels) // 2)
    if len(texts) <= few:
        return False
    unknown = texts.difference(classes or ())
    return not all(is_index(str(text)) for text in unknown)
