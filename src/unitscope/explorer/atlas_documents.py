"""Atlas documents: all that the explorer's pages are told of a unit atlas, by the names they ask for."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.neighbours import correlations
from unitscope.datasets import Dataset
from unitscope.errors import InputError, MissingError
from unitscope.explorer.atlas_contents import ClassContents, LayerContents
from unitscope.explorer.tiles import DRAWN, PER_FOLDER, STATES, Tiles
from unitscope.render.words import (
    number,
    percent,
    plural,
    power,
    shape,
    shorten,
    without_folders,
)

NEIGHBOURS = 8
"""How many neighbours are told of a unit."""

_CLASSES_A_CHUNK = 32


class AtlasContents:
    """What pages are told of an atlas: the columns of all units and classes at once, the rest in chunks.

    Every unit has `images` images by its maximum and by its mean. Photos are read from
    `dataset`, None where they are gone, and drawn into `folder` when they are asked
    for; where `drawn`, already when an image is told of, so that it is told at once
    whether there is a picture of it. Raises InputError where `images` is less than 1.
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
            raise InputError(f"a unit is shown with at least 1 image, not {images}")
        self._atlas, self._images, self._drawn = atlas, images, drawn
        self.tiles = Tiles(atlas, dataset, folder)
        self._classes = ClassContents(atlas, images)
        self._layers: dict[int, LayerContents] = {}

    @property
    def layers(self) -> int:
        """How many layers the atlas has."""
        return len(self._atlas.layers)

    def index(self) -> dict[str, Any]:
        """What every page needs: the layers with a column for each thing told of their units, and the classes."""
        return {
            **self._index,
            "tiles": {
                "perFolder": PER_FOLDER,
                "suffix": self.tiles.suffix,
                "states": list(STATES),
                "drawn": DRAWN,
            },
            "missing": self.tiles.missing,
        }

    @functools.cached_property
    def _index(self) -> dict[str, Any]:
        manifest = self._atlas.manifest
        return {
            "data": _last(manifest["data"]["source"]),
            "images": self._atlas.images,
            "given": manifest["data"]["labels"] == "given",
            # Ablation without labels: what the network says with all units stands for
            # the truth.
            "againstItself": (manifest.get("ablation") or {}).get("labels")
            == "predicted",
            "complete": self._atlas.complete,
            "quantile": manifest["parameters"]["quantile"],
            "layers": [
                self._layer(place).plain() for place in range(len(self._atlas.layers))
            ],
            "classes": self._classes.plain(),
            "classChunk": _CLASSES_A_CHUNK,
            "about": _about(self._atlas),
        }

    def units(self, place: int, chunk: int) -> dict[str, Any]:
        """The details of some units of the layer at a place, and rows of all images that they name."""
        layer = self._layer(place)
        told = layer.units(*self._bounds(place, chunk))
        shown = (
            image
            for one in told
            for part in ("maximum", "mean", "range")
            for image in one[part]["images"]
        )
        return {"units": told, "images": self._rows(shown)}

    def chunks(self, place: int) -> list[range]:
        """The units of the layer at a place, as they are told of together."""
        layer = self._layer(place)
        count = layer.layer.units
        return [
            range(begin, min(begin + layer.chunk, count))
            for begin in range(0, count, layer.chunk)
        ]

    def neighbours(self, place: int, chunk: int) -> dict[str, Any]:
        """The units of the layer that respond most like each of some units, and what was compared.

        Rows are [unit, correlation].
        """
        begin, end = self._bounds(place, chunk)
        found = correlations(self._atlas, self._layer(place).layer, range(begin, end))
        rows = [
            [
                [other, round(value, 4)]
                for other, value in found.nearest(unit - begin, NEIGHBOURS)
            ]
            for unit in range(begin, end)
        ]
        return {"of": found.of, "count": found.count, "units": rows}

    def classes(self, chunk: int) -> dict[str, Any]:
        """The details of some classes, and rows of all images that they name."""
        begin, count = chunk * _CLASSES_A_CHUNK, len(self._classes)
        if not 0 <= begin < count:
            raise MissingError(f"there is no part {chunk} of the {count} classes")
        told = self._classes.of(begin, min(begin + _CLASSES_A_CHUNK, count))
        return {
            "classes": told,
            "images": self._rows(
                image for one in told for image in (*one["found"], *one["missed"])
            ),
        }

    def class_chunks(self) -> range:
        """The numbers of the parts in which classes are told of."""
        return range(-(-len(self._classes) // _CLASSES_A_CHUNK))

    def tile(self, image: int) -> Path:
        """The file of an image as the network saw it, small; raises MissingError with the reason if there is none."""
        return self.tiles.file(image)

    def sprite(self, place: int, unit: int) -> Path:
        """The file of a unit's top images in one picture; raises MissingError where there is none of them."""
        layer = self._layer(place)
        if not 0 <= unit < layer.layer.units:
            raise MissingError(f"layer '{layer.layer.name}' has no unit {unit}")
        return self.tiles.sprite(f"{place}/{unit}", layer.shown(unit))

    def draw_sprite(self, place: int, unit: int) -> None:
        """Draw a unit's sprite where any of its images can be shown."""
        with contextlib.suppress(MissingError):
            self.sprite(place, unit)

    def _layer(self, place: int) -> LayerContents:
        if not 0 <= place < len(self._atlas.layers):
            raise MissingError(
                f"there is no layer at place {place}: this atlas has "
                f"{len(self._atlas.layers)}"
            )
        if place not in self._layers:
            self._layers[place] = LayerContents(
                self._atlas, self._atlas.layers[place], self._images
            )
        return self._layers[place]

    def _bounds(self, place: int, chunk: int) -> tuple[int, int]:
        chunks = self.chunks(place)
        if not 0 <= chunk < len(chunks):
            raise MissingError(
                f"there is no part {chunk} of layer '{self._atlas.layers[place].name}'"
            )
        return chunks[chunk].start, chunks[chunk].stop

    def _rows(self, shown: Iterable[int]) -> dict[int, Any]:
        images = sorted(set(shown))
        for image in images if self._drawn else ():
            self.tiles.draw(image)
        return {image: self.tiles.row(image) for image in images}


def _about(atlas: Atlas) -> list[list[Any]]:
    """What was scanned and how, as terms and what is said of each: a text, or a list of them."""
    manifest = atlas.manifest
    model, data, settings, scanned = (
        manifest[key] for key in ("model", "data", "parameters", "scanned")
    )
    head = model["head"]
    told: list[list[Any]] = [
        [
            "model",
            f"{model['architecture']} ({model['spec']}), {model['parameters']:,} "
            "parameters",
        ],
        ["weights", model["weights"]],
        ["SHA-256 of the weights", model["sha256"] or "not known"],
        [
            "head",
            "none that is exact: what units add to a logit was not measured"
            if head is None
            else f"{head['kind']}, reads {head['layer']}; it gives the network's logits "
            + (
                f"to {power(head['error'])} of their size"
                if head["error"]
                else "exactly"
            ),
        ],
        ["preprocessing", model["preprocessing"]],
        [
            "data set",
            f"{_last(data['source'])} ({data['kind']}), "
            f"{plural(data['images'], 'image')}",
        ],
        ["fingerprint of the data set", manifest["identity"]["data set"]],
        [
            "labels",
            f"{data['labels']}, {plural(len(data['classes']), 'class')}"
            + (
                ""
                if data["labels"] == "given"
                else ": the data set has none, so that classes are what the model says"
            ),
        ],
        [
            "images scanned",
            f"{scanned['images']:,}; {scanned['skipped']:,} were skipped as they could "
            "not be read",
        ],
        [
            "layers",
            [
                f"{layer.name} ({layer.kind}): {plural(layer.units, 'unit')} of "
                f"{shape(layer.cells)} cells"
                + (", read by the head" if layer.is_head else "")
                for layer in atlas.layers
            ],
        ],
        ["parameters", " · ".join(_lines(settings))],
    ]
    if manifest.get("concepts"):
        told.append(["concepts", _concept_lines(manifest["concepts"])])
    if manifest.get("ablation"):
        told.append(["ablation", _ablation_lines(manifest["ablation"])])
    told.append(
        [
            "versions",
            " · ".join(
                f"{name} {version}" for name, version in manifest["versions"].items()
            ),
        ]
    )
    told.append(["notes on the model", list(model["notes"])])
    told.append(["notes on the data set", list(data["notes"])])
    return [[term, _shown(said)] for term, said in told if said]


def _chance(units: float | None) -> str:
    return (
        "not counted, as there are too few"
        if units is None
        else f"{number(units)} on average"
    )


def _concept_lines(measured: dict[str, Any]) -> list[str]:
    """Where the masks came from, the parameters, and how many detectors there are against how many by chance."""
    detectors = measured.get("detectors", {})
    rest = {
        name: one
        for name, one in measured.items()
        if name not in ("identity", "detectors", "notes")
    }
    if "source" in rest:
        rest["source"] = _last(rest["source"])
    return [
        *_lines(rest),
        *(
            f"{layer}: {plural(found['units'], 'detector')} of "
            f"{plural(found['concepts'], 'concept')}; with masks of "
            f"other images {_chance(found['units_by_chance'][0])}"
            for layer, found in detectors.items()
        ),
        *measured.get("notes", []),
    ]


def _ablation_lines(measured: dict[str, Any]) -> list[str]:
    """What the ablation was measured on."""
    accuracy, low, high = measured["accuracy"]
    return [
        "each unit of the head's map off in turn, over "
        f"{plural(measured['images'], 'image')}, labels "
        f"{measured['labels']}; accuracy with all units on {percent(accuracy)} "
        f"(95% interval {percent(low)}–{percent(high)})",
        f"many units off: ranked on {plural(measured['ranking'], 'image')}, measured "
        "on the other "
        f"{plural(measured['reporting'], 'image')}; units off: "
        f"{_value(measured['sizes'])}",
    ]


def _lines(settings: dict[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {_value(value)}"
        for name, value in settings.items()
        if value not in (None, [])
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _shown(said: str | list[str]) -> str | list[str]:
    return (
        [without_folders(line) for line in said]
        if isinstance(said, list)
        else without_folders(said)
    )


def _last(path: str) -> str:
    """The last part of a path, of either kind."""
    return shorten(re.split(r"[/\\]", path.rstrip("/\\"))[-1], 120) or "the data set"
