"""Batches of photos come in order, read ahead, and say what is wrong when its turn comes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unitscope.batches import batches
from unitscope.errors import PhotoError
from unitscope.photos import open_photo
from unitscope.preprocessing import MeasuredPreprocessing, Preprocessing

SMALL = Preprocessing(resize=20, crop=16)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for index in range(11):
        pixels = np.random.default_rng(index).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{index}.jpg")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize("size", [1, 3, 4, 11, 50])
def test_photos_come_in_order_as_one_after_the_other(
    photos: list[Path], size: int, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitscope.batches._SMALL", small)
    read = list(batches([*photos[:5], open_photo(photos[5]), Image.open(photos[6]), *photos[7:]], SMALL, size))
    assert [len(batch) for batch in read] == [len(photos[start : start + size]) for start in range(0, 11, size)]
    for path, (photo, tensor) in zip(photos, [one for batch in read for one in batch], strict=True):
        expected = open_photo(path)
        assert photo.name == expected.name and torch.equal(tensor, SMALL(expected.image))
    assert threading.active_count() == 1 or not any("unitscope" in t.name for t in threading.enumerate())


def test_somebody_elses_preprocessing_runs_in_the_callers_thread(photos: list[Path]) -> None:
    seen = set()

    def transform(image: Image.Image) -> torch.Tensor:
        seen.add(threading.current_thread())
        return SMALL(image)

    assert len(list(batches(photos, MeasuredPreprocessing(transform), 4))) == 3
    assert seen == {threading.main_thread()}


@pytest.mark.parametrize("content", [None, b"no picture", b"cut short"])
def test_a_bad_photo_is_told_when_its_turn_comes(photos: list[Path], content: bytes | None) -> None:
    if content is None:
        photos[6].unlink()
    else:
        photos[6].write_bytes(photos[6].read_bytes()[:400] if content == b"cut short" else content)
    photos[8].unlink()
    found = batches(photos, SMALL, 3)
    assert len(next(found)) == len(next(found)) == 3
    with pytest.raises(PhotoError, match=r"6\.jpg"):
        next(found)
    assert not any("unitscope" in thread.name for thread in threading.enumerate())


def test_who_stops_early_leaves_no_threads_behind(photos: list[Path]) -> None:
    found = batches(photos, SMALL, 2)
    next(found)
    found.close()
    assert not any("unitscope" in thread.name for thread in threading.enumerate())


def test_only_what_is_needed_next_is_read(photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr("unitscope.batches.opened", lambda path: begun.append(path) or (lambda: open_photo(path)))
    found = batches(photos, SMALL, 2)
    next(found)
    assert begun == photos[:4]
    found.close()


def test_one_image_may_be_in_a_list_many_times(photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitscope.batches._SMALL", 0)
    image = Image.open(photos[0])
    read = [one for batch in batches([image] * 20, SMALL, 16) for one in batch]
    assert len(read) == 20 and all(torch.equal(tensor, read[0][1]) for _, tensor in read)
