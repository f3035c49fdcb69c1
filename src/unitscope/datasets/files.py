"""Files: a data set of photos that are files of their own, in folders or listed."""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import final

from unitscope.datasets.base import Dataset, Entry
from unitscope.datasets.classes import LabelledClasses, labelled
from unitscope.datasets.layout import SPLITS, is_photo, lay_out
from unitscope.errors import DatasetError, PhotoError, one_line

EXPECTED = "a folder of photos or of class folders, a list of photos (.txt, .csv, .tsv), tar shards, or Parquet files"

_TEXTS = frozenset({"categories.txt", *(f"{split}.txt" for split in SPLITS)})


@final
class FileDataset(Dataset):
    """Photos that are files: `paths` relative to `root` (or absolute), `ids` to name them by.

    A file that is not there makes an entry of size 0, which cannot be read. Raises
    DatasetError where two photos have the same id, or none is there.
    """

    def __init__(
        self,
        source: str,
        kind: str,
        root: Path,
        paths: Sequence[str],
        ids: Sequence[str],
        labels: LabelledClasses,
        notes: tuple[str, ...] = (),
    ) -> None:
        if not paths:
            raise DatasetError(f"'{source}' holds no photos: expected {EXPECTED}")
        check_unique(ids, source)
        self.source, self.kind, self.root, self.paths = source, kind, root, tuple(paths)
        self.classes = labels.classes
        stats = [_stat(root / path) for path in paths]
        absent = stats.count(None)
        if absent == len(paths):
            raise DatasetError(
                f"none of the {absent} photos that '{source}' names is there, e.g. "
                f"'{root / paths[0]}': check "
                "the paths, relative to the list's folder; labels that are names stand "
                "behind a tab, or in a CSV"
            )
        self.notes = (
            notes
            + labels.notes
            + ((f"{absent} photos of {len(paths)} are not there",) if absent else ())
        )
        self.entries = tuple(
            Entry(id, label, *(status or (0, 0)))
            for id, label, status in zip(ids, labels.labels, stats, strict=True)
        )

    def path(self, index: int) -> Path:
        """Where an image lies."""
        return self.root / self.paths[index]

    def read(self, index: int) -> bytes:
        """The contents of the file."""
        path = self.path(index)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise PhotoError(f"there is no photo '{path}': check the path") from None
        except (OSError, ValueError) as error:
            raise PhotoError(
                f"'{path}' cannot be read ({one_line(error)}): check the file and its "
                "permissions"
            ) from None


def only_annotated(
    photos: FileDataset, annotated: Sequence[bool]
) -> tuple[FileDataset, tuple[str, ...]]:
    """The photos that have an annotation, and the notes of that; raises DatasetError where none has one."""
    kept = [index for index, there in enumerate(annotated) if there]
    if not kept:
        raise DatasetError(
            f"none of the {len(photos)} photos in '{photos.source}' has an annotation "
            "of its name: expected one for "
            "each, in a folder that mirrors that of the photos"
        )
    entries = [photos.entries[index] for index in kept]
    chosen = FileDataset(
        photos.source,
        photos.kind,
        photos.root,
        [photos.paths[index] for index in kept],
        [entry.id for entry in entries],
        LabelledClasses([entry.label for entry in entries], photos.classes),
        photos.notes,
    )
    without = len(photos) - len(kept)
    return chosen, (
        f"{without} photos without annotations are left out",
    ) if without else ()


def open_folder(
    root: Path,
    photos: Sequence[str],
    others: Sequence[str],
    split: str | None,
    classes: Sequence[str] | None,
) -> FileDataset:
    """Open the photos of a folder that was walked: flat, in class folders, or in splits. Raises DatasetError."""
    if not photos:
        raise DatasetError(f"the folder '{root}' holds no photos: expected {EXPECTED}")
    texts = [path for path in others if path.endswith(".txt")]
    layout = lay_out(
        photos, texts, lambda text: read_text(root / text), split, f"'{root}'"
    )
    names = [root / text for text in texts if text.endswith("categories.txt")] + [
        root.parent / "categories.txt"
    ]
    labels = labelled(
        layout.found,
        classes,
        f"'{root}'",
        next((file for file in names if file.is_file()), None),
    )
    paths = [photos[index] for index in layout.chosen]
    notes = layout.notes
    if len(texts) < len(others):
        notes += (
            f"{len(others) - len(texts)} tars and Parquet files beside the photos are "
            "left out",
        )
    return FileDataset(str(root), layout.kind, root, paths, paths, labels, notes)


def walk(root: Path) -> tuple[list[str], list[str]]:
    """The photos below a folder, and other files that data sets are made of, as sorted paths relative to it.

    Hidden files and folders are left out. Links are followed, and every folder is
    entered once: by its own path rather than by a link, where it has both. Raises
    DatasetError for a folder that may not be read.
    """
    photos: list[str] = []
    others: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = deque([""]), deque[str]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listing:
                items = sorted(listing, key=lambda item: item.name)
            names = {item.name for item in items}
            if folder and (
                "atlas.json" in names or {"explorer.js", "index.html"} <= names
            ):
                continue  # an atlas, or its pages, that was written among the photos
        except OSError as error:
            raise DatasetError(
                f"the folder '{root / folder}' cannot be read ({one_line(error)}): "
                "check its permissions"
            ) from None
        for item in items:
            path = f"{folder}/{item.name}" if folder else item.name
            if item.name.startswith(".") or item.name == "__MACOSX":
                continue
            if item.is_dir():
                (links if item.is_symlink() else folders).append(path)
            elif is_photo(item.name) and item.is_file():
                photos.append(path)
            elif (
                item.name in _TEXTS or item.name.lower().endswith((".tar", ".parquet"))
            ) and item.is_file():
                others.append(path)
    return sorted(photos), sorted(others, key=lambda path: (path.count("/"), path))


def check_unique(ids: Sequence[str], source: str) -> None:
    """Raise DatasetError where two images have the same id."""
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise DatasetError(
                f"'{source}' names the photo {id!r} twice: every photo needs a name of "
                "its own"
            )
        seen.add(id)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, with the folders that tell them apart where the names alone do not; raises DatasetError."""
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        absolute = [path.absolute() for path in paths]
        root = os.path.commonpath([path.parent for path in absolute])
        names = [path.relative_to(root).as_posix() for path in absolute]
    if len(set(names)) < len(names):
        raise DatasetError(
            f"the file '{Counter(names).most_common(1)[0][0]}' is given twice: name "
            "each once"
        )
    return names


def read_text(path: Path) -> str:
    """A text file as people have them, with or without a byte-order mark; raises DatasetError."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"'{path}' cannot be read ({one_line(error)}): check the path and its "
            "permissions"
        ) from None
    return decoded(data, f"'{path}'")


def decoded(data: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 with a byte-order mark; raises DatasetError."""
    try:
        text = data.decode(
            "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except UnicodeDecodeError:
        raise DatasetError(f"{where} is not UTF-8 text: save it as UTF-8") from None
    if "\0" in text:
        raise DatasetError(f"{where} is not text: expected {EXPECTED}")
    return text


def _stat(path: Path) -> tuple[int, int] | None:
    """A file's size and time of writing: of all that the system tells two numbers, for there may be many files."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (
        (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
    )
