"""Image processors: what transformers does to a photo, said as a `Preprocessing` and tried out before it is used."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitscope.errors import ModelError, PreprocessingError, one_line
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
# Levit enlarges the photo by this without saying so in its settings.
_USUAL_SHARE = 224 / 256
# Eight neighbouring widths, so that the odd surpluses are among them at which ways to
# round part; one tall picture.
_SIZES = (*((width, 251) for width in range(400, 408)), (251, 401))
# Levels of 0–255. Pillow and torchvision round differently between their two passes,
# which shows on blotches as sharp as these; another filter, or a row too far, makes
# whole levels on average.
_LARGEST_DIFFERENCE = 10.0
_MEAN_DIFFERENCE = 0.5


class FloorCropped(Preprocessing):
    """A `Preprocessing` whose centre crop begins at surplus // 2, where torchvision's rounds half a pixel to even."""

    def _crop_box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        left, top, right, bottom = super()._crop_box(size)
        cols, rows = right - left, bottom - top
        left = (size[0] - cols) // 2 if size[0] > cols else left
        top = (size[1] - rows) // 2 if size[1] > rows else top
        return left, top, left + cols, top + rows


class Processed:
    """An image processor as a callable from a PIL image to a tensor."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.__name__ = type(processor).__name__

    def __call__(self, image: Image.Image) -> Tensor:
        """Apply the processor to one photo."""
        pixels: Tensor = self.processor(image, return_tensors="pt")["pixel_values"]
        return pixels[0]


def preprocessing_of(processor: Any, note: str) -> AnyPreprocessing:
    """Say an image processor of transformers as a `Preprocessing`; where that cannot be said, take it as it is.

    Processors differ in what their settings mean. So every reading of them is tried out
    on pictures, and believed only where it gives the pixels that the processor itself
    gives. Raises ModelError when it gives no picture at all.
    """
    if hasattr(processor, "data_config"):
        from unitscope.sources.timm import translated

        return translated(processor.data_config, note)
    measured = MeasuredPreprocessing(Processed(processor), note)
    try:
        tone = _tone(processor, measured)
    except PreprocessingError as error:
        raise ModelError(
            "the network takes no photo as a (channel, row, col) tensor "
            f"({one_line(error)}): unitscope explains those "
            "that do; if this one does, give a preprocessing"
        ) from None
    given = functools.cache(lambda size: measured(_picture(size)))
    for reading in _readings(processor, tone, note) if tone else ():
        sizes = _SIZES if reading.crop is not None else (_SIZES[0], _SIZES[-1])
        if all(_agree(reading, _picture(size), given(size)) for size in sizes):
            return reading
    return measured


def usual_processor(config: Any, sides: tuple[int, int] | None) -> Any:
    """Make the image processor that transformers takes for networks of this kind, or None where it has none.

    `sides` (rows, cols) is the size of the input where that is known; a processor that
    crops is left as it is.
    """
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    try:
        found = IMAGE_PROCESSOR_MAPPING[type(config)]
        # Until transformers 4 a pair of which the first is Pillow's; since then by
        # name.
        known = (
            [found.get("torchvision"), found.get("pil")]
            if isinstance(found, Mapping)
            else list(found)
        )
        kind = next(
            kind
            for kind in known
            if kind is not None and not getattr(kind, "is_dummy", False)
        )
        processor = kind()
        if sides is None or getattr(processor, "do_center_crop", False):
            return processor
        if isinstance(_pixels(processor.size), tuple):
            return kind(size={"height": sides[0], "width": sides[1]})
        return (
            kind(size={"shortest_edge": sides[0]})
            if sides[0] == sides[1]
            else processor
        )
    except Exception:  # Not every kind has one, and some need settings that only a trained network has.
        return None


def _readings(
    processor: Any, tone: tuple[tuple[float, ...], tuple[float, ...]], note: str
) -> Iterator[Preprocessing]:
    """All that the settings may mean, the most literal first."""
    interpolation = _FILTERS.get(int(getattr(processor, "resample", None) or 0))
    resize = (
        _pixels(getattr(processor, "size", None))
        if getattr(processor, "do_resize", False)
        else None
    )
    crop = (
        _pixels(getattr(processor, "crop_size", None))
        if getattr(processor, "do_center_crop", False)
        else None
    )
    geometries: list[tuple[Any, Any]] = [(resize, crop)]
    if isinstance(resize, int):
        # ConvNeXt: the photo is made larger by the share that the crop leaves, or from
        # 384 pixels on squashed.
        shares = (getattr(processor, "crop_pct", None) or _USUAL_SHARE, _USUAL_SHARE)
        geometries += [(int(resize / share), crop or resize) for share in shares] + [
            ((resize, resize), crop)
        ]
    for resized, cropped in geometries if interpolation else ():
        square = isinstance(cropped, tuple) and cropped[0] == cropped[1]
        for kind in (FloorCropped, Preprocessing) if cropped else (Preprocessing,):
            yield kind(
                resized,
                cropped[0] if square else cropped,
                *tone,
                str(interpolation),
                note,
            )


def _tone(
    processor: Any, measured: MeasuredPreprocessing
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std by what becomes of black and of white, whichever of its settings the processor made that of.

    The settings' own, unrounded, where they say the same; None for another number of
    channels than three.
    """
    black, white = (
        measured(Image.new("RGB", (64, 64), (level,) * 3)).to(torch.float64)
        for level in (0, 255)
    )
    low, high = black.amin(dim=(1, 2)), white.amax(dim=(1, 2))
    if len(low) != 3 or not bool((high > low).all()):
        return None
    found = (-low / (high - low), 1 / (high - low))
    said = (
        getattr(processor, "image_mean", None),
        getattr(processor, "image_std", None),
    )
    mean, std = (_exact(own, values) for own, values in zip(said, found, strict=True))
    return mean, std


def _exact(said: Any, found: Tensor) -> tuple[float, ...]:
    """The numbers that the settings say where they are those that were found, up to rounding."""
    numbers = (
        [float(value) for value in said] if isinstance(said, (list, tuple)) else []
    )
    same = len(numbers) == len(found) and torch.allclose(
        torch.tensor(numbers, dtype=torch.float64), found, atol=1e-4
    )
    # Adding zero makes a zero of minus zero.
    return tuple(numbers if same else found.add(0.0).tolist())


def _pixels(size: Any) -> int | tuple[int, int] | None:
    """Read transformers' size: the shorter side, or (rows, cols)."""
    if isinstance(size, int):
        return size
    held = {
        key: int(value) for key, value in dict(size or {}).items() if value is not None
    }
    if held.keys() == {"shortest_edge"}:
        return held["shortest_edge"]
    if held.keys() == {"height", "width"}:
        rows, cols = held["height"], held["width"]
        return (rows, cols)
    return None


@functools.cache
def _picture(size: tuple[int, int]) -> Image.Image:
    """Coloured blotches of a few pixels, sharp enough that a shift by one pixel shows."""
    noise = np.random.default_rng(0).integers(
        0, 256, (size[1] // 3, size[0] // 3, 3), dtype=np.uint8
    )
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def _agree(reading: Preprocessing, picture: Image.Image, given: Tensor) -> bool:
    own = reading(picture)
    if own.shape != given.shape:
        return False
    levels = (own - given).abs() * torch.tensor(reading.std).view(-1, 1, 1) * 255
    return (
        float(levels.max()) <= _LARGEST_DIFFERENCE
        and float(levels.mean()) <= _MEAN_DIFFERENCE
    )
