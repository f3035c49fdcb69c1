"""Matching: the classes of a data set among those of the model."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from scans import (
    CLASSES,
    OPTIONS,
    make,
    paths,
    refused,
)
from unitscope.atlas.matching import Matching, matched
from unitscope.atlas.scanning import scan
from unitscope.datasets import open_dataset
from unitscope.errors import DatasetError, UnitscopeWarning
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


def of_folders(
    root: Path, names: Sequence[str], labels: Sequence[str]
) -> Matching:
    for name in names:
        (root / name).mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name / "a.png")
    return matched(open_dataset(root), labels)


def found(matching: Matching, labels: Sequence[str]) -> list[str | None]:
    """The name of the model's class that every folder is taken for."""
    return [
        None if target is None else labels[target]
        for target in matching.targets
    ]


AS_TEXT = sorted(map(str, range(12)))
WORDS = [f"word {number}" for number in range(12)]


@pytest.mark.parametrize(
    ("folders", "labels", "expected", "warning"),
    [
        # Names, whatever their places.
        (
            AS_TEXT,
            AS_TEXT,
            sorted(AS_TEXT, key=int),
            "'2' is then the class '2'",
        ),
        (list("1234"), list("12345"), list("1234"), "could be the class '2'"),
        (
            ["0001", "0002"],
            ["0001", "0002", "0003"],
            ["0001", "0002"],
            "'0001' is then the class '0001'",
        ),
        (
            ["01", "02"],
            ["1", "2", "3"],
            ["1", "2"],
            "'01' is then the class '1'",
        ),
        # Names and indices alike, or names only.
        (["01", "03"], ["1", "2", "3"], ["1", "3"], ""),
        (list("012"), list("0123"), list("012"), ""),
        (list("456"), list("456"), list("456"), ""),
        (["7", "9"], list("6789"), ["7", "9"], ""),
        (["7", "10"], list("6789"), ["7", None], ""),
        # Indices, since they are no names.
        (
            ["0", "3", "10"],
            WORDS,
            ["word 0", "word 3", "word 10"],
            "torchvision's ImageFolder has its classes",
        ),
        (["00", "03", "10"], WORDS, ["word 0", "word 3", "word 10"], ""),
        (["007"], WORDS, ["word 7"], ""),
        (list("123"), WORDS, ["word 1", "word 2", "word 3"], "there is no 0"),
        (AS_TEXT, WORDS, WORDS, "torchvision's ImageFolder has its classes"),
        (list("0123"), list("1234"), list("1234"), "3 of the 4 are names"),
    ],
)
def test_numbered_folders_are_names_first_and_a_doubt_is_told(
    folders: list[str],
    labels: list[str],
    expected: list[str | None],
    warning: str,
    tmp_path: Path,
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        matching = of_folders(tmp_path, folders, labels)
    assert found(matching, labels) == expected
    assert all(issubclass(each.category, UnitscopeWarning) for each in caught)
    told = [str(each.message) for each in caught]
    assert len(told) == bool(warning)
    if warning:
        assert warning in told[0] and matching.notes[-1] in told[0]
        assert "name the folders or labels after the model's classes" in told[0]


def test_folders_that_are_neither_names_nor_indices_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(DatasetError, match="go up to 12, and the model has 12"):
        of_folders(tmp_path, ["1", "12"], WORDS)
    twice = tmp_path / "twice"
    twice.mkdir()
    with pytest.raises(DatasetError, match="the classes '07' and '7' of"):
        of_folders(twice, ["7", "07"], WORDS)


def test_indices_that_are_also_names_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png 2\n")
    with pytest.warns(UnitscopeWarning, match="'2' is then the class '10'"):
        matching = matched(open_dataset(tmp_path / "list.txt"), AS_TEXT)
    assert matching.classes == tuple(AS_TEXT)
