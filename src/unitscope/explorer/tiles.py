"""Tiles: photos of a data set as small pictures of what the network saw of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image, ImageOps, features

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.image_hashes import digest_of
from unitscope.atlas.reading.images import reading_in
from unitscope.datasets import Dataset
from unitscope.errors import MissingError, UnitscopeError
from unitscope.inputs.photos import Encoded, open_photo
from unitscope.render.words import shorten

FOLDER = "images"
SPRITES = "sprites"
PER_FOLDER = 1000
"""Images in one folder; file browsers get slow with more."""

DRAWN = 0
STATES = ("", "photo not found", "photo cannot be read", "another photo now")
"""What pages show in place of a tile, by its state; "" where the tile is drawn."""

IN_SPRITE = 6
"""Images in a sprite."""

_NOT_FOUND, _UNREADABLE, _CHANGED = 1, 2, 3
_SIDE = 160
_SPRITE_COLUMNS = 3
# Larger than on a card, for screens with several pixels a CSS pixel.
_SPRITE_SIDE = 108
_GREY = (128, 128, 128)
_LANCZOS = Image.Resampling.LANCZOS
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
    "digest",
)

# Left, top, right and bottom, in pixels.
_Box: TypeAlias = tuple[float, float, float, float]


class Tiles:
    """The tiles of an atlas's images, each drawn into `folder` once, when needed.

    Units share their top images, so that one file an image takes much less space than
    pictures for each unit. A photo that is gone, unreadable or changed since the scan
    has a state that says so, and no file.
    """

    def __init__(
        self, atlas: Atlas, dataset: Dataset | None, folder: Path
    ) -> None:
        self.suffix = "webp" if features.check("webp") else "jpg"
        self._dataset = dataset
        self._folder = folder
        self._reading = reading_in(atlas)
        self._states: dict[int, int] = {}

        input_shape = atlas.manifest["model"]["input_shape"]
        *_, self._rows, self._cols = map(int, input_shape)

        # Probabilities are missing where the model's scores have none.
        columns = [
            name
            for name in _COLUMNS
            if name != "probability" or atlas.scores.has_probabilities
        ]
        table = atlas.table("images", columns)
        self._columns: dict[str, list[Any]] = table.to_pydict()
        images = self._columns["image"]
        self._places = {image: place for place, image in enumerate(images)}

    @property
    def missing(self) -> int:
        """The number of requested images without a tile."""
        return sum(state != DRAWN for state in self._states.values())

    @property
    def requested(self) -> int:
        """The number of requested images."""
        return len(self._states)

    def draw(self, image: int) -> int:
        """Draw an image's tile unless that was done; return its state."""
        if image not in self._states:
            self._states[image] = self._draw(image)
        return self._states[image]

    def file(self, image: int) -> Path:
        """The file of an image's tile; raises MissingError with the reason."""
        if image not in self._places:
            raise MissingError(f"there is no image {image} in this atlas")
        state = self.draw(image)
        if state != DRAWN:
            raise MissingError(STATES[state])
        return self._path(image)

    def sprite(self, name: str, images: Sequence[int]) -> Path:
        """The file `name` with the first images side by side, grey where one is missing.

        Raises MissingError where all are missing.
        """
        path = self._folder / SPRITES / f"{name}.{self.suffix}"
        if path.is_file():
            return path
        if not images:
            raise MissingError("this unit has no images")

        images = images[:IN_SPRITE]
        drawn = [image for image in images if self.draw(image) == DRAWN]
        if not drawn:
            raise MissingError(STATES[self.draw(images[0])])

        tiles = {image: self._read(image) for image in drawn}
        self._save(self._assembled(images, tiles), path)
        return path

    def _assembled(
        self, images: Sequence[int], tiles: dict[int, Image.Image]
    ) -> Image.Image:
        largest_side = max(max(tile.size) for tile in tiles.values())
        width, height = self._size(min(_SPRITE_SIDE, largest_side))
        rows = IN_SPRITE // _SPRITE_COLUMNS
        size = (_SPRITE_COLUMNS * width, rows * height)
        sprite = Image.new("RGB", size, _GREY)

        for rank, image in enumerate(images):
            if image not in tiles:
                continue
            tile = tiles[image].resize((width, height), _LANCZOS)
            row, column = divmod(rank, _SPRITE_COLUMNS)
            sprite.paste(tile, (column * width, row * height))
        return sprite

    def row(self, image: int) -> list[Any]:
        """What pages show of an image: id, class, prediction, probability and state.

        The state is "drawn" for images of which nothing is known yet.
        """
        entry = self._entry(image)
        unknown = _NOT_FOUND if self._dataset is None else DRAWN
        probability = entry.get("probability")
        return [
            shorten(entry["id"], 200),
            entry["class"],
            entry["prediction"],
            None if probability is None else round(probability, 4),
            self._states.get(image, unknown),
        ]

    def _entry(self, image: int) -> dict[str, Any]:
        place = self._places[image]
        return {name: values[place] for name, values in self._columns.items()}

    def _path(self, image: int) -> Path:
        folder = str(image // PER_FOLDER)
        name = f"{image}.{self.suffix}"
        return self._folder / FOLDER / folder / name

    def _read(self, image: int) -> Image.Image:
        with Image.open(self._path(image)) as tile:
            return tile.convert("RGB")

    def _size(self, side: int) -> tuple[int, int]:
        """Width and height in the shape of the network's input, the longer one `side`."""
        longer = max(self._rows, self._cols)
        width = round(side * self._cols / longer)
        height = round(side * self._rows / longer)
        return max(1, width), max(1, height)

    @staticmethod
    def _save(picture: Image.Image, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=72, method=2)

    def _draw(self, image: int) -> int:
        """Draw an image's tile, and return its state."""
        entry = self._entry(image)
        data = self._data(entry["id"])
        if data is None:
            return _NOT_FOUND
        if entry["digest"] is not None and digest_of(data) != entry["digest"]:
            return _CHANGED

        try:
            tile = self._tile(entry, data)
        except UnitscopeError:
            return _UNREADABLE
        self._save(tile, self._path(image))
        return DRAWN

    def _data(self, id: str) -> bytes | None:
        """The file of an image; None where it is gone."""
        if self._dataset is None:
            return None
        place = self._dataset.places.get(id)
        if place is None:
            return None
        try:
            return self._dataset.read(place)
        except (UnitscopeError, OSError):
            return None

    def _tile(self, entry: dict[str, Any], data: bytes) -> Image.Image:
        """The network's crop in the shape of its input, no larger than in the photo."""
        sides = ("left", "top", "right", "bottom")
        left, top, right, bottom = (float(entry[side]) for side in sides)
        width = right - left
        height = bottom - top
        longer = math.ceil(max(width, height))
        size = self._size(min(_SIDE, longer))

        # Photos may be decoded smaller, as long as the crop has the tile's pixels.
        tile_width, tile_height = size
        scale = max(tile_width / width, tile_height / height)
        shorter = min(entry["width"], entry["height"])
        longest = math.ceil(shorter * scale)
        source = Encoded(entry["id"], lambda: data, len(data))
        photo = open_photo(source, longest, self._reading).image

        across = photo.width / entry["width"]
        down = photo.height / entry["height"]
        box = (left * across, top * down, right * across, bottom * down)
        return _cropped(photo, box, size)


def _cropped(
    photo: Image.Image, box: _Box, size: tuple[int, int]
) -> Image.Image:
    """The part of a photo in a box, resized; grey where the box exceeds the photo."""
    left, top, right, bottom = box
    excess = max(-left, -top, right - photo.width, bottom - photo.height)
    if excess > 0.01:
        # The preprocessing padded a small photo.
        border = math.ceil(excess)
        photo = ImageOps.expand(photo, border, _GREY)
        left += border
        top += border
        right += border
        bottom += border

    within = (
        max(0.0, left),
        max(0.0, top),
        min(photo.width, right),
        min(photo.height, bottom),
    )
    return photo.resize(size, _LANCZOS, box=within, reducing_gap=3.0)
