"""Fixtures for the tests of this room: photos, a model, and an atlas of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scans import CLASSES, OPTIONS, PHOTOS, make, photo
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of five classes, nine of each."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        path = root / CLASSES[number % 5] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        photo(number).save(path)
    return root


@pytest.fixture
def model(small: Preprocessing) -> Classifier:
    """A small classifier of the same five classes."""
    return make(small)


@pytest.fixture(scope="session")
def atlas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas of two layers, scanned at a stretch."""
    plain = make(Preprocessing(resize=36, crop=32))
    return scan(
        plain,
        folder,
        tmp_path_factory.mktemp("atlas") / "whole",
        layers=["features.2", "features.4"],
        **OPTIONS,
    )
