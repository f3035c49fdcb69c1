"""Ramps: measure where a function from photo to network input puts the photo.

A picture that brightens from left to right says, at every column of the input, which
column of the photo that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from unitscope.geometry import Placement

# A photo becomes an input (channel, row, col) on the processor.
Transform: TypeAlias = Callable[[Image.Image], Tensor]


class NotMeasurableError(Exception):
    """What a function does is not a resize and a crop; the message says why."""


def measured_placement(
    transform: Transform, photo_size: tuple[int, int]
) -> Placement:
    """Where the input lies on a photo of `photo_size` (width, height).

    It is good to about a thousandth of the photo's side. Raises NotMeasurableError.
    """
    width, height = photo_size
    scale = _Scale.of(transform, photo_size)

    down, across = np.meshgrid(ramp(height), ramp(width), indexing="ij")
    across_level = scale.level(transform(_grey(across)))
    down_level = scale.level(transform(_grey(down)))
    left, right = _edges(across_level, scale.seen, width, axis=1)
    top, bottom = _edges(down_level, scale.seen, height, axis=0)

    rows, cols = scale.seen.shape
    return Placement(
        photo_size=photo_size,
        input_size=(int(rows), int(cols)),
        left=left,
        top=top,
        right=right,
        bottom=bottom,
    )


def ramp(length: int) -> UInt8[np.ndarray, pixel]:
    """Levels that rise evenly: v stands for the position (v + 0.5) / 256 · length."""
    centres = np.arange(length) + 0.5
    positions = centres / length
    levels = positions * 256 - 0.5
    levels = np.round(levels)
    levels = np.clip(levels, 0, 255)
    return levels.astype(np.uint8)


def _grey(levels: UInt8[np.ndarray, "row col"]) -> Image.Image:
    channels = [levels, levels, levels]
    pixels = np.stack(channels, axis=2)
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class _Scale:
    """How black and white look in the channel of the input that tells them apart best.

    `contrast` is white less black. `seen` says which pixels of the input show the
    photo; at all others the contrast is 1.
    """

    channel: int
    black: Float[Tensor, "row col"]
    contrast: Float[Tensor, "row col"]
    seen: Bool[Tensor, "row col"]

    @classmethod
    def of(cls, transform: Transform, photo_size: tuple[int, int]) -> _Scale:
        """The scale of a function; raises NotMeasurableError where there is none."""
        black_photo = Image.new("RGB", photo_size, (0, 0, 0))
        white_photo = Image.new("RGB", photo_size, (255, 255, 255))
        black = transform(black_photo)
        white = transform(white_photo)
        difference = white - black

        largest = difference.abs().amax(dim=(1, 2))
        channel = int(largest.argmax())
        most = float(largest[channel])
        if not most > 0:
            raise NotMeasurableError(
                "it gives the same input for a black and a white photo"
            )

        contrast = difference[channel].to(torch.float64)
        seen = contrast.abs() > 0.5 * most
        ones = torch.ones_like(contrast)
        return cls(
            channel=channel,
            black=black[channel],
            contrast=torch.where(seen, contrast, ones),
            seen=seen,
        )

    def level(
        self, tensor: Float[Tensor, "channel row col"]
    ) -> Float[Tensor, "row col"]:
        """The level of an input, from 0 (black) to 1 (white); any where not seen."""
        difference = tensor[self.channel] - self.black
        return difference.to(torch.float64) / self.contrast


def _edges(
    level: Float[Tensor, "row col"],
    seen: Bool[Tensor, "row col"],
    extent: int,
    axis: int,
) -> tuple[float, float]:
    """Where the input begins and ends along one side of the photo.

    Fits position on the photo = a + b · position on the input to the levels of a ramp.
    `extent` is the photo's side in pixels; `axis` is 0 for rows and 1 for columns.
    """
    if extent == 1:
        return 0.0, 1.0

    name = "columns" if axis else "rows"
    index = _centres(level, axis)
    used = seen & _is_sloped(level, extent)
    if not _differ(index[used]):
        used = seen
    if not _differ(index[used]):
        raise NotMeasurableError(
            f"a ramp leaves fewer than two levels along {name}"
        )

    shares = (level[used] * 255 + 0.5) / 256
    line = _Line.fitted(index[used], shares * extent)
    tolerance = 0.02 * extent + 1
    if not line.residual <= tolerance or line.slope <= 0:
        raise NotMeasurableError(
            f"the photo's {name} are not kept in order and proportion"
        )
    length = line.slope * level.shape[axis]
    return line.start, line.start + length


def _centres(
    level: Float[Tensor, "row col"], axis: int
) -> Float[Tensor, "row col"]:
    """The centre of every pixel along an axis of the input."""
    rows, cols = level.shape
    if axis == 0:
        places = torch.arange(rows, dtype=torch.float64)
        places = places[:, None]
    else:
        places = torch.arange(cols, dtype=torch.float64)
    centres = places + 0.5
    return centres.expand_as(level)


def _is_sloped(
    level: Float[Tensor, "row col"], extent: int
) -> Bool[Tensor, "row col"]:
    """Where the ramp rises.

    Beyond the centres of the photo's outermost pixels, resampling has nothing to
    interpolate with and gives plateaus.
    """
    first, *_, last = ramp(extent)
    margin = 1.5 / 255
    lowest = float(first) / 255 + margin
    highest = float(last) / 255 - margin
    is_above = level > lowest
    is_below = level < highest
    return is_above & is_below


def _differ(values: Tensor) -> bool:
    if len(values) <= 1:
        return False
    return bool(values.max() > values.min())


class _Line(NamedTuple):
    """The line y = start + slope · x that fits points, and the largest residual."""

    start: float
    slope: float
    residual: float

    @classmethod
    def fitted(cls, x: Float[Tensor, point], y: Float[Tensor, point]) -> _Line:
        """The line of least squares."""
        ones = torch.ones_like(x)
        design = torch.stack([ones, x], dim=1)
        fit = torch.linalg.lstsq(design, y[:, None])
        solution = fit.solution[:, 0]
        start, slope = solution.tolist()

        residuals = design @ solution - y
        largest = residuals.abs().max()
        return cls(
            start=start,
            slope=slope,
            residual=float(largest),
        )
