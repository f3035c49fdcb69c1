"""Overlays: colours match values, and maps lie where they belong on the photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from unitscope.attribution.unit_maps import UnitMaps
from unitscope.geometry import Grid, Placement, lay_on_photo
from unitscope.inputs.photos import open_photo
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.inputs.subjects import Subject
from unitscope.render.colours import HEAT, SIGNED, Scale, table
from unitscope.render.overlays import STYLES, blended, layer, overlay
from unitscope.render.views import View

HOT = Scale(0.0, 4.0, False, "a test")
BOTH = Scale(-4.0, 4.0, True, "a test")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(
        0, 256, (height, width, 3), np.uint8
    )


def bright(
    units: int,
    row: int,
    col: int,
    subject: Subject,
    preprocessing: Preprocessing,
) -> UnitMaps:
    """Maps of 8 × 8 cells, 0 but for one cell."""
    maps = torch.zeros(1, units, 8, 8)
    maps[:, :, row, col] = 5
    rows, cols = preprocessing.input_size or (0, 0)
    return UnitMaps(
        "layer",
        tuple(range(units)),
        maps,
        Grid.tiling((rows, cols), (8, 8)),
        (rows, cols),
        (subject,),
    )


def brightest(maps: UnitMaps, longest: int = 400) -> tuple[float, float]:
    """Where the overlay differs most from the plain photo, as (x, y) parts of the photo's sides."""
    view = View.of(maps.subjects[0], maps.input_size, longest)
    laid = maps.on_photo(0, view.size)[0]
    drawn = overlay(
        view, laid, Scale.of(maps.maps.numpy(), "this map alone"), "heat"
    ).astype(int)
    change = np.abs(drawn - view.veiled().astype(int)).sum(axis=2)
    top = np.argwhere(change >= 0.97 * change.max()).mean(axis=0)
    return (top[1] + 0.5) / view.size[0], (top[0] + 0.5) / view.size[1]


class TestPlacement:
    def test_a_bright_cell_lands_where_its_part_of_the_crop_lies(self) -> None:
        photo = open_photo(Image.new("RGB", (600, 300), "grey"))
        preprocessing = Preprocessing(resize=80, crop=64)
        maps = bright(
            1, 1, 6, Subject.of_photo(photo, preprocessing), preprocessing
        )
        # 300 rows become 80: the crop of 64 is 240 pixels of the photo, from x = 180
        # and y = 30 on; a cell is 30.
        x, y = brightest(maps)
        assert x == pytest.approx((180 + 6.5 * 30) / 600, abs=0.01)
        assert y == pytest.approx((30 + 1.5 * 30) / 300, abs=0.015)

    def test_a_rotated_photo_is_drawn_upright_with_the_map_on_it(
        self, tmp_path: Path
    ) -> None:
        path, exif = tmp_path / "turned.jpg", Image.Exif()
        exif[0x0112] = (
            6  # the camera was held upright: stored 400 × 200, to be seen 200 × 400
        )
        Image.new("RGB", (400, 200), "grey").save(path, exif=exif)
        preprocessing = Preprocessing(resize=64, crop=64)
        maps = bright(
            1,
            0,
            7,
            Subject.of_photo(open_photo(path), preprocessing),
            preprocessing,
        )
        assert View.of(maps.subjects[0], (64, 64), 400).size == (200, 400)
        # The crop is the middle 200 × 200 of the upright photo; a cell is 25 pixels.
        x, y = brightest(maps)
        assert x == pytest.approx(
            7.5 * 25 / 200, abs=0.07
        )  # held constant beyond the outermost centre
        assert y == pytest.approx((100 + 0.5 * 25) / 400, abs=0.03)

    def test_nothing_is_laid_outside_the_crop_and_its_inside_is_left_alone(
        self,
    ) -> None:
        photo = open_photo(Image.fromarray(noise(100, 300)))
        view = View.of(
            Subject.of_photo(photo, Preprocessing(resize=64, crop=64)),
            (64, 64),
            300,
        )
        assert not view.whole and view.box == (100.0, 0.0, 200.0, 100.0)
        veiled = view.veiled()
        np.testing.assert_array_equal(
            veiled[5:95, 105:195], view.photo[5:95, 105:195]
        )
        outside = veiled[:, :95].astype(int)
        assert np.ptp(outside, axis=2).max() == 0  # grey
        placement = photo_placement(photo.size)
        laid = lay_on_photo(
            np.ones((8, 8)),
            Grid.tiling((64, 64), (8, 8)),
            placement,
            (300, 100),
        )
        assert (
            layer(laid, HOT)[:, :100, 3].max() == 0
            and layer(laid, HOT)[:, 100:200, 3].min() > 0
        )

    def test_a_photo_that_was_seen_whole_is_not_touched(self) -> None:
        view = View.of(
            Subject.of_photo(
                open_photo(Image.fromarray(noise(50, 70))),
                Preprocessing((64, 64), None),
            ),
            (64, 64),
        )
        assert view.whole
        np.testing.assert_array_equal(view.veiled(), view.photo)

    @pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (32, 32)])
    def test_photos_of_any_shape_can_be_viewed(
        self, size: tuple[int, int]
    ) -> None:
        view = View.of(
            Subject.of_photo(
                open_photo(Image.new("RGB", size)),
                Preprocessing((64, 64), None),
            ),
            (64, 64),
            500,
        )
        assert max(view.size) <= 500 and min(view.size) >= 1
        assert layer(np.zeros(view.size[::-1]), HOT, "contour").shape == (
            *view.size[::-1],
            4,
        )


def photo_placement(size: tuple[int, int]) -> Placement:
    return Preprocessing(resize=64, crop=64).placement(size)


class TestStyles:
    def test_the_write_up_style_is_its_formula(self) -> None:
        photo, cells = (
            noise(120, 160),
            np.random.default_rng(1).normal(1, 2, (7, 7)),
        )
        placement = Placement.whole((160, 120), (227, 227))
        scale = Scale.of(cells, "this map alone", signed=False)
        laid = lay_on_photo(cells, Grid.tiling((227, 227), (7, 7)), placement)
        drawn = blended(photo, layer(laid, scale, "write-up")).astype(int)

        heat = F.interpolate(
            torch.tensor(cells / cells.max())[None, None],
            (120, 160),
            mode="bilinear",
        )[0, 0].clamp(0, 1)
        colour = table("jet")[np.round(255 * heat.numpy()).astype(int)]
        part = heat.numpy()[..., None]
        naive = part * (0.3 * photo + 0.7 * colour) + (1 - part) * photo
        assert np.abs(drawn - naive).max() <= 1.5  # 8-bit opacity

    def test_cold_places_show_the_plain_photo(self) -> None:
        photo = noise(20, 20)
        for style in ("heat", "signed", "write-up"):
            np.testing.assert_array_equal(
                blended(photo, layer(np.zeros((20, 20)), BOTH, style)), photo
            )

    def test_opacity_grows_with_strength(self) -> None:
        alpha = layer(np.linspace(0, 4, 50)[None], HOT)[0, :, 3].astype(int)
        assert (np.diff(alpha) >= 0).all() and alpha[0] == 0 and alpha[-1] > 200

    def test_heat_leaves_negative_values_out_and_signed_draws_them_in_another_colour(
        self,
    ) -> None:
        values = np.array([[-4.0, 4.0]])
        assert layer(values, BOTH, "heat")[0, :, 3].tolist()[0] == 0
        against, for_it = layer(values, BOTH, "signed")[0]
        assert against[3] == for_it[3] > 200
        assert (
            for_it[0] > for_it[2] and against[2] > against[0]
        )  # orange and violet

    def test_contours_run_where_the_levels_are(self) -> None:
        ramp = np.tile(np.linspace(0, 4, 401), (30, 1))
        alpha = layer(ramp, HOT, "contour")[15, :, 3]
        assert {100, 200, 300} <= set(np.flatnonzero(alpha > 250)) and (
            alpha > 0
        ).mean() < 0.05

    def test_the_plain_map_hides_the_photo(self) -> None:
        assert (layer(np.zeros((3, 3)), HOT, "plain")[..., 3] == 255).all()
        np.testing.assert_array_equal(
            layer(np.ones((3, 3)), HOT, "plain map"),
            layer(np.ones((3, 3)), HOT, "plain"),
        )

    def test_unknown_styles_and_colours_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match="style is one of 'heat', 'signed'"
        ):
            layer(np.zeros((2, 2)), HOT, "rainbow")
        with pytest.raises(ValueError, match="no colour map 'rainbows'"):
            table("rainbows")

    @pytest.mark.parametrize("style", STYLES)
    def test_a_map_of_zeros_stays_blank_without_dividing_by_zero(
        self, style: str
    ) -> None:
        zeros = np.zeros((8, 8))
        for signed in (False, True):
            drawn = layer(
                zeros, Scale.of(zeros, "this map alone", signed=signed), style
            )
            assert len(np.unique(drawn.reshape(-1, 4), axis=0)) == 1
            assert style == "plain" or drawn[..., 3].max() == 0

    @given(
        arrays.arrays(
            np.float32,
            (5, 4),
            elements=st.floats(-(2.0**127), 2.0**127, width=32),
        ),
        st.sampled_from(STYLES),
        st.booleans(),
    )
    def test_any_finite_map_can_be_drawn(
        self, values: np.ndarray, style: str, signed: bool
    ) -> None:
        laid = values.astype(np.float64)
        laid[0, 0] = np.nan
        drawn = layer(
            laid, Scale.of(values, "this map alone", signed=signed), style
        )
        assert drawn.dtype == np.uint8 and drawn[0, 0, 3] == 0


class TestScale:
    def test_a_signed_scale_is_symmetric_and_an_unsigned_one_begins_at_0(
        self,
    ) -> None:
        signed, plain = (
            Scale.of(np.array([-6.0, 5.0]), ""),
            Scale.of(np.array([2.0, 5.0]), ""),
        )
        assert (signed.low, signed.high, signed.signed, signed.colours) == (
            -6,
            6,
            True,
            SIGNED,
        )
        assert (plain.low, plain.high, plain.signed, plain.colours) == (
            0,
            5,
            False,
            HEAT,
        )
        assert Scale.of(np.array([-6.0, -5.0]), "", signed=False).is_blank

    def test_on_a_shared_scale_equal_values_have_equal_colours(self) -> None:
        weak, strong = np.full((2, 2), 1.0), np.array([[1.0, 4.0], [0.0, 1.0]])
        shared = Scale.of(np.stack([weak, strong]), "shared over these 2 maps")
        np.testing.assert_array_equal(
            layer(weak, shared)[0, 0], layer(strong, shared)[0, 0]
        )
        assert (
            layer(weak, shared)[..., 3].max()
            < layer(strong, shared)[..., 3].max()
        )

    def test_both_default_colour_maps_keep_their_ends_apart_for_the_colour_blind(
        self,
    ) -> None:
        # Viénot, Brettel & Mollon 1999: what a protanope or deuteranope sees varies in
        # yellow–blue and lightness only.
        for name in (HEAT, SIGNED):
            colours = table(name).astype(float)
            ends = colours[[0, 255]]
            yellow, blue = ends[:, :2].mean(axis=1), ends[:, 2]
            assert abs(np.diff(yellow)[0]) + abs(np.diff(blue)[0]) > 100
        lightness = table(HEAT) @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(lightness) > -0.6).all()
