"""Adapting: albumentations' way to be called, image processors, raw pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unitscope.inputs.adapting import as_preprocessing
from unitscope.inputs.batches import batches
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.inputs.raw import RawPictures

SIDE = 48


def photo(width: int = 90, height: int = 60) -> Image.Image:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (height // 6, width // 6, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height))


class Pipeline:
    """Resizes and normalises, and is called as albumentations' Compose is."""

    def __init__(self, makes_tensors: bool) -> None:
        self.makes_tensors = makes_tensors

    def __repr__(self) -> str:
        return f"Pipeline(\n  makes_tensors={self.makes_tensors}\n)"

    def __call__(self, *args: Any, force: bool = False, **data: Any) -> Any:
        if args:
            raise KeyError("pass data by name: transform(image=image)")
        array = data["image"]
        assert isinstance(array, np.ndarray) and array.dtype == np.uint8
        small = Image.fromarray(array).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR
        )
        made: Any = (np.asarray(small, np.float32) / 255 - 0.5) / 0.25
        if self.makes_tensors:
            made = torch.from_numpy(made.transpose(2, 0, 1).copy())
        return {**data, "image": made}


@pytest.mark.parametrize("makes_tensors", [True, False])
def test_pipelines_are_called_as_albumentations_are(
    makes_tensors: bool,
) -> None:
    found = as_preprocessing(Pipeline(makes_tensors))
    image = photo()
    ours = Preprocessing((SIDE, SIDE), None, (0.5,) * 3, (0.25,) * 3)
    apart = (found(image) - ours(image)).abs().max()
    assert found.input_size == (SIDE, SIDE) and found.channels == 3
    assert float(apart) < 1.01 / 255 / 0.25
    assert found.placement(image.size).box == pytest.approx(
        (0, 0, 90, 60), abs=1.5
    )
    assert found.describe() == (
        f"own callable Pipeline — Pipeline( makes_tensors={makes_tensors} )"
    )


def test_callables_that_take_a_picture_by_position_are_left_alone() -> None:
    calls: list[type] = []

    def transform(image: Image.Image) -> Tensor:
        calls.append(type(image))
        return torch.from_numpy(np.array(image.resize((8, 8)))) / 255.0

    found = as_preprocessing(transform)
    assert isinstance(found, MeasuredPreprocessing)
    assert found.transform is transform

    class Options:
        def __call__(self, picture: Image.Image, **options: Any) -> Tensor:
            return torch.zeros(3, 4, 4)

    own = Options()
    found = as_preprocessing(own)
    assert isinstance(found, MeasuredPreprocessing) and found.transform is own


@pytest.mark.parametrize(
    "kind",
    ["ViTImageProcessor", "ConvNextImageProcessor", "CLIPImageProcessor"],
)
def test_image_processors_are_read_as_preprocessings(kind: str) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed"
    )
    processor = getattr(transformers, kind)()
    found = as_preprocessing(processor)
    assert isinstance(found, Preprocessing)
    assert f"image processor {kind}" in found.describe()
    image = photo(320, 240)
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
    std = torch.tensor(found.std).view(-1, 1, 1)
    levels = (found(image) - expected).abs() * std * 255
    assert float(levels.mean()) < 0.5


def test_image_processors_that_do_more_run_as_they_are() -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed"
    )
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, do_normalize=False
    )

    class Padded:
        """A processor of another kind: it swaps the channels."""

        model_input_names = ("pixel_values",)

        def preprocess(self, images: Any, **options: Any) -> Any:
            made = processor.preprocess(images, **options)
            made["pixel_values"] = made["pixel_values"].flip(1)
            return made

        __call__ = preprocess

        def __repr__(self) -> str:
            return "Padded {\n}"

    found = as_preprocessing(Padded())
    assert isinstance(found, MeasuredPreprocessing)
    assert found.describe() == "own callable Padded — Padded { }"
    image = photo()
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(found(image), expected.flip(0))
    # One that holds an image processor beside a tokenizer.
    kind = {"image_processor": processor, "__call__": lambda *_: None}
    holder = type("Holder", (), kind)()
    assert isinstance(as_preprocessing(holder), Preprocessing)


def deep(image: Image.Image) -> Tensor:
    """A user's own way to read 12 bits."""
    assert image.mode == "I;16", image.mode
    samples = Image.fromarray(np.asarray(image).astype(np.float32))
    small = np.array(samples.resize((SIDE, SIDE)))
    return torch.from_numpy(small)[None] / 4095


def test_a_callable_may_ask_for_the_picture_as_it_is(tmp_path: Path) -> None:
    grey = np.asarray(photo().convert("L"))
    samples = (grey.astype(np.uint16) * 16).astype(np.uint16)
    Image.fromarray(samples).save(tmp_path / "deep.tif")

    found = as_preprocessing(RawPictures(deep, mode="I;16"))
    assert found.channels == 1 and found.input_size == (SIDE, SIDE)
    ((_, tensor),) = next(batches([tmp_path / "deep.tif"], found, 1))
    assert torch.equal(tensor, deep(Image.fromarray(samples)))
    assert found.placement((90, 60)).box == pytest.approx(
        (0, 0, 90, 60), abs=1.5
    )


@pytest.mark.parametrize("mode", ["L", "F", "I", "RGBA", "CMYK", "RGB"])
def test_patterns_come_in_the_mode_of_the_picture_before_them(
    mode: str, tmp_path: Path
) -> None:
    seen = []

    def own(image: Image.Image) -> Tensor:
        seen.append(image.mode)
        small = image.resize((SIDE, SIDE))
        pixels = np.array(small, dtype=np.float32).reshape(SIDE, SIDE, -1)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    suffix = {"RGBA": "png", "RGB": "png", "L": "png"}.get(mode, "tif")
    photo().convert(mode).save(tmp_path / f"a.{suffix}")
    found = as_preprocessing(RawPictures(own))
    next(batches([tmp_path / f"a.{suffix}"], found, 1))
    assert found.placement((90, 60)).box == pytest.approx(
        (0, 0, 90, 60), abs=1.5
    )
    assert set(seen) == {mode}
