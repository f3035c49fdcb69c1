"""Broden: the annotated photos of Network Dissection (Bau et al. 2017), several layers of concepts a photo."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, UInt

from unitscope.datasets.classes import labelled
from unitscope.datasets.files import FileDataset, read_text
from unitscope.datasets.index_maps import read_pixels
from unitscope.datasets.layout import choose_split
from unitscope.datasets.masks import Concept, MaskedDataset, Masks, gathered
from unitscope.errors import DatasetError, PhotoError

_NOT_CATEGORIES = ("image", "split", "ih", "iw", "sh", "sw")


@final
class BrodenMasks(MaskedDataset):
    """A folder such as broden1_224: index.csv (a row a photo), label.csv (number, name, category), images/.

    A cell of index.csv holds, between semicolons, numbers of concepts that the whole
    photo shows, and names of PNGs whose pixels have the number R + 256·G, 0 for none. A
    number that label.csv gives several categories is a concept in each of them. Without
    `split` the photos of all splits are there.
    """

    def __init__(self, root: Path, split: str | None) -> None:
        self.source, self.kind, self._root = str(root), "broden", root
        columns, rows = _table(root / "index.csv", ("image", "sh", "sw"))
        self._categories = tuple(
            name for name in columns if name not in _NOT_CATEGORIES
        )
        if split is not None:
            choose_split(
                sorted({row.get("split", "") for row in rows} - {""}),
                split,
                f"'{root}'",
            )
            rows = [row for row in rows if row["split"] == split]
        annotated = [
            row
            for row in rows
            if any(row[category].strip("; ") for category in self._categories)
        ]
        self.notes: tuple[str, ...] = ()
        if len(annotated) < len(rows):
            self.notes += (
                f"{len(rows) - len(annotated)} photos without annotations are left out",
            )
        self._cells = [
            tuple(row[category] for category in self._categories) for row in annotated
        ]
        self._shapes = [_shape(row, root) for row in annotated]
        self.concepts, self._index_of = _concepts(root / "label.csv")
        paths = [row["image"] for row in annotated]
        self.dataset = FileDataset(
            str(root),
            "folder",
            root / "images",
            paths,
            paths,
            labelled([None] * len(paths), None, str(root)),
        )

    def annotations(self, index: int) -> tuple[Path | str, ...]:
        """The cells of index.csv, and the PNGs that they name."""
        cells = self._cells[index]
        names = [
            item
            for cell in cells
            for item in cell.split(";")
            if item and not item.isdecimal()
        ]
        return (*cells, *(self._root / "images" / name for name in names))

    def masks(self, index: int) -> Masks:
        """The concepts of a photo in all categories and layers, at the size that index.csv gives as sh and sw."""
        shape = self._shapes[index]
        masks: dict[int, Bool[np.ndarray, "row col"]] = {}
        categories = set()
        for category, cell in zip(self._categories, self._cells[index], strict=True):
            for item in filter(None, cell.split(";")):
                categories.add(category)
                layer = self._layer(item, shape)
                for number in np.unique(layer[layer > 0]).tolist():
                    concept = self._index_of.get((number, category))
                    if concept is None:
                        raise PhotoError(
                            f"the annotation {item!r} of "
                            f"{self.dataset.entries[index].id!r} has the number "
                            f"{number}, "
                            f"which label.csv lacks in the category {category!r}: get "
                            "a whole copy of the data set"
                        )
                    found = layer == number
                    masks[concept] = (
                        masks[concept] | found if concept in masks else found
                    )
        return gathered(masks, shape, frozenset(categories))

    def _layer(self, item: str, shape: tuple[int, int]) -> UInt[np.ndarray, "row col"]:
        if item.isdecimal():
            return np.full(shape, int(item), dtype=np.uint32)
        path = self._root / "images" / item
        pixels = read_pixels(path)
        if pixels.shape[:2] != shape or pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise PhotoError(
                f"the annotation '{path}' is not the RGB picture of "
                f"{shape[0]}×{shape[1]} (rows × columns) that "
                "index.csv tells of: get a whole copy of the data set"
            )
        return pixels[..., 0].astype(np.uint32) + 256 * pixels[..., 1].astype(np.uint32)


def _concepts(file: Path) -> tuple[tuple[Concept, ...], dict[tuple[int, str], int]]:
    """The concepts, and their indices by number and category; "material(36);object(3)" counts photos in each."""
    _, rows = _table(file, ("number", "name", "category"))
    concepts: list[Concept] = []
    index_of: dict[tuple[int, str], int] = {}
    for row in rows:
        if not row["number"].isdecimal():
            raise DatasetError(
                f"'{file}' has {row['number'][:40]!r} where a number should be: get a "
                "whole copy of it"
            )
        for category in filter(None, row["category"].split(";")):
            name = re.sub(r"\(\d+\)$", "", category.strip())
            index_of.setdefault((int(row["number"]), name), len(concepts))
            concepts.append(Concept(row["name"].strip(), name))
    return tuple(concepts), index_of


def _shape(row: dict[str, str], root: Path) -> tuple[int, int]:
    if not (
        row["sh"].isdecimal()
        and row["sw"].isdecimal()
        and int(row["sh"])
        and int(row["sw"])
    ):
        raise DatasetError(
            f"'{root / 'index.csv'}' has sh={row['sh'][:20]!r} and "
            f"sw={row['sw'][:20]!r} for {row['image']!r}: "
            "expected the numbers of rows and columns"
        )
    return int(row["sh"]), int(row["sw"])


def _table(file: Path, needed: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
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
                "in its first"
            )
    return header, [dict(zip(header, row, strict=True)) for row in rows[1:]]
