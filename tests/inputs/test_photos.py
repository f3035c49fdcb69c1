"""Photos: every kind of file that people have, and clear errors for the rest."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageOps

from unitscope.errors import PhotoError
from unitscope.inputs.photos import Encoded, open_photo
from unitscope.inputs.preprocessing import Preprocessing

# Red, green / blue, white: every orientation of it can be told from the others.
CORNERS = Image.new("RGB", (3, 2), "black")
for place, colour in {
    (0, 0): "red",
    (2, 0): "lime",
    (0, 1): "blue",
    (2, 1): "white",
}.items():
    CORNERS.putpixel(place, ImageColor.getrgb(colour))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def opened(path: Path) -> np.ndarray:
    photo = open_photo(path)
    assert (
        photo.image.mode == "RGB"
        and photo.size == photo.image.size
        and photo.name == path.name
    )
    return pixels(photo.image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_put_upright(
    tmp_path: Path, orientation: int
) -> None:
    undos: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda image: image,
        2: ImageOps.mirror,
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: ImageOps.flip,
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    undos[orientation](CORNERS).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        opened(tmp_path / "turned.png"), pixels(CORNERS)
    )
    with Image.open(tmp_path / "turned.png") as image:
        assert open_photo(image).size == (3, 2)


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    CORNERS.save(
        tmp_path / "broken.png",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03",
    )
    np.testing.assert_array_equal(
        opened(tmp_path / "broken.png"), pixels(CORNERS)
    )


@pytest.mark.parametrize(
    "mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBX"]
)
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "HSV": None, "RGBX": "tif"}.get(
        mode, "png"
    )
    image = Image.new(
        "RGB", (4, 3), (204, 204, 204) if mode != "1" else (255, 255, 255)
    ).convert(mode)
    seen = pixels(open_photo(image).image)
    if suffix:
        image.save(tmp_path / f"photo.{suffix}")
        seen = opened(tmp_path / f"photo.{suffix}")
    assert seen.shape == (3, 4, 3)
    assert np.abs(seen.astype(int) - (255 if mode == "1" else 204)).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 10, 10, 255))
    through = {
        "LA": "LA",
        "PA": "PA",
        "La": "LA",
        "RGBa": "RGBA",
        "RGBA": "RGBA",
    }[mode]
    image = (
        image.convert("P").convert("PA")
        if mode == "PA"
        else image.convert(through).convert(mode)
    )
    if mode == "PA":
        return  # Pillow loses the alpha on the way; that it opens is all that can be asked
    np.testing.assert_array_equal(
        pixels(open_photo(image).image), [[[255] * 3, [10] * 3]]
    )


def test_a_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "one.png", transparency=0)
    image.save(tmp_path / "bytes.png", transparency=b"\x00\xff")
    image.save(tmp_path / "one.gif", transparency=0)
    for name in ("one.png", "bytes.png", "one.gif"):
        np.testing.assert_array_equal(
            opened(tmp_path / name), [[[255] * 3, [10, 20, 30]]]
        )


def test_a_transparent_colour_of_rgb_and_grey_is_laid_on_white(
    tmp_path: Path,
) -> None:
    CORNERS.save(tmp_path / "rgb.png", transparency=(0, 0, 0))
    assert (opened(tmp_path / "rgb.png")[:, 1] == 255).all()
    Image.new("L", (2, 2), 7).save(tmp_path / "grey.png", transparency=7)
    assert (opened(tmp_path / "grey.png") == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        np.testing.assert_array_equal(
            opened(tmp_path / name)[..., 0], [[0, 100, 255]]
        )
    np.testing.assert_array_equal(
        pixels(open_photo(Image.fromarray(deep.astype(np.int32))).image)[
            ..., 1
        ],
        [[0, 100, 255]],
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0.5, 1], [0, 128, 255]), ([0, 128, 255], [0, 128, 255])],
)
def test_floating_point_grey_is_read_on_the_scale_it_seems_to_have(
    tmp_path: Path, values: list[float], expected: list[int]
) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(
        opened(tmp_path / "float.tif")[0, :, 0], expected
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, np.nan], "holds NaN or infinite pixels"),
        ([0, np.inf], "holds NaN or infinite pixels"),
        ([-3, 1], "has pixel values from -3 to 1, outside 0–65535: say which"),
        ([0, 1e6], "has pixel values from 0 to 1e.06, outside 0–65535"),
    ],
)
def test_impossible_grey_is_refused(
    tmp_path: Path, values: list[float], message: str
) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "odd.tif")
    with pytest.raises(PhotoError, match=message):
        open_photo(tmp_path / "odd.tif")


def test_an_animation_gives_its_first_frame_and_an_open_one_the_frame_it_stands_at(
    tmp_path: Path,
) -> None:
    frames = [
        Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")
    ]
    frames[0].save(
        tmp_path / "moving.gif", save_all=True, append_images=frames[1:]
    )
    assert (opened(tmp_path / "moving.gif") == [255, 0, 0]).all()
    with Image.open(tmp_path / "moving.gif") as image:
        image.seek(2)
        photo = open_photo(image)
        assert image.tell() == 2 and (pixels(photo.image) == [0, 0, 255]).all()
    # The file is closed now; the photo can still be drawn.
    assert (pixels(open_photo(photo.source).image) == [0, 0, 255]).all()


def test_a_photo_from_memory_does_not_change_with_the_users_image() -> None:
    image = Image.new("RGB", (4, 4), "red")
    photo = open_photo(image)
    image.paste("blue", (0, 0, 4, 4))
    assert photo.name == "photo" and (pixels(photo.image) == [255, 0, 0]).all()
    assert (pixels(open_photo(photo.source).image) == [255, 0, 0]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3000, 2)])
def test_tiny_and_extreme_photos_can_be_preprocessed(
    size: tuple[int, int],
) -> None:
    photo = open_photo(Image.new("RGB", size, "red"))
    made = Preprocessing(resize=32, crop=32)(photo.image)
    assert made.shape == (3, 32, 32)


def test_an_absurd_shape_is_refused_before_memory_runs_out() -> None:
    with pytest.raises(
        PhotoError,
        match="a photo of 10000×1 pixels would become 2560000×256 when resized",
    ):
        Preprocessing()(Image.new("RGB", (10_000, 1)))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    noise = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    )
    for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp"):
        whole = io.BytesIO()
        noise.save(
            whole, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
        )
        path = tmp_path / f"cut.{suffix}"
        for keep in (0.5, 0.95):
            path.write_bytes(
                whole.getvalue()[: int(len(whole.getvalue()) * keep)]
            )
            with pytest.raises(PhotoError) as refusal:
                open_photo(path)
            assert str(path) in str(refusal.value) and "\n" not in str(
                refusal.value
            )
    path = tmp_path / "cut.jpg"
    with (
        Image.open(path) as lazy,
        pytest.raises(PhotoError, match=r"'cut\.jpg' is damaged or cut short"),
    ):
        open_photo(lazy)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_gives_a_photo_or_a_clear_refusal(
    tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    whole = io.BytesIO()
    kind = ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "PPM"][seed % 8]
    Image.fromarray(random.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(
        whole, kind
    )
    damaged = bytearray(whole.getvalue())
    for place in random.integers(0, min(len(damaged), 200), 6):
        damaged[place] = random.integers(0, 256)
    path = tmp_path / "photo.bin"
    path.write_bytes(damaged)
    try:
        assert open_photo(path).image.mode == "RGB"
    except PhotoError as refusal:
        assert str(path) in str(refusal)
    except Warning:
        pass  # Pillow's own remark, which is an error only in these tests


def test_encoded_bytes_are_opened_as_the_formats_that_they_may_have_only() -> (
    None
):
    buffer = io.BytesIO()
    CORNERS.save(buffer, "png")
    data = buffer.getvalue()
    for formats in (None, ("PNG",), ("JPEG", "PNG")):
        assert open_photo(
            Encoded("a.png", lambda: data, len(data), formats)
        ).size == (
            3,
            2,
        )
    with pytest.raises(
        PhotoError, match=r"'a\.png' is not a picture that Pillow can read"
    ):
        open_photo(Encoded("a.png", lambda: data, len(data), ("TIFF", "JPEG")))


def test_what_is_no_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "words.jpg").write_text("a dog, I promise")
    for name in ("empty.jpg", "words.jpg"):
        with pytest.raises(
            PhotoError,
            match="is not a picture that Pillow can read: convert it to JPEG or PNG",
        ):
            open_photo(tmp_path / name)
    with pytest.raises(
        PhotoError, match=r"is a folder: name the photos in it, e\.g\."
    ):
        open_photo(str(tmp_path))
    with pytest.raises(
        PhotoError,
        match=r"there is no photo 'no such\.jpg': check the path \(looked in ",
    ):
        open_photo("no such.jpg")
    with pytest.raises(PhotoError, match="cannot be read"):
        open_photo("a\0b.jpg")
    with pytest.raises(PhotoError, match="cannot be read"):
        open_photo("x" * 5000)


def test_a_photo_of_no_pixels_is_refused() -> None:
    with pytest.raises(PhotoError, match="'photo' is empty"):
        open_photo(Image.new("RGB", (0, 5)))


def test_a_closed_image_is_refused(tmp_path: Path) -> None:
    CORNERS.save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        pass
    image.close()
    with pytest.raises(PhotoError, match="is damaged or cut short"):
        open_photo(image)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "junk", [3, None, np.zeros((4, 4, 3), np.uint8), object()]
)
def test_what_is_neither_a_path_nor_an_image_is_refused(junk: object) -> None:
    with pytest.raises(
        PhotoError,
        match=f"file open in binary mode, not {type(junk).__name__}: make an array",
    ):
        open_photo(junk)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_the_bytes_of_a_file_are_a_photo(kind: Callable[[bytes], Any]) -> None:
    buffer = io.BytesIO()
    CORNERS.save(buffer, "png")
    found = open_photo(kind(buffer.getvalue()))
    assert found.name == "photo"
    np.testing.assert_array_equal(pixels(found.image), pixels(CORNERS))
    # The photo can be opened again to be drawn.
    assert open_photo(found.source).size == (3, 2)


@pytest.mark.usefixtures("unchecked")
def test_an_open_file_is_read_whole_and_left_where_it_stands(
    tmp_path: Path,
) -> None:
    path = tmp_path / "photo.png"
    CORNERS.save(path)
    with path.open("rb") as file:
        file.seek(5)
        found = open_photo(file)
        assert found.name == "photo.png" and found.size == (3, 2)
        assert file.tell() == 5 and not file.closed
    with (
        path.open(encoding="latin-1") as text,
        pytest.raises(
            PhotoError,
            match=r"'photo\.png' gives str, not bytes: open it in binary",
        ),
    ):
        open_photo(text)  # type: ignore[arg-type]
    with pytest.raises(PhotoError, match=r"'photo\.png' cannot be read"):
        open_photo(file)


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(
        PhotoError, match="'photo' is not a picture that Pillow"
    ):
        open_photo(b"photo.jpg")


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("https://example.org/a.jpg", "download it first"),
        ("HTTP://example.org/a.jpg", "download it first"),
        (Path("s3://bucket/a.jpg"), "download it first"),
        ("file:///photos/a.jpg", "give the path behind file://"),
        ("data:image/png;base64,iVBORw0KGgo=", "decode it, and give"),
    ],
)
def test_addresses_are_refused_with_what_to_do(
    address: str | Path, remedy: str
) -> None:
    with pytest.raises(PhotoError, match=r"is an address.*" + remedy):
        open_photo(address)


def test_a_file_that_is_called_like_an_address_is_a_file(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "http:"
    folder.mkdir()
    CORNERS.save(folder / "a.png")
    with contextlib.chdir(tmp_path):
        assert open_photo("http:/a.png").size == (3, 2)


def flat_png(path: Path, width: int, height: int) -> None:
    """A one-colour PNG written row by row, small on disk however large the picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    squeeze = zlib.compressobj(1)
    row = b"\0" + b"\x80" * width
    body = b"".join(
        squeeze.compress(row * 64) for _ in range(height // 64)
    ) + squeeze.compress(row * (height % 64))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header)
        + chunk(b"IDAT", body + squeeze.flush())
        + chunk(b"IEND", b"")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.slow
def test_a_photo_of_a_hundred_megapixels_is_opened(tmp_path: Path) -> None:
    flat_png(tmp_path / "huge.png", 11_000, 9_200)
    photo = open_photo(tmp_path / "huge.png")
    assert photo.size == (11_000, 9_200)
    assert Preprocessing()(photo.image).shape == (3, 224, 224)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    flat_png(tmp_path / "small.png", 1, 1)
    header = struct.pack(">4sIIBBBBB", b"IHDR", 20_000, 20_000, 8, 0, 0, 0, 0)
    bomb = bytearray((tmp_path / "small.png").read_bytes())
    bomb[12 : 16 + 13 + 4] = header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(
        PhotoError, match=r"is too large to decode safely .*: shrink it first"
    ):
        open_photo(tmp_path / "bomb.png")
