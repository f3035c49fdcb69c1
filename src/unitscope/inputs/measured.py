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
from unitscope.inputs.boards import NotMeasurableError, measured_placement
from unitscope.inputs.pictures import picture_of
from unitscope.inputs.transformed import as_input, fitting_argument

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
    sending checkerboards through it. One that crops off borders of one colour is
    refused; other crops that depend on what the photo shows are not noticed.
    """

    transform: Callable[[Image.Image], Any]
    note: str = ""
    _placements: dict[tuple[int, int], Placement] = field(
        default_factory=dict, repr=False, compare=False
    )
    _steady_sizes: set[tuple[int, int]] = field(
        default_factory=set, repr=False, compare=False
    )

    @functools.cached_property
    def input_size(self) -> tuple[int, int] | None:
        """(rows, cols) of the network's input, or None when it depends on the photo."""
        sizes = set()
        for shape in _SHAPES:
            _, rows, cols = self(_noise(shape)).shape
            sizes.add((rows, cols))
        if len(sizes) > 1:
            return None
        return sizes.pop()

    @functools.cached_property
    def channels(self) -> int:
        """How many channels the network's input has."""
        channels, _, _ = self(_noise((64, 64))).shape
        return channels

    def __call__(self, image: Image.Image) -> Float[Tensor, "channel row col"]:
        """Apply the callable to an upright RGB photo.

        Raises PreprocessingError where it does not return (channel, row, col).
        """
        return as_input(self._applied(image), self._name)

    def placement(self, photo_size: tuple[int, int]) -> Placement:
        """Measure where the network's input lies on a photo of (width, height).

        Raises PreprocessingError where the callable is random, or is not a resize and a
        crop (with padding), in any brightness.
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
                f"({type(error).__name__}: {one_line(error)}): "
                f"{fitting_argument(self.transform, image)}"
            ) from error

    def _measure(self, photo_size: tuple[int, int]) -> Placement:
        self._check_steady(_SHAPES[0])
        try:
            return measured_placement(
                self._on_processor,
                photo_size,
                self._expected_size(photo_size),
                check_borders=not self._placements,
            )
        except NotMeasurableError as error:
            # It may be random for some sizes only.
            self._check_steady(photo_size)
            raise PreprocessingError(
                f"where the preprocessing {self._name} puts the photo cannot be "
                f"measured ({error}): {error.remedy}"
            ) from None

    def _expected_size(self, photo_size: tuple[int, int]) -> tuple[int, int]:
        if self.input_size is not None:
            return self.input_size
        _, rows, cols = self(_noise(photo_size)).shape
        return rows, cols

    def _on_processor(self, image: Image.Image) -> Tensor:
        return self(image).cpu()

    def _check_steady(self, photo_size: tuple[int, int]) -> None:
        """Raise PreprocessingError where a photo does not always give the same input."""
        if photo_size in self._steady_sizes:
            return
        photo = _noise(photo_size)
        first = self(photo.copy())
        for _ in range(_REPEATS - 1):
            again = self(photo.copy())
            if not _are_same(first, again):
                raise PreprocessingError(
                    f"the preprocessing {self._name} gives another result each time: "
                    "use the one for evaluation, without random crops, flips, colours "
                    "or noise"
                )
        self._steady_sizes.add(photo_size)


def _noise(size: tuple[int, int]) -> Image.Image:
    """A photo of (width, height) that no brightness, range or deviation of 0 upsets."""
    width, height = size
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Whether tensors hold the same numbers; NaN is the same as NaN."""
    if one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
