"""Tars: photos read in place from uncompressed tar files, as WebDataset and MiniPlaces ship them."""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, final

from unitscope.datasets.base import Dataset, Entry
from unitscope.datasets.classes import FoundLabel, labelled
from unitscope.datasets.files import EXPECTED, check_unique, decoded, distinct_names
from unitscope.datasets.layout import SPLITS, is_photo, lay_out, split_of
from unitscope.datasets.lists import LABEL_COLUMNS
from unitscope.errors import DatasetError, PhotoError, one_line

COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")
_MAGICS = (b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")
_SIDECARS = ("cls", "json", "txt")


@dataclass(frozen=True, eq=False)
class _Shard:
    """A tar, and where its members lie in it: name → (offset, size) in bytes."""

    path: Path
    name: str
    stamp: int
    members: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self, member: str) -> bytes:
        offset, size = self.members[member]
        return _read_at(self.path, offset, size, self.stamp)


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """A photo in a tar."""

    shard: _Shard
    member: str

    def sidecar(self, kind: str) -> str | None:
        """The member of the same key and this kind."""
        member = f"{_key(self.member)}.{kind}"
        return member if member in self.shard.members else None


_Found: TypeAlias = tuple[list[_Place], Sequence[FoundLabel], tuple[str, ...]]


@final
class TarDataset(Dataset):
    """Photos in tars; `photos` are the number of the tar and the offset in bytes of each, in the entries' order."""

    def __init__(
        self,
        source: str,
        kind: str,
        tars: Sequence[Path],
        photos: tuple[Sequence[int], Sequence[int]],
        entries: Sequence[Entry],
        classes: tuple[str, ...] | None,
        notes: tuple[str, ...],
    ) -> None:
        if not entries:
            raise DatasetError(f"'{source}' holds no photos: expected {EXPECTED}")
        check_unique([entry.id for entry in entries], source)
        self.source, self.kind, self.entries, self.classes, self.notes = (
            source,
            kind,
            entries,
            classes,
            notes,
        )
        self._tars = tuple(tars)
        self._tar_of, self._offset_of = photos

    def read(self, index: int) -> bytes:
        """The member's bytes, read from their place in the tar."""
        entry = self.entries[index]
        return _read_at(
            self._tars[self._tar_of[index]],
            self._offset_of[index],
            entry.size,
            entry.stamp,
        )


def open_tars(
    source: str, tars: Sequence[Path], split: str | None, classes: Sequence[str] | None
) -> TarDataset:
    """Open tars: WebDataset shards, the MiniPlaces layout, or class folders; in the order of their members.

    Raises DatasetError for a tar that is compressed, damaged or cut short.
    """
    names = [name.removesuffix(".tar") for name in distinct_names(tars)]
    shards = [_index(path, name) for path, name in zip(tars, names, strict=True)]
    beside = tars[0].parent / "categories.txt"
    photos = [
        _Place(shard, member)
        for shard in shards
        for member in shard.members
        if is_photo(member)
    ]
    kind = "tar"
    beside_photos = _from_sidecars(photos, classes)
    if beside_photos is None:
        kind, photos, found, notes = _by_layout(source, shards, photos, split)
    elif split is None or all(split_of(path) == split for path in tars):
        photos, found, notes = beside_photos
    else:
        raise DatasetError(
            f"'{source}' is WebDataset shards, which no folders divide: leave "
            f"split={split!r} out"
        )
    labels = labelled(
        found, classes, f"'{source}'", beside if beside.is_file() else None
    )
    entries = tuple(
        Entry(
            photo.member
            if kind == "miniplaces"
            else f"{photo.shard.name}/{photo.member}",
            label,
            photo.shard.members[photo.member][1],
            photo.shard.stamp,
        )
        for photo, label in zip(photos, labels.labels, strict=True)
    )
    number = {shard.path: index for index, shard in enumerate(shards)}
    places = (
        array("l", (number[photo.shard.path] for photo in photos)),
        array("q", (photo.shard.members[photo.member][0] for photo in photos)),
    )
    return TarDataset(
        source, kind, tars, places, entries, labels.classes, notes + labels.notes
    )


def _index(path: Path, name: str) -> _Shard:
    """Read the headers of a tar once."""
    with _told(path), path.open("rb") as file:
        if path.name.lower().endswith(COMPRESSED) or file.read(6).startswith(_MAGICS):
            raise DatasetError(
                f"'{path}' is a compressed tar, in which no photo can be read on its "
                "own: unpack it (tar xf) and give "
                "the folder, or the .tar"
            )
        file.seek(0)
        status = os.fstat(file.fileno())
        shard = _Shard(path, name, status.st_mtime_ns)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue
                inner = member.name.removeprefix("./")
                if inner in shard.members:
                    raise DatasetError(
                        f"'{path}' has the member {inner!r} twice: every photo needs a "
                        "name of its own"
                    )
                shard.members[inner] = (member.offset_data, member.size)
                # tarfile keeps all headers, which are larger than many a photo.
                archive.members = []  # type: ignore[attr-defined]
            # tarfile takes a damaged header for the end; the true end is the end of the
            # file, or a block of zeros.
            file.seek(archive.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise DatasetError(
                    f"'{path}' is damaged at byte {archive.offset}: get a whole copy "
                    "of the tar"
                )
    if any(offset + size > status.st_size for offset, size in shard.members.values()):
        raise DatasetError(f"'{path}' is cut short: get a whole copy of the tar")
    return shard


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a tar into a DatasetError."""
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(
            f"there is no tar '{path}': check the path (looked in {Path.cwd()})"
        ) from None
    except tarfile.TarError as error:
        raise DatasetError(
            f"'{path}' is no whole tar ({one_line(error)}): get a whole copy of it"
        ) from None
    except OSError as error:
        raise DatasetError(
            f"'{path}' cannot be read ({one_line(error)}): check the path and its "
            "permissions"
        ) from None


def _read_at(path: Path, offset: int, size: int, stamp: int) -> bytes:
    try:
        # Opened anew each time, which costs microseconds: thousands of shards are more
        # than a process may hold open.
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_mtime_ns != stamp:
                raise PhotoError(
                    f"'{path}' was written anew since it was opened: open the data set "
                    "again"
                )
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise PhotoError(
            f"'{path}' cannot be read ({one_line(error)}): check the file and its "
            "permissions"
        ) from None
    if len(data) != size:
        raise PhotoError(
            f"'{path}' is cut short at byte {offset + len(data)}: get a whole copy of "
            "it"
        )
    return data


def _key(member: str) -> str:
    """WebDataset's key: everything up to the first dot of the file's name."""
    folder, slash, name = member.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _from_sidecars(
    photos: list[_Place], classes: Sequence[str] | None
) -> _Found | None:
    """The labels beside the photos (`key.cls`, `key.json`, `key.txt`), one photo a key; None where nothing is."""
    by_key: dict[tuple[str, str], _Place] = {}
    # `key.jpg` is the photo, `key.mask.png` something else about it.
    for photo in sorted(
        photos, key=lambda photo: photo.member.rpartition("/")[2].count(".") > 1
    ):
        by_key.setdefault((photo.shard.name, _key(photo.member)), photo)
    kinds = [
        kind
        for kind in _SIDECARS
        if any(photo.sidecar(kind) is not None for photo in by_key.values())
    ]
    if not kinds:
        return None
    chosen = [
        photo
        for photo in photos
        if by_key[photo.shard.name, _key(photo.member)] is photo
    ]
    left_out = len(photos) - len(chosen)
    notes: tuple[str, ...] = (
        (
            f"{left_out} further pictures of the same keys (masks, depths …) are left "
            "out",
        )
        if left_out
        else ()
    )
    for kind in kinds:
        found = [_sidecar_label(photo, kind) for photo in chosen]
        if kind == "txt" and _are_captions(found, classes):
            notes += ("the texts beside the photos are taken for captions, not labels",)
        elif any(label is not None for label in found):
            return chosen, found, notes
    return chosen, [None] * len(chosen), notes


def _sidecar_label(photo: _Place, kind: str) -> FoundLabel:
    member = photo.sidecar(kind)
    if member is None:
        return None
    where = f"'{member}' in '{photo.shard.path}'"
    text = decoded(photo.shard.read(member), where).strip()
    if kind != "json":
        return text or None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise DatasetError(
            f"{where} is not valid JSON: expected an object with a 'label'"
        ) from None
    values = (
        [record.get(key) for key in LABEL_COLUMNS]
        if isinstance(record, dict)
        else [record]
    )
    return next(
        (
            value
            for value in values
            if isinstance(value, int | str) and not isinstance(value, bool)
        ),
        None,
    )


def _are_captions(found: Sequence[FoundLabel], classes: Sequence[str] | None) -> bool:
    """Whether texts are rather captions: hardly any comes twice, and they are neither numbers nor known classes."""
    texts = {str(label) for label in found if label is not None}
    known = set(classes or ())
    return len(texts) > max(1, len(found) // 2) and not all(
        text.isdecimal() or text in known for text in texts
    )


def _by_layout(
    source: str, shards: Sequence[_Shard], photos: list[_Place], split: str | None
) -> tuple[str, list[_Place], Sequence[FoundLabel], tuple[str, ...]]:
    """The photos and labels as in a folder; a folder that holds everything, as `tar cf` puts it there, is no class."""
    texts = {
        member: shard
        for shard in shards
        for member in shard.members
        if member.endswith(".txt")
    }
    tops = {photo.member.partition("/")[0] for photo in photos}
    top = f"{next(iter(tops))}/" if len(tops) == 1 else ""
    if top[:-1] in (*SPLITS, "images") or any(
        photo.member.count("/") < 2 for photo in photos
    ):
        top = ""
    layout = lay_out(
        [photo.member.removeprefix(top) for photo in photos],
        texts,
        lambda text: decoded(
            texts[text].read(text), f"'{text}' in '{texts[text].path}'"
        ),
        split,
        f"'{source}'",
    )
    kind = "miniplaces" if layout.kind == "miniplaces" and len(shards) == 1 else "tar"
    return kind, [photos[index] for index in layout.chosen], layout.found, layout.notes
