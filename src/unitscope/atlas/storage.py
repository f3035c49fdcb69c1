"""Storage: the folder of an atlas, opened by its manifest and read on demand."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64

from unitscope.atlas.disk.arrays import opened_arrays, write_arrays
from unitscope.atlas.disk.layout import (
    HEAD,
    SUMMARIES,
    TABLES,
    pooled_file,
    table_file,
)
from unitscope.atlas.disk.manifest import (
    MERGING,
    read_manifest,
    unfinished_merge,
)
from unitscope.atlas.disk.tables import read_table
from unitscope.atlas.summaries.head_sums import HeadShape
from unitscope.atlas.summaries.layer import LayerShape, LayerSummary
from unitscope.attribution.readout import Normalisation, Readout
from unitscope.attribution.scores import Scores
from unitscope.errors import AtlasError, near_matches
from unitscope.geometry import Axis, Grid

_Atlas = TypeVar("_Atlas", bound="StoredAtlas")


@dataclass(frozen=True)
class AtlasHeads:
    """What an atlas notes of heads of attention: their names, and the sizes of their sums."""

    names: tuple[str, ...]
    shape: HeadShape

    def plain(self) -> dict[str, Any]:
        """The heads as plain data."""
        return {
            "names": list(self.names),
            "outputs": [list(sizes) for sizes in self.shape.outputs],
            "output_scale": self.shape.output_scale,
            "contribution_scale": self.shape.contribution_scale,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> AtlasHeads:
        """The heads of plain data."""
        outputs = [
            (heads, tokens, width) for heads, tokens, width in plain["outputs"]
        ]
        shape = HeadShape(
            tuple(outputs), plain["output_scale"], plain["contribution_scale"]
        )
        return cls(tuple(plain["names"]), shape)


@dataclass(frozen=True)
class AtlasLayer:
    """One layer of an atlas: its name, its units, and where its cells lie on the input.

    `is_head` says whether its units are those that the head pools; the layer has their
    activations, whatever the pools make of them. `scale` is the power of two nearest to
    its largest activation on noise. `heads` is None unless the units are heads of
    attention: their maps are then the attention that they pay to the patches, 1 where
    all patches get as much and nothing else gets any.
    """

    name: str
    kind: str
    units: int
    cells: tuple[int, int]
    grid: Grid
    is_head: bool
    scale: float = field(repr=False)
    heads: AtlasHeads | None = field(default=None, repr=False)

    @property
    def noun(self) -> str:
        """What its units are called."""
        return "unit" if self.heads is None else "head"

    def unit_name(self, unit: int) -> str:
        """What a unit is called: its number, or "block.head"."""
        return str(unit) if self.heads is None else self.heads.names[unit]

    def plain(self) -> dict[str, Any]:
        """The layer as plain data."""
        rows = self.grid.rows
        cols = self.grid.cols
        return {
            "name": self.name,
            "kind": self.kind,
            "units": self.units,
            "cells": list(self.cells),
            "centres": {
                "rows": [rows.start, rows.step],
                "cols": [cols.start, cols.step],
                "traced": self.grid.traced,
            },
            "is_head": self.is_head,
            "scale": self.scale,
            **({} if self.heads is None else {"heads": self.heads.plain()}),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> AtlasLayer:
        """The layer of plain data."""
        rows, cols = plain["cells"]
        centres = plain["centres"]
        grid = Grid(
            Axis(*centres["rows"]),
            Axis(*centres["cols"]),
            bool(centres["traced"]),
        )
        return cls(
            name=plain["name"],
            kind=plain["kind"],
            units=plain["units"],
            cells=(rows, cols),
            grid=grid,
            is_head=plain["is_head"],
            scale=plain["scale"],
            heads=AtlasHeads.of(plain["heads"]) if "heads" in plain else None,
        )


class StoredAtlas:
    """The folder of an atlas.

    Opening one reads its manifest only; tables and arrays are read on demand. The
    `manifest` and the tables are documented in docs/atlas.md.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls: type[_Atlas], path: str | os.PathLike[str]) -> _Atlas:
        """Open an atlas.

        Raises AtlasError where there is none, one of another schema, or one whose merge
        was interrupted.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        if manifest["status"] == MERGING:
            raise unfinished_merge(folder)
        return cls(folder, manifest)

    def __repr__(self) -> str:
        layers = ", ".join(
            f"{layer.name} ({layer.units} units)" for layer in self.layers
        )
        images = self.manifest["data"]["images"]
        return (
            f"<{type(self).__name__} {str(self.path)!r}: {layers}; "
            f"{self.images:,} images of {images:,}>"
        )

    @functools.cached_property
    def layers(self) -> list[AtlasLayer]:
        """The layers that were scanned."""
        return [AtlasLayer.of(plain) for plain in self.manifest["layers"]]

    def layer(self, name: str | None = None) -> AtlasLayer:
        """A layer by name; without a name that of the head, or else the last.

        Raises AtlasError for a layer that was not scanned.
        """
        if name is None:
            of_head = (layer for layer in self.layers if layer.is_head)
            return next(of_head, self.layers[-1])

        for layer in self.layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in self.layers]
        raise AtlasError(
            f"layer '{name}' is not in this atlas{near_matches(name, names)}: it has "
            f"{', '.join(names)}"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's classes."""
        return tuple(self.manifest["model"]["labels"])

    @property
    def scores(self) -> Scores:
        """What the model's numbers are; the first atlases held softmax only."""
        return Scores.read(self.manifest["model"].get("scores", "softmax"))

    @property
    def no_accuracy(self) -> str:
        """Why no image is right or wrong; "" where they can be."""
        if self.scores is Scores.NONE:
            return "the network has no classes (scores 'none')"
        if len(self.labels) == 1:
            return (
                "the network has one logit and one label, which is always the largest: "
                "two labels make it a yes and a no"
            )
        return ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the images: the data set's own, or else the model's."""
        return tuple(self.manifest["data"]["classes"])

    @property
    def labelled(self) -> bool:
        """Whether the data set has labels; if not, the model's predictions are used."""
        return bool(self.manifest["data"]["labels"] == "given")

    @property
    def images(self) -> int:
        """The number of images that were scanned."""
        return int(self.manifest["scanned"]["images"])

    @property
    def complete(self) -> bool:
        """Whether all shards of the data set were scanned."""
        return bool(self.manifest["status"] == "complete")

    def has(self, table: str) -> bool:
        """Whether the atlas has a table."""
        return table_file(self.path, table).is_file()

    def table(
        self, name: str, columns: Sequence[str] | None = None, where: Any = None
    ) -> Any:
        """A table of the atlas, as a pyarrow.Table.

        `where` are filters as `pyarrow.parquet.read_table` takes them. Raises
        AtlasError for a table that the atlas does not have.
        """
        if name in TABLES and self.has(name):
            return read_table(table_file(self.path, name), columns, where)

        existing = [table for table in TABLES if self.has(table)]
        hint = "" if name in TABLES else near_matches(name, TABLES)
        known = ", ".join(existing) or "none yet, as the scan is not finished"
        raise AtlasError(
            f"this atlas has no table '{name}'{hint}: it has {known}"
        )

    def summary(self, layer: str | None = None) -> LayerSummary:
        """The summaries of a layer, read from disk now."""
        chosen = self.layer(layer)
        summary = self.empty_summary(chosen)
        for name, part in summary.parts.items():
            part.restore(self.arrays(f"{chosen.name}/{name}"))
        return summary

    def empty_summary(self, layer: AtlasLayer) -> LayerSummary:
        """The summaries of a layer before any image."""
        parameters = self.manifest["parameters"]
        shape = LayerShape(
            units=layer.units,
            cells=layer.cells,
            classes=len(self.classes),
            top=parameters["top"],
            sample=parameters["sample"],
            scale=layer.scale,
            heads=None if layer.heads is None else layer.heads.shape,
        )
        return LayerSummary(shape)

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays of the summaries whose names begin with `prefix/`, without it."""
        start = f"{prefix}/"
        with opened_arrays(self.path / SUMMARIES) as file:
            return {
                name.removeprefix(start): file.get_tensor(name)
                for name in file.keys()
                if name.startswith(start)
            }

    def part(self, name: str, *slices: slice) -> np.ndarray:
        """A part of one array of the summaries; only that part is read from disk.

        `slices` are those of its first axes.
        """
        with opened_arrays(self.path / SUMMARIES) as file:
            stored = file.get_slice(name)
            shape = stored.get_shape()
            if 0 in shape:
                return np.asarray(file.get_tensor(name))

            # Unlike arrays, files do not accept ends beyond the last index.
            pairs = zip(slices, shape, strict=False)
            bounded = tuple(slice(*part.indices(size)) for part, size in pairs)
            return np.asarray(stored[bounded])

    @functools.cached_property
    def readout(self) -> Readout | None:
        """How the head computes logits from pooled units, None if it is not exact."""
        head = self.manifest["model"]["head"]
        if head is None:
            return None

        norm = None
        if head["norm"] is not None:
            norm = Normalisation(head["norm"]["kind"], head["norm"]["eps"])
        with opened_arrays(self.path / HEAD) as file:
            return Readout(
                torch.from_numpy(file.get_tensor("weight")),
                torch.from_numpy(file.get_tensor("bias")),
                norm,
            )

    @property
    def head_pools_means(self) -> bool:
        """Whether the head's pooled units are the means of its layer's activations.

        Those of a maximum pool, say, are not; nor are those of maps of several sizes.
        """
        head = self.manifest["model"]["head"] or {}
        # The first atlases, of heads of one mean only, do not have them.
        sources = head.get("sources", ())
        return all(source["activations"] for source in sources)

    def pooled(
        self,
    ) -> Iterator[
        tuple[Float[np.ndarray, "image unit"], Int64[np.ndarray, " image"]]
    ]:
        """The head's pooled units and the images' places, shard by shard."""
        for shard in self.shards():
            with opened_arrays(pooled_file(self.path, shard)) as file:
                yield file.get_tensor("pooled"), file.get_tensor("images")

    def shards(self) -> list[int]:
        """The shards of the data set that are in the atlas."""
        return shards_in(self.path)


def shards_in(folder: Path) -> list[int]:
    """The shards that an atlas's summaries contain, none without summaries."""
    path = folder / SUMMARIES
    if not path.is_file():
        return []
    with opened_arrays(path) as file:
        metadata = file.metadata() or {}
    shards = json.loads(metadata.get("shards", "[]"))
    return [int(shard) for shard in shards]


def write_summaries(
    folder: Path, summaries: Mapping[str, LayerSummary], shards: Iterable[int]
) -> None:
    """Write the summaries of all layers as one file, which commits their shards."""
    arrays = {
        f"{layer}/{name}": array
        for layer, summary in summaries.items()
        for name, array in summary.arrays().items()
    }
    metadata = {"shards": json.dumps(sorted(shards))}
    write_arrays(folder / SUMMARIES, arrays, metadata)


def write_head(folder: Path, readout: Readout) -> None:
    """Write the head's weight and bias."""
    arrays = {
        "weight": readout.weight.cpu().numpy(),
        "bias": readout.bias.cpu().numpy(),
    }
    write_arrays(folder / HEAD, arrays)
