"""Tiles: photos of a data set as small pictures of what the network saw of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, features

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.image_hashes import digest_of
from unitscope.datasets import Dataset
from unitscope.errors import MissingError, UnitscopeError
from unitscope.inputs.photos import Encoded, open_photo
from unitscope.render.words import shorten

FOLDER = "images"
SPRITES = "sprites"
PER_FOLDER = 1000
"""Images are laid into folders of this many, as file browsers get slow with more."""

DRAWN = 0
STATES = ("", "photo not found", "photo cannot be read", "another photo now")
"""What a tile's place shows instead of a photo, by state: nothing where it is drawn."""

_NOT_FOUND, _UNREADABLE, _CHANGED = 1, 2, 3
_SIDE = 160
# A sprite shows so many images, in so many columns; each as large as on a card, with
# some to spare for dense screens.
IN_SPRITE, _ABREAST, _SPRITE_SIDE = 6, 3, 108
_NEUTRAL = (128, 128, 128)
_COLUMNS = (
    "image",
    "id",
    "class",
    "prediction",
    "probability",
    "left",
    "top",
    "right",
    "bottom",
    "width",
    "height",
)


class Tiles:
    """The tiles of an atlas's images, each drawn into `folder` when it is first asked for, and only once.

    Units share their top images, so that one small file an image is much less than a
    picture for each unit. A photo that is gone, cannot be read or is not the one that
    was scanned gets no file, and the reason instead.
    """

    def __init__(self, atlas: Atlas, dataset: Dataset | None, folder: Path) -> None:
        table = atlas.table("images", [*_COLUMNS, "digest"])
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        self._columns, self._dataset, self._folder = columns, dataset, folder
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

    def file(self, image: int) -> Path:
        """The file of an image's tile, drawn if need be; raises MissingError where there is none, with the reason."""
        if image not in self._place:
            raise MissingError(f"there is no image {image} in this atlas")
        state = self.draw(image)
        if state != DRAWN:
            raise MissingError(STATES[state])
        return self._path(image)

    def sprite(self, name: str, images: Sequence[int]) -> Path:
        """The file `name` of the first images, side by side in one picture, drawn if need be.

        The place of one that has no tile is grey. Raises MissingError where all of them
        have none.
        """
        path = self._folder / SPRITES / f"{name}.{self.suffix}"
        if path.is_file():
            return path
        images = images[:IN_SPRITE]
        drawn = [image for image in images if self.draw(image) == DRAWN]
        if not drawn:
            raise MissingError(
                STATES[self.draw(images[0])] if images else "this unit has no images"
            )
        tiles = {image: self._read(image) for image in drawn}
        side = max(max(tile.size) for tile in tiles.values())
        wide, high = self._size(min(_SPRITE_SIDE, side))
        sprite = Image.new(
            "RGB", (_ABREAST * wide, IN_SPRITE // _ABREAST * high), _NEUTRAL
        )
        for rank, image in enumerate(images):
            if image in tiles:
                tile = tiles[image].resize((wide, high), Image.Resampling.LANCZOS)
                sprite.paste(tile, (rank % _ABREAST * wide, rank // _ABREAST * high))
        self._save(sprite, path)
        return path

    def row(self, image: int) -> list[Any]:
        """What pages tell of an image: id, class, prediction, probability and its state, as far as that is known.

        One of which nothing is known yet may have a tile.
        """
        place = self._place[image]
        state = self._states.get(image, _NOT_FOUND if self._dataset is None else DRAWN)
        id_, class_, prediction, probability = (
            self._columns[name][place] for name in _COLUMNS[1:5]
        )
        return [shorten(id_, 200), class_, prediction, round(probability, 4), state]

    def _path(self, image: int) -> Path:
        return (
            self._folder / FOLDER / str(image // PER_FOLDER) / f"{image}.{self.suffix}"
        )

    def _read(self, image: int) -> Image.Image:
        with Image.open(self._path(image)) as tile:
            return tile.convert("RGB")

    def _size(self, side: int) -> tuple[int, int]:
        """Width and height in the shape of the network's input, the longer one `side`."""
        rows, cols = self._input
        return max(1, round(side * cols / max(rows, cols))), max(
            1, round(side * rows / max(rows, cols))
        )

    @staticmethod
    def _save(picture: Image.Image, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=72, method=2)

    def _drawn(self, image: int) -> int:
        entry = {
            name: values[self._place[image]] for name, values in self._columns.items()
        }
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
        self._save(tile, self._path(image))
        return DRAWN

    def _tile(self, entry: dict[str, Any], data: bytes) -> Image.Image:
        """The network's crop in the shape of its input, never larger than the photo has pixels for."""
        box = tuple(float(entry[side]) for side in ("left", "top", "right", "bottom"))
        wide, high = box[2] - box[0], box[3] - box[1]
        size = self._size(min(_SIDE, math.ceil(max(wide, high))))
        shorter = min(entry["width"], entry["height"])
        longest = math.ceil(shorter * max(size[0] / wide, size[1] / high))
        photo = open_photo(Encoded(entry["id"], lambda: data, len(data)), longest).image
        across, down = photo.width / entry["width"], photo.height / entry["height"]
        return _cut(
            photo,
            (box[0] * across, box[1] * down, box[2] * across, box[3] * down),
            size,
        )


def _cut(
    photo: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Image.Image:
    left, top, right, bottom = box
    beyond = max(-left, -top, right - photo.width, bottom - photo.height)
    if beyond > 0.01:
        # A small photo was padded: there the network saw no photo.
        border = math.ceil(beyond)
        photo = ImageOps.expand(photo, border, _NEUTRAL)
        left, top, right, bottom = (
            edge + border for edge in (left, top, right, bottom)
        )
    within = (
        max(0.0, left),
        max(0.0, top),
        min(photo.width, right),
        min(photo.height, bottom),
    )
    return photo.resize(size, Image.Resampling.LANCZOS, box=within, reducing_gap=3.0)
