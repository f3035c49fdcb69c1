"""Preprocessing: torchvision's arithmetic to one level; measuring other callables."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from unitscope.errors import (
    PhotoError,
    PreprocessingError,
    UnitscopeWarning,
)
from unitscope.geometry import Placement
from unitscope.inputs.adapting import as_preprocessing
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.pictures import picture_of
from unitscope.inputs.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
)

T = pytest.importorskip(
    "torchvision.transforms", reason="torchvision is not installed"
)

sides = st.integers(1, 60)
pairs = st.tuples(sides, sides)
Size: TypeAlias = tuple[int, int]


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(
            0, 256, (height, width, 3), dtype=np.uint8
        )
    )


def torchvisions(ours: Preprocessing) -> Callable[[Image.Image], Tensor]:
    steps = []
    if ours.resize is not None:
        steps.append(
            T.Resize(
                ours.resize,
                getattr(T.InterpolationMode, ours.interpolation.upper()),
            )
        )
    if ours.crop is not None:
        steps.append(T.CenterCrop(ours.crop))
    pipeline: Callable[[Image.Image], Tensor] = T.Compose(
        [*steps, T.ToTensor(), T.Normalize(ours.mean, ours.std)]
    )
    return pipeline


def levels_apart(made: Tensor, expected: Tensor) -> float:
    """The largest difference in levels of 255; both are normalised as ImageNet's are."""
    assert made.shape == expected.shape
    apart = (
        (made - expected).abs()
        * torch.tensor(IMAGENET_STD).view(-1, 1, 1)
        * 255
    )
    return float(apart.max())


def patterned(
    width: int, height: int, pattern: str, seed: int = 0
) -> Image.Image:
    """Pictures on which roundings fall hard: noise, two levels only, stripes, or smooth ones."""
    noise = np.asarray(photo(width, height, seed))
    if pattern == "levels":
        noise = np.where(noise > 127, np.uint8(255), np.uint8(seed % 255))
    if pattern == "columns":
        noise = np.broadcast_to(noise[:1], noise.shape)
    if pattern == "rows":
        noise = np.broadcast_to(noise[:, :1], noise.shape)
    if pattern == "smooth":
        return Image.fromarray(
            noise[: height // 6 + 1, : width // 6 + 1]
        ).resize((width, height), 3)
    return Image.fromarray(np.ascontiguousarray(noise))


@given(
    pairs,
    st.none() | sides | pairs,
    st.none() | sides | pairs,
    st.sampled_from(["bicubic", "nearest", "lanczos", "box", "hamming"]),
)
def test_it_is_torchvisions_pipeline_bit_for_bit(
    size: Size,
    resize: int | Size | None,
    crop: int | Size | None,
    interpolation: str,
) -> None:
    ours = Preprocessing(resize, crop, interpolation=interpolation)
    image = photo(*size)
    made, expected = ours(image), torchvisions(ours)(image)
    assert made.dtype == torch.float32 and made.is_contiguous()
    assert torch.equal(made, expected)
    assert (made.shape[1], made.shape[2]) == ours.placement(size).input_size
    if ours.input_size is not None:
        assert ours.input_size == made.shape[1:]


several_sides = st.integers(1, 60) | st.integers(1, 400)
patterns = st.sampled_from(["noise", "levels", "columns", "rows", "smooth"])


@given(
    st.tuples(several_sides, several_sides),
    st.none() | several_sides | st.tuples(several_sides, several_sides),
    st.none() | sides | pairs,
    patterns,
    st.integers(0, 1000),
)
def test_the_bilinear_filter_is_within_one_level_of_torchvisions(
    size: Size,
    resize: int | Size | None,
    crop: int | Size | None,
    pattern: str,
    seed: int,
) -> None:
    ours = Preprocessing(resize, crop)
    width, height = ours._resized_size(size)
    assume(width * height < 1_000_000)
    image = patterned(size[0], size[1], pattern, seed)
    made, expected = ours(image), torchvisions(ours)(image)
    assert made.dtype == torch.float32 and made.is_contiguous()
    assert levels_apart(made, expected) < 1.001
    assert torch.equal(ours(np.array(image)), made)
    # Levels are whole: what differs is a level, and all else is the same to the last
    # bit.
    assert torch.equal(made, expected) or levels_apart(made, expected) > 0.999


def test_without_the_instructions_for_it_everything_is_pillows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT"
    )
    for size in ((300, 500), (30, 20), (1, 43)):
        ours = Preprocessing(64, 48)
        assert torch.equal(ours(photo(*size)), torchvisions(ours)(photo(*size)))


@pytest.mark.parametrize("size", [(128, 128), (97, 131), (640, 480), (2, 9)])
@pytest.mark.parametrize(
    "ours",
    [
        Preprocessing(144, 128),
        Preprocessing(60, None),
        Preprocessing(20, 40, (0.5,), (1.0,)),
    ],
)
def test_photos_of_one_size_together_are_the_same_as_one_by_one(
    ours: Preprocessing, size: tuple[int, int]
) -> None:
    photos = [photo(*size, seed) for seed in range(5)]
    mixed = [
        np.array(one) if index % 2 else one for index, one in enumerate(photos)
    ]
    assert torch.equal(
        ours.together(mixed), torch.stack([ours(one) for one in photos])
    )


@given(pairs, sides)
def test_one_mean_makes_a_grey_input_as_torchvision_does(
    size: Size, crop: int
) -> None:
    ours = Preprocessing(20, crop, (0.13,), (0.31,))
    pipeline = [
        T.Grayscale(),
        T.Resize(20),
        T.CenterCrop(crop),
        T.ToTensor(),
        T.Normalize([0.13], [0.31]),
    ]
    assert ours.channels == 1 and torch.equal(
        ours(photo(*size)), T.Compose(pipeline)(photo(*size))
    )


@given(
    st.integers(40, 90),
    st.integers(40, 90),
    st.none() | st.integers(30, 80) | pairs,
    st.integers(20, 100),
)
def test_the_placement_says_where_a_pixel_came_from(
    width: int, height: int, resize: int | Size | None, crop: int
) -> None:
    ours = Preprocessing(resize, crop, (0.0,), (1.0,), interpolation="nearest")
    placement = ours.placement((width, height))
    column, row = width // 2, height // 2
    image = Image.new("RGB", (width, height))
    image.putpixel((column, row), (255, 255, 255))
    bright = ours(image)[0].nonzero()
    for (
        y,
        x,
    ) in (
        bright.tolist()
    ):  # none, where the crop or the filter leaves the pixel out
        across = placement.left + (x + 0.5) / placement.input_size[1] * (
            placement.right - placement.left
        )
        down = placement.top + (y + 0.5) / placement.input_size[0] * (
            placement.bottom - placement.top
        )
        assert (
            column - 1e-9 <= across <= column + 1 + 1e-9
            and row - 1e-9 <= down <= row + 1 + 1e-9
        )


def test_a_crop_larger_than_the_photo_reaches_outside_of_it() -> None:
    placement = Preprocessing(None, 10).placement((4, 7))
    assert placement == Placement((4, 7), (10, 10), -3, -1, 7, 9)
    assert (
        not placement.is_whole
        and Preprocessing((9, 9), None).placement((4, 7)).is_whole
    )


def test_undoing_gives_the_picture_back() -> None:
    image = photo(20, 16)
    ours = Preprocessing(None, None)
    assert ours.undo(ours(image)).tobytes() == image.tobytes()
    grey = Preprocessing(None, None, (0.5,), (0.5,))
    assert (
        grey.undo(grey(image)).tobytes()
        == image.convert("L").convert("RGB").tobytes()
    )


def test_the_default_dtype_of_torch_does_not_matter() -> None:
    image = photo(40, 30)
    expected = Preprocessing(32, 32)(image)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Preprocessing(32, 32)(image), expected)
        assert Preprocessing(32, 32).undo(expected).size == (32, 32)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"resize": 0},
            "resize is a positive number of pixels, or (rows, cols), not 0",
        ),
        (
            {"crop": (3, -1)},
            "crop is a positive number of pixels, or (rows, cols), not (3, -1)",
        ),
        (
            {"crop": "224"},
            "crop is a positive number of pixels, or (rows, cols), not '224'",
        ),
        (
            {"resize": (1, 2, 3)},
            "resize is a positive number of pixels, or (rows, cols), not (1, 2, 3)",
        ),
        ({"resize": 25.6}, "not 25.6"),
        ({"resize": True}, "not True"),
        (
            {"interpolation": "cubic"},
            "interpolation 'cubic' is unknown: use one of nearest, bilinear, bicubic",
        ),
        (
            {"mean": (0.5, 0.5)},
            "mean and std need one value a channel (3 for RGB, 1 for grey), not 2 and "
            "3",
        ),
        ({"std": (0.5, 0.5, 0)}, "std must be positive, not (0.5, 0.5, 0)"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PreprocessingError) as refusal:
        Preprocessing(**options)
    assert message in str(refusal.value)


@pytest.mark.usefixtures("unchecked")
def test_lists_are_as_good_as_tuples() -> None:
    lists: list[Any] = [
        [20, 30],
        [16, 16],
        list(IMAGENET_MEAN),
        list(IMAGENET_STD),
    ]
    ours = Preprocessing(*lists)
    assert ours == Preprocessing((20, 30), (16, 16)) and hash(ours) is not None
    assert torch.equal(
        ours(photo(40, 30)), Preprocessing((20, 30), (16, 16))(photo(40, 30))
    )


def test_a_large_photo_that_is_not_resized_is_not_refused() -> None:
    wide = Image.new("L", (101_000, 1_000))
    assert Preprocessing(None, 8, (0.5,), (0.5,))(wide).shape == (1, 8, 8)


# Other scales, orders and channels. -------------------------------------------------

sixteen = st.integers(1, 16)


@given(
    pairs, sixteen, st.sampled_from([1, 255]), st.sampled_from(["rgb", "bgr"])
)
def test_scale_and_order_are_what_people_write_by_hand(
    size: Size, crop: int, scale: int, order: str
) -> None:
    mean = tuple(part * scale for part in (0.41, 0.46, 0.48))
    std = tuple(part * scale for part in (0.2, 0.3, 0.25))
    ours = Preprocessing(None, crop, mean, std, scale=scale, order=order)
    image = photo(*size)
    made = ours(image)

    # Caffe's way: crop, levels as they are, channels turned round, mean off.
    cropped = T.CenterCrop(crop)(image)
    levels = np.asarray(cropped, np.float64) * scale / 255
    if order == "bgr":
        levels = levels[..., ::-1]
    expected = ((levels - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)
    assert (
        np.abs(
            np.asarray(ours.undo(made)).astype(int) - np.asarray(cropped)
        ).max()
        == 0
    )


def test_minus_one_to_one_by_127_and_a_half() -> None:
    text = (
        "resize=none,crop=none,scale=255,mean=127.5/127.5/127.5,"
        "std=127.5/127.5/127.5"
    )
    image = photo(9, 7)
    expected = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1
    made = Preprocessing.parse(text)(image)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sides_of_mean", [(20, 24), (16, 16)])
def test_a_mean_image_is_cropped_as_the_photo_is(
    channels_last: bool, sides_of_mean: Size, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    mean = random.uniform(0, 255, (3, *sides_of_mean)).astype(np.float32)
    stored = mean.transpose(1, 2, 0) if channels_last else mean
    np.save(tmp_path / "mean.npy", stored)
    ours = Preprocessing.parse(
        f"resize=20x24,crop=16,scale=255,order=bgr,std=1/1/1,"
        f"mean={tmp_path / 'mean.npy'}"
    )
    image = photo(24, 20)
    pixels = np.asarray(image, np.float32)[..., ::-1].transpose(2, 0, 1)
    if sides_of_mean == (16, 16):
        expected = pixels[:, 2:18, 4:20] - mean
    else:
        expected = (pixels - mean)[:, 2:18, 4:20]
    made = ours(image)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-4)
    np.testing.assert_array_equal(
        np.asarray(ours.undo(made)), np.asarray(image)[2:18, 4:20]
    )
    assert "mean of mean.npy (3×" in ours.describe()
    # Another mean is another preprocessing; the same numbers are the same one.
    again = Preprocessing(
        (20, 24), 16, stored, (1, 1, 1), scale=255, order="bgr"
    )
    assert again == ours and hash(again) == hash(ours)
    other = Preprocessing(
        (20, 24), 16, stored + 1, (1, 1, 1), scale=255, order="bgr"
    )
    assert other != ours and other.describe() != ours.describe()


def test_mean_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PreprocessingError, match="there is no mean image"):
        Preprocessing.parse(f"mean={tmp_path / 'none.npy'}")
    (tmp_path / "text.npy").write_text("mean")
    with pytest.raises(
        PreprocessingError, match=r"save the array with numpy\.save"
    ):
        Preprocessing.parse(f"mean={tmp_path / 'text.npy'},std=1/1/1")
    with pytest.raises(PreprocessingError, match=r"shape \(4, 4\): expected"):
        Preprocessing(mean=np.zeros((4, 4), np.float32), std=(1, 1, 1))
    small = Preprocessing(None, 16, np.zeros((3, 4, 4), np.float32), (1, 1, 1))
    with pytest.raises(
        PreprocessingError, match="smaller than the input of 16×16"
    ):
        small(photo(20, 20))


@given(st.sampled_from([2, 4]), sixteen, sixteen)
def test_bands_are_resized_one_by_one(
    channels: int, rows: int, cols: int
) -> None:
    random = np.random.default_rng(0)
    array = random.integers(0, 256, (9, 7, channels), dtype=np.uint8)
    ours = Preprocessing(
        (rows, cols), None, (0.1,) * channels, (0.3,) * channels
    )
    image = Image.fromarray(array)
    made = ours(image)
    for band, plane in zip(made, image.split(), strict=True):
        small = np.asarray(
            plane.resize((cols, rows), Image.Resampling.BILINEAR)
        )
        np.testing.assert_allclose(band, (small / 255 - 0.1) / 0.3, atol=1e-5)
    assert torch.equal(ours.together([image, image])[1], made)
    with pytest.raises(
        PhotoError, match=r"a photo has 3 bands \(RGB\), and the"
    ):
        ours(photo(8, 8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "scale=127.5",
            "scale is 1 or 255, not 127.5: for a range from -1 to 1",
        ),
        ("scale=255", "give mean and std on that scale and in that order"),
        ("order=bgr", "give mean and std on that scale and in that order"),
        (
            "order=grb,mean=0/0/0,std=1/1/1",
            "order is 'rgb' or 'bgr', not 'grb'",
        ),
        ("order=bgr,mean=0,std=1", "order 'bgr' is for three channels, not 1"),
        ("white=0", "white is the positive value of white pixels"),
        ("white=much", "cannot be read: write for instance"),
    ],
)
def test_scales_and_orders_that_would_be_wrong_are_refused(
    text: str, message: str
) -> None:
    with pytest.raises(PreprocessingError) as refusal:
        Preprocessing.parse(text)
    assert message in str(refusal.value)


# Measured. ---------------------------------------------------------------------------

NORMAL = [T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]


@pytest.mark.parametrize(
    "size", [(640, 480), (300, 500), (97, 131), (1200, 30)]
)
@pytest.mark.parametrize(
    "ours",
    [
        Preprocessing(256, 224),
        Preprocessing((224, 224), None),
        Preprocessing(32, None),
        Preprocessing(None, 60),
        Preprocessing(None, None),
        Preprocessing((48, 64), (60, 40), interpolation="bicubic"),
        Preprocessing(128, 112, interpolation="nearest"),
    ],
)
def test_measuring_recovers_the_geometry(
    ours: Preprocessing, size: tuple[int, int]
) -> None:
    measured = MeasuredPreprocessing(torchvisions(ours))
    expected, found = ours.placement(size), measured.placement(size)
    assert found.input_size == expected.input_size and found.photo_size == size
    # In thousandths of the photo's side, or a part of a pixel where the photo is small.
    for edge in ("left", "right"):
        assert getattr(found, edge) == pytest.approx(
            getattr(expected, edge), abs=max(0.003 * size[0], 0.5)
        )
    for edge in ("top", "bottom"):
        assert getattr(found, edge) == pytest.approx(
            getattr(expected, edge), abs=max(0.003 * size[1], 0.5)
        )
    image = photo(*size)
    assert levels_apart(measured(image), ours(image)) < 1.001


# Changes of brightness that keep the order of levels, or reverse it.
TONES: dict[str, Callable[[Tensor], Tensor]] = {
    "clipped": lambda t: (1.5 * t).clamp(0, 1),
    "contrast": lambda t: (3 * (t - t.mean()) + t.mean()).clamp(0, 1),
    "gamma": lambda t: t**2.2,
    "logarithm": lambda t: (t + 0.01).log(),
    "negative": lambda t: 1 - t,
    "two levels": lambda t: (t > 0.4).float(),
    "by the largest": lambda t: t / (t.max() + 1e-6),
    "by the mean": lambda t: t / (t.mean() + 1e-6),
    "by the deviation": lambda t: t / (t.std() + 1e-6),
    "standardised": lambda t: (t - t.mean()) / (t.std() + 1e-8),
    "from least to most": lambda t: (t - t.min()) / (t.max() - t.min()),
    "blue first": lambda t: t.flip(0) * 255 - 110,
    "grey": lambda t: t.mean(0, keepdim=True).half(),
    "five channels": lambda t: torch.cat([torch.zeros_like(t[:2]), t]),
}
BRIGHTNESSES: list[Callable[[Image.Image], Image.Image]] = [
    lambda image: image,
    lambda image: ImageEnhance.Brightness(image).enhance(1.5),
    lambda image: ImageEnhance.Contrast(image).enhance(1.5),
    lambda image: ImageOps.autocontrast(image, cutoff=5),
    ImageOps.equalize,
    ImageOps.grayscale,
]
filters = st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"])


def assert_placed(found: Placement, expected: Placement) -> None:
    """Compare placements where the photo is, to half a pixel of the input or photo."""
    assert found.input_size == expected.input_size
    width, height = expected.photo_size
    rows, cols = expected.input_size
    for first, last, extent, count in (
        (0, 2, width, cols),
        (1, 3, height, rows),
    ):
        true = (expected.box[first], expected.box[last])
        told = (found.box[first], found.box[last])
        shown = np.clip(true, 0, extent)
        pixel = max(1.0, (true[1] - true[0]) / count)
        assert np.interp(shown, true, told) == pytest.approx(
            shown, abs=0.5 * pixel
        )


@given(
    st.tuples(st.integers(24, 300), st.integers(24, 300)),
    st.none() | st.integers(28, 150) | st.tuples(*[st.integers(28, 150)] * 2),
    st.tuples(*[st.integers(24, 150)] * 2),
    st.tuples(*[st.integers(0, 12)] * 2),
    filters,
    st.sampled_from(sorted(TONES)),
    st.sampled_from(BRIGHTNESSES),
)
@settings(max_examples=25, derandomize=True)
def test_no_change_of_brightness_changes_the_placement(
    size: Size,
    resize: int | Size | None,
    crop: Size,
    pad: Size,
    interpolation: str,
    tone: str,
    brightness: Callable[[Image.Image], Image.Image],
) -> None:
    plain = Preprocessing(resize, crop, interpolation=interpolation)
    width, height = plain._resized_size(size)
    assume(max(width, height) < 900)
    # Where much of the input is border, a photo is refused that could be measured.
    assume(crop[0] < 1.5 * height and crop[1] < 1.5 * width)
    resizing = T.Resize(
        (height, width), getattr(T.InterpolationMode, interpolation.upper())
    )
    measured = MeasuredPreprocessing(
        T.Compose(
            [
                brightness,
                resizing,
                T.CenterCrop(crop),
                T.Pad(pad, fill=114),
                T.ToTensor(),
                TONES[tone],
            ]
        )
    )

    box = plain.placement(size)
    across = (box.right - box.left) / crop[1] * pad[0]
    down = (box.bottom - box.top) / crop[0] * pad[1]
    expected = Placement(
        photo_size=size,
        input_size=(crop[0] + 2 * pad[1], crop[1] + 2 * pad[0]),
        left=box.left - across,
        top=box.top - down,
        right=box.right + across,
        bottom=box.bottom + down,
    )
    assert_placed(measured.placement(size), expected)


@pytest.mark.parametrize("size", [(8, 8), (3000, 2000), (1000, 10), (28, 28)])
def test_photos_of_extreme_sizes_can_be_measured(size: Size) -> None:
    ours = Preprocessing(36, 32)
    measured = MeasuredPreprocessing(torchvisions(ours))
    assert_placed(measured.placement(size), ours.placement(size))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("before", [1, 56, 111])
def test_a_letterbox_can_be_measured(mode: str, before: int) -> None:
    steps = [
        T.Resize((112, 224)),
        T.Pad((0, before, 0, 112 - before), 0, mode),
        T.ToTensor(),
    ]
    preprocessing = MeasuredPreprocessing(T.Compose(steps))
    # Of one photo mirrored over half of the input, pictures show a half of the map.
    told = (
        nullcontext()
        if mode == "constant"
        else pytest.warns(UnitscopeWarning, match="shows the photo again")
    )
    with told:
        found = preprocessing.placement((600, 300))
    top = -before / 112 * 300
    expected = Placement((600, 300), (224, 224), 0, top, 600, top + 600)
    assert_placed(found, expected)


@pytest.mark.parametrize("second", [lambda t: t, lambda t: t.flip(-1)])
def test_a_second_copy_of_the_photo_is_told(
    second: Callable[[Tensor], Tensor],
) -> None:
    resized = T.Compose([T.Resize((64, 64)), T.ToTensor()])

    def twice(image: Image.Image) -> Tensor:
        once = resized(image)
        return torch.cat([once, second(once)], -1)

    with pytest.warns(UnitscopeWarning, match="shows the photo again, beside"):
        found = MeasuredPreprocessing(twice).placement((200, 300))
    assert_placed(found, Placement((200, 300), (64, 128), 0, 0, 400, 300))


def test_what_hides_a_part_of_the_photo_can_be_measured() -> None:
    def masked(image: Image.Image) -> Image.Image:
        disc = Image.new("L", image.size)
        ImageDraw.Draw(disc).ellipse((0, 0, *image.size), fill=255)
        return Image.composite(image, Image.new("RGB", image.size), disc)

    steps = [masked, T.Resize((64, 64)), T.ToTensor()]
    found = MeasuredPreprocessing(T.Compose(steps)).placement((200, 300))
    assert found.box == pytest.approx((0, 0, 200, 300), abs=1)


def test_measuring_needs_neither_rgb_nor_the_cpus_dtype_nor_three_axes() -> (
    None
):
    def odd(image: Image.Image) -> Tensor:
        pipeline = T.Compose([T.Grayscale(), T.Resize((20, 30)), T.ToTensor()])
        made: Tensor = -pipeline(image)[None].double()
        return made

    measured = MeasuredPreprocessing(odd)
    assert measured.channels == 1 and measured.input_size == (20, 30)
    found = measured.placement((300, 200))
    assert found.box == pytest.approx((0, 0, 300, 200), abs=1)
    assert measured.undo(measured(photo(300, 200))).size == (30, 20)


def test_measuring_is_done_once_a_size() -> None:
    sizes = []

    def counting(image: Image.Image) -> Tensor:
        sizes.append(image.size)
        made: Tensor = T.ToTensor()(image)
        return made

    measured = MeasuredPreprocessing(counting)
    measured.placement((30, 20))
    before = len(sizes)
    measured.placement((30, 20))
    assert len(sizes) == before
    measured.placement((31, 20))
    # Two boards to read, one to prove, and their negatives; one picture more where the
    # size of the input depends on that of the photo.
    assert len(sizes) <= before + 7


@pytest.mark.parametrize("size", [(8, 224), (28, 28), (9, 8), (300, 5)])
def test_narrow_photos_that_are_not_resized_can_be_measured(size: Size) -> None:
    found = MeasuredPreprocessing(T.ToTensor()).placement(size)
    assert found.box == pytest.approx((0, 0, *size), abs=0.01)


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (5, 3), (1, 40)])
def test_tiny_photos_can_be_measured(size: tuple[int, int]) -> None:
    found = MeasuredPreprocessing(
        T.Compose([T.Resize((32, 32)), T.ToTensor()])
    ).placement(size)
    assert found.box == pytest.approx((0, 0, *size), abs=0.6)


@pytest.mark.parametrize(
    "step",
    [
        T.RandomHorizontalFlip(),
        T.RandomVerticalFlip(),
        T.RandomResizedCrop(64),
        T.RandomCrop(64),
        T.RandomRotation(30),
        T.ColorJitter(0.5),
        T.RandomApply([T.CenterCrop(100)]),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_random_transforms_are_refused(
    step: Callable[[Image.Image], Image.Image], seed: int
) -> None:
    torch.manual_seed(seed)
    measured = MeasuredPreprocessing(
        T.Compose([step, T.Resize((64, 64)), *NORMAL])
    )
    with pytest.raises(
        PreprocessingError,
        match="gives another result each time: use the one for evaluation, without "
        "random crops, flips, colours or noise",
    ):
        measured.placement((320, 240))


ORDER = "the photo's rows and columns are not kept in order and proportion"
LEAVE_OUT = "leave that out, or"
PASS = "if it only resizes and crops, pass unitscope.Preprocessing(resize="


@pytest.mark.parametrize(
    ("step", "reason", "remedy"),
    [
        (ImageOps.mirror, "it mirrors the photo left to right", LEAVE_OUT),
        (ImageOps.flip, "it mirrors the photo top to bottom", LEAVE_OUT),
        (
            functools.partial(Image.Image.rotate, angle=180),
            "it mirrors the photo left to right and top to bottom",
            LEAVE_OUT,
        ),
        (
            functools.partial(
                Image.Image.transpose, method=Image.Transpose.TRANSPOSE
            ),
            "it turns the photo by 90 degrees",
            LEAVE_OUT,
        ),
        (
            functools.partial(Image.Image.rotate, angle=90, expand=True),
            "it turns the photo by 90 degrees",
            LEAVE_OUT,
        ),
        (functools.partial(Image.Image.rotate, angle=10), ORDER, PASS),
        (
            functools.partial(
                Image.Image.transform,
                size=(320, 240),
                method=Image.Transform.AFFINE,
                data=(1, 0.05, 0, 0, 1, 0),
            ),
            ORDER,
            PASS,
        ),
        (
            lambda image: Image.new("RGB", image.size, "red"),
            "a picture and its negative give the same input",
            PASS,
        ),
        (
            ImageOps.solarize,
            "a picture and its negative give the same input",
            PASS,
        ),
        (
            lambda image: Image.fromarray(
                np.asarray(image)[
                    :, np.random.default_rng(0).permutation(image.width)
                ]
            ),
            ORDER,
            PASS,
        ),
        (
            lambda image: image.resize((2, 200)).resize((200, 200)),
            "the input shows too few of the photo's columns to tell which",
            "crop the photo to a less extreme shape, or explain the tensor",
        ),
        (
            lambda image: image.crop((7, 9, 8, 200)),
            "the input shows too few of the photo's columns to tell which",
            "crop the photo to a less extreme shape, or explain the tensor",
        ),
        (
            lambda image: image.crop(
                (0, 0, 99 + image.getpixel((2, 2))[0], 99)
            ),
            "the size of its result depends on what a photo shows",
            PASS,
        ),
    ],
)
def test_what_is_not_a_resize_and_a_crop_is_refused(
    step: Callable[[Image.Image], Image.Image], reason: str, remedy: str
) -> None:
    measured = MeasuredPreprocessing(lambda image: T.ToTensor()(step(image)))
    with pytest.raises(PreprocessingError) as refusal:
        measured.placement((320, 240))
    message = str(refusal.value)
    assert f"puts the photo cannot be measured ({reason}" in message
    assert f"): {remedy}" in message and "\n" not in message


def test_what_is_random_for_some_photos_only_is_refused() -> None:
    def sometimes(image: Image.Image) -> Tensor:
        crop = T.RandomCrop(64) if image.width == 320 else T.CenterCrop(64)
        made: Tensor = T.ToTensor()(crop(image))
        return made

    torch.manual_seed(0)
    measured = MeasuredPreprocessing(sometimes)
    assert measured.placement((100, 84)).box == pytest.approx((18, 10, 82, 74))
    with pytest.raises(PreprocessingError, match="another result each time"):
        measured.placement((320, 240))


@pytest.mark.parametrize("tone", [lambda t: (t - 0.5).sqrt(), torch.log])
def test_numbers_that_are_not_finite_are_not_random(
    tone: Callable[[Tensor], Tensor],
) -> None:
    measured = MeasuredPreprocessing(T.Compose([T.ToTensor(), tone]))
    assert measured.placement((40, 30)).is_whole


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            lambda image: np.asarray(image),
            "gave ndarray, not a (channel, row, col) tensor: end it with a conversion "
            "to a tensor, torchvision.transforms.ToTensor()",
        ),
        (
            lambda image: np.zeros((3, 8, 8), np.float32),
            "end it with a conversion to a tensor, torch.from_numpy",
        ),
        (
            lambda image: image,
            "end it with a conversion to a tensor, torchvision.transforms.ToTensor()",
        ),
        (
            lambda image: {"pixel_values": torch.zeros(3, 8, 8)},
            "return one (channel, row, col) tensor alone, e.g. its 'pixel_values'",
        ),
        (
            lambda image: torch.zeros(8, 8, 3),
            "put the channels first, .permute(2, 0, 1)",
        ),
        (lambda image: None, "gave NoneType, not a (channel, row, col) tensor"),
        (
            lambda image: torch.zeros(3, 4),
            "gave a torch.float32 tensor of shape (3, 4), not floating-point",
        ),
        (
            lambda image: torch.zeros(5, 3, 8, 8),
            "of shape (5, 3, 8, 8), not floating-point (channel, row, col)",
        ),
        (
            lambda image: torch.zeros(3, 8, 8, dtype=torch.uint8),
            "gave a torch.uint8 tensor of shape (3, 8, 8), not floating-point (channel, "
            "row, col): end it with a scaling to floating point",
        ),
        (
            lambda image: 1 / 0,
            "failed on a PIL image of 9×9 pixels (ZeroDivisionError: division by zero)",
        ),
        (
            lambda array: torch.zeros(*array.shape).sum(),
            "it takes arrays (row, col, channel): begin it with numpy.asarray",
        ),
        (
            lambda tensor: tensor.clamp(0, 1),
            "it takes tensors: begin it with torchvision.transforms.ToTensor()",
        ),
        (
            lambda image: torch.zeros(3, 0, 8),
            "gave an empty tensor of shape (3, 0, 8)",
        ),
    ],
)
def test_a_wrong_result_is_refused(
    transform: Callable[[Image.Image], Any], message: str
) -> None:
    with pytest.raises(PreprocessingError) as refusal:
        MeasuredPreprocessing(transform)(photo(9, 9))
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def without_border(image: Image.Image) -> Image.Image:
    """As fundus photographs are cropped before a network sees them."""
    box = image.convert("L").point(lambda level: 255 * (level > 9)).getbbox()
    return image.crop(box or (0, 0, *image.size))


def test_a_crop_of_what_the_photo_shows_is_refused() -> None:
    measured = MeasuredPreprocessing(
        T.Compose([without_border, T.Resize((48, 48)), T.ToTensor()])
    )
    with pytest.raises(
        PreprocessingError, match="depends on what the photo shows"
    ):
        measured.placement((120, 90))


def test_a_few_edges_that_fit_by_chance_are_no_proof() -> None:
    shown = (torch.arange(224) >= 168) & (torch.arange(224) < 228)
    measured = MeasuredPreprocessing(
        T.Compose(
            [
                T.Resize(256),
                T.CenterCrop(224),
                T.ToTensor(),
                lambda tensor: tensor * shown[:, None],
            ]
        )
    )
    # It was placed 147 pixels too high.
    with pytest.raises(
        PreprocessingError, match="the best resize and crop explains"
    ):
        measured.placement((817, 204))


def test_gradients_of_a_preprocessing_are_left_behind() -> None:
    measured = MeasuredPreprocessing(
        lambda image: T.ToTensor()(image).requires_grad_()
    )
    assert not measured(photo(9, 9)).requires_grad
    assert measured.placement((40, 30)).is_whole


def test_what_people_pass_becomes_a_preprocessing() -> None:
    from torchvision.models import ResNet50_Weights, Swin_T_Weights

    assert "assumed" in as_preprocessing(None).describe()
    ours = Preprocessing()
    assert as_preprocessing(ours) is ours
    for weights in (
        ResNet50_Weights.IMAGENET1K_V2,
        Swin_T_Weights.IMAGENET1K_V1,
    ):
        preset = weights.transforms()
        found = as_preprocessing(preset)
        image = photo(300, 200)
        assert (
            isinstance(found, Preprocessing)
            and levels_apart(found(image), preset(image)) < 1.001
        )
    own = as_preprocessing(T.Compose(NORMAL))
    assert isinstance(own, MeasuredPreprocessing) and own.describe().startswith(
        "own callable Compose("
    )
    assert "\n" not in own.describe()


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_preprocessing_is_refused() -> None:
    with pytest.raises(
        PreprocessingError,
        match=r"is unitscope\.Preprocessing or a callable .*, not str",
    ):
        as_preprocessing("imagenet")  # type: ignore[arg-type]


def test_a_picture_of_any_tensor() -> None:
    assert picture_of(torch.zeros(3, 4, 5)).size == (5, 4)
    assert picture_of(torch.randn(1, 4, 5)).mode == "RGB"
    assert picture_of(torch.randn(7, 4, 5, dtype=torch.float16)).mode == "RGB"
    stretched = np.asarray(picture_of(torch.tensor([[[-3.0, 1.0]]])))
    assert stretched.min() == 0 and stretched.max() == 255


@pytest.mark.parametrize(
    "text",
    [
        "resize=1x1x1",
        "resize=2x",
        "resize=1_0",
        "resize=٣٢",
        "crop=-3",
        "crop=3.5",
        "mean=nan/1/1",
        "std=inf/1/1",
        "std=1e99/1/1",
        "mean=1//2",
        "white=nan",
        "scale=",
        "resize=3,resize=4",
        "resize=256,,",
    ],
)
def test_text_is_read_strictly(text: str) -> None:
    with pytest.raises(PreprocessingError):
        Preprocessing.parse(text)
