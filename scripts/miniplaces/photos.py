"""Labelled photos: read from the official MiniPlaces layout or from parquet shards,
decoded once into one array."""

import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SPLITS = ("train", "val", "test")


class PhotosError(ValueError):
    """Photos that cannot be read as asked; the message says what was found and what to
    give instead."""


@dataclass(frozen=True)
class Photos:
    """Square photos of one size, with the index of their class."""

    pixels: NDArray[np.uint8]
    """(photo, row, column, channel)"""
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    """Where a photo lies within its split: `a/abbey/00000001.jpg`."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        return int(self.pixels.shape[1])

    def take(self, indices: NDArray[np.int64]) -> "Photos":
        return Photos(
            self.pixels[indices],
            self.labels[indices],
            tuple(self.names[index] for index in indices),
        )


@dataclass(frozen=True)
class _Record:
    name: str
    label: int | None
    encoded: bytes


def name_in_split(path: str) -> str:
    """`images/train/a/abbey/1.jpg` and `train/a/abbey/1.jpg` and `a/abbey/1.jpg` →
    `a/abbey/1.jpg`."""
    parts = list(PurePosixPath(path).parts)
    for split in SPLITS:
        if split in parts[:-1]:
            return "/".join(parts[parts.index(split) + 1 :])
    return "/".join(part for part in parts if part not in {".", "images"})


def class_of(name: str) -> str:
    """`a/abbey/1.jpg` → `abbey`; `b/bakery/shop/1.jpg` → `bakery/shop`; `cats/1.jpg` → `cats`."""
    parts = list(PurePosixPath(name).parts[:-1])
    # Places sorts its classes into folders by first letter; that letter is no part of
    # the name.
    if len(parts) > 1 and len(parts[0]) == 1 and parts[1].startswith(parts[0]):
        parts = parts[1:]
    return "/".join(parts)


def class_names(photos: Photos) -> list[str]:
    """The classes' names in the order of their indices, read off the folders of training photos."""
    names: dict[int, str] = {}
    for name, label in zip(photos.names, photos.labels.tolist(), strict=True):
        names.setdefault(label, class_of(name))
    if sorted(names) != list(range(len(names))):
        missing = sorted(set(range(max(names) + 1)) - set(names))
        raise PhotosError(
            f"no training photo of class {missing[0]}: labels must be 0 … {max(names)} "
            "without a gap"
        )
    return [names[index] for index in range(len(names))]


def read_photos(
    source: Path,
    split: str,
    size: int | None = None,
    cache: Path | None = None,
    classes: list[str] | None = None,
) -> Photos:
    """Every labelled photo of a split, as squares of `size` pixels (as stored where `None`).

    `source` is a folder or tar in the official layout (`images/<split>/…` with a
    `<split>.txt`), a parquet file with columns path, label, image, or a folder of such
    files. `cache` keeps the decoded array for the next start. Where no list of labels
    comes with the photos, their folders name the classes, numbered as in `classes` or
    by name.
    """
    source = source.expanduser()
    if not source.exists():
        raise PhotosError(
            f"{source} does not exist: give a MiniPlaces folder or tar, or parquet "
            "shards"
        )
    title = f"decoding {source.name}"
    records = _records(source, split)
    if cache is None:
        with io.BytesIO() as file:
            names, labels = _decode(records, size, title, classes, file)
            flat = np.frombuffer(file.getvalue(), np.uint8)
        return _square_photos(flat, labels, names)

    key = _cache_key(source, split, size, classes)
    pixels_path = cache / f"{split}-{key}.pixels"
    index_path = cache / f"{split}-{key}.json"
    if not index_path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Written as it is decoded: all photos twice would not fit into every memory.
        with _replaced(pixels_path) as stored:
            names, labels = _decode(records, size, title, classes, stored)
        # The index comes last: where it is, the pixels beside it are complete.
        _write_index(index_path, labels, names)

    index: dict[str, Any] = json.loads(index_path.read_text())
    labels = np.array(index["labels"], dtype=np.int64)
    flat = np.memmap(pixels_path, np.uint8, mode="r")
    return _square_photos(flat, labels, tuple(index["names"]))


def _square_photos(
    flat: NDArray[np.uint8],
    labels: NDArray[np.int64],
    names: tuple[str, ...],
) -> Photos:
    """Photos from their pixels, one behind the other."""
    side = round((len(flat) / len(names) / 3) ** 0.5)
    return Photos(flat.reshape(len(names), side, side, 3), labels, names)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which lies at a path when all is written, and else nowhere."""
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cache_key(
    source: Path, split: str, size: int | None, classes: list[str] | None
) -> str:
    """A hash of what is read and how, which changes when a file does."""
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    stamps = []
    for path in files or [source]:
        status = path.stat()
        stamps.append((str(path.resolve()), status.st_size, status.st_mtime_ns))

    text = json.dumps([stamps, split, size, classes])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_index(
    path: Path, labels: NDArray[np.int64], names: tuple[str, ...]
) -> None:
    index = {"names": names, "labels": labels.tolist()}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(index))
    temporary.replace(path)


def split_off(
    photos: Photos, hold_out: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the photos to train on and of those to hold out.

    `hold_out` is a number of photos, drawn by `seed`, or a folder or tar of training
    photos: those are held out.
    """
    if hold_out.isdecimal():
        count = int(hold_out)
        if count >= len(photos):
            raise PhotosError(
                f"cannot hold out {count} photos of {len(photos)}: give a smaller "
                "number"
            )
        order = np.random.default_rng((seed, 1)).permutation(len(photos))
        return np.sort(order[count:]), np.sort(order[:count])
    held = {name_in_split(name) for name in photo_names(Path(hold_out))}
    flags = np.array([name in held for name in photos.names])
    if not flags.any():
        raise PhotosError(
            f"none of the {len(held)} photos in {hold_out} is a training photo: "
            "nothing to hold out"
        )
    return np.flatnonzero(~flags), np.flatnonzero(flags)


def photo_names(source: Path) -> list[str]:
    """The photos in a folder or tar, without reading them."""
    if source.is_dir():
        paths = (path.relative_to(source) for path in source.rglob("*"))
        return sorted(
            path.as_posix()
            for path in paths
            if path.suffix.lower() in PHOTO_SUFFIXES
        )
    with tarfile.open(source) as archive:
        return [
            name
            for name in archive.getnames()
            if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES
        ]


def open_square(encoded: bytes, size: int | None) -> Image.Image:
    """A photo as RGB; with `size`, its shorter side resized to it and the centre square cropped."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    if size is None or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _decode(
    records: Iterator[_Record],
    size: int | None,
    title: str,
    classes: list[str] | None,
    file: IO[bytes],
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Write the pixels of all photos into a file, one behind the other, and give their
    names and labels."""

    def square(record: _Record) -> tuple[_Record, NDArray[np.uint8]]:
        try:
            return _Record(record.name, record.label, b""), np.asarray(
                open_square(record.encoded, size)
            )
        except OSError as error:
            raise PhotosError(
                f"{record.name} is not a photo that Pillow can decode: {error}"
            ) from error

    kept: list[_Record] = []
    shape: tuple[int, ...] = ()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in _batches(records, 512):
            for record, pixels in pool.map(square, batch):
                if kept and pixels.shape != shape:
                    raise PhotosError(
                        f"{record.name} is {pixels.shape[1]}×{pixels.shape[0]} and "
                        f"{kept[0].name} is not: "
                        "give one size for all of them (--photo-size)"
                    )
                kept.append(record)
                shape = pixels.shape
                file.write(pixels.tobytes())
    if not kept:
        raise PhotosError(f"{title}: found no labelled photo there")
    return tuple(record.name for record in kept), _labels(kept, classes)


def _labels(
    records: list[_Record], classes: list[str] | None
) -> NDArray[np.int64]:
    if all(record.label is not None for record in records):
        return np.array([record.label for record in records], dtype=np.int64)
    found = [class_of(record.name) for record in records]
    order = {
        name: index for index, name in enumerate(classes or sorted(set(found)))
    }
    unknown = sorted(set(found) - set(order))
    if unknown:
        raise PhotosError(
            f"{unknown[0]!r} is a folder of photos and none of the {len(order)} classes"
        )
    return np.array([order[name] for name in found], dtype=np.int64)


def _batches(records: Iterator[_Record], count: int) -> Iterator[list[_Record]]:
    batch: list[_Record] = []
    for record in tqdm(
        records,
        desc="reading photos",
        unit=" photos",
        disable=None,
        smoothing=0,
    ):
        batch.append(record)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def _records(source: Path, split: str) -> Iterator[_Record]:
    if source.suffix == ".parquet":
        return _parquet_records([source])
    if source.is_dir():
        shards = sorted(source.glob("*.parquet"))
        return (
            _parquet_records(shards)
            if shards
            else _folder_records(source, split)
        )
    return _tar_records(source, split)


def _parquet_records(shards: list[Path]) -> Iterator[_Record]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise PhotosError(
            "reading parquet shards takes pyarrow: pip install pyarrow"
        ) from error
    for shard in shards:
        for batch in parquet.ParquetFile(shard).iter_batches(
            batch_size=512, columns=["path", "label", "image"]
        ):
            for row in batch.to_pylist():
                yield _Record(
                    name_in_split(row["path"]), int(row["label"]), row["image"]
                )


def _folder_records(source: Path, split: str) -> Iterator[_Record]:
    lists = sorted(
        source.rglob(f"{split}.txt"), key=lambda path: len(path.parts)
    )
    roots = [
        path
        for path in (source / "images" / split, source / split)
        if path.is_dir()
    ]
    if not roots:
        raise PhotosError(
            f"{source} has neither images/{split} nor {split}: expected the MiniPlaces "
            "layout"
        )
    labels = _parse_list(lists[0].read_text()) if lists else None
    for path in sorted(
        path
        for path in roots[0].rglob("*")
        if path.suffix.lower() in PHOTO_SUFFIXES
    ):
        name = path.relative_to(roots[0]).as_posix()
        if labels is None or name in labels:
            yield _Record(
                name,
                None if labels is None else labels[name],
                path.read_bytes(),
            )


def _tar_records(source: Path, split: str) -> Iterator[_Record]:
    try:
        archive = tarfile.open(source)
    except tarfile.TarError as error:
        raise PhotosError(
            f"{source} is neither a folder, nor parquet, nor a tar: {error}"
        ) from error
    with archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        lists = [
            member
            for member in members
            if PurePosixPath(member.name).name == f"{split}.txt"
        ]
        labels = None
        if lists and (file := archive.extractfile(lists[0])) is not None:
            labels = _parse_list(file.read().decode())
        for member in members:
            path = PurePosixPath(member.name)
            if (
                path.suffix.lower() not in PHOTO_SUFFIXES
                or split not in path.parts
            ):
                continue
            name = name_in_split(member.name)
            if (labels is None or name in labels) and (
                file := archive.extractfile(member)
            ) is not None:
                yield _Record(
                    name, None if labels is None else labels[name], file.read()
                )


def _parse_list(text: str) -> dict[str, int]:
    """`train/a/abbey/00000001.jpg 0` a line."""
    labels: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal():
            raise PhotosError(
                f"line {number} of the list is {line!r}: expected a path, a space and "
                "a class index"
            )
        labels[name_in_split(path)] = int(label)
    return labels
