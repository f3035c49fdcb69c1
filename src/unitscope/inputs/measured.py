"""Measured: any callable as a preprocessing, and where it puts the photo."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.errors import PhotoError, PreprocessingError, one_line
from unitscope.geometry import Placement
from unitscope.inputs.pictures import picture_of
from unitscope.inputs.ramps import NotMeasurableError, measured_placement

# Photos of two shapes, (width, height): an input size that both get does not depend on
# the photo.
_SHAPES = ((640, 480), (300, 500))

# A random choice between two results is missed where it falls the same way this often.
_REPEATS = 16


@dataclass(frozen=True)
class MeasuredPreprocessing:
    """A user's own callable (PIL image → tensor), and where it puts the photo.

    The callable is any function, torchvision pipeline or albumentation that maps an RGB
    PIL image to a (channel, row, col) tensor. Where it puts the photo is measured by
    sending ramps through it.
    """

    transform: Callable[[Image.Image], Any]
    note: str = ""
    _placements: dict[tuple[int, int], Placement] = field(
        default_factory=dict, repr=False, compare=False
    )

    @functools.cached_property
    def input_size(self) -> tuple[int, int] | None:
        """(rows, cols) of the network's input, or None when it depends on the photo."""
        sizes = set()
        for shape in _SHAPES:
            photo = Image.new("RGB", shape)
            _, rows, cols = self(photo).shape
            sizes.add((rows, cols))
        if len(sizes) > 1:
            return None
        return sizes.pop()

    @functools.cached_property
    def channels(self) -> int:
        """How many channels the network's input has."""
        photo = Image.new("RGB", (64, 64))
        channels, _, _ = self(photo).shape
        return channels

    def __call__(self, image: Image.Image) -> Float[Tensor, "channel row col"]:
        """Apply the callable to an upright RGB photo.

        Raises PreprocessingError where it does not return (channel, row, col).
        """
        tensor = self._applied(image)
        if not isinstance(tensor, Tensor):
            raise PreprocessingError(
                f"the preprocessing {self._name} gave {type(tensor).__name__}, not a "
                "(channel, row, col) tensor: end it with a conversion to a tensor"
            )
        if tensor.ndim == 4 and tensor.shape[0] == 1:
            tensor = tensor[0]
        if (
            tensor.ndim != 3
            or not tensor.is_floating_point()
            or not tensor.numel()
        ):
            kind = f"a {tensor.dtype}" if tensor.numel() else "an empty"
            raise PreprocessingError(
                f"the preprocessing {self._name} gave {kind} tensor of shape "
                f"{tuple(tensor.shape)}, not floating-point (channel, row, col)"
            )
        return tensor

    def placement(self, photo_size: tuple[int, int]) -> Placement:
        """Measure where the network's input lies on a photo of (width, height).

        Raises PreprocessingError where the callable is random, or is not a resize and a
        crop.
        """
        if photo_size not in self._placements:
            self._placements[photo_size] = self._measure(photo_size)
        return self._placements[photo_size]

    def undo(self, tensor: Float[Tensor, "channel row col"]) -> Image.Image:
        """Turn a network's input back into a picture.

        Its scale is not known, so its range is stretched to 0–255.
        """
        return picture_of(tensor)

    def describe(self) -> str:
        """One line in words."""
        name = self._name
        if not hasattr(self.transform, "__name__"):
            name = " ".join(repr(self.transform).split())
        note = f" — {self.note}" if self.note else ""
        return f"own callable {name}{note}"

    @property
    def _name(self) -> str:
        kind = type(self.transform).__name__
        name = getattr(self.transform, "__name__", kind)
        return str(name)

    def _applied(self, image: Image.Image) -> Any:
        try:
            return self.transform(image)
        except PhotoError:
            raise
        except Exception as error:
            raise PreprocessingError(
                f"the preprocessing {self._name} failed on a PIL image of "
                f"{image.width}×{image.height} pixels "
                f"({type(error).__name__}: {one_line(error)}): it must map a PIL image "
                "to a (channel, row, col) tensor"
            ) from error

    def _measure(self, photo_size: tuple[int, int]) -> Placement:
        if not self._is_steady:
            raise PreprocessingError(
                f"the preprocessing {self._name} gives another result each time: use "
                "the one for evaluation, without random crops or flips"
            )
        try:
            return measured_placement(self._on_processor, photo_size)
        except NotMeasurableError as error:
            raise PreprocessingError(
                f"where the preprocessing {self._name} puts the photo cannot be "
                f"measured ({error}): pass unitscope.Preprocessing(resize=…, crop=…, "
                "mean=…, std=…) instead"
            ) from None

    def _on_processor(self, image: Image.Image) -> Tensor:
        return self(image).cpu()

    @functools.cached_property
    def _is_steady(self) -> bool:
        """Whether the same photo always gives the same input."""
        generator = np.random.default_rng(0)
        noise = generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        first = self(Image.fromarray(noise))
        for _ in range(_REPEATS - 1):
            again = self(Image.fromarray(noise))
            if not torch.equal(first, again):
                return False
        return True
