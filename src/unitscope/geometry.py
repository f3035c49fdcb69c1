"""Geometry: where a cell of a map lies on the network's input, and on the photo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unitscope.errors import InputError

Array = np.ndarray

# Of a cell: what rounding may add to a place.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Placement:
    """Where the network's input lies on the photo.

    The input of `input_size` (rows, cols) shows the part of the photo from `left` to
    `right` and from `top` to `bottom`, in pixels of the upright photo of `photo_size`
    (width, height), as continuous coordinates in which the first pixel covers 0 to 1.
    The box reaches outside the photo where a small photo was padded.
    """

    photo_size: tuple[int, int]
    input_size: tuple[int, int]
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def whole(
        cls, photo_size: tuple[int, int], input_size: tuple[int, int]
    ) -> Placement:
        """The placement of a photo that was resized to the input, without a crop."""
        width, height = photo_size
        return cls(
            photo_size=photo_size,
            input_size=input_size,
            left=0.0,
            top=0.0,
            right=float(width),
            bottom=float(height),
        )

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in photo pixels."""
        return self.left, self.top, self.right, self.bottom

    @property
    def is_whole(self) -> bool:
        """Whether the network saw all of the photo (to a thousandth of a pixel)."""
        width, height = self.photo_size
        photo = (0, 0, width, height)
        return np.allclose(self.box, photo, rtol=0, atol=1e-3)


@dataclass(frozen=True)
class Axis:
    """The centres of a map's receptive fields along one axis of the network's input.

    Cell i is centred at `start + step · i`, in continuous coordinates: the input's
    first pixel covers 0 to 1, so it is centred at 0.5. The step is negative where the
    map is mirrored.
    """

    start: float
    step: float

    def windowed(
        self, kernel: int, stride: int, padding: int, dilation: int = 1
    ) -> Axis:
        """The axis after a convolution or a pooling window.

        Araujo et al., Distill 2019, equation 3, for centres.
        """
        shift = dilation * (kernel - 1) / 2 - padding
        start = self.start + self.step * shift
        return Axis(start, self.step * stride)

    def centres(self, cells: int) -> Float[Array, " cell"]:
        """Where the centres of so many cells lie."""
        centres: Array = self.start + self.step * np.arange(cells)
        return centres

    def covering(
        self, cells: int, centres: Float[Array, " point"]
    ) -> tuple[Axis, int]:
        """The axis, and its number of cells, made so long that cells lie under all centres."""
        places = (centres - self.start) / self.step
        # Half a cell before the first one still belongs to it.
        before = max(0, math.ceil(-0.5 - _TOLERANCE - float(places.min())))
        last = math.ceil(float(places.max()) - 0.5 - _TOLERANCE)
        after = max(0, last - (cells - 1))
        start = self.start - before * self.step
        return Axis(start, self.step), before + cells + after

    def resampled(self, before: int, after: int, corners: bool = False) -> Axis:
        """The axis when `before` cells are divided evenly into `after`.

        That is what adaptive pooling, interpolation and pixel unshuffling do. Adaptive
        pooling rounds its windows to whole cells: a centre may be off by half a cell of
        `before` where `after` does not divide it. With `corners` the outermost centres
        stay (interpolation with align_corners).
        """
        if corners and after > 1:
            step = self.step * (before - 1) / (after - 1)
            return Axis(self.start, step)
        ratio = before / after
        shift = self.step * (ratio - 1) / 2
        return Axis(self.start + shift, self.step * ratio)

    def sliced(self, begin: int, stride: int = 1) -> Axis:
        """The axis of every `stride`-th cell from `begin` on, which may be negative."""
        start = self.start + self.step * begin
        return Axis(start, self.step * stride)


# The pixels of the network's input, along either side.
PIXELS = Axis(0.5, 1.0)


@dataclass(frozen=True)
class Grid:
    """Where the cells of a feature map lie on the network's input.

    `traced` says that the centres were followed through the network's windows, strides
    and paddings. Otherwise the cells are assumed to tile the input evenly, which is off
    by up to half a cell for networks of stride-two convolutions.
    """

    rows: Axis
    cols: Axis
    traced: bool = True

    @classmethod
    def tiling(
        cls, input_size: tuple[int, int], cells: tuple[int, int]
    ) -> Grid:
        """The grid of cells (rows, cols) that tile an input (rows, cols) evenly."""
        input_rows, input_cols = input_size
        rows, cols = cells
        return cls(
            rows=PIXELS.resampled(input_rows, rows),
            cols=PIXELS.resampled(input_cols, cols),
            traced=False,
        )


def spread_weights(
    source: Axis, cells: int, target: Axis, target_cells: int
) -> Float[Array, "target cell"]:
    """How much every cell of one axis gives to the cells of another that lie under it.

    A cell covers the input from half a step before its centre to half a step behind.
    What it gives away adds up to target_cells / cells, so that the mean over all cells
    stays the same; what would fall beside the target goes to the cells that are there.
    """
    centres, targets = source.centres(cells), target.centres(target_cells)
    half, target_half = abs(source.step) / 2, abs(target.step) / 2
    distance = np.abs(targets[:, None] - centres)

    overlap = half + target_half - distance
    overlap = np.clip(overlap, 0, 2 * min(half, target_half))
    nothing = overlap.sum(axis=0) <= 1e-9
    nearest = distance == distance.min(axis=0)
    overlap = np.where(nothing, nearest, overlap)
    shares: Array = overlap / overlap.sum(axis=0)
    return shares * target_cells / cells


def lay_on_photo(
    maps: Float[Array, "*maps row col"],
    grid: Grid,
    placement: Placement,
    size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
) -> Float[Array, "*maps height width"]:
    """Lay feature maps where they belong on the photo: one value a pixel.

    `maps` (…, row, col) may have any unit. The result keeps the unit, lies within the
    range of each map, and is NaN where the network did not look. `size` is the (width,
    height) to draw at, the photo's own by default. Interpolation is "bilinear" between
    the cells' centres (constant beyond the outermost ones) or "nearest". A pixel gets
    the value of the receptive-field centre that lies there; the map is not stretched
    over the crop.
    """
    width, height = size or placement.photo_size
    photo_width, photo_height = placement.photo_size
    input_rows, input_cols = placement.input_size
    rows, cols = maps.shape[-2:]

    vertical = _Span(
        photo=photo_height,
        begin=placement.top,
        end=placement.bottom,
        inputs=input_rows,
    )
    horizontal = _Span(
        photo=photo_width,
        begin=placement.left,
        end=placement.right,
        inputs=input_cols,
    )
    down = _weights(vertical, grid.rows, rows, height, interpolation)
    across = _weights(horizontal, grid.cols, cols, width, interpolation)
    values = maps.astype(np.float64)
    laid: Array = down @ values @ across.T
    return laid


def interpolation_weights(
    grid: Grid,
    cells: tuple[int, int],
    input_size: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Float[Array, "height row"], Float[Array, "width col"]]:
    """How much every cell gives to every pixel, where the network saw all of the photo.

    For maps of `cells` (rows, cols) on an input of `input_size` (rows, cols), drawn at
    `size` (width, height), `down @ map @ across.T` is what `lay_on_photo` returns. The
    interpolation is bilinear. Each row adds up to 1.
    """
    width, height = size
    rows, cols = cells
    input_rows, input_cols = input_size

    down = _weights(_Span.whole(input_rows), grid.rows, rows, height)
    across = _weights(_Span.whole(input_cols), grid.cols, cols, width)
    return down, across


class _Span(NamedTuple):
    """Where the network's input lies along one side of the photo.

    `begin` and `end` are in photo pixels, of which there are `photo`; `inputs` are the
    pixels of the input.
    """

    photo: float
    begin: float
    end: float
    inputs: int

    @classmethod
    def whole(cls, pixels: int) -> _Span:
        """The input as the photo itself."""
        return cls(
            photo=pixels,
            begin=0,
            end=pixels,
            inputs=pixels,
        )


def _weights(
    span: _Span,
    axis: Axis,
    cells: int,
    pixels: int,
    interpolation: str = "bilinear",
) -> Float[Array, "pixel cell"]:
    """How much every cell gives to every drawn pixel along one side.

    Rows of pixels outside the input are NaN.
    """
    centres = np.arange(pixels) + 0.5
    photo = centres * span.photo / pixels
    length = span.end - span.begin
    on_input = (photo - span.begin) / length * span.inputs

    position = (on_input - axis.start) / axis.step
    position = np.clip(position, 0, cells - 1)
    if interpolation == "nearest":
        position = np.floor(position + 0.5)
        position = np.clip(position, 0, cells - 1)
    elif interpolation != "bilinear":
        raise InputError(
            f"interpolation is 'bilinear' or 'nearest', not {interpolation!r}"
        )

    distance = np.abs(position[:, None] - np.arange(cells))
    weights = np.maximum(0.0, 1.0 - distance)
    outside = (photo < span.begin) | (photo > span.end)
    weights[outside] = np.nan
    return weights
