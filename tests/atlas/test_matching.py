"""Matching: the classes of a data set among those of the model."""

from __future__ import annotations

import shutil
from pathlib import Path

from scans import (
    CLASSES,
    OPTIONS,
    make,
    paths,
    refused,
)
from unitscope.atlas.scanning import scan
from unitscope.errors import (
    DatasetError,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier


def test_classes_are_matched_by_name_never_by_index(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    names = ("Fir", "/e/elm", "oak", "CEDAR", "birch")
    scanned = scan(
        make(small, labels=names), folder, tmp_path / "out", **OPTIONS
    )
    assert scanned.classes == CLASSES and scanned.manifest["data"][
        "targets"
    ] == [
        None,
        4,
        3,
        1,
        0,
    ]
    assert (
        "4 of the data set's 5 classes" in scanned.manifest["data"]["notes"][-1]
    )
    images = scanned.table("images").to_pydict()
    assert set(zip(images["class_name"], images["target"], strict=True)) == {
        ("ash", None),
        ("birch", 4),
        ("cedar", 3),
        ("elm", 1),
        ("fir", 0),
    }
    assert images["correct"].count(None) == 9
    assert scanned.table("classes").column("judged").to_pylist() == [
        0,
        9,
        9,
        9,
        9,
    ]
    rows = scanned.table("class_ablation").to_pydict()
    assert set(zip(rows["class"], rows["class_name"], strict=True)) == {
        (1, "birch"),
        (2, "cedar"),
        (3, "elm"),
        (4, "fir"),
    }


def test_without_labels_images_belong_to_the_predicted_classes(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(paths(folder)):
        shutil.copyfile(path, flat / f"{number:02}.png")
    scanned = scan(model, flat, tmp_path / "out", **OPTIONS)
    assert (
        scanned.manifest["data"]["labels"] == "predicted"
        and scanned.classes == CLASSES
    )
    images = scanned.table("images").to_pydict()
    assert images["class"] == images["prediction"] and set(
        images["correct"]
    ) == {None}
    # With all units on every image is in the class that was predicted for it.
    assert scanned.manifest["ablation"]["accuracy"][0] == 1.0


def test_numbers_without_names_must_be_the_models_own(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(
        "".join(
            f"{path} {number % 5}\n"
            for number, path in enumerate(paths(folder))
        )
    )
    scanned = scan(make(small), listing, tmp_path / "out", **OPTIONS)
    assert "taken for the model's own" in scanned.manifest["data"]["notes"][-1]
    listing.write_text(
        "".join(
            f"{path} {number % 7}\n"
            for number, path in enumerate(paths(folder))
        )
    )
    assert "give the names" in refused(
        DatasetError, make(small), listing, tmp_path / "other", **OPTIONS
    )
