"""Observing: images of a data set through the network, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unitscope.atlas.image_hashes import digest_of
from unitscope.atlas.storage import AtlasLayer
from unitscope.attribution.activations import Activations
from unitscope.attribution.arrays import cell_means
from unitscope.datasets import Dataset
from unitscope.errors import InputError, NonFiniteError, UnitscopeError
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.photos import Encoded, Photo
from unitscope.model import Classifier

# Called with the place of an image that is skipped, and the reason.
OnSkip: TypeAlias = Callable[[int, UnitscopeError], None]


@dataclass(frozen=True)
class ImageBatch:
    """Images that went through the network together.

    `images` are their places in the data set.
    """

    images: list[int]
    photos: list[Photo]
    activations: Activations


class Observer:
    """Sends images of a data set through a model, always in the same batches.

    The maps of `layers` are recorded. `digests` are those of the bytes that were read,
    by image.
    """

    def __init__(
        self,
        model: Classifier,
        dataset: Dataset,
        layers: Sequence[AtlasLayer],
        batch_size: int,
    ) -> None:
        self.model = model
        self.dataset = dataset
        self.layers = layers
        self.digests: dict[int, str] = {}
        self._batch_size = batch_size
        self._names = [layer.name for layer in layers if not layer.is_head]

    def maps(
        self, activations: Activations
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The layers' maps (batch, unit, row, col) and their means (batch, unit).

        Of the head's units they are activations, whatever its pools make of these.
        """
        pairs = {
            name: (maps, activations.pooled[name])
            for name, maps in activations.layers.items()
        }
        of_units, means = activations.of_units, activations.units
        if of_units is not None and means is not None:
            if of_units is not activations.feature_map:
                means = cell_means(of_units)
            for layer in self.layers:
                if layer.is_head:
                    pairs[layer.name] = of_units, means
        return pairs

    def run(
        self, images: Sequence[int], on_skip: OnSkip
    ) -> Iterator[ImageBatch]:
        """The images in batches.

        `on_skip` is called for each image that cannot be read, or on which the network
        fails.
        """
        encoded = [self._encoded(image) for image in images]
        pairs = zip(encoded, images, strict=True)
        image_of = {id(source): image for source, image in pairs}

        def on_unreadable(place: int, error: UnitscopeError) -> None:
            on_skip(images[place], error)

        preprocessing = self.model.preprocessing
        for read in batches(
            encoded, preprocessing, self._batch_size, on_unreadable
        ):
            if not read:
                continue
            photos = [photo for photo, _ in read]
            tensors = [tensor for _, tensor in read]
            places = [image_of[id(photo.source)] for photo in photos]
            self._check_shapes(photos, tensors)
            yield from self._forward(places, photos, tensors, on_skip)

    def _check_shapes(self, photos: list[Photo], tensors: list[Tensor]) -> None:
        expected = self.model.input_shape
        for photo, tensor in zip(photos, tensors, strict=True):
            if tuple(tensor.shape) != expected:
                raise InputError(
                    f"{photo.name} becomes an input of {_product(tensor.shape)} and "
                    f"others of {_product(expected)}: units can be compared on inputs "
                    "of one size only; add a crop to the preprocessing"
                )

    def _forward(
        self,
        images: list[int],
        photos: list[Photo],
        tensors: list[Tensor],
        on_skip: OnSkip,
    ) -> Iterator[ImageBatch]:
        like = self.model.like
        inputs = stacked(tensors).to(like.device, like.dtype)
        try:
            activations = self.model.activations(inputs, self._names)
        except NonFiniteError as error:
            if not self._weights_are_finite():
                raise
            if len(images) == 1:
                on_skip(images[0], error)
                return
            # Find the images on which the network fails.
            for image, photo, tensor in zip(
                images, photos, tensors, strict=True
            ):
                yield from self._forward([image], [photo], [tensor], on_skip)
            return
        yield ImageBatch(images, photos, activations)

    def _weights_are_finite(self) -> bool:
        return all(
            bool(torch.isfinite(parameter).all())
            for parameter in self.model.network.parameters()
        )

    def _encoded(self, image: int) -> Encoded:
        entry = self.dataset.entries[image]

        def read() -> bytes:
            data = self.dataset.read(image)
            self.digests[image] = digest_of(data)
            return data

        return Encoded(entry.id, read, entry.size)


def _product(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
