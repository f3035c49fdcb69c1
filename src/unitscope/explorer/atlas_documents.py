"""Atlas documents: everything that the explorer's pages ask about a unit atlas."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.neighbours import correlations
from unitscope.datasets import Dataset
from unitscope.errors import InputError, MissingError
from unitscope.explorer.atlas_about import about, last_part
from unitscope.explorer.class_contents import ClassContents
from unitscope.explorer.layer_contents import LayerContents
from unitscope.explorer.tiles import DRAWN, PER_FOLDER, STATES, Tiles

NEIGHBOURS = 8
"""How many neighbours a unit's page lists."""

_CLASSES_A_CHUNK = 32


class AtlasDocuments:
    """The documents about an atlas: columns of all units and classes, details in chunks.

    Every unit has `images` images by its maximum and by its mean. `dataset` holds the
    photos, None where they are gone. They are drawn into `folder` on request; with
    `drawn` as soon as a document names them, so that it also says whether there is a
    picture. Raises InputError where `images` is less than 1.
    """

    def __init__(
        self,
        atlas: Atlas,
        dataset: Dataset | None,
        folder: Path,
        images: int = 9,
        *,
        drawn: bool = False,
    ) -> None:
        if images < 1:
            raise InputError(
                f"a unit is shown with at least 1 image, not {images}"
            )
        self.tiles = Tiles(atlas, dataset, folder)
        self._atlas = atlas
        self._images = images
        self._draws_named_images = drawn
        self._classes = ClassContents(atlas, images)
        self._layers: dict[int, LayerContents] = {}

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self._atlas.layers)

    def index(self) -> dict[str, Any]:
        """What every page needs: columns of all units and classes, and the tiles."""
        tiles = {
            "perFolder": PER_FOLDER,
            "suffix": self.tiles.suffix,
            "states": list(STATES),
            "drawn": DRAWN,
        }
        return {**self._index, "tiles": tiles, "missing": self.tiles.missing}

    @functools.cached_property
    def _index(self) -> dict[str, Any]:
        atlas, manifest = self._atlas, self._atlas.manifest
        data = manifest["data"]
        ablation = manifest.get("ablation") or {}
        return {
            "data": last_part(data["source"]),
            "images": atlas.images,
            "given": data["labels"] == "given",
            # Without labels, ablation is compared with the predictions of the whole
            # network.
            "againstItself": ablation.get("labels") == "predicted",
            "complete": atlas.complete,
            "quantile": manifest["parameters"]["quantile"],
            "layers": [
                self._layer(place).plain() for place in range(self.layers)
            ],
            "classes": self._classes.plain(),
            "classChunk": _CLASSES_A_CHUNK,
            "about": about(atlas),
        }

    def units(self, place: int, chunk: int) -> dict[str, Any]:
        """The pages of a chunk of units of a layer, and rows about all their images."""
        units = self._unit_range(place, chunk)
        pages = self._layer(place).units(units.start, units.stop)

        images: list[int] = []
        for page in pages:
            for part in ("maximum", "mean", "range"):
                images += page[part]["images"]
        return {"units": pages, "images": self._image_rows(images)}

    def chunks(self, place: int) -> list[range]:
        """The units of a layer, as documents put them together."""
        contents = self._layer(place)
        units = range(contents.layer.units)
        step = contents.chunk
        return [units[begin : begin + step] for begin in units[::step]]

    def neighbours(self, place: int, chunk: int) -> dict[str, Any]:
        """For each unit of a chunk, the units of its layer that respond most alike.

        Rows are [unit, correlation]; `of` and `count` say what was compared.
        """
        units = self._unit_range(place, chunk)
        measured = correlations(self._atlas, self._layer(place).layer, units)

        neighbours = []
        for position in range(len(units)):
            nearest = measured.nearest(position, NEIGHBOURS)
            rows = [[unit, round(value, 4)] for unit, value in nearest]
            neighbours.append(rows)
        return {
            "of": measured.of,
            "count": measured.count,
            "units": neighbours,
        }

    def classes(self, chunk: int) -> dict[str, Any]:
        """The pages of a chunk of classes, and rows about all their images."""
        begin, count = chunk * _CLASSES_A_CHUNK, len(self._classes)
        if not 0 <= begin < count:
            raise MissingError(
                f"there is no part {chunk} of the {count} classes"
            )
        end = min(begin + _CLASSES_A_CHUNK, count)
        pages = self._classes.pages(begin, end)

        images: list[int] = []
        for page in pages:
            images += page["found"]
            images += page["missed"]
        return {"classes": pages, "images": self._image_rows(images)}

    def class_chunks(self) -> range:
        """The numbers of the chunks of classes."""
        return range(-(-len(self._classes) // _CLASSES_A_CHUNK))

    def tile(self, image: int) -> Path:
        """The file of an image as the network saw it, small.

        Raises MissingError with the reason where there is none.
        """
        return self.tiles.file(image)

    def sprite(self, place: int, unit: int) -> Path:
        """The file of a unit's top images, side by side; raises MissingError."""
        contents = self._layer(place)
        layer = contents.layer
        if not 0 <= unit < layer.units:
            raise MissingError(f"layer '{layer.name}' has no unit {unit}")
        name = f"{place}/{unit}"
        images = contents.top_images(unit)
        return self.tiles.sprite(name, images)

    def draw_sprite(self, place: int, unit: int) -> None:
        """Draw a unit's sprite, unless all its images are gone."""
        with contextlib.suppress(MissingError):
            self.sprite(place, unit)

    def _layer(self, place: int) -> LayerContents:
        if not 0 <= place < self.layers:
            raise MissingError(
                f"there is no layer at place {place}: this atlas has {self.layers}"
            )
        if place not in self._layers:
            layer = self._atlas.layers[place]
            self._layers[place] = LayerContents(
                self._atlas, layer, self._images
            )
        return self._layers[place]

    def _unit_range(self, place: int, chunk: int) -> range:
        chunks = self.chunks(place)
        if not 0 <= chunk < len(chunks):
            name = self._atlas.layers[place].name
            raise MissingError(f"there is no part {chunk} of layer '{name}'")
        return chunks[chunk]

    def _image_rows(self, named: Iterable[int]) -> dict[int, Any]:
        images = sorted(set(named))
        if self._draws_named_images:
            for image in images:
                self.tiles.draw(image)
        return {image: self.tiles.row(image) for image in images}
