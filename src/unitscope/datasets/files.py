"""Files: a data set of photos that are files of their own, in folders or listed."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import final

from unitscope.datasets.base import EXPECTED, Dataset, Entry
from unitscope.datasets.classes import LabelledClasses
from unitscope.errors import DatasetError, PhotoError, one_line


@final
class FileDataset(Dataset):
    """Photos that are files: `paths` are relative to `root` or absolute.

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
            raise DatasetError(
                f"'{source}' holds no photos: expected {EXPECTED}"
            )
        check_unique(ids, source)
        self.source = source
        self.kind = kind
        self.root = root
        self.paths = tuple(paths)
        self.classes = labels.classes
        self.notes = notes + labels.notes

        stats = [_size_and_stamp(root / path) for path in paths]
        absent = stats.count(None)
        if absent == len(paths):
            remedy = "check the paths"
            if Path(source).is_file():
                remedy += (
                    ", relative to the list's folder; labels that are names stand behind "
                    "a tab, or in a CSV"
                )
            raise DatasetError(
                f"none of the {absent} photos that '{source}' names is there, e.g. "
                f"'{root / paths[0]}': {remedy}"
            )
        if absent:
            self.notes += (f"{absent} photos of {len(paths)} are not there",)

        entries = []
        for id_, label, status in zip(ids, labels.labels, stats, strict=True):
            size, stamp = status or (0, 0)
            entries.append(Entry(id_, label, size, stamp))
        self.entries = tuple(entries)

    def path(self, index: int) -> Path:
        """The path of an image."""
        return self.root / self.paths[index]

    def read(self, index: int) -> bytes:
        """The contents of the file."""
        path = self.path(index)
        try:
            if path.exists() and not path.is_file():
                raise PhotoError(
                    f"'{path}' is no regular file: leave it out of the list"
                )
            return path.read_bytes()
        except PhotoError:
            raise
        except FileNotFoundError:
            raise PhotoError(
                f"there is no photo '{path}': check the path"
            ) from None
        except (OSError, ValueError) as error:
            raise PhotoError(
                f"'{path}' cannot be read ({one_line(error)}): check the file and its "
                "permissions"
            ) from None


def only_annotated(
    photos: FileDataset, annotated: Sequence[bool]
) -> tuple[FileDataset, tuple[str, ...]]:
    """The photos that have an annotation, and a note where others are left out.

    Raises DatasetError where none has one.
    """
    indices = [index for index, has_one in enumerate(annotated) if has_one]
    if not indices:
        raise DatasetError(
            f"none of the {len(photos)} photos in '{photos.source}' has an annotation "
            "of its name: expected one for each, in a folder that mirrors that of the "
            "photos"
        )
    entries = [photos.entries[index] for index in indices]
    labels = [entry.label for entry in entries]
    chosen = FileDataset(
        source=photos.source,
        kind=photos.kind,
        root=photos.root,
        paths=[photos.paths[index] for index in indices],
        ids=[entry.id for entry in entries],
        labels=LabelledClasses(labels, photos.classes),
        notes=photos.notes,
    )
    left_out = len(photos) - len(indices)
    if not left_out:
        return chosen, ()
    return chosen, (f"{left_out} photos without annotations are left out",)


def check_unique(ids: Sequence[str], source: str) -> None:
    """Raise DatasetError where two images have the same id."""
    if len(set(ids)) == len(ids):
        return
    # The first that comes a second time.
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise DatasetError(
                f"'{source}' names the photo {id_!r} twice: every photo needs a name "
                "of its own"
            )
        seen.add(id_)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, with folders where the names alone are not distinct.

    Raises DatasetError where a file is given twice.
    """
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        absolute = [path.absolute() for path in paths]
        _, names = relative_to_common_folder(absolute)
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise DatasetError(f"the file '{twice}' is given twice: name each once")
    return names


def relative_to_common_folder(paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """The innermost folder that holds all files, and their paths relative to it.

    `paths` are absolute.
    """
    folders = [path.parent for path in paths]
    root = Path(os.path.commonpath(folders))
    return root, [path.relative_to(root).as_posix() for path in paths]


def _size_and_stamp(path: Path) -> tuple[int, int] | None:
    """A file's size and modification time (ns); None where it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    # There may be many files, so only two numbers of each are held.
    return status.st_size, status.st_mtime_ns
