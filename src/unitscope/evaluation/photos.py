"""Photos: those of a data set that are evaluated, with labels and masks if they have any."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from unitscope.atlas.matching import matched
from unitscope.datasets import (
    Dataset,
    DatasetSource,
    MaskedDataset,
    open_dataset,
    open_masks,
    shown_id,
)
from unitscope.errors import (
    DatasetError,
    InputError,
    PhotoError,
    UnitscopeError,
)
from unitscope.evaluation.targets import Target, on_input, targets_of
from unitscope.inputs.batches import batches
from unitscope.inputs.photos import Encoded, Photo
from unitscope.labels import LabelsSource
from unitscope.model import Classifier

AnySource: TypeAlias = DatasetSource | Dataset | MaskedDataset


@dataclass(frozen=True)
class ReadPhotos:
    """Photos that were read: their places, inputs, and masks on the input, if any."""

    places: list[int]
    inputs: Tensor
    masks: list[Bool[np.ndarray, "row col"]]


@dataclass(frozen=True, eq=False)
class Photos:
    """The photos that are evaluated, by their `places` in a data set, in order.

    `targets` are of those that masks are known of, by place, and `words` say what they
    show; `labels` are the model's classes by place, None where a photo has none. `about`
    says how many photos they are of, and which were left out.
    """

    model: Classifier
    dataset: Dataset
    masked: MaskedDataset | None
    targets: Mapping[int, Target]
    words: str
    labels: Sequence[int | None]
    places: Sequence[int]
    about: str = ""

    @classmethod
    def of(
        cls,
        model: Classifier,
        source: AnySource,
        *,
        needs_masks: bool,
        split: str | None,
        classes: LabelsSource | None,
        names: LabelsSource | None,
    ) -> Photos:
        """All photos of a source; only those with targets, where masks are needed."""
        masked = source if isinstance(source, MaskedDataset) else None
        if needs_masks and masked is None:
            masked = _masks_of(source, split, classes, names)
        if masked is not None:
            dataset = masked.dataset
        elif isinstance(source, Dataset):
            dataset = source
        else:
            assert not isinstance(source, MaskedDataset)
            dataset = open_dataset(source, split=split, classes=classes)

        targets: dict[int, Target] = {}
        words = ""
        if needs_masks and masked is not None:
            found, words = targets_of(masked, model.labels)
            targets = {target.index: target for target in found}
        places = sorted(targets) if needs_masks else range(len(dataset))
        labels = _labels(model, dataset)
        return cls(model, dataset, masked, targets, words, labels, places)

    def drawn(self, count: int | None, seed: int, needs_label: bool) -> Photos:
        """So many of the photos, in a random order."""
        places = [
            place
            for place in self.places
            if not needs_label or self.labels[place] is not None
        ]
        if not places:
            raise DatasetError(
                f"no photo of {self.dataset.source} has a class of the model: explain the "
                "predicted classes, or name folders after the model's classes"
            )
        order = np.random.default_rng(seed).permutation(len(places))
        chosen = [places[place] for place in order[:count]]
        about = f"{len(chosen)} of {len(places)}, drawn by seed {seed}"
        without = len(self.dataset) - len(places)
        if without:
            what = "a label or a target" if self.targets else "a label"
            about += f"; {without} without {what} were left out"
        return dataclasses.replace(self, places=chosen, about=about)

    def shards(self, size: int) -> list[list[int]]:
        """The places in groups of about this size, none of them of one photo alone."""
        number = max(1, len(self.places) // size)
        parts = np.array_split(np.array(self.places, dtype=np.int64), number)
        return [part.tolist() for part in parts]

    def fingerprint(self) -> str:
        """A SHA-256 over the data set and the masks that are compared."""
        known = self.dataset if self.masked is None else self.masked
        return hashlib.sha256(
            f"{known.fingerprint()}{self.words}".encode()
        ).hexdigest()

    def read(
        self, places: Sequence[int], skipped: dict[str, str]
    ) -> ReadPhotos | None:
        """Read some photos; those that cannot be are `skipped`, by id with the reason.

        None where none can be read.
        """
        encoded = [self._encoded(place) for place in places]
        place_of = {
            id(each): place for each, place in zip(encoded, places, strict=True)
        }

        def skip(number: int, error: UnitscopeError) -> None:
            skipped[self.id(places[number])] = shown_id(str(error))

        read = list(self._read(encoded, skip))
        kept, inputs, masks = [], [], []
        for photo, tensor in read:
            place = place_of[id(photo.source)]
            try:
                mask = self._mask(place, photo, tensor)
            except PhotoError as error:
                skipped[self.id(place)] = shown_id(str(error))
                continue
            kept.append(place)
            inputs.append(tensor)
            if mask is not None:
                masks.append(mask)
        if not kept:
            return None
        sizes = {tuple(tensor.shape) for tensor in inputs}
        if len(sizes) > 1:
            raise InputError(
                f"photos become inputs of {len(sizes)} sizes: maps are compared on inputs of "
                "one size; add a crop to the preprocessing (--preprocessing)"
            )
        like = self.model.like
        stacked = torch.stack(inputs).to(like.device, like.dtype)
        return ReadPhotos(kept, stacked, masks)

    def id(self, place: int) -> str:
        """The id of a photo, as text."""
        return shown_id(self.dataset.entries[place].id)

    def _read(
        self, encoded: list[Encoded], skip: object
    ) -> Iterator[tuple[Photo, Tensor]]:
        assert callable(skip)
        for batch in batches(
            encoded, self.model.preprocessing, len(encoded), skip
        ):
            yield from batch

    def _encoded(self, place: int) -> Encoded:
        entry = self.dataset.entries[place]
        return Encoded(entry.id, lambda: self.dataset.read(place), entry.size)

    def _mask(
        self, place: int, photo: Photo, tensor: Tensor
    ) -> Bool[np.ndarray, "row col"] | None:
        """Where the target is on the input; None where no masks are asked for."""
        target = self.targets.get(place)
        if target is None or self.masked is None:
            return None
        placement = self.model.preprocessing.placement(photo.size)
        size = (int(tensor.shape[1]), int(tensor.shape[2]))
        placement = dataclasses.replace(placement, input_size=size)
        return on_input(target.mask(self.masked.masks(place)), placement)


def _masks_of(
    source: AnySource,
    split: str | None,
    classes: LabelsSource | None,
    names: LabelsSource | None,
) -> MaskedDataset:
    if not isinstance(source, (str, os.PathLike)):
        raise DatasetError(
            "measures that need masks take the folder of a data set that has some, or what "
            f"open_masks returns, not a {type(source).__name__}"
        )
    return open_masks(source, split=split, classes=classes, names=names)


def _labels(model: Classifier, dataset: Dataset) -> Sequence[int | None]:
    """The model's class of each photo, None where it has none."""
    if not dataset.labelled:
        return [None] * len(dataset)
    targets = matched(dataset, model.labels).targets
    return [
        None if entry.label is None else targets[entry.label]
        for entry in dataset.entries
    ]
