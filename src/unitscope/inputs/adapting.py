"""Adapting: whatever users give as a preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from unitscope.errors import PreprocessingError
from unitscope.inputs.keyword_transforms import (
    KeywordTransform,
    takes_image_keyword,
)
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.preprocessing import AnyPreprocessing, Preprocessing
from unitscope.inputs.processors import is_processor, of_processor
from unitscope.inputs.raw import RawPictures


def as_preprocessing(
    value: AnyPreprocessing | Callable[..., Any] | None,
) -> AnyPreprocessing:
    """Make a preprocessing of a user's value.

    That may be a preprocessing, a preset of torchvision, an image processor of
    transformers, a pipeline of albumentations, any callable from PIL image to tensor,
    or None for ImageNet's convention.
    """
    if value is None:
        note = "assumed: ImageNet's convention, since none was given"
        return Preprocessing(note=note)
    if isinstance(value, (Preprocessing, MeasuredPreprocessing)):
        return value
    if _is_torchvision_preset(value):
        return _from_torchvision_preset(value)
    if is_processor(value):
        return _of_processor(value)
    if not callable(value):
        raise _refused(value)
    if not isinstance(value, RawPictures) and takes_image_keyword(value):
        note = " ".join(repr(value).split())
        return MeasuredPreprocessing(KeywordTransform(value), note)
    return MeasuredPreprocessing(value)


def _of_processor(value: Any) -> AnyPreprocessing:
    made = of_processor(value, f"image processor {type(value).__name__}")
    if isinstance(made, Preprocessing):
        return made
    # All settings of what runs as it is: they tell one scan from another.
    processor = getattr(value, "image_processor", value)
    return replace(made, note=" ".join(repr(processor).split()))


def _is_torchvision_preset(value: object) -> bool:
    if type(value).__name__ != "ImageClassification":
        return False
    attributes = ("resize_size", "crop_size", "mean", "std", "interpolation")
    return all(hasattr(value, name) for name in attributes)


def _from_torchvision_preset(preset: Any) -> Preprocessing:
    """A preprocessing like torchvision.transforms._presets.ImageClassification."""
    return Preprocessing(
        resize=_size_from_list(preset.resize_size),
        crop=_size_from_list(preset.crop_size),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=str(preset.interpolation.value),
        note="torchvision's evaluation preset",
    )


def _size_from_list(sides: Sequence[int]) -> int | tuple[int, int]:
    if len(sides) == 1:
        return sides[0]
    return sides[0], sides[1]


def _refused(value: object) -> PreprocessingError:
    remedy = "give one of these"
    if isinstance(value, str):
        remedy = (
            "unitscope.Preprocessing.parse('resize=256,crop=224') reads text"
        )
    return PreprocessingError(
        "a preprocessing is unitscope.Preprocessing or a callable from PIL image to "
        f"tensor, not {type(value).__name__}: {remedy}"
    )
