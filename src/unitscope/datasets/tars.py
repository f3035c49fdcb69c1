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
            raise DatasetError(f"'{source}' holds no photos: expected {EXPECTED}")
        self.source, self.kind = source, contents.kind
        self.classes, self.notes = labels.classes, contents.notes + labels.notes

        entries = []
        for photo, label in zip(photos, labels.labels, strict=True):
            id_ = f"{photo.tar.name}/{photo.name}"
            if self.kind == "miniplaces":
                id_ = photo.name
            entries.append(Entry(id_, label, photo.size, photo.tar.stamp))
        self.entries = tuple(entries)
        check_unique([entry.id for entry in entries], source)

        # Two numbers a photo: the names of all members would take much more memory.
        self._tars = tuple(tar.path for tar in tars)
        numbers = {path: number for number, path in enumerate(self._tars)}
        self._tar_of = array("l", (numbers[photo.tar.path] for photo in photos))
        self._offset_of = array("q", (photo.offset for photo in photos))

    def read(self, index: int) -> bytes:
        """The member's bytes, read from their place in the tar."""
        entry = self.entries[index]
        tar = self._tars[self._tar_of[index]]
        return read_at(tar, self._offset_of[index], entry.size, entry.stamp)


def open_tars(
    source: str, paths: Sequence[Path], split: str | None, classes: Sequence[str] | None
) -> TarDataset:
    """Open tars: WebDataset shards, the MiniPlaces layout, or class folders.

    The photos are in the order of the members. Raises DatasetError for a tar that is
    compressed, damaged or cut short.
    """
    names = [name.removesuffix(".tar") for name in distinct_names(paths)]
    tars = [open_tar(path, name) for path, name in zip(paths, names, strict=True)]
    photos = [
        Member(tar, name) for tar in tars for name in tar.members if is_photo(name)
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

    beside = class_names_file(paths[0].parent)
    labels = labelled(contents.labels, classes, f"'{source}'", beside)
    return TarDataset(source, tars, contents, labels)


def _by_layout(
    source: str, tars: Sequence[TarFile], photos: list[Member], split: str | None
) -> _Contents:
    """The photos and labels as in a folder."""
    tar_of = {
        name: tar for tar in tars for name in tar.members if name.endswith(".txt")
    }

    def read_text(name: str) -> str:
        tar = tar_of[name]
        return decoded(tar.read(name), f"'{name}' in '{tar.path}'")

    top = _top_folder(photos)
    paths = [photo.name.removeprefix(top) for photo in photos]
    layout = lay_out(paths, tar_of, read_text, split, f"'{source}'")

    is_miniplaces = layout.kind == "miniplaces" and len(tars) == 1
    kind = "miniplaces" if is_miniplaces else "tar"
    chosen = [photos[index] for index in layout.chosen]
    return _Contents(kind, chosen, layout.labels, layout.notes)


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
