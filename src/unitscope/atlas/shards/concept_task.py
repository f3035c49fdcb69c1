"""Concept task: one shard of photos with masks, counted (Bau et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64

from unitscope.atlas.shards.observing import ImageBatch, Observer, OnSkip
from unitscope.atlas.shards.pool import ShardTask
from unitscope.atlas.summaries.active_pixels import active_pixels
from unitscope.atlas.summaries.concepts import (
    Annotation,
    ConceptCounts,
)
from unitscope.datasets import MaskedDataset, Masks, shown_id
from unitscope.errors import UnitscopeError
from unitscope.geometry import Placement, interpolation_weights

RESOLUTION = 56
"""The pixels a side on which maps and masks are compared (Bau et al. 2020)."""
DRAWS = 20
"""The number of draws from the null: other photos whose masks are compared."""


@dataclass
class ConceptResult:
    """The counts of every layer on one shard, and the photos skipped, with reasons."""

    shard: int
    counts: dict[str, ConceptCounts]
    photos: int
    skipped: list[tuple[str, str]]


@dataclass
class ConceptTask(ShardTask):
    """Counts where units are active and where concepts are, shard by shard.

    Photos come in a random order, the same in every run, so that those of a shard are
    no more alike than any others. For the null each photo's activation is paired with
    the masks of other photos of its shard.
    """

    observer: Observer
    masked: MaskedDataset
    thresholds: Mapping[str, Float[np.ndarray, " unit"]]
    shards: Sequence[Int64[np.ndarray, " photo"]]

    @cached_property
    def categories(self) -> list[str]:
        """The categories of the concepts, sorted."""
        return sorted({concept.category for concept in self.masked.concepts})

    @cached_property
    def draws(self) -> int:
        """The number of draws from the null."""
        # In a shard of n photos there are n − 1 others for each.
        smallest = min(len(shard) for shard in self.shards)
        return min(DRAWS, smallest - 1)

    def empty(self) -> dict[str, ConceptCounts]:
        """The counts of no photos, for every layer."""
        categories = self.categories
        category_of = [
            categories.index(concept.category)
            for concept in self.masked.concepts
        ]
        return {
            layer.name: ConceptCounts.empty(
                units=layer.units,
                category_of=np.array(category_of, np.int64),
                categories=len(categories),
                null_draws=self.draws,
            )
            for layer in self.observer.layers
        }

    def __call__(self, shard: int) -> ConceptResult:
        """Count one shard."""
        result = ConceptResult(shard, self.empty(), photos=0, skipped=[])
        entries = self.masked.dataset.entries

        def skip(image: int, error: UnitscopeError) -> None:
            photo = shown_id(entries[image].id)
            result.skipped.append((photo, shown_id(str(error))))
            self.report(0, 1)

        masks = self._masks(self.shards[shard].tolist(), skip)
        images = list(masks)
        others = self._others(images)
        for batch in self.observer.run(images, skip):
            maps = self._maps(batch)
            pairs = zip(batch.images, batch.photos, strict=True)
            for place, (image, photo) in enumerate(pairs):
                # The masks of another photo are stretched over all of this one.
                placement = self.observer.model.preprocessing.placement(
                    photo.size
                )
                own = self._annotation(masks[image], placement)
                null = [
                    self._annotation(masks[other], placement)
                    for other in others[image]
                ]
                for name, counts in result.counts.items():
                    active = self._active(name, maps[name][place])
                    counts.update(active, own, null)
            result.photos += len(batch.images)
            self.report(len(batch.images), 0)

        self.observer.digests.clear()
        return result

    def _maps(self, batch: ImageBatch) -> dict[str, np.ndarray]:
        pairs = self.observer.maps(batch.activations)
        return {name: maps.cpu().numpy() for name, (maps, _) in pairs.items()}

    def _masks(self, images: Iterable[int], skip: OnSkip) -> dict[int, Masks]:
        masks: dict[int, Masks] = {}
        for image in images:
            try:
                masks[image] = self.masked.masks(image)
            except UnitscopeError as error:
                skip(image, error)
        return masks

    def _others(self, images: list[int]) -> dict[int, list[int]]:
        """For each image the images whose masks its activation is paired with."""
        count = len(images)
        farthest = max(count - 1, 1)
        steps = np.linspace(1, farthest, self.draws).astype(int)
        return {
            image: [images[(place + step) % count] for step in steps]
            for place, image in enumerate(images)
        }

    @cached_property
    def _weights(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The interpolation weights of each layer's cells, down and across."""
        input_size = self.observer.model.input_shape[1:]
        return {
            layer.name: interpolation_weights(
                layer.grid,
                layer.cells,
                input_size,
                (RESOLUTION, RESOLUTION),
            )
            for layer in self.observer.layers
        }

    def _active(
        self, layer: str, maps: Float[np.ndarray, "unit row col"]
    ) -> Bool[np.ndarray, "unit pixel"]:
        thresholds = self.thresholds[layer].astype(np.float32)
        return active_pixels(maps, thresholds, *self._weights[layer])

    def _annotation(self, masks: Masks, placement: Placement) -> Annotation:
        """Masks as the network sees them: those of concepts inside its crop."""
        on_crop = on_input(masks.pixels, placement, RESOLUTION)
        visible = on_crop.any(axis=1)
        labels = np.array(masks.labels, np.int64)
        categories = [
            self.categories.index(category)
            for category in masks.categories
            if category in self.categories
        ]
        return Annotation(
            masks=on_crop[visible],
            concepts=labels[visible],
            categories=np.array(sorted(categories), np.int64),
        )


def on_input(
    masks: Bool[np.ndarray, "concept row col"],
    placement: Placement,
    resolution: int,
) -> Bool[np.ndarray, "concept pixel"]:
    """Masks of a whole photo on the input, at resolution × resolution points."""
    _, rows, cols = masks.shape
    width, height = placement.photo_size
    centres = (np.arange(resolution) + 0.5) / resolution
    crop_width = placement.right - placement.left
    crop_height = placement.bottom - placement.top
    across = (placement.left + centres * crop_width) / width
    down = (placement.top + centres * crop_height) / height

    row, row_exists = _cells_at(down, rows)
    col, col_exists = _cells_at(across, cols)
    sampled = masks[:, row[:, None], col]
    exists = row_exists[:, None] & col_exists
    on_photo: np.ndarray = sampled & exists
    return on_photo.reshape(len(masks), resolution * resolution)


def _cells_at(
    places: Float[np.ndarray, " place"], cells: int
) -> tuple[Int64[np.ndarray, " place"], Bool[np.ndarray, " place"]]:
    """The cells at places from 0 to 1, and whether a place lies in that range."""
    inside = (places >= 0) & (places < 1)
    cell = np.floor(places * cells)
    return cell.clip(0, cells - 1).astype(int), inside
