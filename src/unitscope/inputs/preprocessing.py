"""Preprocessing: from a photo to the network's input, and where that lies on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from unitscope.errors import PhotoError, PreprocessingError
from unitscope.geometry import Placement
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.photos import Pixels, image_of
from unitscope.inputs.pictures import picture_of_shares
from unitscope.inputs.resizing import FILTERS, resized

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A resized photo of more pixels comes from an absurd aspect ratio (1 × 10,000).
_LARGEST_RESIZED = 100_000_000

# (width, height), as Pillow has it.
_Size: TypeAlias = tuple[int, int]


class _Box(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale to 0–1 and normalise.

    The result is that of torchvision's transforms on PIL images, to 1 of 255 levels.
    `resize` is the shorter side in pixels, or (rows, cols) to squash the photo to, or
    None. `crop` is the side of the centre crop, or (rows, cols), or None. `mean` and
    `std` are per channel, on the 0–1 scale; one value of each makes a grey input.
    `interpolation` is Pillow's (antialiased) filter. `note` says where the convention
    comes from.
    """

    resize: int | tuple[int, int] | None = 256
    crop: int | tuple[int, int] | None = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    note: str = ""

    def __post_init__(self) -> None:
        """Check the values before a photo meets them."""
        for name in ("resize", "crop", "mean", "std"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

        if self.interpolation not in FILTERS:
            raise PreprocessingError(
                f"interpolation {self.interpolation!r} is unknown: use one of "
                f"{', '.join(FILTERS)}"
            )
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise PreprocessingError(
                "mean and std need one value a channel (3 for RGB, 1 for grey), "
                f"not {len(self.mean)} and {len(self.std)}"
            )
        if not all(value > 0 for value in self.std):
            raise PreprocessingError(f"std must be positive, not {self.std}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not _are_pixels(value):
                raise PreprocessingError(
                    f"{name} is a positive number of pixels, or (rows, cols), not "
                    f"{value!r}"
                )

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read a preprocessing from text such as "resize=144,crop=128".

        Keys are resize and crop (pixels, ROWSxCOLS, or none), mean and std (numbers
        joined by /), and interpolation. What is left out is ImageNet's, except that a
        resize alone means no crop.
        """
        values: dict[str, Any] = {}
        if "resize" in text and "crop" not in text:
            values["crop"] = None
        for item in text.split(","):
            key, _, value = item.partition("=")
            key = key.strip()
            try:
                values[key] = _parsed(key, value.strip())
            except ValueError:
                raise PreprocessingError(
                    f"preprocessing {item.strip()!r} cannot be read: write for "
                    "instance 'resize=256,crop=224' or 'resize=227x227,"
                    "mean=0.5/0.5/0.5,std=0.5/0.5/0.5,interpolation=bicubic'"
                ) from None
        return cls(**values)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(rows, cols) of the network's input, or None when it depends on the photo."""
        if self.crop is not None:
            return _pair(self.crop)
        return self.resize if isinstance(self.resize, tuple) else None

    @property
    def channels(self) -> int:
        """How many channels the network's input has."""
        return len(self.mean)

    def __call__(self, photo: Pixels) -> Float[Tensor, "channel row col"]:
        """Turn an upright RGB photo into the network's input, float32."""
        return self.together([photo])[0]

    def together(
        self, photos: Sequence[Pixels]
    ) -> Float[Tensor, "photo channel row col"]:
        """Turn photos of one size into inputs, which costs less than one by one.

        Everything runs in the caller's thread.
        """
        size = _size_of(photos[0])
        new_size = self._checked_size(size)
        pixels = self._levels(photos, new_size)
        if self.crop is not None:
            box = self._crop_box(new_size)
            pixels = _cropped(pixels, _Box(*box))
        return self._normalised(pixels)

    def placement(self, photo_size: tuple[int, int]) -> Placement:
        """Where the network's input lies on a photo of `photo_size` (width, height)."""
        photo_width, photo_height = photo_size
        width, height = self._resized_size(photo_size)
        box = _Box(0, 0, width, height)
        if self.crop is not None:
            box = _Box(*self._crop_box((width, height)))

        across = photo_width / width
        down = photo_height / height
        return Placement(
            photo_size=photo_size,
            input_size=(box.bottom - box.top, box.right - box.left),
            left=box.left * across,
            top=box.top * down,
            right=box.right * across,
            bottom=box.bottom * down,
        )

    def undo(self, tensor: Float[Tensor, "channel row col"]) -> Image.Image:
        """Turn a network's input back into a picture to look at (8 bits, clipped)."""
        values = tensor.detach().to("cpu", torch.float32)
        mean = _by_channel(self.mean)
        std = _by_channel(self.std)
        shares = values * torch.from_numpy(std) + torch.from_numpy(mean)
        shares = shares.clamp(0, 1)
        return picture_of_shares(shares)

    def describe(self) -> str:
        """One line in words: sizes in pixels, the filter, mean and std."""
        steps = []
        if self.resize is not None:
            size = f"shorter side to {self.resize}"
            if isinstance(self.resize, tuple):
                size = f"squash to {_sides(self.resize)}"
            steps.append(f"{size} ({self.interpolation})")
        if self.crop is not None:
            size = _sides(_pair(self.crop))
            steps.append(f"centre crop {size}")
        mean = _numbers(self.mean)
        std = _numbers(self.std)
        steps.append(f"mean {mean}, std {std}")

        text = ", ".join(steps)
        if self.note:
            text += f" — {self.note}"
        return text

    def _levels(
        self, photos: Sequence[Pixels], size: _Size
    ) -> UInt8[np.ndarray, "photo row col channel"]:
        """The photos in the size (width, height) that they are resized to."""
        old_size = _size_of(photos[0])
        width, height = size
        if self.channels == 1:
            photos = [image_of(photo).convert("L") for photo in photos]

        if size == old_size:
            arrays = [np.asarray(photo) for photo in photos]
            pixels = np.stack(arrays)
        else:
            pixels = resized(photos, width, height, self.interpolation)
        return pixels.reshape(len(photos), height, width, self.channels)

    def _normalised(
        self, pixels: UInt8[np.ndarray, "photo row col channel"]
    ) -> Float[Tensor, "photo channel row col"]:
        # By numpy: torch would start threads of its own in every thread that reads
        # photos.
        channels_first = np.moveaxis(pixels, 3, 1)
        scaled = np.divide(
            channels_first,
            np.float32(255),
            dtype=np.float32,
            order="C",
        )
        scaled -= _by_channel(self.mean)
        scaled /= _by_channel(self.std)
        return torch.from_numpy(scaled)

    def _checked_size(self, size: _Size) -> _Size:
        """The size that a photo is resized to; raises PhotoError where it is absurd."""
        width, height = self._resized_size(size)
        if (width, height) != size and width * height > _LARGEST_RESIZED:
            raise PhotoError(
                f"a photo of {size[0]}×{size[1]} pixels would become {width}×{height} "
                "when resized: crop it to an ordinary shape first"
            )
        return width, height

    def _resized_size(self, size: _Size) -> _Size:
        width, height = size
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            rows, cols = self.resize
            return cols, rows

        # torchvision truncates the longer side.
        shorter = self.resize
        if width <= height:
            longer = int(shorter * height / width)
            return shorter, max(1, longer)
        longer = int(shorter * width / height)
        return max(1, longer), shorter

    def _crop_box(self, size: _Size) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the centre crop of a resized photo.

        It reaches outside a photo that is smaller.
        """
        assert self.crop is not None
        rows, cols = _pair(self.crop)
        width, height = size
        left = _crop_start(width, cols)
        top = _crop_start(height, rows)
        right = left + cols
        bottom = top + rows
        return left, top, right, bottom


AnyPreprocessing: TypeAlias = Preprocessing | MeasuredPreprocessing


def as_preprocessing(
    value: AnyPreprocessing | Callable[[Image.Image], Any] | None,
) -> AnyPreprocessing:
    """Make a preprocessing of a user's value.

    That may be a preprocessing, a preset of torchvision, any callable from PIL image to
    tensor, or None for ImageNet's convention.
    """
    if value is None:
        note = "assumed: ImageNet's convention, since none was given"
        return Preprocessing(note=note)
    if isinstance(value, (Preprocessing, MeasuredPreprocessing)):
        return value
    if _is_torchvision_preset(value):
        return _from_torchvision_preset(value)
    if not callable(value):
        raise PreprocessingError(
            "a preprocessing is unitscope.Preprocessing or a callable from PIL image "
            f"to tensor, not {type(value).__name__}"
        )
    return MeasuredPreprocessing(value)


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


def _parsed(key: str, value: str) -> Any:
    """The value of one setting in text; raises ValueError where it cannot be read."""
    if key in ("resize", "crop"):
        return _parsed_size(value)
    if key in ("mean", "std"):
        return tuple(float(number) for number in value.split("/"))
    if key == "interpolation":
        return value
    raise ValueError(key)


def _parsed_size(value: str) -> int | tuple[int, int] | None:
    value = value.lower()
    if value == "none":
        return None
    rows, *others = (int(side) for side in value.split("x"))
    return (rows, others[0]) if others else rows


def _by_channel(
    values: tuple[float, ...],
) -> Float32[np.ndarray, "channel 1 1"]:
    array = np.array(values, dtype=np.float32)
    return array.reshape(-1, 1, 1)


def _size_of(photo: Pixels) -> _Size:
    if isinstance(photo, Image.Image):
        return photo.size
    rows, cols = photo.shape[:2]
    return cols, rows


def _crop_start(side: int, crop: int) -> int:
    """Where a centre crop begins along a side, as torchvision rounds it."""
    missing = crop - side
    if missing > 0:
        return -(missing // 2)
    return round(-missing / 2.0)


def _cropped(
    pixels: UInt8[np.ndarray, "photo row col channel"], box: _Box
) -> UInt8[np.ndarray, "photo box_row box_col channel"]:
    """The part of pictures in a box; black where it leaves them, as in torchvision."""
    _, rows, cols, _ = pixels.shape
    top = max(box.top, 0)
    left = max(box.left, 0)
    inside = pixels[:, top : box.bottom, left : box.right]

    above = top - box.top
    below = max(box.bottom - rows, 0)
    before = left - box.left
    behind = max(box.right - cols, 0)
    if not any((above, below, before, behind)):
        return inside
    padding = (
        (0, 0),
        (above, below),
        (before, behind),
        (0, 0),
    )
    return np.pad(inside, padding)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return value


def _are_pixels(value: object) -> bool:
    if isinstance(value, tuple) and len(value) == 2:
        return all(map(_is_positive, value))
    return _is_positive(value)


def _is_positive(side: object) -> bool:
    if isinstance(side, bool) or not isinstance(side, int):
        return False
    return side > 0


def _sides(size: tuple[int, int]) -> str:
    rows, cols = size
    return f"{rows}×{cols}"


def _numbers(values: tuple[float, ...]) -> str:
    numbers = [f"{value:.4g}" for value in values]
    return "/".join(numbers)
