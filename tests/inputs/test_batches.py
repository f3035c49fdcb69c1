"""Batches: photos in order, read ahead; errors are raised when their turn comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unitscope.errors import PhotoError
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.photos import Photo, open_photo
from unitscope.inputs.preprocessing import Preprocessing

SMALL = Preprocessing(resize=20, crop=16)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for index in range(11):
        pixels = np.random.default_rng(index).integers(
            0, 256, (30, 40, 3), dtype=np.uint8
        )
        paths.append(tmp_path / f"{index}.jpg")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize("size", [1, 3, 4, 11, 50])
def test_photos_come_in_order_as_one_after_the_other(
    photos: list[Path], size: int, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitscope.inputs.batches._SMALL", small)
    read = list(
        batches(
            [
                *photos[:5],
                open_photo(photos[5]),
                Image.open(photos[6]),
                *photos[7:],
            ],
            SMALL,
            size,
        )
    )
    assert [len(batch) for batch in read] == [
        len(photos[start : start + size]) for start in range(0, 11, size)
    ]
    for path, (photo, tensor) in zip(
        photos, [one for batch in read for one in batch], strict=True
    ):
        expected = open_photo(path)
        assert photo.name == expected.name and torch.equal(
            tensor, SMALL(expected.image)
        )
    assert threading.active_count() == 1 or not any(
        "unitscope" in t.name for t in threading.enumerate()
    )


def test_somebody_elses_preprocessing_runs_in_the_callers_thread(
    photos: list[Path],
) -> None:
    seen = set()

    def transform(image: Image.Image) -> torch.Tensor:
        seen.add(threading.current_thread())
        return SMALL(image)

    assert len(list(batches(photos, MeasuredPreprocessing(transform), 4))) == 3
    assert seen == {threading.main_thread()}


@pytest.mark.parametrize("content", [None, b"no picture", b"cut short"])
def test_a_bad_photo_is_told_when_its_turn_comes(
    photos: list[Path], content: bytes | None
) -> None:
    if content is None:
        photos[6].unlink()
    else:
        photos[6].write_bytes(
            photos[6].read_bytes()[:400] if content == b"cut short" else content
        )
    photos[8].unlink()
    found = batches(photos, SMALL, 3)
    assert len(next(found)) == len(next(found)) == 3
    with pytest.raises(PhotoError, match=r"6\.jpg"):
        next(found)
    assert not any(
        "unitscope" in thread.name for thread in threading.enumerate()
    )


def test_who_stops_early_leaves_no_threads_behind(photos: list[Path]) -> None:
    found = batches(photos, SMALL, 2)
    next(found)
    assert isinstance(found, Generator)
    found.close()
    assert not any(
        "unitscope" in thread.name for thread in threading.enumerate()
    )


def test_only_what_is_needed_next_is_read(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def opened(path: Path, **_reading: Any) -> Callable[[], Photo]:
        begun.append(path)
        return lambda: open_photo(path)

    monkeypatch.setattr("unitscope.inputs.batches.opened", opened)
    found = batches(photos, SMALL, 2)
    next(found)
    assert begun == photos[:4]
    assert isinstance(found, Generator)
    found.close()


def test_one_image_may_be_in_a_list_many_times(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitscope.inputs.batches._SMALL", 0)
    image = Image.open(photos[0])
    read = [one for batch in batches([image] * 20, SMALL, 16) for one in batch]
    assert len(read) == 20 and all(
        torch.equal(tensor, read[0][1]) for _, tensor in read
    )


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_a_batch_holds_inputs_and_no_pixels_and_its_photos_can_still_be_drawn(
    photos: list[Path], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitscope.inputs.batches._SMALL", small)
    for batch in batches(photos, SMALL, 4):
        for photo, _ in batch:
            assert (
                photo.pixels is None
                and photo.size == (40, 30) == photo.image.size
            )


def test_photos_of_many_sizes_are_each_themselves(tmp_path: Path) -> None:
    paths = []
    for index, size in enumerate(
        [(30, 20), (40, 30), (30, 20), (9, 50), (5000, 1), (40, 30), (30, 20)]
    ):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(
            np.random.default_rng(index).integers(
                0, 256, (*size[::-1], 3), dtype=np.uint8
            )
        ).save(paths[-1])
    ours, failed = Preprocessing(resize=200, crop=16), []
    read = [
        one
        for batch in batches(
            paths, ours, 16, lambda place, error: failed.append(place)
        )
        for one in batch
    ]
    assert failed == [4] and [photo.name for photo, _ in read] == [
        f"{index}.png" for index in (0, 1, 2, 3, 5, 6)
    ]
    assert all(
        torch.equal(tensor, ours(open_photo(tmp_path / photo.name).held))
        for photo, tensor in read
    )


def test_inputs_are_stacked_as_torch_stacks_them(photos: list[Path]) -> None:
    (read,) = batches(photos, SMALL, 20)
    together = [tensor for _, tensor in read]
    assert torch.equal(stacked(together), torch.stack(together))
    assert stacked(together).data_ptr() == together[0].data_ptr()
    many = torch.randn(6, 3, 8, 8)
    for inputs in (
        list(many)[::-1],
        list(many)[::2],
        [many[2]] * 3,
        list(many.mT),
        [many[1]],
        list(many.double()),
    ):
        assert torch.equal(stacked(inputs), torch.stack(inputs))
    alone = [torch.randn(3, 8, 8) for _ in range(3)]
    assert torch.equal(stacked(alone), torch.stack(alone))


@pytest.mark.usefixtures("unchecked")
def test_inputs_of_several_sizes_cannot_be_stacked() -> None:
    with pytest.raises(RuntimeError, match="equal size"):
        stacked([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)])
