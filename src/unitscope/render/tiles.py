"""Tiles: photos of a data set as small pictures of what the network saw of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, features

from unitscope.atlas import Atlas
from unitscope.datasets import Dataset
from unitscope.errors import UnitscopeError
from unitscope.observing import digest_of
from unitscope.photos import Encoded, open_photo
from unitscope.render.words import shorten

FOLDER = "images"
PER_FOLDER = 1000
"""Images are laid into folders of this many, as file browsers get slow with more."""

DRAWN = 0
STATES = ("", "photo not found", "photo cannot be read", "another photo now")
"""What a tile's place shows instead of a photo, by state: nothing where it is drawn."""

_NOT_FOUND, _UNREADABLE, _CHANGED = 1, 2, 3
_SIDE = 160
_NEUTRAL = (128, 128, 128)
_COLUMNS = ("image", "id", "class", "prediction", "probability", "left", "top", "right", "bottom", "width", "height")


class Tiles:
    """The tiles of an atlas's images, each drawn into `folder` when it is first asked for, and only once.

    Units share their top images, so that one small file an image is much less than a picture for each unit. A photo
    that is gone, cannot be read or is not the one that was scanned gets no file, and the reason instead.
    """

    def __init__(self, atlas: Atlas, dataset: Dataset | None, folder: Path) -> None:
        table = atlas.table("images", [*_COLUMNS, "digest"])
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        self._columns, self._dataset, self._folder = columns, dataset, folder / FOLDER
        self._place = {image: place for place, image in enumerate(columns["image"])}
        self._states: dict[int, int] = {}
        rows, cols = atlas.manifest["model"]["input_shape"][-2:]
        self._input = (int(rows), int(cols))
        self.suffix = "webp" if features.check("webp") else "jpg"

    @property
    def missing(self) -> int:
        """How many of the images that were asked for have no tile."""
        return sum(state != DRAWN for state in self._states.values())

    @property
    def asked(self) -> int:
        """How many images were asked for."""
        return len(self._states)

    def draw(self, image: int) -> int:
        """Draw an image's tile unless that was done; returns its state, a place in STATES."""
        if image not in self._states:
            self._states[image] = self._drawn(image)
        return self._states[image]

    def row(self, image: int) -> list[Any]:
        """What pages tell of an image: id, class, prediction, probability and state; draws it if need be."""
        place = self._place[image]
        id_, class_, prediction, probability = (self._columns[name][place] for name in _COLUMNS[1:5])
        return [shorten(id_, 200), class_, prediction, round(probability, 4), self.draw(image)]

    def _drawn(self, image: int) -> int:
        entry = {name: values[self._place[image]] for name, values in self._columns.items()}
        dataset = self._dataset
        index = None if dataset is None else dataset.places.get(entry["id"])
        if dataset is None or index is None:
            return _NOT_FOUND
        try:
            data = dataset.read(index)
        except (UnitscopeError, OSError):
            return _NOT_FOUND
        if entry["digest"] is not None and digest_of(data) != entry["digest"]:
            return _CHANGED
        try:
            tile = self._tile(entry, data)
        except UnitscopeError:
            return _UNREADABLE
        path = self._folder / str(image // PER_FOLDER) / f"{image}.{self.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile.save(path, quality=72, method=2)
        return DRAWN

    def _tile(self, entry: dict[str, Any], data: bytes) -> Image.Image:
        """The network's crop in the shape of its input, never larger than the photo has pixels for."""
        box = tuple(float(entry[side]) for side in ("left", "top", "right", "bottom"))
        wide, high = box[2] - box[0], box[3] - box[1]
        rows, cols = self._input
        side = min(_SIDE, math.ceil(max(wide, high)))
        size = (max(1, round(side * cols / max(rows, cols))), max(1, round(side * rows / max(rows, cols))))
        shorter = min(entry["width"], entry["height"])
        longest = math.ceil(shorter * max(size[0] / wide, size[1] / high))
        photo = open_photo(Encoded(entry["id"], lambda: data, len(data)), longest).image
        across, down = photo.width / entry["width"], photo.height / entry["height"]
        return _cut(photo, (box[0] * across, box[1] * down, box[2] * across, box[3] * down), size)


def _cut(photo: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    left, top, right, bottom = box
    beyond = max(-left, -top, right - photo.width, bottom - photo.height)
    if beyond > 0.01:
        # A small photo was padded: there the network saw no photo.
        border = math.ceil(beyond)
        photo = ImageOps.expand(photo, border, _NEUTRAL)
        left, top, right, bottom = (edge + border for edge in (left, top, right, bottom))
    within = (max(0.0, left), max(0.0, top), min(photo.width, right), min(photo.height, bottom))
    return photo.resize(size, Image.Resampling.LANCZOS, box=within, reducing_gap=3.0)
