"""Decoding: depths, bands and pages, each against pixels made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unitscope.errors import PhotoError
from unitscope.inputs.decoding import Reading
from unitscope.inputs.photos import Photo, open_photo

EXTRA_SAMPLES = 338


def encoded(array: np.ndarray, kind: str = "TIFF", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(top: float, kind: type) -> np.ndarray:
    """64 levels from 0 to `top`."""
    return np.linspace(0, top, 64).astype(kind).reshape(8, 8)


def levels(photo: Photo) -> np.ndarray:
    return np.asarray(photo.image).astype(int)


def png(samples: np.ndarray, significant: int | None = None) -> bytes:
    """A PNG file of 16-bit grey or RGB, written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", check)
        )

    rows, cols = samples.shape[:2]
    bands = samples.shape[2] if samples.ndim == 3 else 1
    colour = {1: 0, 3: 2, 4: 6}[bands]
    header = struct.pack(">IIBBBBB", cols, rows, 16, colour, 0, 0, 0)
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = [chunk(b"IHDR", header)]
    if significant is not None:
        chunks.append(chunk(b"sBIT", bytes([significant] * bands)))
    chunks += [chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
@pytest.mark.parametrize(
    ("top", "bits"), [(255, 8), (256, 10), (4095, 12), (9000, 14), (16384, 16)]
)
def test_deep_grey_is_read_by_the_least_usual_depth_that_holds_it(
    kind: str, top: int, bits: int
) -> None:
    samples = ramp(top, np.uint16)
    photo = open_photo(encoded(samples, kind))
    expected = np.round(samples * (255 / (2**bits - 1)))
    np.testing.assert_array_equal(levels(photo)[..., 0], expected)
    if bits == 16:
        assert photo.notes == ()
    else:
        (note,) = photo.notes
        assert f"that fit {bits} bits are read as {bits} bits" in note
        assert "say so for all photos of a set alike, e.g. white=65535" in note
        assert ("a dark picture of more bits looks the same" in note) == (
            bits == 8
        )


@pytest.mark.parametrize(
    ("top", "white", "words"),
    [
        (1.0, 1, "read on the scale 0–1"),
        (0.5, 1, "read on the scale 0–1"),
        (255.0, 255, "floating-point samples that fit 8 bits"),
        (300.0, 1023, "floating-point samples that fit 10 bits"),
        (65535.0, 65535, "floating-point samples that fit 16 bits"),
    ],
)
def test_floating_point_grey_is_told(
    top: float, white: float, words: str
) -> None:
    samples = ramp(top, np.float32)
    photo = open_photo(encoded(samples))
    expected = np.round(samples.astype(np.float64) * 255 / white)
    np.testing.assert_array_equal(levels(photo)[..., 0], expected)
    assert words in photo.notes[0]


def test_a_black_picture_is_black_on_every_scale() -> None:
    photo = open_photo(encoded(np.zeros((2, 2), np.uint16)))
    assert photo.notes == () and not levels(photo).any()


def test_the_users_white_is_taken_and_what_lies_beyond_is_cut_off() -> None:
    samples = ramp(4095, np.uint16)
    photo = open_photo(encoded(samples), reading=Reading(white=65535))
    np.testing.assert_array_equal(
        levels(photo)[..., 0], np.round(samples / 257)
    )
    assert photo.notes == ()

    photo = open_photo(encoded(samples), reading=Reading(white=1000))
    assert (levels(photo)[..., 0][samples > 1000] == 255).all()
    assert photo.notes == ("samples below 0 and above white=1000 are cut off",)

    counts = np.array([[-1000.0, 0, 1e6]], np.float32)
    photo = open_photo(encoded(counts), reading=Reading(white=1e6))
    assert levels(photo)[0, :, 0].tolist() == [0, 0, 255]


def test_the_significant_bits_of_a_png_say_what_is_white() -> None:
    small = np.array([[0, 100, 4095]], np.uint16)
    lower = open_photo(png(small, significant=12))
    assert levels(lower)[0, :, 0].tolist() == [0, 6, 255]
    # As the format wants it: the upper bits, here of a dark picture.
    upper = open_photo(
        png(np.array([[0, 16, 4080]], np.uint16), significant=12)
    )
    assert levels(upper)[0, :, 0].tolist() == [0, 0, 16]
    assert lower.notes == upper.notes == ()


def test_pgm_files_say_their_largest_value() -> None:
    data = b"P5 3 1 4095\n" + np.array([0, 100, 2000], ">u2").tobytes()
    photo = open_photo(data)
    assert levels(photo)[0, :, 0].tolist() == [0, 6, 125]
    assert photo.notes == ()


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.sampled_from([255, 4095, 16383, 65535]))
def test_colour_of_sixteen_bits_is_scaled_as_grey_is(
    seed: int, top: int
) -> None:
    random = np.random.default_rng(seed)
    samples = random.integers(0, top + 1, (5, 4, 3), dtype=np.uint16)
    samples[0, 0, 1] = top
    photo = open_photo(png(samples))
    expected = samples * (255 / top)
    # Where all 16 bits are used, Pillow's upper byte is within one level.
    allowed = 1.0 if top == 65535 else 0.5
    assert np.abs(levels(photo) - expected).max() <= allowed + 1e-9
    assert bool(photo.notes) == (top < 65535)


def test_the_lower_bytes_of_colours_are_read_from_tiff_too(
    tmp_path: Path,
) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    samples = np.arange(60, dtype=np.uint16).reshape(5, 4, 3) * 68
    for options in ([], [cv2.IMWRITE_TIFF_COMPRESSION, 1]):
        cv2.imwrite(str(tmp_path / "a.tif"), samples[..., ::-1], options)
        photo = open_photo(tmp_path / "a.tif")
        np.testing.assert_array_equal(
            levels(photo), np.round(samples * (255 / 4095))
        )
        with Image.open(tmp_path / "a.tif") as image:
            np.testing.assert_array_equal(
                levels(open_photo(image)), levels(photo)
            )


def test_the_alpha_of_sixteen_bit_colour_is_kept() -> None:
    samples = np.full((2, 2, 4), 4095, np.uint16)
    samples[..., :3] = 819
    samples[0, 0, :3] = 4095
    samples[..., 3] = 65535
    samples[1, 1, 3] = 0
    photo = open_photo(png(samples))
    assert levels(photo)[..., 0].tolist() == [[255, 51], [51, 255]]


def tiff(array: np.ndarray, kind: int | None) -> bytes:
    """A TIFF file whose last band is of a kind; None to say nothing of it."""
    data = encoded(array)
    order = "<" if data.startswith(b"II") else ">"
    # The entry of a tag: its number, type, count and value, which Pillow makes 2.
    entry = struct.pack(f"{order}HHIHH", EXTRA_SAMPLES, 3, 1, 2, 0)
    assert data.count(entry) == 1
    other = EXTRA_SAMPLES if kind is not None else 65000
    return data.replace(
        entry, struct.pack(f"{order}HHIHH", other, 3, 1, kind or 0, 0)
    )


@pytest.mark.parametrize(
    ("kind", "is_alpha"), [(2, True), (0, False), (None, False)]
)
def test_a_fourth_band_is_alpha_only_where_the_file_says_so(
    kind: int | None, is_alpha: bool
) -> None:
    array = np.zeros((2, 2, 4), np.uint8)
    array[..., 0] = 200
    photo = open_photo(tiff(array, kind))
    expected = [255, 255, 255] if is_alpha else [200, 0, 0]
    assert (levels(photo) == expected).all()
    assert bool(photo.notes) == (not is_alpha)
    if not is_alpha:
        assert (
            "1 of 4 bands left out: the file calls them neither"
            in photo.notes[0]
        )


def test_bands_are_kept_as_they_are_where_they_are_asked_for() -> None:
    array = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    for data in (tiff(array, None), encoded(array, "PNG")):
        photo = open_photo(data, reading=Reading(original="bands"))
        assert photo.original is not None and photo.notes == ()
        np.testing.assert_array_equal(np.asarray(photo.original), array)
        np.testing.assert_array_equal(levels(photo), array[..., :3])


def test_the_file_s_own_picture_is_kept_where_it_is_asked_for() -> None:
    samples = np.array([[-5.0, np.nan, 20.0]], np.float32)
    photo = open_photo(encoded(samples), reading=Reading(original="file"))
    assert photo.original is not None and photo.original.mode == "F"
    np.testing.assert_array_equal(np.asarray(photo.original), samples)
    assert levels(photo)[0, :, 0].tolist() == [0, 51, 255]


def animation(kind: str) -> bytes:
    first, *others = [
        Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")
    ]
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG"])
def test_pages_are_counted_and_the_choice_is_told(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "stack"
    path.write_bytes(animation(kind))
    photo = open_photo(path)
    assert (levels(photo) == [255, 0, 0]).all()
    assert photo.notes[0].startswith("page 1 of 3 is read, the other pages")

    with Image.open(path) as image:
        image.seek(2)
        chosen = open_photo(image)
        assert image.tell() == 2
    assert chosen.notes[0].startswith("page 3 of 3 is read")


def test_counting_pages_leaves_the_users_changes() -> None:
    image = Image.open(io.BytesIO(animation("GIF")))
    image.load()
    image.putpixel((1, 1), 1 - int(image.getpixel((0, 0))))  # type: ignore[arg-type]
    before = image.tobytes()
    open_photo(image)
    assert image.tobytes() == before


@pytest.mark.parametrize(
    "open_again", [lambda photo: photo.held, lambda photo: photo.image]
)
def test_a_photo_is_drawn_as_it_was_read(
    open_again: Callable[[Photo], Any],
) -> None:
    data = encoded(ramp(4095, np.uint16))
    photo = open_photo(data, reading=Reading(white=65535))
    again = np.asarray(open_again(photo.without_pixels()))
    np.testing.assert_array_equal(again, levels(photo))


def test_colour_too_dark_to_read_is_refused() -> None:
    # Pillow has no way to the lower bytes of grey with alpha.
    rows, cols = 2, 2
    samples = np.full((rows, cols, 2), 300, ">u2")
    body = b"".join(b"\0" + row.tobytes() for row in samples)
    data = png(np.zeros((rows, cols), np.uint16))
    start = data.index(b"IHDR") + 4
    header = struct.pack(">IIBBBBB", cols, rows, 16, 4, 0, 0, 0)
    content = zlib.compress(body)
    whole = data[: start - 8]
    for kind, part in ((b"IHDR", header), (b"IDAT", content), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + part))
        whole += struct.pack(">I", len(part)) + kind + part + check
    with pytest.raises(PhotoError, match="only the upper 8 can be read"):
        open_photo(whole)
