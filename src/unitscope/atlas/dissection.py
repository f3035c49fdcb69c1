"""Dissection: which concepts the units of an atlas detect, over photos with masks (Bau et al. 2017)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from unitscope.atlas.observing import Observer, draw_of
from unitscope.atlas.runners import Runner, Telling
from unitscope.atlas.storage import (
    WORK,
    AtlasLayer,
    StoredAtlas,
    read_arrays,
    write_arrays,
)
from unitscope.atlas.summaries.concepts import Annotation, ConceptCounts, active_pixels
from unitscope.datasets import MaskedDataset, Masks, shown_id
from unitscope.errors import UnitscopeError
from unitscope.geometry import Placement, interpolation_weights
from unitscope.model import Classifier

RESOLUTION = 56
"""Maps and masks are compared on so many × so many pixels of the network's input (Bau et al. 2020)."""
DRAWS = 20
"""How often every photo's activation is paired with the masks of another photo, for the null."""
_SHARD = 256
_STATE = "concepts.safetensors"


@dataclass
class ConceptResult:
    """What one shard of masked photos gave: the counts of every layer, and photos that were skipped, with reasons."""

    shard: int
    counts: dict[str, ConceptCounts]
    photos: int
    skipped: list[tuple[str, str]]


@dataclass
class ConceptWork(Telling):
    """Counts where units are active and where concepts are, shard by shard.

    Photos come in an order drawn at random, the same in every run, so that those of a
    shard are no more alike than any others: for the null each photo's activation is
    paired with the masks of other photos of its shard.
    """

    observer: Observer
    masked: MaskedDataset
    thresholds: Mapping[str, Float[np.ndarray, " unit"]]
    shards: Sequence[Int64[np.ndarray, " photo"]]

    def empty(self) -> dict[str, ConceptCounts]:
        """The counts of no photos, for every layer."""
        categories = self.categories
        of = np.array(
            [categories.index(concept.category) for concept in self.masked.concepts],
            np.int64,
        )
        # A shard of two photos has one other photo for each.
        draws = min([DRAWS, *(len(shard) - 1 for shard in self.shards)])
        return {
            layer.name: ConceptCounts.empty(layer.units, of, len(categories), draws)
            for layer in self.observer.layers
        }

    @cached_property
    def categories(self) -> list[str]:
        """The categories of the concepts, sorted."""
        return sorted({concept.category for concept in self.masked.concepts})

    def __call__(self, shard: int) -> ConceptResult:
        """Count one shard."""
        skipped: list[tuple[str, str]] = []
        entries = self.masked.dataset.entries

        def skip(image: int, error: UnitscopeError) -> None:
            skipped.append((shown_id(entries[image].id), shown_id(str(error))))
            self.tell(0, 1)

        masks: dict[int, Masks] = {}
        for image in self.shards[shard].tolist():
            try:
                masks[image] = self.masked.masks(image)
            except UnitscopeError as error:
                skip(image, error)
        images = list(masks)
        place = {image: number for number, image in enumerate(images)}
        counts, photos = self.empty(), 0
        draws = len(next(iter(counts.values())).null_i)
        input_size = self.observer.model.input_shape[1:]
        pixels = {
            layer.name: interpolation_weights(
                layer.grid, layer.cells, input_size, (RESOLUTION, RESOLUTION)
            )
            for layer in self.observer.layers
        }
        thresholds = {
            name: values.astype(np.float32) for name, values in self.thresholds.items()
        }
        steps = np.linspace(1, max(len(images) - 1, 1), draws).astype(int)
        for seen in self.observer.run(images, skip):
            maps = {
                name: one.cpu().numpy()
                for name, (one, _) in self.observer.maps(seen.activations).items()
            }
            for number, (image, photo) in enumerate(
                zip(seen.images, seen.photos, strict=True)
            ):
                placement = self.observer.model.preprocessing.placement(photo.size)
                # Another photo's masks lie on this one as its own do: stretched over
                # all of it.
                others = [images[(place[image] + step) % len(images)] for step in steps]
                own, *null = (
                    self._annotation(masks[one], placement) for one in (image, *others)
                )
                for name, summary in counts.items():
                    active = active_pixels(
                        maps[name][number], thresholds[name], *pixels[name]
                    )
                    summary.update(active, own, null)
            photos += len(seen.images)
            self.tell(len(seen.images), 0)
        self.observer.digests.clear()
        return ConceptResult(shard, counts, photos, skipped)

    def _annotation(self, masks: Masks, placement: Placement) -> Annotation:
        """Masks as the network sees them: those of concepts that are in its crop."""
        labels = np.array(masks.labels, np.int64)
        seen = on_input(masks.pixels, placement, RESOLUTION)
        here = seen.any(axis=1)
        categories = self.categories
        annotated = np.array(
            sorted(
                categories.index(one) for one in masks.categories if one in categories
            ),
            np.int64,
        )
        return Annotation(seen[here], labels[here], annotated)


def on_input(
    masks: Bool[np.ndarray, "concept row col"], placement: Placement, resolution: int
) -> Bool[np.ndarray, "concept pixel"]:
    """Masks of a whole photo where the network's input lies on it, at the centres of resolution × resolution pixels."""
    _, rows, cols = masks.shape
    width, height = placement.photo_size
    centres = (np.arange(resolution) + 0.5) / resolution
    across = (placement.left + centres * (placement.right - placement.left)) / width
    down = (placement.top + centres * (placement.bottom - placement.top)) / height
    inside = ((down >= 0) & (down < 1))[:, None] & ((across >= 0) & (across < 1))
    row, col = (
        np.floor(part * count).clip(0, count - 1).astype(int)
        for part, count in ((down, rows), (across, cols))
    )
    found: np.ndarray = masks[:, row[:, None], col] & inside
    return found.reshape(len(masks), resolution * resolution)


def shards_of(masked: MaskedDataset) -> list[np.ndarray]:
    """The masked photos in an order drawn at random, in parts of nearly the same size."""
    order = np.argsort(
        [draw_of(entry.id) for entry in masked.dataset.entries], kind="stable"
    )
    return np.array_split(order.astype(np.int64), -(-len(order) // _SHARD))


def dissect(
    atlas: StoredAtlas,
    model: Classifier,
    masked: MaskedDataset,
    runner: Runner,
    key: str,
    progress: Callable[[int, int, int], None] | None = None,
) -> tuple[dict[str, ConceptCounts], dict[str, Any]]:
    """The counts of units and concepts over masked photos, and what the manifest says of them; stopped, it goes on.

    `key` tells what the counts are of: those of another are begun anew.
    """
    layers: list[AtlasLayer] = atlas.layers
    share = atlas.manifest["parameters"]["quantile"]
    thresholds = {
        layer.name: atlas.summary(layer.name).histogram.thresholds(share)[0]
        for layer in layers
    }
    observer = Observer(
        model, masked.dataset, layers, atlas.manifest["parameters"]["batch_size"]
    )
    shards = shards_of(masked)
    photos = lost = 0

    def tell(more: int, skipped: int) -> None:
        nonlocal photos, lost
        photos, lost = photos + more, lost + skipped
        if progress is not None:
            progress(photos, lost, total)

    work = ConceptWork(
        observer, masked, thresholds, shards, told=tell if runner.alone else None
    )
    counts = work.empty()
    state = _State.read(atlas, key, counts)
    todo = [shard for shard in range(len(shards)) if shard not in state.done]
    total = sum(len(shards[shard]) for shard in todo)
    for result in runner.run(work, todo):
        for name, one in result.counts.items():
            counts[name].merge(one)
        state.done.append(result.shard)
        state.photos += result.photos
        state.skipped += result.skipped
        state.write(atlas, key, counts)
        if not runner.alone:
            tell(result.photos, len(result.skipped))
    draws = len(next(iter(counts.values())).null_i)
    return counts, {
        "photos": state.photos,
        "skipped": sorted(state.skipped),
        "draws": draws,
        "resolution": RESOLUTION,
    }


@dataclass
class _State:
    """What is committed of a dissection: the shards that are done, beside their counts."""

    done: list[int]
    photos: int
    skipped: list[tuple[str, str]]

    @classmethod
    def read(
        cls, atlas: StoredAtlas, key: str, counts: dict[str, ConceptCounts]
    ) -> _State:
        path = atlas.path / WORK / _STATE
        if not path.is_file():
            return cls([], 0, [])
        arrays, metadata = read_arrays(path)
        state = json.loads(metadata["state"])
        if state["key"] != key:
            return cls([], 0, [])
        for name, summary in counts.items():
            begin = f"{name}/"
            found = {
                one.removeprefix(begin): array
                for one, array in arrays.items()
                if one.startswith(begin)
            }
            summary.merge(ConceptCounts.from_arrays(found))
        return cls(
            state["done"],
            state["photos"],
            [(id_, reason) for id_, reason in state["skipped"]],
        )

    def write(
        self, atlas: StoredAtlas, key: str, counts: Mapping[str, ConceptCounts]
    ) -> None:
        arrays = {
            f"{name}/{one}": array
            for name, summary in counts.items()
            for one, array in summary.arrays().items()
        }
        state = {
            "key": key,
            "done": sorted(self.done),
            "photos": self.photos,
            "skipped": sorted(self.skipped),
        }
        write_arrays(atlas.path / WORK / _STATE, arrays, {"state": json.dumps(state)})
