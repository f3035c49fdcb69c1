"""Index maps: a PNG for each photo whose pixels are numbers of concepts, 0 for none."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
from jaxtyping import UInt
from PIL import Image

from unitscope.datasets.files import FileDataset, only_annotated
from unitscope.datasets.masks import (
    Concept,
    MaskedDataset,
    Masks,
    gathered,
    read_annotation,
)
from unitscope.datasets.texts import read_text
from unitscope.errors import DatasetError, PhotoError, one_line

# At the end of a list of names, "none" is a concept like others; at the beginning it
# stands for the number 0.
_NONE = (
    "none",
    "background",
    "_background_",
    "__background__",
    "unlabeled",
    "unlabelled",
    "void",
)
_IGNORED = {8: 255, 16: 65535}


@final
class IndexMaps(MaskedDataset):
    """PNGs in a folder beside `images/`, named as the photos are.

    That is SceneParse150's layout. The PNGs have 8 or 16 bits, or a palette. The number n
    stands for the n-th name, counted from 1, and 0 for no name. The largest possible
    number (255) marks pixels to ignore, where there are fewer names. `masks` raises
    PhotoError for a PNG that is damaged, in colour, or has a number without a name.
    """

    def __init__(
        self, photos: FileDataset, folder: str, names: Sequence[str]
    ) -> None:
        self.source = photos.source
        self.kind = "index maps"
        self._folder = folder
        maps = (_map_of(photos, folder, index) for index in range(len(photos)))
        self.dataset, self.notes = only_annotated(
            photos, [map_.is_file() for map_ in maps]
        )
        self._photos = self.dataset
        self.concepts = tuple(Concept(name, "object") for name in names)

    def annotations(self, index: int) -> tuple[Path, ...]:
        """The PNG file."""
        return (_map_of(self._photos, self._folder, index),)

    def masks(self, index: int) -> Masks:
        """The concepts of a photo, each pixel in one at most."""
        (path,) = self.annotations(index)
        numbers = read_numbers(path)
        bits = 8 * numbers.dtype.itemsize
        highest = len(self.concepts)

        masks = {}
        for number in np.unique(numbers).tolist():
            if 0 < number <= highest:
                masks[number - 1] = numbers == number
            elif number not in (0, _IGNORED[bits]):
                raise PhotoError(
                    f"the annotation '{path}' has the number {number}, and there are "
                    f"{highest} names from 1 on: give the names that belong to it"
                )
        rows, cols = numbers.shape
        return gathered(masks, (rows, cols), frozenset({"object"}))


def read_numbers(path: Path) -> UInt[np.ndarray, "row col"]:
    """The numbers of a PNG's pixels, or the indices of its palette, in 8 or 16 bits.

    Raises PhotoError.
    """
    pixels = read_pixels(path)
    if pixels.ndim != 2:
        raise PhotoError(
            f"the annotation '{path}' is in colour: expected a PNG of one number a "
            "pixel, or with a palette"
        )
    small = pixels.dtype in (np.uint8, np.bool_)
    return pixels.astype(np.uint8 if small else np.uint16)


def read_pixels(path: Path) -> np.ndarray:
    """The pixels of a picture as they are stored, palettes not applied.

    Raises PhotoError.
    """
    data = read_annotation(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)
    except Exception as error:
        # Pillow's plug-ins report damage with all sorts of exceptions.
        raise PhotoError(
            f"the annotation '{path}' is no whole picture ({one_line(error)}): get a "
            "whole copy"
        ) from None


def without_none(names: Sequence[str]) -> tuple[str, ...]:
    """The names without a first one that stands for the number 0, e.g. "background"."""
    if names and names[0].lower() in _NONE:
        names = names[1:]
    return tuple(names)


def read_object_info(file: Path) -> tuple[str, ...]:
    """The names in SceneParse150's objectInfo150.txt, each by its first synonym.

    Raises DatasetError.
    """
    header, *lines = read_text(file).splitlines() or [""]
    columns = [cell.strip().lower() for cell in header.split("\t")]
    if "name" not in columns or "idx" not in columns:
        raise DatasetError(
            f"'{file}' has no columns Idx and Name: expected SceneParse150's own table"
        )

    names: list[str] = []
    for line in lines:
        cells = line.split("\t")
        if not any(cells):
            continue
        row = dict(zip(columns, cells, strict=False))
        if (
            row.get("idx", "").strip() != str(len(names) + 1)
            or "name" not in row
        ):
            raise DatasetError(
                f"'{file}' does not number its names from 1 on: expected "
                "SceneParse150's own table"
            )
        names.append(_first_synonym(row["name"]))
    return tuple(names)


def _first_synonym(names: str) -> str:
    return re.split("[,;]", names)[0].strip()


def _map_of(photos: FileDataset, folder: str, index: int) -> Path:
    inner = PurePosixPath(photos.paths[index].removeprefix("images/"))
    return photos.root / folder / inner.with_suffix(".png")
