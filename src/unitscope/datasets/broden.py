"""Broden: the annotated photos of Network Dissection (Bau et al. 2017)."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, UInt

from unitscope.datasets.classes import labelled
from unitscope.datasets.files import FileDataset
from unitscope.datasets.index_maps import read_pixels
from unitscope.datasets.layout import choose_split
from unitscope.datasets.masks import Concept, MaskedDataset, Masks, gathered
from unitscope.datasets.texts import read_text
from unitscope.errors import DatasetError, PhotoError
from unitscope.labels import is_index

_NOT_CATEGORIES = ("image", "split", "ih", "iw", "sh", "sw")


@final
class BrodenMasks(MaskedDataset):
    """A folder such as broden1_224, with several layers of concepts a photo.

    It holds index.csv (a row a photo), label.csv (number, name, category) and images/.
    A cell of index.csv holds, between semicolons, numbers of concepts that the whole
    photo shows, and names of PNGs whose pixels have the number R + 256·G, 0 for none. A
    number that label.csv gives several categories is a concept in each of them. Without
    `split` the photos of all splits are there.
    """

    def __init__(self, root: Path, split: str | None) -> None:
        self.source = str(root)
        self.kind = "broden"
        self._images = root / "images"
        self.concepts, self._index_of = _concepts(root / "label.csv")

        columns, rows = _table(root / "index.csv", ("image", "sh", "sw"))
        self._categories = [
            name for name in columns if name not in _NOT_CATEGORIES
        ]
        if split is not None:
            rows = _of_split(rows, split, root)

        self._cells: list[tuple[str, ...]] = []
        self._shapes: list[tuple[int, int]] = []
        paths = []
        for row in rows:
            cells = tuple(row[category] for category in self._categories)
            if not any(cell.strip("; ") for cell in cells):
                continue
            self._cells.append(cells)
            self._shapes.append(_shape(row, root))
            paths.append(row["image"])

        self.notes = ()
        left_out = len(rows) - len(paths)
        if left_out:
            self.notes = (
                f"{left_out} photos without annotations are left out",
            )
        self.dataset = FileDataset(
            source=self.source,
            kind="folder",
            root=self._images,
            paths=paths,
            ids=paths,
            labels=labelled([None] * len(paths), None, self.source),
        )

    def annotations(self, index: int) -> tuple[Path | str, ...]:
        """The cells of index.csv, and the PNGs that they name."""
        cells = self._cells[index]
        files = []
        for cell in cells:
            for item in _items(cell):
                if not is_index(item):
                    files.append(self._images / item)
        return (*cells, *files)

    def masks(self, index: int) -> Masks:
        """The concepts of a photo in all categories and layers.

        Their size is the one that index.csv gives as sh and sw.
        """
        shape = self._shapes[index]
        cells = self._cells[index]
        masks: dict[int, Bool[np.ndarray, "row col"]] = {}
        categories = set()
        for category, cell in zip(self._categories, cells, strict=True):
            for item in _items(cell):
                categories.add(category)
                layer = self._layer(item, shape)
                for number in np.unique(layer).tolist():
                    if number == 0:
                        continue
                    concept = self._concept(number, category, item, index)
                    mask = layer == number
                    if concept in masks:
                        mask |= masks[concept]
                    masks[concept] = mask
        return gathered(masks, shape, frozenset(categories))

    def _concept(
        self, number: int, category: str, item: str, index: int
    ) -> int:
        """The index of a concept by its number; raises PhotoError where unknown."""
        concept = self._index_of.get((number, category))
        if concept is None:
            raise PhotoError(
                f"the annotation {item!r} of {self.dataset.entries[index].id!r} has "
                f"the number {number}, which label.csv lacks in the category "
                f"{category!r}: get a whole copy of the data set"
            )
        return concept

    def _layer(
        self, item: str, shape: tuple[int, int]
    ) -> UInt[np.ndarray, "row col"]:
        """The numbers of concepts in one item of a cell."""
        if is_index(item):
            return np.full(shape, int(item), dtype=np.uint32)
        path = self._images / item
        pixels = read_pixels(path)
        colour = pixels.ndim == 3 and pixels.dtype == np.uint8
        if not colour or pixels.shape[:2] != shape:
            rows, cols = shape
            raise PhotoError(
                f"the annotation '{path}' is not the RGB picture of {rows}×{cols} "
                "(rows × columns) that index.csv announces: get a whole copy of the "
                "data set"
            )
        channels = np.moveaxis(pixels, -1, 0)
        red, green, *_ = channels.astype(np.uint32)
        numbers: UInt[np.ndarray, "row col"] = red + 256 * green
        return numbers


def _of_split(
    rows: list[dict[str, str]], split: str, root: Path
) -> list[dict[str, str]]:
    """The rows of one split; raises DatasetError where there are none."""
    splits = {row.get("split", "") for row in rows}
    splits.discard("")
    named = sorted(splits)
    choose_split(named, split, f"'{root}'")
    return [row for row in rows if row["split"] == split]


def _items(cell: str) -> list[str]:
    """The numbers and file names in a cell of index.csv."""
    return [item for item in cell.split(";") if item]


def _concepts(
    file: Path,
) -> tuple[tuple[Concept, ...], dict[tuple[int, str], int]]:
    """The concepts, and their indices by number and category.

    A cell "material(36);object(3)" counts the photos in each category.
    """
    _, rows = _table(file, ("number", "name", "category"))
    concepts: list[Concept] = []
    index_of: dict[tuple[int, str], int] = {}
    for row in rows:
        number = row["number"]
        if not is_index(number):
            raise DatasetError(
                f"'{file}' has {number[:40]!r} where a number should be: get a whole "
                "copy of it"
            )
        for item in _items(row["category"]):
            category = re.sub(r"\(\d+\)$", "", item.strip())
            concept = Concept(row["name"].strip(), category)
            index_of.setdefault((int(number), category), len(concepts))
            concepts.append(concept)
    return tuple(concepts), index_of


def _shape(row: dict[str, str], root: Path) -> tuple[int, int]:
    """(rows, columns) of a photo's annotations; raises DatasetError."""
    sh = row["sh"]
    sw = row["sw"]
    if is_index(sh) and is_index(sw):
        shape = (int(sh), int(sw))
        if min(shape) > 0:
            return shape
    raise DatasetError(
        f"'{root / 'index.csv'}' has sh={sh[:20]!r} and sw={sw[:20]!r} for "
        f"{row['image']!r}: expected the numbers of rows and columns"
    )


def _table(
    file: Path, needed: Sequence[str]
) -> tuple[list[str], list[dict[str, str]]]:
    try:
        rows = [row for row in csv.reader(read_text(file).splitlines()) if row]
    except csv.Error as error:
        raise DatasetError(
            f"'{file}' is not valid CSV ({error}): get a whole copy of it"
        ) from None
    header = rows[0] if rows else []
    absent = [name for name in needed if name not in header]
    if absent:
        raise DatasetError(
            f"'{file}' has no column {absent[0]!r}: expected Broden's own table "
            f"({', '.join(needed)} …)"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DatasetError(
                f"'{file}' has {len(row)} columns in line {number} and {len(header)} "
                "in its first: get a whole copy of it"
            )
    return header, [dict(zip(header, row, strict=True)) for row in rows[1:]]
