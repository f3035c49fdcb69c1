"""JPEGs: simplejpeg gives Pillow's pixels, bit for bit, or the file is left to Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unitscope.errors import PhotoError
from unitscope.inputs import jpegs
from unitscope.inputs.photos import Encoded, Photo, open_photo
from unitscope.inputs.preprocessing import Preprocessing

needs_simplejpeg = pytest.mark.skipif(
    jpegs.decode_jpeg is None,  # type: ignore[attr-defined]
    reason="simplejpeg is not installed",
)

sides = st.integers(1, 90)


def jpeg(
    size: tuple[int, int], mode: str = "RGB", seed: int = 0, **options: Any
) -> bytes:
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size[1] // 5 + 1, size[0] // 5 + 1, 3), dtype=np.uint8
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(
        mode
    ).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def opened(data: bytes) -> Photo:
    return open_photo(Encoded("photo.jpg", lambda: data, len(data)))


def by_pillow(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


@needs_simplejpeg
@given(
    st.tuples(sides, sides),
    st.sampled_from(["RGB", "L"]),
    st.integers(1, 100),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_the_pixels_are_pillows(
    size: tuple[int, int],
    mode: str,
    quality: int,
    subsampling: str,
    progressive: bool,
    seed: int,
) -> None:
    data = jpeg(
        size,
        mode,
        seed,
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
    )
    photo = opened(data)
    assert isinstance(photo.pixels, np.ndarray) and photo.size == size
    np.testing.assert_array_equal(photo.pixels, by_pillow(data))
    np.testing.assert_array_equal(np.asarray(photo.image), photo.pixels)


@given(st.integers(0, 10**6), st.booleans())
def test_damaged_files_are_read_or_refused_as_by_pillow(
    seed: int, cut: bool
) -> None:
    random = np.random.default_rng(seed)
    data = jpeg((40, 30), seed=seed, progressive=seed % 2 == 0)
    if cut:
        data = data[: int(random.integers(2, len(data)))]
    else:
        broken = bytearray(data)
        for place in random.integers(2, len(broken), 3):
            broken[place] = random.integers(0, 256)
        data = bytes(broken)
    try:
        seen = np.asarray(opened(data).image)
    except PhotoError:
        assert by_pillow(data) is None
    else:
        np.testing.assert_array_equal(seen, by_pillow(data))


def test_whole_files_with_something_behind_them_are_read() -> None:
    data = jpeg((40, 30))
    np.testing.assert_array_equal(
        np.asarray(opened(data + b"junk" * 30).image), by_pillow(data)
    )
    with pytest.raises(
        PhotoError, match=r"'photo\.jpg' is damaged or cut short"
    ):
        opened(data[:-40])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_put_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert opened(jpeg((40, 30), exif=exif)).size == (
        (40, 30) if orientation < 5 else (30, 40)
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_cmyk_and_broken_exif_are_read() -> None:
    data = jpeg((40, 30), "CMYK")
    np.testing.assert_array_equal(
        np.asarray(opened(data).image), by_pillow(data)
    )
    data = jpeg((40, 30), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03")
    np.testing.assert_array_equal(
        np.asarray(opened(data).image), by_pillow(data)
    )


def test_the_first_picture_of_several_is_read() -> None:
    first, second = (
        Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")
    )
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    photo = opened(buffer.getvalue())
    np.testing.assert_array_equal(
        np.asarray(photo.image), by_pillow(buffer.getvalue())
    )


@pytest.mark.parametrize(
    "why", ["not installed", "another library", "an odd size"]
)
def test_without_it_photos_are_the_same(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg((400, 300))
    before = Preprocessing()(opened(data).held)
    if why == "not installed":
        monkeypatch.setattr(jpegs, "decode_jpeg", None)
    if why == "another library":
        monkeypatch.setattr(jpegs, "_IS_SAME_LIBRARY", False)
    if why == "an odd size":
        monkeypatch.setattr(
            jpegs, "decode_jpeg", lambda data: np.zeros((3, 3, 3), np.uint8)
        )
    photo = opened(data)
    assert isinstance(photo.pixels, Image.Image) and torch.equal(
        Preprocessing()(photo.held), before
    )
