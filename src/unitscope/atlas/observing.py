"""Observing: one shard of a data set through the network, and what is kept of it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitscope.atlas.runners import Telling
from unitscope.atlas.storage import (
    AtlasLayer,
    pooled_file,
    rows_file,
    write_arrays,
    write_table,
)
from unitscope.atlas.summaries.base import Observed
from unitscope.atlas.summaries.layer import LayerSummary
from unitscope.attribution.activations import Activations
from unitscope.attribution.classes import probabilities_of
from unitscope.datasets import Dataset, shown_id
from unitscope.errors import InputError, NonFiniteError, UnitscopeError
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.photos import Encoded, Photo
from unitscope.model import Classifier


@dataclass(frozen=True)
class Seen:
    """Images that went through the network together: their places in the data set, photos and activations."""

    images: list[int]
    photos: list[Photo]
    activations: Activations


class Observer:
    """Sends images of a data set through a model, always in the same batches, and tells of those that cannot be read.

    The maps of `layers` are kept, and `digests` of the bytes that were read, by image.
    """

    def __init__(
        self,
        model: Classifier,
        dataset: Dataset,
        layers: Sequence[AtlasLayer],
        batch_size: int,
    ) -> None:
        self.model, self.dataset, self.layers, self._batch_size = (
            model,
            dataset,
            layers,
            batch_size,
        )
        self._names = [layer.name for layer in layers if not layer.is_head]
        self.digests: dict[int, str] = {}

    def maps(self, activations: Activations) -> dict[str, tuple[Tensor, Tensor]]:
        """By name the maps of the layers (batch, unit, row, col), and their means (batch, unit)."""
        found = {
            name: (maps, activations.pooled[name])
            for name, maps in activations.layers.items()
        }
        for layer in self.layers:
            if (
                layer.is_head
                and activations.feature_map is not None
                and activations.units is not None
            ):
                found[layer.name] = activations.feature_map, activations.units
        return found

    def run(
        self, images: Sequence[int], skip: Callable[[int, UnitscopeError], None]
    ) -> Iterator[Seen]:
        """The images in batches; `skip` is told of each that cannot be read, or on which the network fails."""
        encoded = [self._encoded(image) for image in images]
        position = {id(one): image for one, image in zip(encoded, images, strict=True)}

        def unread(place: int, error: UnitscopeError) -> None:
            skip(images[place], error)

        for read in batches(
            encoded, self.model.preprocessing, self._batch_size, unread
        ):
            if read:
                places = [position[id(photo.source)] for photo, _ in read]
                yield from self._through(
                    places,
                    [photo for photo, _ in read],
                    [tensor for _, tensor in read],
                    skip,
                )

    def _through(
        self,
        images: list[int],
        photos: list[Photo],
        tensors: list[Tensor],
        skip: Callable[[int, UnitscopeError], None],
    ) -> Iterator[Seen]:
        expected = self.model.input_shape
        for photo, tensor in zip(photos, tensors, strict=True):
            if tuple(tensor.shape) != expected:
                raise InputError(
                    f"{photo.name} becomes an input of "
                    f"{'×'.join(map(str, tensor.shape))} and others of "
                    f"{'×'.join(map(str, expected))}: units can be compared on inputs "
                    "of one size only; add a crop to "
                    "the preprocessing"
                )
        like = self.model.like
        try:
            found = self.model.activations(
                stacked(tensors).to(like.device, like.dtype), self._names
            )
        except NonFiniteError as error:
            if any(
                not bool(torch.isfinite(one).all())
                for one in self.model.network.parameters()
            ):
                raise
            if len(images) == 1:
                skip(images[0], error)
                return
            for image, photo, tensor in zip(images, photos, tensors, strict=True):
                yield from self._through([image], [photo], [tensor], skip)
            return
        yield Seen(images, photos, found)

    def _encoded(self, image: int) -> Encoded:
        entry = self.dataset.entries[image]

        def read() -> bytes:
            data = self.dataset.read(image)
            self.digests[image] = digest_of(data)
            return data

        return Encoded(entry.id, read, entry.size)


@dataclass
class ShardResult:
    """What one shard gave: the summaries of the layers, and how many images were seen and how many skipped."""

    shard: int
    summaries: dict[str, LayerSummary]
    images: int
    skipped: int


@dataclass
class ShardWork(Telling):
    """Scans shards: writes a shard's rows and pooled units into the atlas's folder, and gives its summaries.

    The same shard gives the same files, and what adds up to the same summaries, every
    time. `fresh` are the empty summaries for the next one.
    """

    observer: Observer
    folder: Path
    shard_size: int
    labelled: bool
    fresh: dict[str, LayerSummary]

    def __call__(self, shard: int) -> ShardResult:
        """Scan one shard."""
        entries = self.observer.dataset.entries
        images = range(
            shard * self.shard_size, min((shard + 1) * self.shard_size, len(entries))
        )
        summaries = self.fresh
        rows: dict[int, dict[str, Any]] = {}
        pooled: list[np.ndarray] = []
        places: list[int] = []

        def skip(image: int, error: UnitscopeError) -> None:
            rows[image] = {"reason": shown_id(str(error))}
            self.tell(0, 1)

        for seen in self.observer.run(images, skip):
            self._take(seen, summaries, rows)
            if seen.activations.units is not None:
                pooled.append(seen.activations.units.cpu().numpy())
                places += seen.images
            self.tell(len(seen.images), 0)
        if self.observer.model.head.exact:
            units = self.observer.model.head.map_shape[0]
            joined = (
                np.concatenate(pooled) if pooled else np.zeros((0, units), np.float32)
            )
            arrays = {"pooled": joined, "images": np.array(places, np.int64)}
            write_arrays(pooled_file(self.folder, shard), arrays)
        write_table(rows_file(self.folder, shard), self._columns(rows))
        self.observer.digests.clear()
        self.fresh = {name: summary.following() for name, summary in summaries.items()}
        done = sum("reason" not in row for row in rows.values())
        return ShardResult(shard, summaries, done, len(rows) - done)

    def _take(
        self,
        seen: Seen,
        summaries: dict[str, LayerSummary],
        rows: dict[int, dict[str, Any]],
    ) -> None:
        entries = self.observer.dataset.entries
        logits = seen.activations.logits
        best = logits.argmax(dim=1).tolist()
        probabilities = probabilities_of(logits).amax(dim=1).tolist()
        labels = [entries[image].label for image in seen.images]
        classes = (
            [-1 if label is None else label for label in labels]
            if self.labelled
            else best
        )
        for image, photo, prediction, probability in zip(
            seen.images, seen.photos, best, probabilities, strict=True
        ):
            left, top, right, bottom = self.observer.model.preprocessing.placement(
                photo.size
            ).box
            rows[image] = {
                "prediction": prediction,
                "probability": probability,
                "width": photo.size[0],
                "height": photo.size[1],
                **{"left": left, "top": top, "right": right, "bottom": bottom},
            }
        images = np.array(seen.images, np.int64)
        draws = np.array(
            [draw_of(entries[image].id) for image in seen.images], np.uint64
        )
        known = np.array(classes, np.int64)
        for name, (maps, means) in self.observer.maps(seen.activations).items():
            summaries[name].update(
                Observed(maps.cpu().numpy(), means.cpu().numpy(), images, draws, known)
            )

    def _columns(self, rows: dict[int, dict[str, Any]]) -> dict[str, list[Any]]:
        entries, digests = self.observer.dataset.entries, self.observer.digests
        columns: dict[str, list[Any]] = defaultdict(list)
        for image in sorted(rows):
            entry = entries[image]
            columns["image"].append(image)
            columns["id"].append(shown_id(entry.id))
            columns["label"].append(entry.label)
            columns["size"].append(entry.size)
            columns["stamp"].append(entry.stamp)
            columns["digest"].append(digests.get(image))
            for name in _MEASURED:
                columns[name].append(rows[image].get(name))
        return dict(columns)


_MEASURED = (
    "prediction",
    "probability",
    "width",
    "height",
    "left",
    "top",
    "right",
    "bottom",
    "reason",
)


def digest_of(data: bytes) -> str:
    """What an image's bytes are known by: BLAKE2b, 128 bits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def draw_of(id_: str) -> int:
    """A random number, 64 bits, that belongs to an image's id: the same in every run."""
    return int.from_bytes(
        hashlib.blake2b(id_.encode("utf-8", "surrogateescape"), digest_size=8).digest(),
        "little",
    )
