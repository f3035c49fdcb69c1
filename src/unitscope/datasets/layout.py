"""Layout: what the paths of photos say of splits and classes, for folders and tars alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unitscope.datasets.classes import FoundLabel, class_of
from unitscope.errors import DatasetError

PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif".split()
)  # fmt: skip
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
ANNOTATIONS = ("objects", "annotations", "annotation", "labels", "masks")


@dataclass(frozen=True)
class Layout:
    """The photos that were chosen, by their places in the list, with what is known of their labels.

    `kind` is "miniplaces" where photos lie in `images/<split>/` or a `<split>.txt`
    labels them, else "folder".
    """

    kind: str
    chosen: Sequence[int]
    found: Sequence[FoundLabel]
    notes: tuple[str, ...]


def is_photo(path: str) -> bool:
    """Whether a path names a photo, by its suffix, that is not hidden, nor in a hidden folder."""
    pure = PurePosixPath(path)
    hidden = any(
        (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"
        for part in pure.parts
    )
    return not hidden and pure.suffix.lower() in PHOTO_SUFFIXES


def lay_out(
    paths: Sequence[str],
    texts: Iterable[str],
    read_text: Callable[[str], str],
    split: str | None,
    where: str,
) -> Layout:
    """Choose the photos of one split, and find their labels in `<split>.txt` or else in the names of their folders.

    `paths` are those of the photos and `texts` those of text files, relative to the
    root; `read_text` reads one of the latter. Raises DatasetError where the split is
    not there, or is not said and there are several.
    """
    base = "images/" if _lie_in_images(paths) else ""
    inner = {
        index: path[len(base) :]
        for index, path in enumerate(paths)
        if path.startswith(base)
    }
    folders = {path.partition("/")[0] for path in inner.values() if "/" in path}
    splits = [name for name in SPLITS if name in folders]
    others = folders - set(splits) - set(ANNOTATIONS) or any(
        "/" not in path for path in inner.values()
    )
    # "train" is also a vehicle: alone among other classes, or among photos, it is a
    # class.
    if split is None and len(splits) == 1 and others:
        splits = []
    chosen = choose_split(splits, split, where)
    if chosen is None:
        return Layout("folder", list(inner), *_classes_by_folder(list(inner.values())))
    inner = {
        index: path[len(chosen) + 1 :]
        for index, path in inner.items()
        if path.startswith(f"{chosen}/")
    }
    notes: tuple[str, ...] = (
        (f"the split {chosen!r} is the only one",) if split is None else ()
    )
    lists = [text for text in texts if PurePosixPath(text).name == f"{chosen}.txt"]
    if not lists:
        found, more = _classes_by_folder(list(inner.values()))
        return Layout(
            "miniplaces" if base else "folder", list(inner), found, notes + more
        )
    shallowest = min(lists, key=lambda text: (text.count("/"), text))
    listed = read_split_list(
        read_text(shallowest), chosen, f"the list '{shallowest}' in {where}"
    )
    labels = [listed.get(path) for path in inner.values()]
    notes += (f"labels are those of '{shallowest}'",)
    if None in labels:
        notes += (f"{labels.count(None)} photos have no label in '{shallowest}'",)
    return Layout("miniplaces", list(inner), labels, notes)


def split_of(shard: Path) -> str | None:
    """The split that a shard's name begins with (`train-00000-of-00004.parquet`), or else its folder's name."""
    begin = re.split(r"[-_.]", shard.name)[0]
    return next((name for name in (begin, shard.parent.name) if name in SPLITS), None)


def choose_split(splits: Sequence[str], asked: str | None, where: str) -> str | None:
    """The split that was asked for, or the only one there is; None where there are none and none was asked for."""
    there = ", ".join(repr(name) for name in splits)
    if asked is None:
        if len(splits) > 1:
            raise DatasetError(
                f"{where} has the splits {there}: say which, e.g. split={splits[0]!r}"
            )
        return splits[0] if splits else None
    if asked not in splits:
        has = (
            f"has the split{'s' if len(splits) > 1 else ''} {there}"
            if splits
            else "is not divided into splits"
        )
        raise DatasetError(
            f"{where} {has}, and split={asked!r} was asked for: "
            f"{'name one' if splits else 'leave it out'}"
        )
    return asked


def read_split_list(text: str, split: str, where: str) -> dict[str, int]:
    """Read lines of `val/00000001.jpg 71` or `a/abbey/1.jpg 0`: the path within the split → label.

    A line of a path alone, as in a list of test photos, gives no label. Raises
    DatasetError.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal():
            if is_photo(line.strip()) or not line.strip():
                continue
            raise DatasetError(
                f"{where} has {line[:60]!r} in line {number}: expected a path, a space "
                "and a class's index"
            )
        labels[
            path.strip()
            .removeprefix("/")
            .removeprefix("images/")
            .removeprefix(f"{split}/")
        ] = int(label)
    return labels


def _lie_in_images(paths: Sequence[str]) -> bool:
    """Whether the photos are those in `images/`, beside nothing but annotations, which may be pictures too."""
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    return "images" in tops and tops <= {"images", *ANNOTATIONS}


def _classes_by_folder(
    paths: Sequence[str],
) -> tuple[list[FoundLabel], tuple[str, ...]]:
    found: list[FoundLabel] = [class_of(path) or None for path in paths]
    loose = sum(label is None for label in found)
    notes = (
        (f"{loose} photos lie in no class's folder and have no label",)
        if 0 < loose < len(found)
        else ()
    )
    return found, notes
