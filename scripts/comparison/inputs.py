"""Inputs of a record: photos, a labelled data set, and photos with concept masks, all
in the record's own folder."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

DATA = Path(
    os.environ.get("UNITSCOPE_DATA")
    or Path(__file__).parents[3] / "shared" / "data"
)
EXAMPLE = Path(__file__).parents[2] / "examples" / "simplenet.py"

PHOTOS = ("rio", "dog", "coffee")
_CHECKPOINT = "miniplaces-simplenet.original.pth.tar"
_WRITTEN = 1_700_000_000
_PHOTOS_PER_CLASS = 2
_MASKED_CLASSES = 10
_MASKED_PER_CLASS = 10


@dataclass(frozen=True)
class Inputs:
    """Paths, relative to the record's folder; `masks` and `weights` are None where the
    data are missing."""

    photos: tuple[Path, ...]
    dataset: Path
    masks: Path | None
    concept_names: Path | None
    weights: Path | None
    labels: Path | None
    network: Path


def prepare(folder: Path) -> Inputs:
    """Put everything that is explained or scanned into a folder, the same in every record."""
    folder.mkdir(parents=True)
    photos = tuple(_photo(folder, name) for name in PHOTOS)
    network = _copied(folder, EXAMPLE)
    assert network is not None

    places = DATA / "miniplaces"
    dataset = folder / "dataset"
    validation = places / "val-part.tar"
    if validation.exists():
        _unpack_dataset(validation, places / "categories.txt", dataset)
    else:
        _draw_dataset(dataset)

    masks = None
    annotated = places / "annotated-train.tar.xz"
    if annotated.exists():
        masks = folder / "masks"
        _unpack_masks(annotated, masks)

    inputs = Inputs(
        photos=photos,
        dataset=dataset,
        masks=masks,
        concept_names=_copied(folder, places / "object_categories.txt"),
        weights=_copied(folder, DATA / "weights" / _CHECKPOINT),
        labels=_copied(folder, places / "categories.txt"),
        network=network,
    )
    # An atlas holds when its photos were changed.
    for path in folder.rglob("*"):
        os.utime(path, (_WRITTEN, _WRITTEN))
    return inputs


def _copied(folder: Path, source: Path) -> Path | None:
    if not source.exists():
        return None
    return Path(shutil.copyfile(source, folder / source.name))


def _photo(folder: Path, name: str) -> Path:
    copied = _copied(folder, DATA / "photos" / f"{name}.jpg")
    if copied is not None:
        return copied

    path = folder / f"{name}.jpg"
    _draw(path, seed=PHOTOS.index(name), size=(400, 300))
    return path


def _draw(path: Path, seed: int, size: tuple[int, int]) -> None:
    """Save a picture of noise and a rectangle."""
    random = np.random.default_rng(seed)
    width, height = size
    noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)

    left, top = (int(random.integers(0, side // 2)) for side in size)
    colour = tuple(int(level) for level in random.integers(0, 256, 3))
    box = (left, top, left + width // 3, top + height // 3)
    ImageDraw.Draw(picture).rectangle(box, fill=colour)
    picture.save(path, quality=90)


def _draw_dataset(folder: Path) -> None:
    """200 pictures of noise in ten classes."""
    for index in range(200):
        path = folder / f"class-{index % 10}" / f"{index:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(path, seed=100 + index, size=(128, 128))


def _unpack_dataset(tar: Path, categories: Path, folder: Path) -> None:
    """The first validation photos of every class, as a folder of classes."""
    names = [
        line.split()[0].rsplit("/", 1)[-1]
        for line in categories.read_text().splitlines()
    ]
    with tarfile.open(tar) as archive:
        listing = archive.extractfile("val.txt")
        assert listing is not None
        lines = listing.read().decode().splitlines()

        for name, label in _first_of_each(lines):
            photo = archive.extractfile(f"images/{name}")
            assert photo is not None
            path = folder / names[label] / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.read())


def _first_of_each(lines: list[str]) -> Iterator[tuple[str, int]]:
    """The first few photos of every class, from lines like "val/00000001.jpg 71"."""
    taken: Counter[int] = Counter()
    for line in lines:
        name, label = line.split()
        if taken[int(label)] < _PHOTOS_PER_CLASS:
            taken[int(label)] += 1
            yield name, int(label)


def _unpack_masks(tar: Path, folder: Path) -> None:
    """A few annotated photos of the first classes, with their polygons."""
    classes: set[str] = set()
    taken: Counter[Path] = Counter()
    with tarfile.open(tar) as archive:
        for member in archive:
            place = Path(member.name).parent
            known = place.name in classes
            if not member.isfile() or (
                not known and len(classes) == _MASKED_CLASSES
            ):
                continue

            classes.add(place.name)
            taken[place] += 1
            if taken[place] <= _MASKED_PER_CLASS:
                archive.extract(member, folder, filter="data")
