"""Large photos: decoded small, in the right place, and nearly as from all pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unitscope.errors import PhotoError
from unitscope.inputs import large
from unitscope.inputs.photos import Photo, open_photo
from unitscope.inputs.preprocessing import Preprocessing, reading_of

SIZE = (403, 301)
SMALL = Preprocessing(resize=20, crop=16, mean=(0, 0, 0), std=(1, 1, 1))


def picture(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    if mode == "I;16":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        return Image.fromarray(grey * np.uint16(257))
    if mode == "RGBA":
        image.putalpha(image.convert("L"))
    return image.convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes, own: Preprocessing = SMALL) -> Photo:
    return open_photo(data, reading=reading_of(own))


@pytest.fixture
def lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE", 100_000)


@pytest.mark.parametrize(("turn", "resize"), [(1, 20), (6, (24, 18))])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "1"),
        ("PNG", "I;16"),
        ("TIFF", "RGB"),
        ("WEBP", "RGB"),
    ],
)
def test_the_input_is_nearly_that_of_all_pixels(
    kind: str,
    mode: str,
    turn: int,
    resize: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Preprocessing(resize, 16, mean=(0, 0, 0), std=(1, 1, 1))
    exif = Image.Exif()
    exif[0x112] = turn
    data = encoded(kind, mode, exif=exif)
    whole = opened(data, own)
    expected = own(whole.held)
    assert large.NOTE not in whole.notes

    monkeypatch.setattr(large, "LARGE", 100_000)
    photo = opened(data, own)
    assert photo.size == whole.size and large.NOTE in photo.notes
    assert max(photo.image.size) < 40
    assert photo.image.size == large.Resize(resize, "bilinear").size(whole.size)
    difference = (own(photo.held) - expected).abs().max()
    assert difference * 255 <= 6


def test_an_image_in_memory_is_resized_as_its_file(lower: None) -> None:
    from_file = SMALL(opened(encoded("PNG")).held)
    assert (SMALL(picture()) == from_file).all()


def test_pixels_are_not_shrunk_where_the_network_needs_them(
    lower: None,
) -> None:
    data = encoded("PNG")
    for own in (Preprocessing(400, 16), Preprocessing(None, 16)):
        photo = opened(data, own)
        assert photo.image.size == SIZE and photo.notes == ()
    # Cut out first, to the same numbers.
    own = Preprocessing(None, (500, 16))
    part = own(opened(data, own).held)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "LARGE", 10**9)
        assert (part == own(picture())).all()


def test_nearest_takes_pixels_of_the_file(lower: None) -> None:
    own = Preprocessing(20, 16, interpolation="nearest")
    photo = opened(encoded("JPEG"), own)
    with Image.open(io.BytesIO(encoded("JPEG"))) as image:
        expected = image.resize(photo.image.size, Image.Resampling.NEAREST)
    assert photo.image.tobytes() == expected.tobytes()


def test_a_photo_opened_otherwise_is_read_anew(lower: None) -> None:
    photo = open_photo(encoded("JPEG"))
    assert not photo.is_read_by(reading_of(SMALL))
    assert photo.is_read_by(photo.reading)


@pytest.mark.parametrize(
    ("kind", "options", "remedy"),
    [
        ("WEBP", {}, "save it as JPEG or PNG"),
        ("JPEG", {"progressive": True}, "save it as baseline JPEG"),
        (
            "TIFF",
            {"compression": "tiff_lzw", "tiffinfo": {278: SIZE[1]}},
            "save it in more strips",
        ),
    ],
)
def test_what_takes_too_much_memory_is_refused(
    kind: str,
    options: dict[str, Any],
    remedy: str,
    lower: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(kind, **options)
    assert opened(data).size == SIZE
    needed = 16 if kind == "WEBP" else 3 if kind == "JPEG" else 8
    most = SIZE[0] * SIZE[1] * needed - 1
    monkeypatch.setattr(large, "MOST_MEMORY", most)
    with pytest.raises(PhotoError, match=remedy):
        opened(data)
