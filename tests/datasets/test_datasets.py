"""Data sets of every form that people have, and the clear refusals of the rest."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitscope.datasets import Dataset, open_dataset, parquet, tables
from unitscope.errors import (
    DatasetError,
    LabelsError,
    MissingExtraError,
    PhotoError,
    UnitscopeWarning,
)


def photo(name: str) -> bytes:
    """What stands for a photo's bytes: reading never decodes."""
    return f"photo {name}".encode()


def folder_of(
    root: Path, names: Iterable[str], texts: Mapping[str, str] = {}
) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(photo(name))
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def tar_of(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def table_of(
    path: Path, columns: Mapping[str, Any], rows: int = 2, metadata: Any = None
) -> Path:
    table = pa.table(dict(columns))
    pq.write_table(
        table.replace_schema_metadata(metadata) if metadata else table,
        path,
        row_group_size=rows,
    )
    return path


def ids(dataset: Dataset) -> list[str]:
    return [entry.id for entry in dataset.entries]


def classes_of(dataset: Dataset) -> list[str | int | None]:
    """The label of each image, by name where it has one."""
    return [
        entry.label
        if entry.label is None or dataset.classes is None
        else dataset.classes[entry.label]
        for entry in dataset.entries
    ]


def contents(dataset: Dataset) -> list[bytes]:
    images = [dataset.read(index) for index in range(len(dataset))]
    assert [len(data) for data in images] == [
        entry.size for entry in dataset.entries
    ]
    return images


def refused(
    source: Any, kind: type[Exception] = DatasetError, **options: Any
) -> str:
    with pytest.raises(kind) as caught:
        open_dataset(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpg", "c d.webp", "ü.jpeg"]
    dataset = open_dataset(
        folder_of(
            tmp_path, [*names, ".hidden.jpg", "notes.md", "__MACOSX/a.jpg"]
        )
    )
    assert (
        dataset.kind,
        dataset.source,
        dataset.classes,
        dataset.labelled,
    ) == (
        "folder",
        str(tmp_path),
        None,
        False,
    )
    assert ids(dataset) == sorted(names)
    assert contents(dataset) == [photo(name) for name in sorted(names)]
    assert dataset.entries[0].stamp == (tmp_path / "a.jpg").stat().st_mtime_ns


def test_class_folders_give_the_labels(tmp_path: Path) -> None:
    names = [
        "a/abbey/1.jpg",
        "b/bakery/shop/1.jpg",
        "b/bakery/shop/x/.git/1.jpg",
        "cats/1.jpg",
        "cats/2.jpg",
    ]
    (tmp_path / "empty").mkdir()
    dataset = open_dataset(str(folder_of(tmp_path, names)))
    assert dataset.classes == ("abbey", "bakery/shop", "cats")
    assert [(entry.id, entry.label) for entry in dataset.entries] == [
        ("a/abbey/1.jpg", 0), ("b/bakery/shop/1.jpg", 1), ("cats/1.jpg", 2), ("cats/2.jpg", 2),
    ]  # fmt: skip


def test_names_of_classes_number_the_folders(tmp_path: Path) -> None:
    folder_of(tmp_path, ["cat/1.jpg", "dog/1.jpg"])
    assert [
        entry.label
        for entry in open_dataset(
            tmp_path, classes=["dog", "cow", "cat"]
        ).entries
    ] == [2, 0]
    assert (
        "has the class 'cat', which is none of the 2 classes (did you mean 'cats'?)"
        in refused(tmp_path, classes=["cats", "dog"])
    )
    assert "two classes have this name" in refused(
        tmp_path, classes=["cat", "dog", "cat"]
    )
    refused(tmp_path, LabelsError, classes=tmp_path / "none.txt")


def test_numbered_folders_are_names_in_the_order_of_the_numbers(
    tmp_path: Path,
) -> None:
    dataset = open_dataset(
        folder_of(tmp_path, ["10/a.jpg", "2/a.jpg", "0/a.jpg"])
    )
    assert dataset.classes == ("0", "2", "10")
    assert classes_of(dataset) == ["0", "10", "2"]
    assert "has label 10, and there are 3 classes" in refused(
        tmp_path, classes=["a", "b", "c"]
    )


def test_numbers_are_looked_up_as_names_before_they_are_indices(
    tmp_path: Path,
) -> None:
    folder_of(tmp_path, ["1/a.jpg", "2/a.jpg"])
    with pytest.warns(
        UnitscopeWarning, match="as an index it would be the class '2'"
    ):
        dataset = open_dataset(tmp_path, classes=["1", "2", "3"])
    assert classes_of(dataset) == ["1", "2"]
    assert "'1' is class 0" in dataset.notes[-1]
    # No doubt: as indices they are the same, or do not exist.
    for classes in (["0", "1", "2"], ["1", "2"]):
        assert classes_of(open_dataset(tmp_path, classes=classes)) == ["1", "2"]
    indices = open_dataset(tmp_path, classes=["a", "b", "c"])
    assert classes_of(indices) == ["b", "c"]


def test_loose_photos_beside_class_folders_have_no_label(
    tmp_path: Path,
) -> None:
    dataset = open_dataset(folder_of(tmp_path, ["a.jpg", "cat/b.jpg"]))
    assert classes_of(dataset) == [None, "cat"] and dataset.notes == (
        "1 photos lie in no class's folder and have no label",
    )


def test_splits_are_chosen_or_asked_for(tmp_path: Path) -> None:
    folder_of(
        tmp_path,
        ["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "preview.png"],
    )
    assert (
        refused(tmp_path)
        == f"'{tmp_path}' has the splits 'train', 'val': say which, e.g. split='train' "
        "(command line: --split, of masks --concept-split)"
    )
    assert (
        "has the splits 'train', 'val', and split='tset' was asked for"
        in refused(tmp_path, split="tset")
    )
    dataset = open_dataset(tmp_path, split="val")
    assert ids(dataset) == ["val/cat/1.jpg"] and dataset.classes == ("cat",)
    (tmp_path / "flat").mkdir()
    flat = folder_of(tmp_path / "flat", ["cat/1.jpg"])
    assert (
        "is not divided into splits, and split='val' was asked for: leave it out"
        in refused(flat, split="val")
    )


def test_splits_are_seen_beside_other_things(tmp_path: Path) -> None:
    folder_of(
        tmp_path,
        [
            "images/train/a/abbey/1.jpg",
            "images/val/1.jpg",
            "preview.png",
            "objects/train/1.png",
        ],
    )
    assert "has the splits 'train', 'val'" in refused(tmp_path)
    assert ids(open_dataset(tmp_path, split="val")) == ["images/val/1.jpg"]
    folder_of(
        tmp_path / "other", ["train/cat/1.jpg", "val/cat/1.jpg", "extra/1.jpg"]
    )
    assert "has the splits 'train', 'val'" in refused(tmp_path / "other")


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    assert open_dataset(
        folder_of(tmp_path, ["bus/1.jpg", "train/1.jpg"])
    ).classes == (
        "bus",
        "train",
    )


def test_links_are_followed_once(tmp_path: Path) -> None:
    outside = folder_of(tmp_path / "outside", ["1.jpg"])
    root = folder_of(tmp_path / "root", ["zebra/1.jpg"])
    (root / "linked").symlink_to(outside)
    (root / "again").symlink_to(root / "zebra")
    (root / "loop").symlink_to(root)
    (root / "one.jpg").symlink_to(outside / "1.jpg")
    (root / "broken.jpg").symlink_to(root / "nowhere.jpg")
    assert ids(open_dataset(root)) == ["linked/1.jpg", "one.jpg", "zebra/1.jpg"]


def test_empty_missing_and_unreadable_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "holds no photos: expected a folder of photos" in refused(tmp_path)
    assert "there is no '/nowhere/at/all': check the path" in refused(
        "/nowhere/at/all"
    )
    assert "the path is empty" in refused("") and "NUL" in refused("a\0b")
    assert "cannot be looked for" in refused("x" * 5000)
    assert "the list of paths is empty" in refused([])
    assert "is an address" in refused(
        "https://host/x.tar"
    ) and "is an address" in refused("pipe:cat x")
    (tmp_path / "video.mp4").write_bytes(b"0")
    assert "is no data set that can be read (.mp4)" in refused(
        tmp_path / "video.mp4"
    )

    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    assert (
        "cannot be read ([Errno 13] Permission denied): check its permissions"
        in refused(tmp_path)
    )


def test_what_is_no_source_is_refused(tmp_path: Path, unchecked: None) -> None:
    assert refused(3) == (
        "a data set is opened from a path or a list of paths, not int: expected a "
        "folder of photos or of class folders, a list of photos (.txt, .csv, .tsv), "
        "tar shards, or Parquet files"
    )
    assert "not bytes" in refused(b"folder") and "not list" in refused(
        ["a.jpg", 3]
    )


def test_a_photo_that_goes_away_is_a_photo_error(tmp_path: Path) -> None:
    dataset = open_dataset(folder_of(tmp_path, ["a.jpg", "b.jpg"]))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(PhotoError, match=r"there is no photo .*a\.jpg"):
        dataset.read(0)
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(PhotoError, match="is no regular file"):
        dataset.read(0)
    assert dataset.read(1) == photo("b.jpg")


# The layout of MiniPlaces

MINIPLACES = [
    "images/val/00000001.jpg",
    "images/val/00000002.jpg",
    "images/val/00000003.jpg",
]
VAL_LIST = "val/00000002.jpg 0\nval/00000001.jpg 1\n"


def test_a_split_list_labels_the_photos(tmp_path: Path) -> None:
    texts = {"val.txt": VAL_LIST, "categories.txt": "/a/abbey 0\n/z/zoo 1\n"}
    dataset = open_dataset(
        folder_of(tmp_path, [*MINIPLACES, "images/train/a/abbey/1.jpg"], texts),
        split="val",
    )
    assert dataset.kind == "miniplaces" and dataset.classes == ("abbey", "zoo")
    assert classes_of(dataset) == ["zoo", "abbey", None]
    assert "1 photos have no label in 'val.txt'" in dataset.notes
    train = open_dataset(tmp_path, split="train")
    assert classes_of(train) == ["abbey"] and train.classes == ("abbey", "zoo")
    (tmp_path / "val.txt").write_text("val/1.jpg abbey\n")
    assert (
        "has 'val/1.jpg abbey' in line 1: expected a path, a space and a class's index"
        in refused(tmp_path, split="val")
    )


def test_a_list_of_categories_that_does_not_fit_is_not_used(
    tmp_path: Path,
) -> None:
    dataset = open_dataset(
        folder_of(tmp_path, ["cat/1.jpg"], {"categories.txt": "sky\nsea\n"})
    )
    assert (
        dataset.classes == ("cat",)
        and "does not fit their labels" in dataset.notes[0]
    )


def test_annotations_beside_images_are_no_photos(tmp_path: Path) -> None:
    dataset = open_dataset(
        folder_of(tmp_path, ["images/1.jpg", "annotations/1.png"])
    )
    assert ids(dataset) == ["images/1.jpg"] and dataset.kind == "folder"


def test_a_miniplaces_tar_is_the_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "mp", MINIPLACES, {"val.txt": VAL_LIST})
    with tarfile.open(tmp_path / "mp.tar", "w") as archive:
        archive.add(root, ".")
    folder, tar = open_dataset(root), open_dataset(tmp_path / "mp.tar")
    assert folder.kind == tar.kind == "miniplaces"
    assert folder.fingerprint() == tar.fingerprint() and contents(
        folder
    ) == contents(tar)
    assert "has the split 'val', and split='train' was asked for" in refused(
        tmp_path / "mp.tar", split="train"
    )


def test_the_published_validation_photos(data: Path) -> None:
    dataset = open_dataset(data / "miniplaces/val-part.tar")
    assert (dataset.kind, len(dataset), dataset.entries[0].id) == (
        "miniplaces",
        3000,
        "images/val/00000001.jpg",
    )
    assert (
        dataset.entries[0].label == 71
        and dataset.classes is not None
        and dataset.classes[0] == "abbey"
    )
    assert all(data.startswith(b"\xff\xd8") for data in contents(dataset))


# Lists


def test_a_text_file_lists_photos_in_its_order(tmp_path: Path) -> None:
    folder_of(tmp_path, ["b.jpg", "in a folder/a 1.jpg"])
    (tmp_path / "list.txt").write_bytes(
        "\ufeffin a folder/a 1.jpg\r\n\r\n./b.jpg\r\n".encode()
    )
    dataset = open_dataset(tmp_path / "list.txt")
    assert (
        dataset.kind == "list"
        and ids(dataset) == ["in a folder/a 1.jpg", "b.jpg"]
        and not dataset.labelled
    )
    assert contents(dataset) == [photo("in a folder/a 1.jpg"), photo("b.jpg")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.txt", "a.jpg 0\nb c.jpg 1\n", [0, 1]),
        ("l.txt", "a.jpg\tdog\nb c.jpg\tcat\n", ["dog", "cat"]),
        ("l.txt", "a.jpg\t1\nb c.jpg\t0\n", ["1", "0"]),
        ("l.csv", "path,label\na.jpg,dog\nb c.jpg,\n", ["dog", None]),
        ("l.csv", "id;Class;Filename\n7;3;a.jpg\n8;1;b c.jpg\n", ["3", "1"]),
        (
            "l.tsv",
            "category\timage\ndog\ta.jpg\ncat\tb c.jpg\n",
            ["dog", "cat"],
        ),
        ("l.csv", 'a.jpg,"dog, small"\nb c.jpg,cat\n', ["dog, small", "cat"]),
        ("l.csv", "file\na.jpg\nb c.jpg\n", [None, None]),
    ],
)
def test_lists_and_tables_give_labels(
    tmp_path: Path, name: str, text: str, expected: list[str | int | None]
) -> None:
    folder_of(tmp_path, ["a.jpg", "b c.jpg"], {name: text})
    dataset = open_dataset(tmp_path / name)
    assert (
        ids(dataset) == ["a.jpg", "b c.jpg"] and classes_of(dataset) == expected
    )


def test_a_label_is_taken_only_where_every_line_has_one(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a 1", "b.jpg"], {"l.txt": "a 1\nb.jpg\n"})
    dataset = open_dataset(tmp_path / "l.txt")
    assert ids(dataset) == ["a 1", "b.jpg"] and not dataset.labelled


def test_names_for_the_indices_of_a_list(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.jpg"], {"l.txt": "a.jpg 1\n"})
    assert classes_of(
        open_dataset(tmp_path / "l.txt", classes=["cat", "dog"])
    ) == ["dog"]
    assert (
        "has label 1, and there are 1 classes: labels run from 0 to 0"
        in refused(tmp_path / "l.txt", classes=["cat"])
    )


def test_photos_that_are_not_there_are_told_when_read(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.jpg"], {"l.txt": "a.jpg\ngone.jpg\n"})
    dataset = open_dataset(tmp_path / "l.txt")
    assert (
        dataset.notes == ("1 photos of 2 are not there",)
        and dataset.entries[1].size == 0
    )
    with pytest.raises(PhotoError, match=r"there is no photo '.*gone\.jpg'"):
        dataset.read(1)
    (tmp_path / "l.txt").write_text("gone.jpg cat\nlost.jpg dog\n")
    message = refused(tmp_path / "l.txt")
    assert (
        "none of the 2 photos that" in message
        and "labels that are names stand behind a tab" in message
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "", "is empty: expected one path of a photo a line"),
        ("l.csv", "\n\n", "is empty"),
        ("l.txt", "a.jpg\na.jpg\n", "names the photo 'a.jpg' twice"),
        (
            "l.csv",
            "who,what\nme,cat\n",
            "has the columns 'who, what' and none of paths: name one of them 'path'",
        ),
        (
            "l.csv",
            "path,label\na.jpg,cat\nb.jpg\n",
            r"no path or no label in row 3 \('b.jpg'\)",
        ),
        ("l.txt", "a\0b", "is not text"),
    ],
)
def test_lists_that_cannot_be_read(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    folder_of(tmp_path, ["a.jpg"], {name: text})
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / name)


def test_lists_of_other_bytes_and_splits_of_lists_are_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "l.txt").write_bytes(b"\x80\xff.jpg")
    assert "is not UTF-8 text" in refused(tmp_path / "l.txt")
    assert "is not divided into splits: leave split='val' out" in refused(
        tmp_path / "l.txt", split="val"
    )
    assert "cannot be read" in refused(tmp_path / "none.txt")


def test_paths_in_memory_are_named_from_their_common_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, ["x/b.jpg", "x/deep/a.jpg"])
    dataset = open_dataset(
        [tmp_path / "x/deep/a.jpg", str(tmp_path / "x/b.jpg")]
    )
    assert dataset.kind == "list" and ids(dataset) == ["deep/a.jpg", "b.jpg"]
    monkeypatch.chdir(tmp_path / "x")
    assert ids(open_dataset(["deep/a.jpg", "b.jpg"])) == ids(dataset)
    assert ids(open_dataset("b.jpg")) == ["b.jpg"] and ids(
        open_dataset("*/a.jpg")
    ) == ["a.jpg"]
    assert "twice" in refused(["b.jpg", "b.jpg"])
    assert "'.' is a folder among files" in refused(["b.jpg", "."])


# Tars


def shards(root: Path, sidecars: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members of a shard: two photos and their sidecars (`{key}` differs)."""
    return {
        name: data
        for key in ("000", "001")
        for name, data in {
            f"{key}.jpg": photo(key),
            **{
                f"{key}.{kind}": text.replace(b"KEY", key.encode())
                for kind, text in sidecars.items()
            },
        }.items()
    }


@pytest.mark.parametrize(
    ("sidecars", "expected"),
    [
        ({"cls": b"7\n", "txt": b"a caption of KEY"}, [7, 7]),
        ({"json": b'{"id": 1, "label": 3}'}, [3, 3]),
        ({"json": b'{"class": "dog"}', "seg.png": b"mask"}, ["dog", "dog"]),
        ({"txt": b"dog\n"}, ["dog", "dog"]),
        ({"txt": b"a dog called KEY\n"}, [None, None]),
        ({"json": b'{"caption": "KEY"}'}, [None, None]),
        ({}, [None, None]),
    ],
)
def test_webdataset_shards(
    tmp_path: Path, sidecars: dict[str, bytes], expected: list[str | int | None]
) -> None:
    tar = tar_of(tmp_path / "train-000.tar", shards(tmp_path, sidecars))
    dataset = open_dataset(tar)
    assert dataset.kind == "tar" and ids(dataset) == [
        "train-000/000.jpg",
        "train-000/001.jpg",
    ]
    assert classes_of(dataset) == expected and contents(dataset) == [
        photo("000"),
        photo("001"),
    ]


def test_shards_are_named_by_lists_braces_stars_and_folders(
    tmp_path: Path,
) -> None:
    for number in range(8, 11):
        tar_of(
            tmp_path / f"s-{number:03}.tar",
            shards(tmp_path, {"cls": str(number).encode()}),
        )
    whole = open_dataset(tmp_path)
    assert [entry.label for entry in whole.entries] == [8, 8, 9, 9, 10, 10]
    for source in (
        f"{tmp_path}/s-{{008..010}}.tar",
        f"{tmp_path}/s-*.tar",
        f"{tmp_path}/s-{{008,009,010}}.tar",
    ):
        assert open_dataset(source).fingerprint() == whole.fingerprint()
        assert open_dataset([source]).fingerprint() == whole.fingerprint()
    assert (
        open_dataset(
            [tmp_path / f"s-{number:03}.tar" for number in range(8, 11)]
        ).entries
        == whole.entries
    )
    assert "there is no" in refused(
        f"{tmp_path}/s-{{008..011}}.tar"
    ) and "s-011.tar" in refused(f"{tmp_path}/s-{{008..011}}.tar")
    assert "no file is named like" in refused(f"{tmp_path}/t-*.tar")
    assert "is no range of shards" in refused(f"{tmp_path}/s-{{010..008}}.tar")
    assert "twice" in refused([tmp_path / "s-008.tar", tmp_path / "s-008.tar"])


def test_shards_of_a_split_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("train-0.tar", "train-1.tar", "val-0.tar"):
        tar_of(tmp_path / name, shards(tmp_path, {"cls": b"0"}))
    assert "has the splits 'train', 'val'" in refused(tmp_path)
    assert (
        len(open_dataset(tmp_path, split="train")) == 4
        and len(open_dataset(tmp_path, split="val")) == 2
    )
    assert len(open_dataset(tmp_path / "val-0.tar", split="val")) == 2
    assert "no folders divide: leave split='train' out" in refused(
        tmp_path / "val-0.tar", split="train"
    )
    assert (
        len(open_dataset(f"{tmp_path}/*.tar", split="val")) == 2
        and len(open_dataset(f"{tmp_path}/*.tar")) == 6
    )


def test_shards_of_the_same_name_are_told_apart_by_their_folders(
    tmp_path: Path,
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        tar_of(tmp_path / folder / "0.tar", {"x.jpg": photo(folder)})
    assert ids(open_dataset([tmp_path / "a/0.tar", tmp_path / "b/0.tar"])) == [
        "a/0/x.jpg",
        "b/0/x.jpg",
    ]


def test_a_tar_of_class_folders(tmp_path: Path) -> None:
    members = {
        "./set/cat/1.jpg": photo("1"),
        "./set/d/dog/2.jpg": photo("2"),
        "./set/README.md": b"no photo",
    }
    dataset = open_dataset(tar_of(tmp_path / "set.tar", members))
    assert ids(dataset) == [
        "set/set/cat/1.jpg",
        "set/set/d/dog/2.jpg",
    ] and dataset.classes == ("cat", "dog")


@pytest.mark.parametrize("form", ["gz", "xz", "bz2"])
def test_compressed_tars_are_refused_with_the_remedy(
    tmp_path: Path, form: str
) -> None:
    with tarfile.open(tmp_path / f"x.tar.{form}", f"w:{form}"):  # type: ignore[call-overload]
        pass
    assert "is a compressed tar" in refused(tmp_path / f"x.tar.{form}")
    (tmp_path / f"x.tar.{form}").rename(tmp_path / "y.tar")
    assert "unpack it (tar xf) and give the folder" in refused(
        tmp_path / "y.tar"
    )


def test_damaged_tars_are_refused(tmp_path: Path) -> None:
    tar = tar_of(
        tmp_path / "x.tar",
        {f"{number}.jpg": bytes(1000) for number in range(9)},
    )
    whole = tar.read_bytes()
    for length in (3, 700, 1200, 9 * 1536 - 600):
        tar.write_bytes(whole[:length])
        message = refused(tar)
        assert any(
            words in message
            for words in ("no whole tar", "cut short", "damaged")
        ), message
    tar.write_bytes(whole[:1536] + b"\xff" * 512 + whole[2048:])
    assert "is damaged at byte 1536: get a whole copy" in refused(tar)
    tar.write_bytes(b"")
    refused(tar)
    # Some writers leave the end marks out.
    tar.write_bytes(whole[: 9 * 1536])
    assert len(open_dataset(tar)) == 9
    assert "holds no photos" in refused(
        tar_of(tmp_path / "empty.tar", {"a.txt": b"x"})
    )
    assert "has the member 'a.jpg' twice" in refused(
        tar_of(tmp_path / "twice.tar", {"a.jpg": b"x", "./a.jpg": b"y"})
    )
    assert "is not valid JSON" in refused(
        tar_of(tmp_path / "json.tar", {"a.jpg": b"x", "a.json": b"{"})
    )


def test_a_tar_that_is_written_anew_is_noticed(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "x.tar", {"a.jpg": photo("a")})
    dataset = open_dataset(tar)
    os.utime(tar, ns=(0, 0))
    with pytest.raises(
        PhotoError,
        match="written anew since it was opened: open the data set again",
    ):
        dataset.read(0)
    tar.unlink()
    with pytest.raises(PhotoError, match="cannot be read"):
        dataset.read(0)


NAMES = st.lists(
    st.lists(
        st.text("abAB é-_0", min_size=1, max_size=4).map(
            lambda part: f"x{part}y"
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda parts: "/".join(parts),
)


@given(NAMES)
def test_a_tar_and_its_folder_hold_the_same(paths: list[list[str]]) -> None:
    names = sorted(f"top/{'/'.join(parts)}.jpg" for parts in paths)
    with TemporaryDirectory() as place:
        root = folder_of(Path(place) / "root", names)
        with tarfile.open(Path(place) / "t.tar", "w") as archive:
            for name in names:
                archive.add(root / name, name)
        tar, folder = (
            open_dataset(Path(place) / "t.tar"),
            open_dataset(root / "top"),
        )
        assert len(set(ids(tar))) == len(names)
        assert sorted(id.removeprefix("t/top/") for id in ids(tar)) == ids(
            folder
        )
        assert contents(tar) == [
            photo(id.removeprefix("t/")) for id in ids(tar)
        ]
        if all(name.count("/") > 1 for name in names):
            assert tar.classes == folder.classes


# Parquet

IMAGES = [photo(str(number)) for number in range(5)]


def test_a_plain_table(tmp_path: Path) -> None:
    file = table_of(
        tmp_path / "t.parquet",
        {
            "path": [f"{n}.jpg" for n in range(5)],
            "label": [0, 1, 1, 0, -1],
            "image": IMAGES,
        },
    )
    dataset = open_dataset(file)
    assert (
        dataset.kind == "parquet"
        and ids(dataset) == [f"{n}.jpg" for n in range(5)]
        and dataset.classes is None
    )
    assert [entry.label for entry in dataset.entries] == [
        0,
        1,
        1,
        0,
        None,
    ] and contents(dataset) == IMAGES
    assert classes_of(open_dataset(file, classes=["cat", "dog"]))[:2] == [
        "cat",
        "dog",
    ]
    assert dataset.read(-1) == IMAGES[-1]


def hugging_face(
    path: Path, paths: list[str | None], images: list[bytes | None]
) -> Path:
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array(
        [
            {"bytes": data, "path": name}
            for data, name in zip(images, paths, strict=True)
        ],
        kind,
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return table_of(
        path, {"image": column, "label": [1] * len(images)}, 2, metadata
    )


def test_a_hugging_face_table_names_its_classes(tmp_path: Path) -> None:
    dataset = open_dataset(
        hugging_face(
            tmp_path / "t.parquet",
            ["a.jpg", "b.jpg", "c.jpg"],
            [b"A", b"BB", None],
        )
    )
    assert (
        dataset.classes == ("cat", "dog")
        and classes_of(dataset) == ["dog"] * 3
        and ids(dataset)[0] == "a.jpg"
    )
    assert [entry.size for entry in dataset.entries] == [
        1,
        2,
        0,
    ] and dataset.read(1) == b"BB"
    with pytest.raises(PhotoError, match=r"'c\.jpg' has no bytes"):
        dataset.read(2)


@pytest.mark.parametrize(
    "paths", [["a.jpg", "a.jpg"], [None, "a.jpg"], [None, None]]
)
def test_paths_that_name_nothing_give_way_to_rows(
    tmp_path: Path, paths: list[str | None]
) -> None:
    dataset = open_dataset(
        hugging_face(tmp_path / "t.parquet", paths, [b"A", b"B"])
    )
    assert ids(dataset) == ["t.parquet#0", "t.parquet#1"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["dog", "cat", None], ["dog", "cat", None]),
        (
            pa.array(["dog", "cat", "dog"]).dictionary_encode(),
            ["dog", "cat", "dog"],
        ),
        (pa.array([2, 1, 0], pa.uint8()), [2, 1, 0]),
        ([True, False, None], ["True", "False", None]),
        ([[1], [2], [3]], [None] * 3),
    ],
)
def test_label_columns(
    tmp_path: Path, column: Any, expected: list[str | int | None]
) -> None:
    file = table_of(
        tmp_path / "t.parquet", {"jpg": [b"1", b"2", b"3"], "class": column}
    )
    dataset = open_dataset(file)
    assert (
        classes_of(dataset) == expected
        and any("no single label" in note for note in dataset.notes)
        != dataset.labelled
    )


def test_several_tables_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(2):
        table_of(
            tmp_path / f"data/train-0000{number}-of-00002.parquet",
            {"image": IMAGES},
        )
    table_of(
        tmp_path / "data/test-00000-of-00001.parquet", {"image": IMAGES[:1]}
    )
    dataset = open_dataset(tmp_path, split="train")
    assert (
        contents(dataset) == IMAGES * 2
        and ids(dataset)[5] == "train-00001-of-00002.parquet#0"
    )
    assert "has the splits 'train', 'test'" in refused(tmp_path)
    assert "is given twice" in refused(
        [tmp_path / "data/test-00000-of-00001.parquet"] * 2
    )
    (tmp_path / "more").mkdir()
    table_of(
        tmp_path / "more/test-00000-of-00001.parquet", {"image": IMAGES[:1]}
    )
    assert (
        ids(open_dataset(f"{tmp_path}/*/test-*.parquet"))[0]
        == "data/test-00000-of-00001.parquet#0"
    )
    tar_of(tmp_path / "data/train-2.tar", {"a.jpg": b""})
    assert "is no data set that can be read (.parquet, .tar)" in refused(
        tmp_path, split="train"
    )


def test_one_row_group_is_read_once_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(table_of(tmp_path / "t.parquet", {"image": IMAGES}))
    monkeypatch.setattr(tables, "_CACHED_BYTES", 1)
    groups: list[int] = []
    images = parquet.ParquetFile.images

    def counted(file: parquet.ParquetFile, group: int) -> Any:
        groups.append(group)
        return images(file, group)

    monkeypatch.setattr(parquet.ParquetFile, "images", counted)
    assert contents(dataset) == IMAGES and groups == [0, 1, 2]
    assert isinstance(dataset, tables.TableDataset)
    assert list(dataset._row_groups._cache) == [2]
    again = pickle.loads(pickle.dumps(dataset))
    assert (
        contents(again) == IMAGES
        and again.fingerprint() == dataset.fingerprint()
    )


def test_tables_are_read_from_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [photo(str(number)) * (number % 7) for number in range(300)]
    dataset = open_dataset(
        table_of(tmp_path / "t.parquet", {"image": images}, 16)
    )
    monkeypatch.setattr(tables, "_CACHED_BYTES", 4000)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(dataset.read, range(300))) == images


def test_sizes_of_large_tables_are_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MEASURED_BYTES", 1)
    dataset = open_dataset(table_of(tmp_path / "t.parquet", {"image": IMAGES}))
    assert (
        len({entry.size for entry in dataset.entries[:2]}) == 1
        and "means of their row groups" in dataset.notes[0]
    )


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    file = table_of(tmp_path / "t.parquet", {"image": IMAGES})
    dataset = open_dataset(file)
    file.write_bytes(file.read_bytes()[:-9])
    assert "is no whole Parquet file" in refused(file)
    with pytest.raises(PhotoError, match="is no whole Parquet file"):
        dataset.read(0)
    assert "has no column of images among 'a, b'" in refused(
        table_of(tmp_path / "n.parquet", {"a": [1], "b": ["x"]})
    )
    assert "holds no photos" in refused(
        table_of(tmp_path / "e.parquet", {"image": pa.array([], pa.binary())})
    )
    assert "there is no" in refused(tmp_path / "none.parquet")
    assert "leave split='val' out" in refused(file, split="val")


def test_tables_need_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table_of(tmp_path / "t.parquet", {"image": IMAGES})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for module in ("tables", "parquet"):
        monkeypatch.delitem(sys.modules, f"unitscope.datasets.{module}")
    assert "pip install 'unitscope[atlas]'" in refused(file, MissingExtraError)


def test_other_data_sets_do_not_load_pyarrow() -> None:
    code = (
        "import sys, unitscope.datasets; "
        "print('pyarrow' in sys.modules or 'torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True
        ).stdout.strip()
        == b"False"
    )


@pytest.mark.slow
def test_the_shared_training_photos(data: Path) -> None:
    dataset = open_dataset(f"{data}/miniplaces/train-96px-*-of-4.parquet")
    assert (
        len(dataset) == 100_000
        and dataset.classes is not None
        and len(dataset.classes) == 100
    )
    assert (
        dataset.read(30_000)[8:12] == b"WEBP"
        and len(dataset.read(30_000)) == dataset.entries[30_000].size
    )
    for entry in dataset.entries[:50]:
        assert (
            entry.label is not None and dataset.classes[entry.label] in entry.id
        )


# The fingerprint


def test_the_fingerprint_tells_what_matters(tmp_path: Path) -> None:
    folder_of(tmp_path / "one", ["cat/1.jpg", "dog/1.jpg"])
    folder_of(tmp_path / "two", ["cat/1.jpg", "dog/1.jpg"])
    first = open_dataset(tmp_path / "one").fingerprint()
    assert first == open_dataset(tmp_path / "two").fingerprint()
    (tmp_path / "two/dog/1.jpg").write_bytes(b"another")
    assert first != open_dataset(tmp_path / "two").fingerprint()
    assert (
        first
        != open_dataset(tmp_path / "one", classes=["dog", "cat"]).fingerprint()
    )


def test_a_number_of_thousands_of_digits_is_a_name(tmp_path: Path) -> None:
    digits = "9" * 5000
    tar = tar_of(
        tmp_path / "a.tar", {"a.jpg": photo("a"), "a.cls": digits.encode()}
    )
    assert open_dataset(tar).classes == (digits,)
