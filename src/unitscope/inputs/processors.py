"""Processors: what an image processor of transformers does, as a `Preprocessing`.

A reading of a processor's settings is compared with the processor before it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.preprocessing import AnyPreprocessing, Preprocessing

_FILTERS = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
# The share of the resized photo that the crop keeps. Levit enlarges the photo by it
# without a word in its settings.
_USUAL_SHARE = 224 / 256
# Eight neighbouring widths, since ways to round differ at odd surpluses; one tall
# picture.
_SIZES = (*((width, 251) for width in range(400, 408)), (251, 401))
# Levels of 0–255. Pillow and torchvision round differently between their two passes,
# which shows on blotches as sharp as these; another filter, or a shift by one row,
# makes whole levels on average.
_LARGEST_DIFFERENCE = 10.0
_MEAN_DIFFERENCE = 0.5


class FloorCropped(Preprocessing):
    """A `Preprocessing` whose centre crop begins at surplus // 2.

    torchvision's rounds half a pixel to even.
    """

    def _crop_box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        left, top, right, bottom = super()._crop_box(size)
        cols = right - left
        rows = bottom - top
        width, height = size
        if width > cols:
            left = (width - cols) // 2
        if height > rows:
            top = (height - rows) // 2
        return left, top, left + cols, top + rows


class Processed:
    """An image processor as a callable from a PIL image to a tensor."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.__name__ = type(processor).__name__

    def __call__(self, image: Image.Image) -> Tensor:
        """Apply the processor to one photo."""
        batch = self.processor(images=image, return_tensors="pt")
        pixels: Tensor = batch["pixel_values"]
        return pixels[0]


def is_processor(value: object) -> bool:
    """Whether a value is an image processor, or a processor that contains one."""
    if hasattr(value, "image_processor"):
        return True
    names = getattr(value, "model_input_names", ())
    return hasattr(value, "preprocess") and "pixel_values" in names


def of_processor(processor: Any, note: str) -> AnyPreprocessing:
    """An image processor of transformers as a `Preprocessing`, or else as it is.

    Processors differ in what their settings mean. Every reading of them is tried out on
    pictures, and taken only where it gives the same pixels as the processor. Raises
    PreprocessingError when the processor gives no picture at all.
    """
    processor = getattr(processor, "image_processor", processor)
    measured = MeasuredPreprocessing(Processed(processor), note)
    tone = _tone(processor, measured)
    if tone is None:
        return measured

    expected = functools.cache(lambda size: measured(_picture(size)))
    for reading in _readings(processor, tone, note):
        sizes = _SIZES if reading.crop is not None else (_SIZES[0], _SIZES[-1])
        if all(
            _agree(reading, _picture(size), expected(size)) for size in sizes
        ):
            return reading
    return measured


def _readings(
    processor: Any, tone: tuple[tuple[float, ...], tuple[float, ...]], note: str
) -> Iterator[Preprocessing]:
    """All that the settings may mean, the most literal first."""
    interpolation = _FILTERS.get(int(getattr(processor, "resample", None) or 0))
    if interpolation is None:
        return
    mean, std = tone
    for resize, crop in _geometries(processor):
        side = crop
        if isinstance(crop, tuple) and crop[0] == crop[1]:
            side = crop[0]
        kinds = (FloorCropped, Preprocessing) if crop else (Preprocessing,)
        for kind in kinds:
            yield kind(
                resize=resize,
                crop=side,
                mean=mean,
                std=std,
                interpolation=interpolation,
                note=note,
            )


def _geometries(processor: Any) -> list[tuple[Any, Any]]:
    """The pairs of resize and crop that the settings may mean."""
    resize = crop = None
    if getattr(processor, "do_resize", False):
        size = getattr(processor, "size", None)
        resize = size_in_pixels(size)
    if getattr(processor, "do_center_crop", False):
        crop_size = getattr(processor, "crop_size", None)
        crop = size_in_pixels(crop_size)

    geometries: list[tuple[Any, Any]] = [(resize, crop)]
    if isinstance(resize, int):
        # ConvNeXt enlarges the photo by the share that the crop keeps, or squashes it
        # from 384 pixels on.
        own_share = getattr(processor, "crop_pct", None) or _USUAL_SHARE
        for share in (own_share, _USUAL_SHARE):
            enlarged = int(resize / share)
            geometries.append((enlarged, crop or resize))
        geometries.append(((resize, resize), crop))
    return geometries


def _tone(
    processor: Any, measured: MeasuredPreprocessing
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std, measured on a black and on a white picture.

    They are the settings' own, unrounded, where these agree; None for another number of
    channels than three.
    """
    black = measured(Image.new("RGB", (64, 64), "black"))
    white = measured(Image.new("RGB", (64, 64), "white"))
    low = black.to(torch.float64).amin(dim=(1, 2))
    high = white.to(torch.float64).amax(dim=(1, 2))
    contrast = high - low
    if len(low) != 3 or not bool((contrast > 0).all()):
        return None

    own_mean = getattr(processor, "image_mean", None)
    own_std = getattr(processor, "image_std", None)
    mean = _exact(own_mean, -low / contrast)
    std = _exact(own_std, 1 / contrast)
    return mean, std


def _exact(setting: Any, measured: Tensor) -> tuple[float, ...]:
    """The numbers of a setting if they agree with the measured ones, or else these."""
    if isinstance(setting, (list, tuple)) and len(setting) == len(measured):
        numbers = [float(value) for value in setting]
        exact = torch.tensor(numbers, dtype=torch.float64)
        if torch.allclose(exact, measured, atol=1e-4):
            return tuple(numbers)
    # Adding zero makes a zero of minus zero.
    return tuple(measured.add(0.0).tolist())


def size_in_pixels(size: Any) -> int | tuple[int, int] | None:
    """Read transformers' size: the shorter side, or (rows, cols)."""
    if isinstance(size, int):
        return size
    settings = dict(size or {})
    sides = {
        key: int(side) for key, side in settings.items() if side is not None
    }
    if sides.keys() == {"shortest_edge"}:
        return sides["shortest_edge"]
    if sides.keys() == {"height", "width"}:
        return sides["height"], sides["width"]
    return None


@functools.cache
def _picture(size: tuple[int, int]) -> Image.Image:
    """Coloured blotches, sharp enough that a shift by one pixel shows."""
    cols, rows = size
    shape = (rows // 3, cols // 3, 3)
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def _agree(
    reading: Preprocessing, picture: Image.Image, expected: Tensor
) -> bool:
    """Whether a reading gives the pixels that the processor gives for a picture."""
    own = reading(picture)
    if own.shape != expected.shape:
        return False
    std = torch.tensor(reading.std).view(-1, 1, 1)
    levels = (own - expected).abs() * std * 255
    if float(levels.max()) > _LARGEST_DIFFERENCE:
        return False
    return float(levels.mean()) <= _MEAN_DIFFERENCE
