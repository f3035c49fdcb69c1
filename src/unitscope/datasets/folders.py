"""Folders: the photos below a folder, flat, in class folders, or in splits."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from unitscope.datasets.base import EXPECTED
from unitscope.datasets.classes import class_names_file, labelled
from unitscope.datasets.files import FileDataset
from unitscope.datasets.layout import SPLITS, is_photo, lay_out
from unitscope.datasets.texts import read_text
from unitscope.errors import DatasetError, one_line

_TEXTS = frozenset({"categories.txt", *(f"{split}.txt" for split in SPLITS)})
_SHARDS = (".tar", ".parquet")


def open_folder(
    root: Path,
    photos: Sequence[str],
    others: Sequence[str],
    split: str | None,
    classes: Sequence[str] | None,
) -> FileDataset:
    """Open the photos of a folder that `walk` went through. Raises DatasetError.

    `photos` and `others` are what `walk` gave.
    """
    if not photos:
        raise DatasetError(
            f"the folder '{root}' holds no photos: expected {EXPECTED}"
        )

    where = f"'{root}'"
    texts = [path for path in others if path.endswith(".txt")]
    layout = lay_out(
        photos, texts, lambda text: read_text(root / text), split, where
    )
    labels = labelled(layout.labels, classes, where, _names_file(root, texts))

    notes = layout.notes
    shards = len(others) - len(texts)
    if shards:
        notes += (
            f"{shards} tars and Parquet files beside the photos are left out",
        )
    paths = [photos[index] for index in layout.chosen]
    return FileDataset(
        source=str(root),
        kind=layout.kind,
        root=root,
        paths=paths,
        ids=paths,
        labels=labels,
        notes=notes,
    )


def _names_file(root: Path, texts: Sequence[str]) -> Path | None:
    """The file that may name the classes, in the folder or beside it."""
    for text in texts:
        if text.endswith("categories.txt"):
            return root / text
    return class_names_file(root.parent)


def walk(root: Path) -> tuple[list[str], list[str]]:
    """The photos below a folder, and other files that data sets are made of.

    Both are sorted paths relative to it. Hidden files and folders are left out. Links
    are followed, and every folder is entered once: by its own path rather than by a
    link, where it has both. Raises DatasetError for a folder that may not be read.
    """
    photos: list[str] = []
    others: list[str] = []
    entered: set[tuple[int, int]] = set()
    folders = deque([""])
    links: deque[str] = deque()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        for item in _new_items(root, folder, entered):
            path = f"{folder}/{item.name}" if folder else item.name
            if item.is_dir():
                waiting = links if item.is_symlink() else folders
                waiting.append(path)
            elif not item.is_file():
                continue
            elif is_photo(item.name):
                photos.append(path)
            elif _belongs_to_a_data_set(item.name):
                others.append(path)

    def depth(path: str) -> tuple[int, str]:
        return path.count("/"), path

    return sorted(photos), sorted(others, key=depth)


def _new_items(
    root: Path, folder: str, entered: set[tuple[int, int]]
) -> list[os.DirEntry[str]]:
    """What is in a folder by name, not hidden; nothing where it was entered before."""
    path = root / folder
    try:
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in entered:
            return []
        entered.add(identity)
        with os.scandir(path) as listing:
            items = sorted(listing, key=lambda item: item.name)
    except OSError as error:
        raise DatasetError(
            f"the folder '{path}' cannot be read ({one_line(error)}): check its "
            "permissions"
        ) from None

    names = {item.name for item in items}
    if folder and _are_results(names):
        return []
    return [item for item in items if not _is_hidden(item.name)]


def _are_results(names: set[str]) -> bool:
    """Whether a folder holds an atlas, or its pages, written among the photos."""
    return "atlas.json" in names or {"explorer.js", "index.html"} <= names


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _belongs_to_a_data_set(name: str) -> bool:
    return name in _TEXTS or name.lower().endswith(_SHARDS)
