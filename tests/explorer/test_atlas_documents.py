"""Atlas documents: drawn only when they are asked for, and quick to say what is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from networks import Gap, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.datasets import open_dataset
from unitscope.errors import InputError, MissingError
from unitscope.explorer.atlas_documents import AtlasDocuments
from unitscope.explorer.tiles import STATES
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.inputs.raw import RawPictures
from unitscope.model import wrap


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Eight units and then seventy on twelve photos of one colour each."""
    root = tmp_path_factory.mktemp("scanned")
    for number in range(12):
        path = root / "photos" / f"class {number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 48), (20 * number, 255 - 20 * number, 128)).save(
            path
        )
    model = wrap(
        seeded(lambda: Gap(units=70, classes=3)),
        labels=["class 0", "class 1", "class 2"],
        preprocessing=Preprocessing(resize=36, crop=32),
    )
    return scan(
        model,
        root / "photos",
        root / "atlas",
        engine="torch",
        layers=["features.0"],
        top=8,
        sample=5,
        batch_size=4,
    )


def contents(
    atlas: Atlas, folder: Path, photos: Path | None = None, drawn: bool = False
) -> AtlasDocuments:
    photos = (
        Path(atlas.manifest["data"]["source"]) if photos is None else photos
    )
    return AtlasDocuments(atlas, open_dataset(photos), folder, drawn=drawn)


def test_nothing_is_drawn_before_it_is_asked_for(
    atlas: Atlas, tmp_path: Path
) -> None:
    pages = contents(atlas, tmp_path)
    index, told = pages.index(), pages.units(1, 1)
    assert list(tmp_path.iterdir()) == [] and index["missing"] == 0
    chunk = index["layers"][1]["chunk"]
    assert 35 <= chunk < 70 and len(told["units"]) == 70 - chunk
    assert {row[4] for row in told["images"].values()} == {0}
    json.dumps(
        [index, told, pages.neighbours(1, 1), pages.classes(0)], allow_nan=False
    )
    image = told["units"][0]["maximum"]["images"][0]
    path = pages.tile(image)
    assert (
        path
        == tmp_path / "images" / "0" / f"{image}.{index['tiles']['suffix']}"
    )
    with Image.open(path) as tile:
        assert tile.size == (43, 43)
    before = path.stat().st_mtime_ns
    assert pages.tile(image) == path and path.stat().st_mtime_ns == before


def test_a_sprite_is_the_top_images_of_a_unit_in_rows_of_three(
    atlas: Atlas, tmp_path: Path
) -> None:
    pages = contents(atlas, tmp_path)
    path = pages.sprite(1, 65)
    assert path.parent == tmp_path / "sprites" / "1" and path.stem == "65"
    told = pages.units(1, 1)
    shown = told["units"][65 - pages.chunks(1)[1].start]["maximum"]["images"]
    numbers = [int(Path(told["images"][image][0]).stem) for image in shown]
    with Image.open(path) as sprite:
        assert sprite.size == (3 * 43, 2 * 43)
        for rank, number in enumerate(numbers[:6]):
            wanted = (20 * number, 255 - 20 * number, 128)
            found = sprite.getpixel(
                (43 * (rank % 3) + 21, 43 * (rank // 3) + 21)
            )
            assert isinstance(found, tuple)
            assert np.abs(np.subtract(found, wanted)).max() < 12


def test_images_that_are_gone_say_why(atlas: Atlas, tmp_path: Path) -> None:
    photos = shutil.copytree(
        atlas.manifest["data"]["source"], tmp_path / "photos"
    )
    pages = contents(atlas, tmp_path / "pages", photos)
    told = pages.units(1, 0)
    images = told["units"][3]["maximum"]["images"]
    of = [row[0] for row in (told["images"][image] for image in images)]
    (photos / of[0]).unlink()
    shutil.copy(photos / of[2], photos / of[1])
    with pytest.raises(MissingError, match="photo not found"):
        pages.tile(images[0])
    with pytest.raises(MissingError, match="another photo now"):
        pages.tile(images[1])
    # What is known by now is told at once.
    states = [pages.units(1, 0)["images"][image][4] for image in images[:3]]
    assert [STATES[state] for state in states] == [
        "photo not found",
        "another photo now",
        "",
    ]
    with Image.open(pages.sprite(1, 3)) as sprite:
        grey = sprite.getpixel((20, 20))
        assert isinstance(grey, tuple)
        assert np.abs(np.subtract(grey, 128)).max() < 4


def test_where_drawn_it_is_told_at_once(atlas: Atlas, tmp_path: Path) -> None:
    pages = contents(atlas, tmp_path, drawn=True)
    told = pages.units(0, 0)
    assert {int(path.stem) for path in tmp_path.rglob("images/0/*")} == set(
        told["images"]
    )


def test_without_a_data_set_all_are_gone(atlas: Atlas, tmp_path: Path) -> None:
    pages = AtlasDocuments(atlas, None, tmp_path)
    assert {STATES[row[4]] for row in pages.units(0, 0)["images"].values()} == {
        "photo not found"
    }
    with pytest.raises(MissingError, match="photo not found"):
        pages.sprite(0, 0)


def test_what_is_not_there(atlas: Atlas, tmp_path: Path) -> None:
    pages = contents(atlas, tmp_path)
    for asked, message in (
        (lambda: pages.units(2, 0), "no layer at place 2: this atlas has 2"),
        (lambda: pages.units(-1, 0), "no layer at place -1"),
        (lambda: pages.units(1, 2), "no part 2 of layer 'features'"),
        (lambda: pages.neighbours(1, -1), "no part -1 of layer 'features'"),
        (lambda: pages.classes(1), "no part 1 of the 3 classes"),
        (lambda: pages.classes(-1), "no part -1 of the 3 classes"),
        (lambda: pages.tile(12), "no image 12 in this atlas"),
        (lambda: pages.sprite(1, 70), "layer 'features' has no unit 70"),
    ):
        with pytest.raises(MissingError, match=message):
            asked()
    with pytest.raises(InputError, match="at least 1 image, not 0"):
        AtlasDocuments(atlas, None, tmp_path, 0)


def raw(picture: Image.Image) -> torch.Tensor:
    """Samples from -1000 to 3000 as a network for them may want them."""
    samples = torch.from_numpy(np.array(picture, np.float32))
    return samples[8:40, 14:46].expand(3, 32, 32) / 4000


@pytest.mark.parametrize(
    ("preprocessing", "levels"),
    [
        # Dark photos of 16 bits: they would be guessed to have 12.
        (Preprocessing(resize=None, crop=32, white=65535), (4, 16)),
        # No photo without its own reader: no guess holds numbers below 0.
        (RawPictures(raw, mode="F"), (0, 255)),
    ],
)
def test_tiles_and_images_are_read_as_the_scan_read_them(
    preprocessing: Preprocessing | RawPictures,
    levels: tuple[int, int],
    tmp_path: Path,
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    samples = np.repeat([1000, 4000], 24)[:, None].repeat(60, axis=1)
    if isinstance(preprocessing, RawPictures):
        Image.fromarray((samples - 1999).astype(np.float32)).save(
            photos / "a.tif"
        )
    else:
        Image.fromarray(samples.astype(np.uint16)).save(photos / "a.png")

    model = wrap(
        seeded(lambda: Gap(units=3, classes=3)), preprocessing=preprocessing
    )
    scanned = scan(model, photos, tmp_path / "atlas", engine="torch", sample=1)
    with Image.open(contents(scanned, tmp_path / "tiles").tile(0)) as tile:
        pixels = np.asarray(tile.convert("L"), int)
    assert np.abs(pixels[0] - levels[0]).max() <= 2
    assert np.abs(pixels[-1] - levels[1]).max() <= 2

    [subject] = scanned.subjects([0], open_dataset(photos))
    drawn = np.asarray(subject.picture().convert("L"), int)
    assert (drawn[0, 0], drawn[-1, 0]) == levels
