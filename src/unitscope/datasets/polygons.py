"""Polygons: the object annotations of MiniPlaces.

The XML files lie in `objects/` as the photos do in `images/`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import final
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from unitscope.datasets.files import FileDataset, only_annotated
from unitscope.datasets.masks import (
    Concept,
    MaskedDataset,
    Masks,
    gathered,
    read_annotation,
)
from unitscope.errors import PhotoError, one_line

_SIDE = 128
_CLASSES = 175
_DECLARATION = re.compile(r"^\ufeff?\s*<\?xml[^>]*\?>")


@final
class PolygonMasks(MaskedDataset):
    """The polygons of MiniPlaces, drawn with their outline on 128×128 pixels.

    They may overlap. Coordinates count pixels from 1. A photo whose XML is damaged, has
    a polygon of fewer than three points or an unknown class stays in the data set, and
    `masks` raises PhotoError for it.
    """

    def __init__(
        self, photos: FileDataset, names: Sequence[str] | None
    ) -> None:
        self.source = photos.source
        self.kind = "polygons"
        files = (_objects_of(photos, index) for index in range(len(photos)))
        self.dataset, self.notes = only_annotated(
            photos, [file.is_file() for file in files]
        )
        if names is None:
            names = [f"object {number}" for number in range(_CLASSES)]
            self.notes += (
                "the objects have no names: lay object_categories.txt beside them, or "
                "give names=",
            )
        self._photos = self.dataset
        self.concepts = tuple(Concept(name, "object") for name in names)

    def annotations(self, index: int) -> tuple[Path, ...]:
        """The XML file."""
        return (_objects_of(self._photos, index),)

    def masks(self, index: int) -> Masks:
        """The objects of a photo, all polygons of a class in one mask."""
        (path,) = self.annotations(index)
        shape = (_SIDE, _SIDE)
        canvases: dict[int, Image.Image] = {}
        for element in _parsed(path).iter("objects"):
            label = self._label(element, path)
            canvas = canvases.setdefault(label, Image.new("1", shape))
            for polygon in element.iter("polygon"):
                points = _points(polygon, path)
                ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)

        masks: dict[int, Bool[np.ndarray, "row col"]] = {}
        for label, canvas in canvases.items():
            masks[label] = np.array(canvas, dtype=bool)
        return gathered(masks, shape, frozenset({"object"}))

    def _label(self, element: ElementTree.Element, path: Path) -> int:
        """The index of an object's concept; raises PhotoError for an unknown one."""
        label = _number(element.findtext("class"), path)
        names = len(self.concepts)
        if label not in range(names):
            raise PhotoError(
                f"the annotation '{path}' has the object class {label:g}, and there "
                f"are {names} names from 0 on: give the names that belong to it"
            )
        return int(label)


def _points(
    polygon: ElementTree.Element, path: Path
) -> list[tuple[float, float]]:
    """The corners of a polygon as (x, y), in pixels from 0 on; raises PhotoError."""
    points = []
    for point in polygon.iter("pt"):
        x = _number(point.findtext("x"), path) - 1
        y = _number(point.findtext("y"), path) - 1
        points.append((x, y))
    if len(points) < 3:
        raise PhotoError(
            f"the annotation '{path}' has a polygon of {len(points)} points: expected "
            "three or more"
        )
    return points


def _objects_of(photos: FileDataset, index: int) -> Path:
    inner = PurePosixPath(photos.paths[index].removeprefix("images/"))
    return photos.root / "objects" / inner.with_suffix(".xml")


def _parsed(path: Path) -> ElementTree.Element:
    text = read_annotation(path).decode("utf-8", "replace")
    try:
        # The files have several roots, so one is put around them; a DOCTYPE, with its
        # entities, is an error inside it.
        return ElementTree.fromstring(
            f"<annotation>{_DECLARATION.sub('', text)}</annotation>"
        )
    except ElementTree.ParseError as error:
        raise PhotoError(
            f"the annotation '{path}' is no whole XML ({one_line(error)}): get a whole "
            "copy"
        ) from None


def _number(text: str | None, path: Path) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    # Pillow draws far-away points wrongly; a point outside the photo is a mistake.
    if not -_SIDE <= value <= 2 * _SIDE:
        raise PhotoError(
            f"the annotation '{path}' has {text!r} where a number from 1 to {_SIDE} "
            "should be: correct it"
        )
    return value
