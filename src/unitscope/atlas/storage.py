"""Stored atlas: what a scan leaves on disk, written so that it can be trusted, and read only where it is asked."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unitscope.atlas.summaries.layer import LayerShape, LayerSummary
from unitscope.attribution.readout import Normalisation, Readout
from unitscope.errors import AtlasError, MissingExtraError, near_matches, one_line
from unitscope.files import make_folder, written_whole
from unitscope.geometry import Axis, Grid

SCHEMA = "unitscope-atlas/1"
MANIFEST = "atlas.json"
SUMMARIES = "summaries.safetensors"
HEAD = "head.safetensors"
POOLED = "pooled"
ROWS = "rows"
WORK = ".scan"

_KEYS = (
    "status",
    "identity",
    "model",
    "data",
    "layers",
    "parameters",
    "scanned",
    "concepts",
    "ablation",
    "versions",
)

TABLES = (
    "images",
    "skipped",
    "classes",
    "units",
    "unit_classes",
    "top_images",
    "sample_images",
    "concepts",
    "unit_concepts",
    "unit_ablation",
    "class_ablation",
    "set_ablation",
)


_Atlas = TypeVar("_Atlas", bound="StoredAtlas")


@dataclass(frozen=True)
class AtlasLayer:
    """One layer of an atlas: its name and kind, how many units it has, and where its cells lie on the input.

    `is_head` says that it is the feature map which the head reads.
    """

    name: str
    kind: str
    units: int
    cells: tuple[int, int]
    grid: Grid
    is_head: bool
    scale: float = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        rows, cols = self.grid.rows, self.grid.cols
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
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> AtlasLayer:
        """From plain data."""
        centres = plain["centres"]
        grid = Grid(
            Axis(*centres["rows"]), Axis(*centres["cols"]), bool(centres["traced"])
        )
        rows, cols = plain["cells"]
        return cls(
            plain["name"],
            plain["kind"],
            plain["units"],
            (rows, cols),
            grid,
            plain["is_head"],
            plain["scale"],
        )


class StoredAtlas:
    """The folder of an atlas.

    Opening one reads its manifest only; tables and arrays are read when they are asked
    for. `manifest` is documented in docs/atlas.md, as are the tables.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls: type[_Atlas], path: str | os.PathLike[str]) -> _Atlas:
        """Open an atlas; raises AtlasError where there is none, or one of another schema."""
        folder = Path(path)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except FileNotFoundError:
            raise AtlasError(
                f"there is no atlas in '{folder}' (no {MANIFEST}): make one with "
                f"`unitscope scan SOURCE --out {folder}`"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AtlasError(
                f"the atlas in '{folder}' cannot be read ({error}): scan into another "
                "folder"
            ) from None
        if schema != SCHEMA:
            raise AtlasError(
                f"the atlas in '{folder}' has the schema {schema!r}, not {SCHEMA!r}: "
                "scan again"
            )
        lacking = [key for key in _KEYS if key not in manifest]
        if lacking:
            raise AtlasError(
                f"the manifest in '{folder}' lacks {', '.join(lacking)}: scan again "
                "into another folder"
            )
        return cls(folder, manifest)

    def __repr__(self) -> str:
        layers = ", ".join(
            f"{layer.name} ({layer.units} units)" for layer in self.layers
        )
        of = self.manifest["data"]["images"]
        return f"<{type(self).__name__} {str(self.path)!r}: {layers}; {self.images:,} images of {of:,}>"

    @functools.cached_property
    def layers(self) -> list[AtlasLayer]:
        """The layers that were scanned."""
        return [AtlasLayer.of(plain) for plain in self.manifest["layers"]]

    def layer(self, name: str | None = None) -> AtlasLayer:
        """A layer by name; the head's, or else the last, where none is named."""
        if name is None:
            return next(
                (layer for layer in self.layers if layer.is_head), self.layers[-1]
            )
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
    def classes(self) -> tuple[str, ...]:
        """The classes by which images are told apart: the data set's own, or else those that the model predicted."""
        return tuple(self.manifest["data"]["classes"])

    @property
    def images(self) -> int:
        """How many images were scanned."""
        return int(self.manifest["scanned"]["images"])

    @property
    def complete(self) -> bool:
        """Whether all shards of the data set are in it."""
        return bool(self.manifest["status"] == "complete")

    def has(self, table: str) -> bool:
        """Whether the atlas has a table."""
        return (self.path / f"{table}.parquet").is_file()

    def table(
        self, name: str, columns: Sequence[str] | None = None, where: Any = None
    ) -> Any:
        """A table of the atlas, as a pyarrow.Table; `where` are filters as `pyarrow.parquet.read_table` takes them.

        Raises AtlasError for a table that the atlas does not have.
        """
        path = self.path / f"{name}.parquet"
        if name not in TABLES or not path.is_file():
            there = [one for one in TABLES if self.has(one)]
            hint = "" if name in TABLES else near_matches(name, TABLES)
            known = ", ".join(there) or "none yet, as the scan is not done"
            raise AtlasError(f"this atlas has no table '{name}'{hint}: it has {known}")
        return read_table(path, columns, where)

    def summary(self, layer: str | None = None) -> LayerSummary:
        """All that was kept of a layer; its arrays are read from disk now."""
        found = self.layer(layer)
        summary = self.empty_summary(found)
        for name, part in summary.parts.items():
            part.restore(self.arrays(f"{found.name}/{name}"))
        return summary

    def empty_summary(self, layer: AtlasLayer) -> LayerSummary:
        """What is kept of a layer before an image was seen."""
        settings = self.manifest["parameters"]
        classes = len(self.classes)
        return LayerSummary(
            LayerShape(
                layer.units,
                layer.cells,
                classes,
                settings["top"],
                settings["sample"],
                layer.scale,
            )
        )

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays of the summaries whose names begin with `prefix/`, read from disk now."""
        with _opened(self.path / SUMMARIES) as file:
            begin = f"{prefix}/"
            return {
                key.removeprefix(begin): file.get_tensor(key)
                for key in file.keys()
                if key.startswith(begin)
            }

    def part(self, name: str, *places: slice) -> np.ndarray:
        """A part of one array of the summaries, `places` on its first axes; no more than it is read from disk."""
        with _opened(self.path / SUMMARIES) as file:
            whole = file.get_slice(name)
            sizes = whole.get_shape()
            if 0 in sizes:
                return np.asarray(file.get_tensor(name))
            # Unlike arrays, files do not take ends beyond the last place.
            within = tuple(
                slice(*one.indices(size))
                for one, size in zip(places, sizes, strict=False)
            )
            return np.asarray(whole[within])

    @functools.cached_property
    def readout(self) -> Readout | None:
        """How the head makes logits of pooled units; None where it is not exact."""
        head = self.manifest["model"]["head"]
        if head is None:
            return None
        with _opened(self.path / HEAD) as file:
            weight, bias = (
                torch.from_numpy(file.get_tensor("weight")),
                torch.from_numpy(file.get_tensor("bias")),
            )
        norm = head["norm"]
        return Readout(
            weight,
            bias,
            None if norm is None else Normalisation(norm["kind"], norm["eps"]),
        )

    def pooled(
        self,
    ) -> Iterator[tuple[Float[np.ndarray, "image unit"], Int64[np.ndarray, " image"]]]:
        """The head's pooled units of all images, shard by shard, each with the images' places in the data set."""
        for shard in self.shards():
            with _opened(pooled_file(self.path, shard)) as file:
                yield file.get_tensor("pooled"), file.get_tensor("images")

    def shards(self) -> list[int]:
        """The shards of the data set that are in the atlas."""
        return shards_in(self.path)


def shards_in(folder: Path) -> list[int]:
    """The shards that an atlas's summaries were put together from; none where there are no summaries."""
    path = folder / SUMMARIES
    if not path.is_file():
        return []
    with _opened(path) as file:
        return [
            int(shard)
            for shard in json.loads((file.metadata() or {}).get("shards", "[]"))
        ]


def rows_file(folder: Path, shard: int) -> Path:
    """The table of a shard's images in an atlas's folder."""
    return folder / ROWS / f"{shard:05d}.parquet"


def pooled_file(folder: Path, shard: int) -> Path:
    """The pooled units of a shard's images in an atlas's folder."""
    return folder / POOLED / f"{shard:05d}.safetensors"


def identity_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What an atlas is of: all that two scans must have in common to be one; the first atlases named no engine."""
    return {"engine": "torch", **manifest["identity"]}


def same_answers(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the models of two manifests gave the same logits for noise, but for what rounding may do elsewhere."""
    before, now = np.array(one.get("probe", [])), np.array(other.get("probe", []))
    return before.shape == now.shape and np.allclose(
        before, now, rtol=0, atol=1e-3 * float(np.abs(now).max(initial=0))
    )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, whole."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode("utf-8")
    except (
        UnicodeEncodeError
    ):  # paths may hold bytes that are no characters, for which JSON has escapes
        data = json.dumps(manifest, indent=1, allow_nan=False).encode("ascii")
    _write(folder / MANIFEST, data)


def write_summaries(
    folder: Path, summaries: Mapping[str, LayerSummary], shards: Iterable[int]
) -> None:
    """Write the summaries of all layers with the shards they are of, whole, in one file: that commits the shards."""
    arrays = {
        f"{layer}/{name}": array
        for layer, summary in summaries.items()
        for name, array in summary.arrays().items()
    }
    write_arrays(folder / SUMMARIES, arrays, {"shards": json.dumps(sorted(shards))})


def write_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as one safetensors file, whole."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _write(path, save(contiguous, None if metadata is None else dict(metadata)))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a safetensors file, and its metadata."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(
            file.metadata() or {}
        )


def write_head(folder: Path, readout: Readout) -> None:
    """Write the head's weight and bias."""
    arrays = {
        "weight": readout.weight.cpu().numpy(),
        "bias": readout.bias.cpu().numpy(),
    }
    write_arrays(folder / HEAD, arrays)


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns (arrays or lists, None for what is missing) as a Parquet table, whole."""
    import pyarrow

    table = pyarrow.table({name: _column(values) for name, values in columns.items()})
    with written_whole(make_folder(path.parent) / path.name) as temporary:
        parquet().write_table(table, temporary, compression="zstd")


@contextlib.contextmanager
def streamed_table(
    path: Path, kinds: Mapping[str, str]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A Parquet table written whole, some rows at a time, by the function that this gives; `kinds` are its columns."""
    import pyarrow

    schema = pyarrow.schema(list(kinds.items()))
    with (
        written_whole(make_folder(path.parent) / path.name) as temporary,
        parquet().ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):

        def write(columns: Mapping[str, Any]) -> None:
            table = pyarrow.table(
                {name: _column(values) for name, values in columns.items()}
            ).cast(schema)
            if table.num_rows:
                writer.write_table(table)

        yield write


def table_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Some columns of a Parquet table, a few thousand rows at a time."""
    with parquet().ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=4096, columns=list(columns))


def read_table(
    path: Path, columns: Sequence[str] | None = None, where: Any = None
) -> Any:
    """A Parquet table, or some columns of it; raises AtlasError where it is missing or damaged."""
    try:
        return parquet().read_table(
            path, columns=None if columns is None else list(columns), filters=where
        )
    except FileNotFoundError:
        raise AtlasError(
            f"'{path}' is missing: the atlas is not whole, get all of its files"
        ) from None
    except (OSError, ValueError) as error:
        raise AtlasError(
            f"'{path}' cannot be read ({one_line(error)}): scan again into another "
            "folder"
        ) from None


def _column(values: Any) -> Any:
    import pyarrow

    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pyarrow.array(values, from_pandas=True)  # NaN is written as missing
    return (
        values
        if isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray))
        else pyarrow.array(values)
    )


def parquet() -> Any:
    """The Parquet reader and writer of pyarrow; raises MissingExtraError without it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "atlas", "an atlas") from None
    return pyarrow.parquet


def _write(path: Path, data: bytes) -> None:
    with (
        written_whole(make_folder(path.parent) / path.name) as temporary,
        temporary.open("wb") as file,
    ):
        file.write(data)
        file.flush()
        # What comes after it relies on this: it must not reach the disk later.
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise AtlasError(
            f"'{path}' is missing: the scan is not done, or the atlas is damaged"
        ) from None
    except (SafetensorError, OSError) as error:
        raise AtlasError(
            f"'{path}' is damaged ({error}): scan again into another folder"
        ) from None
