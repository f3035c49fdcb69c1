"""Geometry: where a cell of a feature map lies on the network's input, and where that lies on the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Array = np.ndarray


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
        """The placement of a photo that was squeezed into the input whole, without a crop."""
        width, height = photo_size
        return cls(photo_size, input_size, 0.0, 0.0, float(width), float(height))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in photo pixels."""
        return self.left, self.top, self.right, self.bottom

    @property
    def is_whole(self) -> bool:
        """Whether the network saw all of the photo (to a thousandth of a pixel)."""
        width, height = self.photo_size
        return np.allclose(self.box, (0, 0, width, height), rtol=0, atol=1e-3)


@dataclass(frozen=True)
class Axis:
    """The receptive-field centres of a feature map along one axis, in continuous coordinates of the network's input.

    Cell i is centred at `start + step · i`, where the input's first pixel covers 0 to 1
    and so is centred at 0.5.
    """

    start: float
    step: float

    def windowed(
        self, kernel: int, stride: int, padding: int, dilation: int = 1
    ) -> Axis:
        """The axis after a convolution or pooling window (Araujo et al., Distill 2019, eq. 3, for centres)."""
        return Axis(
            self.start + self.step * (dilation * (kernel - 1) / 2 - padding),
            self.step * stride,
        )

    def resampled(self, before: int, after: int, corners: bool = False) -> Axis:
        """The axis when `before` cells are divided evenly into `after`: adaptive pooling, interpolation, unshuffling.

        Adaptive pooling rounds its windows to whole cells, so that a centre may be off
        by half a cell of `before` where `after` does not divide it. `corners`: the
        outermost centres stay (interpolation with align_corners).
        """
        if corners and after > 1:
            return Axis(self.start, self.step * (before - 1) / (after - 1))
        ratio = before / after
        return Axis(self.start + self.step * (ratio - 1) / 2, self.step * ratio)


PIXELS = Axis(0.5, 1.0)


@dataclass(frozen=True)
class Grid:
    """Where the cells of a feature map lie on the network's input: one axis for rows and one for columns.

    `traced` says that the centres were followed through the network's windows, strides
    and paddings; otherwise the cells are assumed to tile the input evenly, which for
    networks of stride-two convolutions is off by up to half a cell.
    """

    rows: Axis
    cols: Axis
    traced: bool = True

    @classmethod
    def tiling(cls, input_size: tuple[int, int], cells: tuple[int, int]) -> Grid:
        """The grid of `cells` (rows, cols) that tile an input of `input_size` (rows, cols) evenly."""
        rows, cols = (
            PIXELS.resampled(pixels, count)
            for pixels, count in zip(input_size, cells, strict=True)
        )
        return cls(rows, cols, traced=False)


def lay_on_photo(
    maps: Float[Array, "*maps row col"],
    grid: Grid,
    placement: Placement,
    size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
) -> Float[Array, "*maps height width"]:
    """Lay feature maps where they belong on the photo: one value a pixel, NaN where the network did not look.

    `maps` (…, row, col) in any unit; the result keeps the unit and lies within the
    range of each map. `size` is the (width, height) to draw at, the photo's own by
    default. Interpolation is "bilinear" between the cells' centres (held constant
    beyond the outermost ones) or "nearest". A value is given to a pixel by the
    receptive-field centre that lies there, not by stretching the map over the crop.
    """
    width, height = size or placement.photo_size
    photo_width, photo_height = placement.photo_size
    left, top, right, bottom = placement.box
    input_rows, input_cols = placement.input_size
    rows, cols = maps.shape[-2:]
    down = _weights(
        height, photo_height, top, bottom, input_rows, grid.rows, rows, interpolation
    )
    across = _weights(
        width, photo_width, left, right, input_cols, grid.cols, cols, interpolation
    )
    laid: Array = down @ maps.astype(np.float64) @ across.T
    return laid


def interpolation_weights(
    grid: Grid,
    cells: tuple[int, int],
    input_size: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Float[Array, "height row"], Float[Array, "width col"]]:
    """How much every cell gives to every pixel of the network's input, cut into `size` (width, height) pixels.

    For maps of `cells` (rows, cols) on an input of `input_size` (rows, cols): `down @
    map @ across.T` is what `lay_on_photo` gives where the network saw all of the photo,
    bilinear between the cells' centres. Each row adds up to 1.
    """
    (width, height), (input_rows, input_cols), (rows, cols) = size, input_size, cells
    return (
        _weights(
            height, input_rows, 0, input_rows, input_rows, grid.rows, rows, "bilinear"
        ),
        _weights(
            width, input_cols, 0, input_cols, input_cols, grid.cols, cols, "bilinear"
        ),
    )


def _weights(
    pixels: int,
    extent: float,
    begin: float,
    end: float,
    inputs: int,
    axis: Axis,
    cells: int,
    interpolation: str,
) -> Float[Array, "pixel cell"]:
    """How much every cell gives to every drawn pixel along one axis; rows of NaN outside the crop."""
    photo = (np.arange(pixels) + 0.5) * extent / pixels
    position = ((photo - begin) / (end - begin) * inputs - axis.start) / axis.step
    inside = (photo >= begin) & (photo <= end)
    position = np.clip(position, 0, cells - 1)
    if interpolation == "nearest":
        position = np.floor(position + 0.5).clip(0, cells - 1)
    elif interpolation != "bilinear":
        raise ValueError(
            f"interpolation is 'bilinear' or 'nearest', not {interpolation!r}"
        )
    weights = np.maximum(
        0.0, 1.0 - np.abs(position[:, None] - np.arange(cells)[None, :])
    )
    weights[~inside] = np.nan
    return weights
