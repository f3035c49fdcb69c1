"""Layout: what the paths of photos say of splits and classes, in folders and tars."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unitscope.datasets.classes import FoundLabel, class_of
from unitscope.errors import DatasetError
from unitscope.labels import is_index

PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif".split()
)
SPLITS = (
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "dev",
    "test",
    "testing",
)
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
    in_images = _lie_in_images(paths)
    inner = dict(enumerate(paths))
    if in_images:
        inner = _inside("images", inner)

    splits = _splits_among(inner.values(), split)
    chosen = choose_split(splits, split, where)
    if chosen is None:
        return _laid_out("folder", inner)

    inner = _inside(chosen, inner)
    notes: tuple[str, ...] = ()
    if split is None:
        notes = (f"the split {chosen!r} is the only one",)
    file = _shallowest(f"{chosen}.txt", texts)
    if file is None:
        kind = "miniplaces" if in_images else "folder"
        return _laid_out(kind, inner, notes)

    place = f"the list '{file}' in {where}"
    listed = read_split_list(read_text(file), chosen, place)
    labels = [listed.get(path) for path in inner.values()]
    notes += (f"labels are those of '{file}'",)
    unlabelled = labels.count(None)
    if unlabelled:
        notes += (f"{unlabelled} photos have no label in '{file}'",)
    return Layout("miniplaces", list(inner), labels, notes)


def _laid_out(
    kind: str, paths: Mapping[int, str], notes: tuple[str, ...] = ()
) -> Layout:
    """A layout whose labels are the names of the folders."""
    labels: list[FoundLabel] = []
    for path in paths.values():
        name = class_of(path)
        labels.append(name or None)
    loose = labels.count(None)
    if 0 < loose < len(labels):
        notes += (f"{loose} photos lie in no class's folder and have no label",)
    return Layout(kind, list(paths), labels, notes)


def _shallowest(name: str, texts: Iterable[str]) -> str | None:
    """The file of this name in the fewest folders; None where there is none."""

    def depth(text: str) -> tuple[int, str]:
        return text.count("/"), text

    matches = []
    for text in texts:
        if PurePosixPath(text).name == name:
            matches.append(text)
    return min(matches, key=depth, default=None)


def split_of(shard: Path) -> str | None:
    """The split in a shard's name (`train-00000-of-00004.parquet`), or its folder's."""
    begin, *_ = re.split(r"[-_.]", shard.name)
    folder = shard.parent.name
    for name in (begin, folder):
        if name in SPLITS:
            return name
    return None


def choose_split(
    splits: Sequence[str], asked: str | None, where: str
) -> str | None:
    """The split that was asked for, or the only one.

    None where there are none and none was asked for. Raises DatasetError.
    """
    if asked in splits:
        return asked
    listed = ", ".join(map(repr, splits))
    if asked is None:
        if len(splits) > 1:
            raise DatasetError(
                f"{where} has the splits {listed}: say which, e.g. "
                f"split={splits[0]!r} (command line: --split, of masks --concept-split)"
            )
        return splits[0] if splits else None

    if not splits:
        has, remedy = "is not divided into splits", "leave it out"
    else:
        plural = "s" if len(splits) > 1 else ""
        has, remedy = f"has the split{plural} {listed}", "name one"
    raise DatasetError(
        f"{where} {has}, and split={asked!r} was asked for: {remedy}"
    )


def read_split_list(text: str, split: str, where: str) -> dict[str, int]:
    """Read lines of `val/00000001.jpg 71` or `a/abbey/1.jpg 0`.

    Gives the label by the path within the split. A line of a path alone, as in a list
    of test photos, gives no label. Raises DatasetError.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        path, _, label = content.rpartition(" ")
        if path and is_index(label):
            inner = _within_split(path.strip(), split)
            labels[inner] = int(label)
        elif content and not is_photo(content):
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
    """The paths inside a folder, relative to it."""
    inner = {}
    for index, path in paths.items():
        top, slash, rest = path.partition("/")
        if slash and top == folder:
            inner[index] = rest
    return inner


def _splits_among(paths: Iterable[str], split: str | None) -> list[str]:
    """The splits that the outermost folders of photos are named after."""
    tops = {_top_folder(path) for path in paths}
    splits = [name for name in SPLITS if name in tops]
    # "train" is also a vehicle: alone among other classes, or among photos, it is a
    # class.
    others = tops - {*splits, *ANNOTATIONS}
    if split is None and len(splits) == 1 and others:
        return []
    return splits


def _top_folder(path: str) -> str:
    """The outermost folder of a relative path; "" for a file in no folder."""
    top, slash, _ = path.partition("/")
    return top if slash else ""


def _lie_in_images(paths: Sequence[str]) -> bool:
    """Whether the photos are those in `images/`.

    Beside it may lie annotations, which may be pictures too, and nothing else.
    """
    tops = {_top_folder(path) for path in paths}
    others = tops - {"", "images", *ANNOTATIONS}
    return "images" in tops and not others
