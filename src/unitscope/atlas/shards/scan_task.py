"""Scan task: one shard of a data set, observed, summarised and written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from unitscope.atlas.disk.arrays import write_arrays
from unitscope.atlas.disk.layout import pooled_file, rows_file, stamps_file
from unitscope.atlas.disk.tables import write_table
from unitscope.atlas.image_hashes import hash_key_of
from unitscope.atlas.shards.observing import ImageBatch, Observer
from unitscope.atlas.shards.pool import ShardTask
from unitscope.atlas.summaries.base import Observed, ObservedHeads
from unitscope.atlas.summaries.layer import LayerSummary
from unitscope.attribution.activations import Activations
from unitscope.datasets import shown_id
from unitscope.errors import UnitscopeError
from unitscope.residual.head import HEADS

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
    "notes",
)


@dataclass
class ShardResult:
    """The summaries of one shard, and the numbers of images seen and skipped."""

    shard: int
    summaries: dict[str, LayerSummary]
    images: int
    skipped: int


@dataclass
class ScanTask(ShardTask):
    """Scans shards: writes a shard's rows and pooled units, and returns its summaries.

    The files go into the atlas's `folder`. The same shard gives the same files, and
    summaries that merge to the same result, every time. `fresh` are the empty summaries
    for the next shard.
    """

    observer: Observer
    folder: Path
    shard_size: int
    labelled: bool
    fresh: dict[str, LayerSummary]

    def __call__(self, shard: int) -> ShardResult:
        """Scan one shard."""
        content = _ShardContent(self.observer, self.labelled, self.fresh)

        def skip(image: int, error: UnitscopeError) -> None:
            content.skip(image, error)
            self.report(0, 1)

        for batch in self.observer.run(self._images(shard), skip):
            content.add(batch)
            self.report(len(batch.images), 0)

        head, _ = self.observer.model.head_or_refusal()
        if head is not None and head.has_table:
            write_arrays(pooled_file(self.folder, shard), content.pooled())
        write_table(stamps_file(self.folder, shard), content.stamps())
        write_table(rows_file(self.folder, shard), content.rows())
        self.observer.digests.clear()

        summaries = self.fresh
        self.fresh = {
            name: summary.following() for name, summary in self.fresh.items()
        }
        return ShardResult(
            shard=shard,
            summaries=summaries,
            images=content.seen,
            skipped=content.skipped,
        )

    def _images(self, shard: int) -> range:
        begin = shard * self.shard_size
        end = begin + self.shard_size
        return range(begin, min(end, len(self.observer.dataset.entries)))


class _ShardContent:
    """The rows, pooled units and summaries of a shard while its batches come in."""

    def __init__(
        self,
        observer: Observer,
        labelled: bool,
        summaries: dict[str, LayerSummary],
    ) -> None:
        self._observer = observer
        self._entries = observer.dataset.entries
        self._labelled = labelled
        self._summaries = summaries
        self._measured: dict[int, dict[str, Any]] = {}
        self._pooled: list[np.ndarray] = []
        self._pooled_images: list[int] = []

    @property
    def seen(self) -> int:
        """The number of images that went through the network."""
        return sum("reason" not in row for row in self._measured.values())

    @property
    def skipped(self) -> int:
        """The number of images that were skipped."""
        return len(self._measured) - self.seen

    def skip(self, image: int, error: UnitscopeError) -> None:
        """Record that an image was skipped, and why."""
        self._measured[image] = {"reason": shown_id(str(error))}

    def add(self, batch: ImageBatch) -> None:
        """Record a batch."""
        activations = batch.activations
        predictions = activations.logits.argmax(dim=1).tolist()
        self._add_rows(batch, predictions)
        self._add_to_summaries(batch, predictions)
        if activations.units is not None:
            self._pooled.append(activations.units.cpu().numpy())
            self._pooled_images += batch.images

    def _add_rows(self, batch: ImageBatch, predictions: list[int]) -> None:
        preprocessing = self._observer.model.preprocessing
        logits = batch.activations.logits
        probabilities = self._observer.model.scores.probabilities(logits)
        best: list[float | None] = [None] * len(predictions)
        if probabilities is not None:
            best = probabilities.amax(dim=1).tolist()
        columns = zip(
            batch.images, batch.photos, predictions, best, strict=True
        )
        for image, photo, prediction, probability in columns:
            left, top, right, bottom = preprocessing.placement(photo.size).box
            width, height = photo.size
            self._measured[image] = {
                "prediction": prediction,
                "probability": probability,
                "width": width,
                "height": height,
                "left": left,
                "top": top,
                "right": right,
                "bottom": bottom,
                "notes": "\n".join(photo.notes) or None,
            }

    def _add_to_summaries(
        self, batch: ImageBatch, predictions: list[int]
    ) -> None:
        hash_keys = [
            hash_key_of(self._entries[image].id) for image in batch.images
        ]
        classes = self._classes(batch.images, predictions)
        for name, (maps, means) in self._observer.maps(
            batch.activations
        ).items():
            observed = Observed(
                maps=maps.cpu().numpy(),
                mean=means.cpu().numpy(),
                images=np.array(batch.images, np.int64),
                hash_keys=np.array(hash_keys, np.uint64),
                classes=classes,
                heads=_heads_of(batch.activations, predictions)
                if name == HEADS
                else None,
            )
            self._summaries[name].update(observed)

    def _classes(
        self, images: Sequence[int], predictions: list[int]
    ) -> Int64[np.ndarray, " image"]:
        """The labels of images, or else the predictions; −1 for no class."""
        if not self._labelled:
            return np.array(predictions, np.int64)
        labels = [self._entries[image].label for image in images]
        classes = [-1 if label is None else label for label in labels]
        return np.array(classes, np.int64)

    def pooled(self) -> dict[str, np.ndarray]:
        """The arrays of the file of pooled units."""
        units = self._observer.model.head.map_shape[0]
        pooled = np.zeros((0, units), np.float32)
        if self._pooled:
            pooled = np.concatenate(self._pooled)
        return {
            "pooled": pooled,
            "images": np.array(self._pooled_images, np.int64),
        }

    def rows(self) -> dict[str, list[Any]]:
        """The columns of the table of images, in the order of the data set."""
        columns: dict[str, list[Any]] = defaultdict(list)
        digests = self._observer.digests
        for image in sorted(self._measured):
            entry = self._entries[image]
            columns["image"].append(image)
            columns["id"].append(shown_id(entry.id))
            columns["label"].append(entry.label)
            columns["size"].append(entry.size)
            columns["digest"].append(digests.get(image))
            measured = self._measured[image]
            for name in _MEASURED:
                columns[name].append(measured.get(name))
        return dict(columns)

    def stamps(self) -> dict[str, list[int]]:
        """The columns of the table of modification times, in ns since the epoch."""
        images = sorted(self._measured)
        return {
            "image": images,
            "stamp": [self._entries[image].stamp for image in images],
        }


def _heads_of(
    activations: Activations, predictions: Sequence[int]
) -> ObservedHeads | None:
    """What heads of attention gave, to the predicted classes; None where there are none."""
    heads = activations.heads
    if heads is None:
        return None
    given = heads.contributions[range(len(predictions)), predictions]
    return ObservedHeads(
        given.cpu().numpy(),
        tuple(outputs.cpu().numpy() for outputs in heads.outputs),
    )
