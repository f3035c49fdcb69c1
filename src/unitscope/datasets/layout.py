"""Layout: what the paths of photos say of splits and classes, in folders and tars."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unitscope.datasets.classes import FoundLabel, class_of
from unitscope.errors import DatasetError

PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif".split()
)
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
ANNOTATIONS = ("objects", "annotations", "annotation", "labels", "masks")


@dataclass(frozen=True)
class Layout:
    """The chosen photos, by their indices in the list, and what is known of each label.

    `kind` is "miniplaces" where photos lie in `images/<split>/` or a `<split>.txt`
    labels them, else "folder".
    """

    kind: str
    chosen: Sequence[int]
    labels: Sequence[FoundLabel]
    notes: tuple[str, ...]


def is_photo(path: str) -> bool:
    """Whether a path has a photo's suffix, and is not hidden or in a hidden folder."""
    pure = PurePosixPath(path)
    if pure.suffix.lower() not in PHOTO_SUFFIXES:
        return False
    return not any(map(_is_hidden, pure.parts))


def _is_hidden(part: str) -> bool:
    if part in (".", ".."):
        return False
    return part.startswith(".") or part == "__MACOSX"


def lay_out(
    paths: Sequence[str],
    texts: Iterable[str],
    read_text: Callable[[str], str],
    split: str | None,
    where: str,
) -> Layout:
    """Choose the photos of one split, and find their labels.

    Those are in `<split>.txt`, or else in the names of the folders. `paths` are those
    of the photos and `texts` those of text files, relative to the root; `read_text`
    reads one of the latter. Raises DatasetError where the split is not there, or is not
    said and there are several.
    """
    base = "images/" if _lie_in_images(paths) else ""
    inner = _inside(base, dict(enumerate(paths)))
    chosen = choose_split(_splits_among(inner.values(), split), split, where)
    if chosen is None:
        labels, notes = _classes_by_folder(list(inner.values()))
        return Layout("folder", list(inner), labels, notes)

    inner = _inside(f"{chosen}/", inner)
    notes = (f"the split {chosen!r} is the only one",) if split is None else ()
    lists = [text for text in texts if PurePosixPath(text).name == f"{chosen}.txt"]
    if not lists:
        labels, more = _classes_by_folder(list(inner.values()))
        kind = "miniplaces" if base else "folder"
        return Layout(kind, list(inner), labels, notes + more)

    shallowest = min(lists, key=lambda text: (text.count("/"), text))
    listed = read_split_list(
        read_text(shallowest), chosen, f"the list '{shallowest}' in {where}"
    )
    labels = [listed.get(path) for path in inner.values()]
    notes += (f"labels are those of '{shallowest}'",)
    unlabelled = labels.count(None)
    if unlabelled:
        notes += (f"{unlabelled} photos have no label in '{shallowest}'",)
    return Layout("miniplaces", list(inner), labels, notes)


def split_of(shard: Path) -> str | None:
    """The split in a shard's name (`train-00000-of-00004.parquet`), or its folder's."""
    begin = re.split(r"[-_.]", shard.name)[0]
    for name in (begin, shard.parent.name):
        if name in SPLITS:
            return name
    return None


def choose_split(splits: Sequence[str], asked: str | None, where: str) -> str | None:
    """The split that was asked for, or the only one.

    None where there are none and none was asked for. Raises DatasetError.
    """
    listed = ", ".join(repr(name) for name in splits)
    if asked is None:
        if len(splits) > 1:
            raise DatasetError(
                f"{where} has the splits {listed}: say which, e.g. split={splits[0]!r}"
            )
        return splits[0] if splits else None
    if asked in splits:
        return asked

    if not splits:
        has, remedy = "is not divided into splits", "leave it out"
    else:
        plural = "s" if len(splits) > 1 else ""
        has, remedy = f"has the split{plural} {listed}", "name one"
    raise DatasetError(f"{where} {has}, and split={asked!r} was asked for: {remedy}")


def read_split_list(text: str, split: str, where: str) -> dict[str, int]:
    """Read lines of `val/00000001.jpg 71` or `a/abbey/1.jpg 0`.

    Gives the label by the path within the split. A line of a path alone, as in a list
    of test photos, gives no label. Raises DatasetError.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        path, _, label = line.strip().rpartition(" ")
        if path and label.isdecimal():
            labels[_within_split(path.strip(), split)] = int(label)
        elif line.strip() and not is_photo(line.strip()):
            raise DatasetError(
                f"{where} has {line[:60]!r} in line {number}: expected a path, a space "
                "and a class's index"
            )
    return labels


def _within_split(path: str, split: str) -> str:
    for prefix in ("/", "images/", f"{split}/"):
        path = path.removeprefix(prefix)
    return path


def _inside(folder: str, paths: Mapping[int, str]) -> dict[int, str]:
    """The paths inside a folder ("" or with a slash at the end), relative to it."""
    return {
        index: path.removeprefix(folder)
        for index, path in paths.items()
        if path.startswith(folder)
    }


def _splits_among(paths: Iterable[str], split: str | None) -> list[str]:
    """The splits that the outermost folders of photos are named after."""
    tops = {path.partition("/")[0] if "/" in path else None for path in paths}
    splits = [name for name in SPLITS if name in tops]
    # "train" is also a vehicle: alone among other classes, or among photos, it is a
    # class.
    others = tops - set(splits) - set(ANNOTATIONS)
    if split is None and len(splits) == 1 and others:
        return []
    return splits


def _lie_in_images(paths: Sequence[str]) -> bool:
    """Whether the photos are those in `images/`.

    Beside it may lie annotations, which may be pictures too, and nothing else.
    """
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    return "images" in tops and tops <= {"images", *ANNOTATIONS}


def _classes_by_folder(
    paths: Sequence[str],
) -> tuple[list[FoundLabel], tuple[str, ...]]:
    """The class of each photo by its folders, and a note on photos in none."""
    labels: list[FoundLabel] = [class_of(path) or None for path in paths]
    loose = labels.count(None)
    if loose in (0, len(labels)):
        return labels, ()
    return labels, (f"{loose} photos lie in no class's folder and have no label",)
