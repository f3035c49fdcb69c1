"""Geometry: maps laid on photos against a loop that anyone can read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitscope.geometry import PIXELS, Axis, Grid, Placement, lay_on_photo

sides = st.integers(1, 12)
numbers = st.floats(-5, 5)
axes = st.builds(Axis, st.floats(-8, 8), st.floats(0.3, 9))


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    left, top = draw(st.floats(-6, 6)), draw(st.floats(-6, 6))
    box = left, top, left + draw(st.floats(1, 15)), top + draw(st.floats(1, 15))
    return Placement(
        (draw(sides), draw(sides)), (draw(sides), draw(sides)), *box
    )


def interpolated(row: np.ndarray, position: float, interpolation: str) -> float:
    """The value of a row of cells at a position between them, held constant beyond its ends."""
    position = min(max(position, 0.0), len(row) - 1.0)
    if interpolation == "nearest":
        return float(row[min(math.floor(position + 0.5), len(row) - 1)])
    low = math.floor(position)
    high = min(low + 1, len(row) - 1)
    return float(row[low] + (row[high] - row[low]) * (position - low))


def slowly(
    cells: np.ndarray,
    grid: Grid,
    placement: Placement,
    size: tuple[int, int],
    interpolation: str,
) -> np.ndarray:
    """One pixel at a time: where is it on the photo, on the input, on the map?"""
    width, height = size
    laid = np.full((height, width), np.nan)
    for y in range(height):
        for x in range(width):
            photo_x = (x + 0.5) * placement.photo_size[0] / width
            photo_y = (y + 0.5) * placement.photo_size[1] / height
            if not (
                placement.left <= photo_x <= placement.right
                and placement.top <= photo_y <= placement.bottom
            ):
                continue
            across = (
                (photo_x - placement.left)
                / (placement.right - placement.left)
                * placement.input_size[1]
            )
            down = (
                (photo_y - placement.top)
                / (placement.bottom - placement.top)
                * placement.input_size[0]
            )
            col = (across - grid.cols.start) / grid.cols.step
            row = (down - grid.rows.start) / grid.rows.step
            lines = np.array(
                [interpolated(line, col, interpolation) for line in cells]
            )
            laid[y, x] = interpolated(lines, row, interpolation)
    return laid


@given(
    placements(),
    axes,
    axes,
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    st.integers(0, 99),
)
def test_laying_a_map_on_a_photo_is_what_the_loop_says(
    placement: Placement,
    rows: Axis,
    cols: Axis,
    cells: tuple[int, int],
    size: tuple[int, int],
    seed: int,
) -> None:
    values = np.random.default_rng(seed).normal(size=cells)
    for interpolation in ("bilinear", "nearest"):
        fast = lay_on_photo(
            values, Grid(rows, cols), placement, size, interpolation
        )
        slow = slowly(values, Grid(rows, cols), placement, size, interpolation)
        np.testing.assert_array_equal(np.isnan(fast), np.isnan(slow))
        if (
            interpolation == "bilinear"
        ):  # at a tie "nearest" may go either way by rounding
            np.testing.assert_allclose(fast, slow, atol=1e-9)
        else:
            assert np.isin(
                np.nan_to_num(fast, nan=values.flat[0]), values
            ).all()


@given(placements(), axes, axes, st.tuples(sides, sides), numbers)
def test_a_constant_map_stays_constant_and_no_value_leaves_the_range(
    placement: Placement,
    rows: Axis,
    cols: Axis,
    cells: tuple[int, int],
    value: float,
) -> None:
    laid = lay_on_photo(
        np.full((2, *cells), value), Grid(rows, cols), placement
    )
    assert laid.shape == (2, *placement.photo_size[::-1])
    seen = laid[~np.isnan(laid)]
    np.testing.assert_allclose(seen, value, rtol=1e-12, atol=0)


def test_the_photo_itself_is_used_where_the_crop_is_not() -> None:
    placement = Placement((8, 4), (4, 4), 2, 0, 6, 4)
    laid = lay_on_photo(
        np.ones((1, 2, 2)), Grid.tiling((4, 4), (2, 2)), placement
    )
    assert (
        np.isnan(laid[0, :, :2]).all()
        and np.isnan(laid[0, :, 6:]).all()
        and (laid[0, :, 2:6] == 1).all()
    )


def test_float32_maps_and_single_cells_can_be_laid() -> None:
    laid = lay_on_photo(
        np.array([[[3.5]]], dtype=np.float32),
        Grid.tiling((5, 5), (1, 1)),
        Placement.whole((7, 9), (5, 5)),
        (3, 2),
    )
    assert laid.shape == (1, 2, 3) and (laid == 3.5).all()


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match="interpolation is 'bilinear' or 'nearest', not 'cubic'",
    ):
        lay_on_photo(
            np.ones((2, 2)),
            Grid.tiling((4, 4), (2, 2)),
            Placement.whole((4, 4), (4, 4)),
            None,
            "cubic",
        )


def test_a_placement_knows_whether_it_saw_the_whole_photo_to_a_thousandth_of_a_pixel() -> (
    None
):
    assert Placement.whole((4000, 3000), (224, 224)).is_whole
    assert Placement((4000, 3000), (224, 224), 0, 0, 4000.0005, 3000).is_whole
    assert not Placement((4000, 3000), (224, 224), 0, 0, 4000.01, 3000).is_whole


@given(st.integers(1, 64), st.integers(1, 64))
def test_tiling_covers_the_input_evenly(pixels: int, cells: int) -> None:
    axis = Grid.tiling((pixels, pixels), (cells, cells)).rows
    assert math.isclose(axis.start - axis.step / 2, 0, abs_tol=1e-9)
    assert math.isclose(axis.start + (cells - 0.5) * axis.step, pixels)


def test_windows_move_centres_as_the_formula_of_receptive_fields_says() -> None:
    resnet_stem = PIXELS.windowed(7, 2, 3).windowed(3, 2, 1)
    assert resnet_stem == Axis(0.5, 4.0)
    assert PIXELS.windowed(11, 4, 2) == Axis(3.5, 4.0)  # AlexNet's first layer
    assert PIXELS.windowed(3, 1, 0, dilation=4) == Axis(4.5, 1.0)
    assert PIXELS.resampled(3, 5, corners=True) == Axis(0.5, 0.5)


@pytest.mark.parametrize("step", [2.0, -2.0])
def test_an_axis_grows_until_cells_lie_under_all_centres(step: float) -> None:
    axis = Axis(10.0, step)
    assert axis.covering(4, axis.centres(4)) == (axis, 4)
    # Half a cell beside the outermost centres still belongs to them.
    assert axis.covering(4, axis.centres(4) + 1) == (axis, 4)

    centres = np.array([3.0, 21.5])
    longer, cells = axis.covering(4, centres)
    assert longer.step == step and (longer.start - 10) % 2 == 0
    distance = np.abs(longer.centres(cells)[:, None] - centres)
    assert (distance.min(axis=0) <= 1).all()
    assert cells == 10
