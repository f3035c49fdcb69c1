"""Concept masks in the formats that are published, and what is said of damaged ones."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unitscope.datasets import Concept, MaskedDataset, Masks, open_masks
from unitscope.errors import DatasetError, LabelsError, PhotoError


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def grey(size: int = 8) -> Image.Image:
    return Image.new("RGB", (size, size), "grey")


def refused(
    source: Any, kind: type[Exception] = DatasetError, **options: Any
) -> str:
    with pytest.raises(kind) as caught:
        open_masks(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def complaint(masked: MaskedDataset, index: int = 0) -> str:
    with pytest.raises(PhotoError) as caught:
        masked.masks(index)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def named(masked: MaskedDataset, masks: Masks) -> dict[str, np.ndarray]:
    return {
        masked.concepts[label].name: mask
        for label, mask in zip(masks.labels, masks.pixels, strict=True)
    }


# MiniPlaces' polygons


def xml(objects: Sequence[tuple[int, Sequence[tuple[float, float]]]]) -> str:
    """The published files: several roots, coordinates from 1."""

    def points(polygon: Sequence[tuple[float, float]]) -> str:
        return "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in polygon)

    body = "".join(
        f"<objects>\n\t<class>{number}</class>\n\t<polygon>{points(polygon)}</polygon></objects>\n"
        for number, polygon in objects
    )
    return f"<filename>1.jpg</filename>\n<folder>/a/abbey</folder>\n<class>0</class>\n{body}"


SQUARE = [(1, 1), (64, 1), (64, 64), (1, 64)]


def miniplaces(root: Path, annotations: Mapping[str, str]) -> Path:
    for name, text in annotations.items():
        save(root / f"images/train/a/abbey/{name}.jpg", grey(128))
        written(root / f"objects/train/a/abbey/{name}.xml", text)
    return root


def test_polygons_are_drawn_with_their_outline_from_pixel_one(
    tmp_path: Path,
) -> None:
    upper = [(1, 1), (128, 1), (128, 32), (1, 32)]
    masked = open_masks(
        miniplaces(tmp_path, {"1": xml([(5, SQUARE), (2, upper)])}),
        names=list("abcdef"),
    )
    assert (
        masked.kind == "polygons"
        and masked.concepts[5] == Concept("f", "object")
        and len(masked) == 1
    )
    masks = masked.masks(0)
    assert (
        masks.labels == (2, 5)
        and masks.pixels.shape == (2, 128, 128)
        and masks.categories == {"object"}
    )
    expected = np.zeros((2, 128, 128), bool)
    expected[0, :32] = True
    expected[1, :64, :64] = True
    np.testing.assert_array_equal(masks.pixels, expected)


def test_polygons_of_a_class_share_a_mask(tmp_path: Path) -> None:
    other = [(100, 100), (128, 100), (128, 128)]
    masked = open_masks(
        miniplaces(tmp_path, {"1": xml([(0, SQUARE), (0, other)])}),
        names=["sky"],
    )
    masks = masked.masks(0)
    assert (
        masks.labels == (0,)
        and masks.pixels[0, 0, 0]
        and masks.pixels[0, 99, 127]
        and not masks.pixels[0, 80, 80]
    )


def test_a_photo_without_objects_has_no_masks(tmp_path: Path) -> None:
    masks = open_masks(miniplaces(tmp_path, {"1": xml([])})).masks(0)
    assert (
        masks.labels == ()
        and masks.pixels.shape == (0, 128, 128)
        and masks.categories == {"object"}
    )


@pytest.mark.parametrize(
    "place", ["root/object_categories.txt", "object_categories.txt"]
)
def test_names_of_objects_are_found_or_numbered(
    tmp_path: Path, place: str
) -> None:
    root = miniplaces(tmp_path / "root", {"1": xml([(1, SQUARE)])})
    bare = open_masks(root)
    assert (
        bare.concepts[136].name == "object 136"
        and len(bare.concepts) == 175
        and "no names" in bare.notes[0]
    )
    written(tmp_path / place, "awning 0\nsky 1\n")
    masked = open_masks(root)
    assert (
        masked.concepts
        == (Concept("awning", "object"), Concept("sky", "object"))
        and masked.notes == ()
    )
    assert masked.fingerprint() != bare.fingerprint()


def test_only_photos_with_annotations_are_there(tmp_path: Path) -> None:
    root = miniplaces(tmp_path, {"1": xml([]), "2": xml([])})
    save(root / "images/train/b/bar/1.jpg", grey())
    save(root / "images/val/00000001.jpg", grey())
    masked = open_masks(root)
    assert [entry.id for entry in masked.dataset.entries] == [
        f"images/train/a/abbey/{n}.jpg" for n in (1, 2)
    ]
    assert (
        masked.dataset.classes == ("abbey", "bar")
        and masked.dataset.entries[0].label == 0
    )
    assert "1 photos without annotations are left out" in masked.notes
    assert masked.dataset.read(0)[:2] == b"\xff\xd8"
    assert "none of the 1 photos" in refused(root, split="val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            xml([(0, SQUARE[:2])]),
            "has a polygon of 2 points: expected three or more",
        ),
        (
            xml([(7, SQUARE)]),
            "has the object class 7, and there are 1 names from 0 on",
        ),
        (xml([(0, SQUARE)])[:-30], "is no whole XML"),
        (
            xml([(0, [(1, 1), (2, 2), (10**9, 3)])]),
            "has '1000000000' where a number from 1 to 128 should be",
        ),
        ("<objects><class>sky</class></objects>", "has 'sky' where a number"),
        ("<objects></objects>", "has None where a number"),
        (
            '<!DOCTYPE x [<!ENTITY a "aaaa">]><objects>&a;</objects>',
            "is no whole XML",
        ),
        ("<!-- \xff", "is no whole XML"),
    ],
)
def test_damaged_polygons_are_told_of_their_photo_alone(
    tmp_path: Path, text: str, message: str
) -> None:
    masked = open_masks(
        miniplaces(tmp_path, {"1": text, "2": xml([(0, SQUARE)])}),
        names=["sky"],
    )
    assert message in complaint(masked) and str(tmp_path) in complaint(masked)
    assert masked.masks(1).labels == (0,)


def test_an_annotation_that_goes_away_is_a_photo_error(tmp_path: Path) -> None:
    masked = open_masks(miniplaces(tmp_path, {"1": xml([])}))
    before = masked.fingerprint()
    (tmp_path / "objects/train/a/abbey/1.xml").unlink()
    assert (
        "there is no annotation" in complaint(masked)
        and masked.fingerprint() != before
    )


@given(
    st.integers(1, 100),
    st.integers(1, 100),
    st.integers(2, 28),
    st.integers(2, 28),
)
def test_a_box_fills_its_pixels(
    left: int, top: int, width: int, height: int
) -> None:
    box = [
        (left, top),
        (left + width, top),
        (left + width, top + height),
        (left, top + height),
    ]
    with TemporaryDirectory() as root:
        masks = open_masks(
            miniplaces(Path(root), {"1": xml([(3, box)])})
        ).masks(0)
    expected = np.zeros((128, 128), bool)
    expected[top - 1 : top + height, left - 1 : left + width] = True
    np.testing.assert_array_equal(masks.pixels[0], expected)


def test_some_of_the_published_annotations(data: Path, tmp_path: Path) -> None:
    with tarfile.open(
        data / "miniplaces/annotated-train.tar.xz", "r|xz"
    ) as archive:
        for member in archive:
            if member.isfile() and "/abbey/" in member.name:
                archive.extract(member, tmp_path, filter="data")
    masked = open_masks(
        tmp_path, names=data / "miniplaces/object_categories.txt"
    )
    assert (
        len(masked) > 5
        and len(masked.concepts) == 175
        and masked.dataset.classes == ("abbey",)
    )
    assert Concept("sky", "object") in masked.concepts
    for index in range(len(masked)):
        masks = masked.masks(index)
        assert (
            list(masks.labels) == sorted(set(masks.labels))
            and masks.pixels.any(axis=(1, 2)).all()
        )


# Index maps

NUMBERS = np.array([[0, 1, 1], [2, 2, 0]])


def index_maps(
    root: Path,
    image: Image.Image,
    folder: str = "annotations",
    names: str = "wall\nsky\n",
) -> Path:
    save(root / "images/1.jpg", grey())
    save(root / folder / "1.png", image)
    written(root / "names.txt", names)
    return root


def palette() -> Image.Image:
    image = Image.fromarray(NUMBERS.astype(np.uint8))
    image = image.convert("P")
    image.putdata(NUMBERS.ravel().tolist())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


@pytest.mark.parametrize("folder", ["annotations", "labels", "masks"])
@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(NUMBERS.astype(np.uint8)),
        Image.fromarray(NUMBERS.astype(np.uint16)),
        palette(),
    ],
    ids=["8 bits", "16 bits", "palette"],
)
@pytest.mark.parametrize(
    "names", ["wall\nsky\n", "none\nwall\nsky\n", "2 sky\n1 wall\n"]
)
def test_index_maps_of_every_kind(
    tmp_path: Path, folder: str, image: Image.Image, names: str
) -> None:
    masked = open_masks(index_maps(tmp_path, image, folder, names))
    masks = masked.masks(0)
    assert (
        masked.kind == "index maps"
        and masks.labels == (0, 1)
        and masks.categories == {"object"}
    )
    assert masked.concepts == (
        Concept("wall", "object"),
        Concept("sky", "object"),
    )
    np.testing.assert_array_equal(masks.pixels, [NUMBERS == 1, NUMBERS == 2])


def test_scene_parsing_folders_are_read(tmp_path: Path) -> None:
    info = (
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
        "1\t0.15\t10\t1\t1\twall\n"
        "2\t0.1\t9\t1\t1\tbuilding, edifice\n"
    )
    written(tmp_path / "objectInfo150.txt", info)
    for split in ("training", "validation"):
        save(tmp_path / f"images/{split}/ADE_1.jpg", grey())
        save(
            tmp_path / f"annotations/{split}/ADE_1.png",
            Image.fromarray(NUMBERS.astype(np.uint8)),
        )
    assert "has the splits 'training', 'validation'" in refused(tmp_path)
    masked = open_masks(tmp_path, split="validation")
    assert [concept.name for concept in masked.concepts] == ["wall", "building"]
    assert masked.dataset.entries[0].id == "images/validation/ADE_1.jpg"
    assert set(named(masked, masked.masks(0))) == {"wall", "building"}
    written(tmp_path / "objectInfo150.txt", info.replace("2\t0.1", "7\t0.1"))
    assert "does not number its names from 1 on" in refused(
        tmp_path, split="training"
    )
    written(tmp_path / "objectInfo150.txt", "wall\n")
    assert "has no columns Idx and Name" in refused(tmp_path, split="training")


@pytest.mark.parametrize(
    ("dtype", "ignored"), [(np.uint8, 255), (np.uint16, 65535)]
)
def test_the_largest_number_is_ignored(
    tmp_path: Path, dtype: type, ignored: int
) -> None:
    numbers: np.ndarray = np.where(NUMBERS == 2, ignored, NUMBERS).astype(dtype)
    assert open_masks(index_maps(tmp_path, Image.fromarray(numbers))).masks(
        0
    ).labels == (0,)


def test_damaged_index_maps_are_told_of_their_photo_alone(
    tmp_path: Path,
) -> None:
    masked = open_masks(
        index_maps(tmp_path, Image.fromarray((NUMBERS + 7).astype(np.uint8)))
    )
    assert "has the number 7, and there are 2 names from 1 on" in complaint(
        masked
    )
    save(tmp_path / "annotations/1.png", grey())
    assert "is in colour" in complaint(masked)
    (tmp_path / "annotations/1.png").write_bytes(b"\x89PNG\r\n")
    assert "is no whole picture" in complaint(masked)


def test_index_maps_need_names(tmp_path: Path) -> None:
    (index_maps(tmp_path, palette()) / "names.txt").unlink()
    assert "does not name its concepts: lay names.txt there" in refused(
        tmp_path
    )
    assert open_masks(tmp_path, names=["x", "y"]).concepts[1].name == "y"
    refused(tmp_path, LabelsError, names=tmp_path / "nowhere.txt")


# Broden


def encoded(numbers: np.ndarray) -> Image.Image:
    return Image.fromarray(
        np.stack(
            [numbers % 256, numbers // 256, np.zeros_like(numbers)], -1
        ).astype(np.uint8)
    )


LABELS = (
    "number,name,category,frequency,coverage,syns\n"
    "1,red-c,color(3),3,0.5,\n2,fabric,material(36);object(3),39,4.2,cloth\n"
    "300,head,part(2),2,0.1,\n4,zoo-s,scene(1),1,1,\n"
)
HEADER = "image,split,ih,iw,sh,sw,color,object,part,material,scene,texture\n"


def broden(root: Path, rows: str) -> Path:
    for name in ("one", "two", "three"):
        save(root / f"images/ade/{name}.jpg", grey())
    written(root / "label.csv", LABELS)
    written(root / "index.csv", HEADER + rows)
    save(root / "images/ade/one_object.png", encoded(2 * (NUMBERS == 1)))
    save(root / "images/ade/one_part_1.png", encoded(300 * (NUMBERS == 1)))
    save(root / "images/ade/one_part_2.png", encoded(300 * (NUMBERS == 2)))
    return root


ROWS = (
    "ade/one.jpg,train,8,8,2,3,,ade/one_object.png,ade/one_part_1.png;ade/one_part_2.png,,4,\n"
    "ade/two.jpg,val,8,8,2,3,1,,,2,,\n"
    "ade/three.jpg,val,8,8,2,3,,,,,,\n"
)


def test_broden_has_layers_and_labels_of_whole_photos(tmp_path: Path) -> None:
    masked = open_masks(broden(tmp_path, ROWS))
    assert masked.kind == "broden" and [
        entry.id for entry in masked.dataset.entries
    ] == ["ade/one.jpg", "ade/two.jpg"]
    assert masked.notes == ("1 photos without annotations are left out",)
    assert masked.concepts == (
        Concept("red-c", "color"),
        Concept("fabric", "material"),
        Concept("fabric", "object"),
        Concept("head", "part"),
        Concept("zoo-s", "scene"),
    )
    one, two = masked.masks(0), masked.masks(1)
    assert one.labels == (2, 3, 4) and one.categories == {
        "object",
        "part",
        "scene",
    }
    np.testing.assert_array_equal(
        one.pixels, [NUMBERS == 1, NUMBERS > 0, np.ones_like(NUMBERS)]
    )
    assert (
        two.labels == (0, 1)
        and two.pixels.all()
        and two.categories == {"color", "material"}
    )
    assert masked.dataset.read(0)[:2] == b"\xff\xd8"


def test_splits_of_broden(tmp_path: Path) -> None:
    broden(tmp_path, ROWS)
    assert [
        entry.id for entry in open_masks(tmp_path, split="val").dataset.entries
    ] == ["ade/two.jpg"]
    assert (
        "has the splits 'train', 'val', and split='test' was asked for"
        in refused(tmp_path, split="test")
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "ade/one.jpg,train,8,8,2,3,,,ade/one_object.png,,,\n",
            "has the number 2, which label.csv lacks",
        ),
        (
            "ade/one.jpg,train,8,8,4,4,,ade/one_object.png,,,,\n",
            "is not the RGB picture of 4×4 (rows × columns)",
        ),
        (
            "ade/one.jpg,train,8,8,2,3,,ade/none.png,,,,\n",
            "there is no annotation",
        ),
        (
            "ade/one.jpg,train,8,8,2,3,,ade/text.png,,,,\n",
            "is no whole picture",
        ),
    ],
)
def test_damaged_broden_annotations_are_told_of_their_photo_alone(
    tmp_path: Path, row: str, message: str
) -> None:
    broden(tmp_path, row)
    written(tmp_path / "images/ade/text.png", "no picture")
    assert message in complaint(open_masks(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "index.csv",
            "photo\n1\n",
            "has no column 'image': expected Broden's own table",
        ),
        (
            "index.csv",
            f"{HEADER}a.jpg,train\n",
            "has 2 columns in line 2 and 12 in its first: get a whole copy",
        ),
        (
            "index.csv",
            f"{HEADER}ade/one.jpg,train,8,8,0,x,1,,,,,\n",
            "has sh='0' and sw='x' for 'ade/one.jpg'",
        ),
        ("index.csv", "", "has no column 'image'"),
        ("index.csv", f"{HEADER}{'x' * 200_000}", "is not valid CSV"),
        (
            "label.csv",
            "number,name,category\nx,sky,object(1)\n",
            "has 'x' where a number should be",
        ),
        (
            "index.csv",
            f"{HEADER}ade/none.jpg,train,8,8,2,3,1,,,,,\n",
            "none of the 1 photos",
        ),
        (
            "index.csv",
            f"{HEADER}ade/one.jpg,train,8,8,2,3,,,,,,\n",
            "holds no photos",
        ),
    ],
)
def test_damaged_tables_of_broden_are_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    written(broden(tmp_path, ROWS) / name, text)
    assert message in refused(tmp_path)


# What is none of them


def test_folders_without_annotations_are_refused(tmp_path: Path) -> None:
    assert "has no annotations: expected images/ with objects/" in refused(
        tmp_path
    )
    assert "is not there: check the path" in refused(tmp_path / "none")
    assert "is a file: give the folder (unpack an archive first)" in refused(
        written(tmp_path / "x.tar", "")
    )
    save(tmp_path / "images/1.jpg", grey())
    (tmp_path / "objects").mkdir()
    assert "none of the 1 photos" in refused(tmp_path)
