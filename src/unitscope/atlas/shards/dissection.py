"""Dissection: the concepts that an atlas's units detect, over photos with masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitscope.atlas.disk.arrays import read_arrays, write_arrays
from unitscope.atlas.disk.layout import WORK
from unitscope.atlas.image_hashes import hash_key_of
from unitscope.atlas.shards.concept_task import (
    RESOLUTION,
    ConceptResult,
    ConceptTask,
)
from unitscope.atlas.shards.observing import Observer
from unitscope.atlas.shards.pool import ShardPool
from unitscope.atlas.storage import StoredAtlas
from unitscope.atlas.summaries.concepts import ConceptCounts
from unitscope.datasets import MaskedDataset
from unitscope.model import Classifier

SHARD_SIZE = 256
"""The number of masked photos that are committed together."""

_STATE = "concepts.safetensors"


def dissect(
    atlas: StoredAtlas,
    model: Classifier,
    masked: MaskedDataset,
    pool: ShardPool,
    key: str,
    progress: Callable[[int, int, int], None] | None = None,
) -> tuple[dict[str, ConceptCounts], dict[str, Any]]:
    """Count units and concepts over masked photos (Bau et al. 2017).

    A dissection that was interrupted is resumed if its `key`, which identifies its
    inputs, is the same. `progress` is called with the numbers of photos done, skipped
    and to do. Returns the counts by layer, and the facts for the manifest.
    """
    shards = shards_of(masked)
    task = _task(atlas, model, masked, shards)
    state = _State.read(atlas.path / WORK / _STATE, key, task.empty())
    todo = [shard for shard in range(len(shards)) if shard not in state.done]
    total = sum(len(shards[shard]) for shard in todo)
    photos = skipped = 0

    def report(more_photos: int, more_skipped: int) -> None:
        nonlocal photos, skipped
        photos += more_photos
        skipped += more_skipped
        if progress is not None:
            progress(photos, skipped, total)

    if pool.in_process:
        task.on_progress = report
    for result in pool.run(task, todo):
        state.add(result)
        state.write(atlas.path / WORK / _STATE)
        if not pool.in_process:
            report(result.photos, len(result.skipped))

    facts = {
        "photos": state.photos,
        "skipped": sorted(state.skipped),
        "draws": task.draws,
        "resolution": RESOLUTION,
    }
    return state.counts, facts


def shards_of(masked: MaskedDataset) -> list[np.ndarray]:
    """The masked photos in a random order, in parts of nearly the same size."""
    hash_keys = [hash_key_of(entry.id) for entry in masked.dataset.entries]
    order = np.argsort(hash_keys, kind="stable").astype(np.int64)
    return np.array_split(order, -(-len(order) // SHARD_SIZE))


def _task(
    atlas: StoredAtlas,
    model: Classifier,
    masked: MaskedDataset,
    shards: list[np.ndarray],
) -> ConceptTask:
    parameters = atlas.manifest["parameters"]
    share = parameters["quantile"]
    layers = atlas.layers
    thresholds = {
        layer.name: atlas.summary(layer.name).histogram.thresholds(share)[0]
        for layer in layers
    }
    observer = Observer(model, masked.dataset, layers, parameters["batch_size"])
    return ConceptTask(observer, masked, thresholds, shards)


@dataclass
class _State:
    """The committed part of a dissection: its counts, and the shards they contain."""

    key: str
    counts: dict[str, ConceptCounts]
    done: list[int]
    photos: int
    skipped: list[tuple[str, str]]

    @classmethod
    def read(
        cls, path: Path, key: str, empty: dict[str, ConceptCounts]
    ) -> _State:
        """The state of a file; an empty one where there is none with this key."""
        fresh = cls(key, empty, done=[], photos=0, skipped=[])
        if not path.is_file():
            return fresh
        arrays, metadata = read_arrays(path)
        stored = json.loads(metadata["state"])
        if stored["key"] != key:
            return fresh

        for name, counts in empty.items():
            prefix = f"{name}/"
            of_layer = {
                array_name.removeprefix(prefix): array
                for array_name, array in arrays.items()
                if array_name.startswith(prefix)
            }
            counts.merge(ConceptCounts.from_arrays(of_layer))
        return cls(
            key=key,
            counts=empty,
            done=stored["done"],
            photos=stored["photos"],
            skipped=[(photo, reason) for photo, reason in stored["skipped"]],
        )

    def add(self, result: ConceptResult) -> None:
        """Add the result of a shard."""
        for name, counts in result.counts.items():
            self.counts[name].merge(counts)
        self.done.append(result.shard)
        self.photos += result.photos
        self.skipped += result.skipped

    def write(self, path: Path) -> None:
        """Commit the state."""
        stored = {
            "key": self.key,
            "done": sorted(self.done),
            "photos": self.photos,
            "skipped": sorted(self.skipped),
        }
        write_arrays(path, _named(self.counts), {"state": json.dumps(stored)})


def _named(counts: Mapping[str, ConceptCounts]) -> dict[str, np.ndarray]:
    return {
        f"{layer}/{name}": array
        for layer, layer_counts in counts.items()
        for name, array in layer_counts.arrays().items()
    }
