"""Tars: photos in uncompressed tar files, as WebDataset and MiniPlaces ship them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from unitscope.datasets.base import EXPECTED, Dataset, Entry
from unitscope.datasets.classes import (
    FoundLabel,
    LabelledClasses,
    class_names_file,
    labelled,
)
from unitscope.datasets.files import check_unique, distinct_names
from unitscope.datasets.layout import SPLITS, is_photo, lay_out, split_of
from unitscope.datasets.sidecars import Member, from_sidecars
from unitscope.datasets.tar_file import TarFile, open_tar, read_at
from unitscope.datasets.texts import decoded
from unitscope.errors import DatasetError


@dataclass(frozen=True, eq=False)
class _Contents:
    """The chosen photos of some tars, and their labels as they are written."""

    kind: str
    photos: Sequence[Member]
    labels: Sequence[FoundLabel]
    notes: tuple[str, ...]


@final
class TarDataset(Dataset):
    """Photos in tars, each read from its place."""

    def __init__(
        self,
        source: str,
        tars: Sequence[TarFile],
        contents: _Contents,
        labels: LabelledClasses,
    ) -> None:
        photos = contents.photos
        if not photos:
            raise DatasetError(
                f"'{source}' holds no photos: expected {EXPECTED}"
            )
        self.source = source
        self.kind = contents.kind
        self.classes = labels.classes
        self.notes = contents.notes + labels.notes

        # Two numbers a photo: the names of all members would take much more memory.
        self._tars = [tar.path for tar in tars]
        self._tar_of = array("l")
        self._offset_of = array("q")
        numbers = {tar.path: number for number, tar in enumerate(tars)}
        entries = []
        for photo, label in zip(photos, labels.labels, strict=True):
            entry = Entry(
                id=photo.name if self.kind == "miniplaces" else photo.full_name,
                label=label,
                size=photo.size,
                stamp=photo.tar.stamp,
            )
            entries.append(entry)
            self._tar_of.append(numbers[photo.tar.path])
            self._offset_of.append(photo.offset)
        self.entries = tuple(entries)
        check_unique([entry.id for entry in entries], source)

    def read(self, index: int) -> bytes:
        """The member's bytes, read from their place in the tar."""
        entry = self.entries[index]
        number = self._tar_of[index]
        return read_at(
            self._tars[number],
            self._offset_of[index],
            entry.size,
            entry.stamp,
        )


def open_tars(
    source: str,
    paths: Sequence[Path],
    split: str | None,
    classes: Sequence[str] | None,
) -> TarDataset:
    """Open tars: WebDataset shards, the MiniPlaces layout, or class folders.

    The photos are in the order of the members. Raises DatasetError for a tar that is
    compressed, damaged or cut short.
    """
    names = distinct_names(paths)
    tars = []
    photos = []
    for path, name in zip(paths, names, strict=True):
        tar = open_tar(path, name.removesuffix(".tar"))
        tars.append(tar)
        photos += [
            Member(tar, member) for member in tar.members if is_photo(member)
        ]

    from_keys = from_sidecars(photos, classes)
    if from_keys is None:
        contents = _by_layout(source, tars, photos, split)
    elif split is None or all(split_of(path) == split for path in paths):
        contents = _Contents("tar", *from_keys)
    else:
        raise DatasetError(
            f"'{source}' is WebDataset shards, which no folders divide: leave "
            f"split={split!r} out"
        )

    first = paths[0]
    beside = class_names_file(first.parent)
    labels = labelled(contents.labels, classes, f"'{source}'", beside)
    return TarDataset(source, tars, contents, labels)


def _by_layout(
    source: str,
    tars: Sequence[TarFile],
    photos: list[Member],
    split: str | None,
) -> _Contents:
    """The photos and labels as in a folder."""
    tar_of = {}
    for tar in tars:
        for name in tar.members:
            if name.endswith(".txt"):
                tar_of[name] = tar

    def read_text(name: str) -> str:
        tar = tar_of[name]
        return decoded(tar.read(name), f"'{name}' in '{tar.path}'")

    top = _top_folder(photos)
    paths = [photo.name.removeprefix(top) for photo in photos]
    layout = lay_out(paths, tar_of, read_text, split, f"'{source}'")

    is_miniplaces = layout.kind == "miniplaces" and len(tars) == 1
    kind = "miniplaces" if is_miniplaces else "tar"
    return _Contents(
        kind=kind,
        photos=[photos[index] for index in layout.chosen],
        labels=layout.labels,
        notes=layout.notes,
    )


def _top_folder(photos: Sequence[Member]) -> str:
    """The folder that holds everything, as `tar cf` puts it there; it is no class.

    With a slash at its end; "" where there is none.
    """
    tops = {photo.name.partition("/")[0] for photo in photos}
    if len(tops) != 1:
        return ""
    top = tops.pop()
    if top in (*SPLITS, "images"):
        return ""
    if any(photo.name.count("/") < 2 for photo in photos):
        return ""
    return f"{top}/"
