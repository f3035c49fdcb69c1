"""Preprocessing: from a photo to the network's input, and where that lies on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from unitscope.errors import PhotoError, PreprocessingError
from unitscope.geometry import Placement
from unitscope.inputs.decoding import Original, Reading
from unitscope.inputs.grammar import settings_in
from unitscope.inputs.large import FILTERS, Resize, is_large
from unitscope.inputs.mean_images import MeanImage, MeanSource, read_mean
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.photos import Pixels, image_of, size_of
from unitscope.inputs.pictures import picture_of_shares
from unitscope.inputs.raw import RawPictures
from unitscope.inputs.resizing import resized

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
    None. `crop` is the side of the centre crop, or (rows, cols), or None.
    `interpolation` is Pillow's (antialiased) filter. `note` says where the convention
    comes from.

    The input is (photo − mean) / std. `mean` and `std` have one number a channel, in
    the order of the network's channels, on the scale from 0 to `scale`: 1, or 255 to
    leave levels as they are. `mean` may also be a mean image: an array, or the path of
    a .npy file. `order` is "rgb" or "bgr". One number makes a grey input; for two, and
    for more than three, photos must have as many bands, which are taken as they are.
    `white` is the value of white in photos of more than 8 bits, e.g. 4095 for 12 bits;
    without it that is guessed.
    """

    resize: int | tuple[int, int] | None = 256
    crop: int | tuple[int, int] | None = 224
    mean: MeanSource = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    note: str = ""
    scale: float = 1
    order: str = "rgb"
    white: float | None = None

    def __post_init__(self) -> None:
        """Check the values before a photo meets them."""
        for name in ("resize", "crop", "std"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if not isinstance(self.mean, (tuple, MeanImage)):
            mean = read_mean(self.mean, len(self.std))
            object.__setattr__(self, "mean", mean)

        if self.interpolation not in FILTERS:
            raise PreprocessingError(
                f"interpolation {self.interpolation!r} is unknown: use one of "
                f"{', '.join(FILTERS)}"
            )
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not _are_pixels(value):
                raise PreprocessingError(
                    f"{name} is a positive number of pixels, or (rows, cols), not "
                    f"{value!r}"
                )
        self._check_numbers()
        self._check_scale()

    def _check_numbers(self) -> None:
        """Raise unless mean, std and white fit each other and can be computed with."""
        means = len(self.std)
        if isinstance(self.mean, tuple):
            means = len(self.mean)
        if not self.std or means != len(self.std):
            raise PreprocessingError(
                "mean and std need one value a channel (3 for RGB, 1 for grey), "
                f"not {means} and {len(self.std)}"
            )
        if not all(value > 0 for value in self.std):
            raise PreprocessingError(f"std must be positive, not {self.std}")
        means_to_check = self.mean if isinstance(self.mean, tuple) else ()
        numbers = np.array([*means_to_check, *self.std])
        if not (np.abs(numbers) < np.finfo(np.float32).max).all():
            raise PreprocessingError(
                f"mean and std are finite numbers, not {self.mean} and {self.std}"
            )
        if self.white is not None and not 0 < self.white < np.inf:
            raise PreprocessingError(
                f"white is the positive value of white pixels, e.g. 4095, not {self.white}"
            )

    def _check_scale(self) -> None:
        """Raise where the numbers are of another scale or order than the input's."""
        if self.scale not in (1, 255):
            raise PreprocessingError(
                f"scale is 1 or 255, not {self.scale}: for a range from -1 to 1 write "
                "mean=0.5/0.5/0.5,std=0.5/0.5/0.5, or "
                "scale=255,mean=127.5/127.5/127.5,std=127.5/127.5/127.5"
            )
        if self.order not in ("rgb", "bgr"):
            raise PreprocessingError(
                f"order is 'rgb' or 'bgr', not {self.order!r}"
            )
        if self.order == "bgr" and self.channels != 3:
            raise PreprocessingError(
                f"order 'bgr' is for three channels, not {self.channels}: leave it out"
            )
        are_imagenets = IMAGENET_MEAN == self.mean or IMAGENET_STD == self.std
        if are_imagenets and (self.scale, self.order) != (1, "rgb"):
            raise PreprocessingError(
                f"with scale {self.scale} and order '{self.order}' give mean and std on "
                "that scale and in that order (ImageNet's are on the scale 0–1, in the "
                "order R, G, B), e.g. mean=0/0/0,std=1/1/1"
            )

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read a preprocessing from text such as "resize=144,crop=128".

        Keys are resize and crop (pixels, ROWSxCOLS, or none), mean and std (numbers
        joined by /; mean also the path of a .npy file), scale (1 or 255), order (rgb or
        bgr), interpolation, and white. What is left out is ImageNet's, except that a
        resize alone means no crop.
        """
        return cls(**settings_in(text))

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(rows, cols) of the network's input, or None when it depends on the photo."""
        if self.crop is not None:
            return _pair(self.crop)
        return self.resize if isinstance(self.resize, tuple) else None

    @property
    def channels(self) -> int:
        """How many channels the network's input has."""
        return len(self.std)

    @property
    def takes_bands(self) -> bool:
        """Whether photos must have as many bands as the input has channels."""
        return self.channels not in (1, 3)

    @property
    def resizing(self) -> Resize | None:
        """How photos are resized, if they are."""
        if self.resize is None:
            return None
        return Resize(self.resize, self.interpolation)

    def __call__(self, photo: Pixels) -> Float[Tensor, "channel row col"]:
        """Turn an upright photo into the network's input, float32.

        The photo is RGB, or has a band for each channel (see `takes_bands`).
        """
        return self.together([photo])[0]

    def together(
        self, photos: Sequence[Pixels]
    ) -> Float[Tensor, "photo channel row col"]:
        """Turn photos of one size into inputs, which costs less than one by one.

        Everything runs in the caller's thread.
        """
        size = size_of(photos[0])
        new_size = self._checked_size(size)
        if self.crop is None:
            return self._normalised(self._levels(photos, new_size))

        box = _Box(*self._crop_box(new_size))
        if new_size == size and is_large(size):
            # First of all, so that what is cut off is not copied.
            parts = [image_of(photo).crop(box) for photo in photos]
            return self._normalised(self._levels(parts, size_of(parts[0])))
        pixels = self._levels(photos, new_size)
        return self._normalised(_cropped(pixels, box))

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
        mean = self._mean(values.shape[1], values.shape[2])
        std = _by_channel(self.std)
        photo = values * torch.from_numpy(std) + torch.from_numpy(mean)
        shares = (photo / self.scale).clamp(0, 1)
        if self.order == "bgr":
            shares = shares.flip(0)
        return picture_of_shares(shares[: 3 if self.channels >= 3 else 1])

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
        text = ", ".join([*steps, *self._scale_in_words()])
        if self.note:
            text += f" — {self.note}"
        return text

    def _scale_in_words(self) -> list[str]:
        words = []
        if self.order == "bgr":
            words.append("channels in the order B, G, R")
        if self.scale != 1:
            words.append(f"scale 0–{self.scale}")
        mean = str(self.mean)
        if isinstance(self.mean, tuple):
            mean = _numbers(self.mean)
        words.append(f"mean {mean}, std {_numbers(self.std)}")
        if self.white is not None:
            words.append(f"white {self.white:g}")
        return words

    def _levels(
        self, photos: Sequence[Pixels], size: _Size
    ) -> UInt8[np.ndarray, "photo row col channel"]:
        """The photos in the size (width, height) that they are resized to."""
        width, height = size
        if self.takes_bands:
            planes = _planes(photos, self.channels)
        elif self.channels == 1:
            planes = [image_of(photo).convert("L") for photo in photos]
        else:
            planes = list(photos)

        if size == size_of(photos[0]):
            pixels = np.stack([np.asarray(plane) for plane in planes])
        else:
            pixels = resized(planes, width, height, self.interpolation)
        if self.takes_bands:
            by_band = pixels.reshape(len(photos), self.channels, height, width)
            return np.moveaxis(by_band, 1, 3)
        return pixels.reshape(len(photos), height, width, self.channels)

    def _normalised(
        self, pixels: UInt8[np.ndarray, "photo row col channel"]
    ) -> Float[Tensor, "photo channel row col"]:
        # By numpy: torch would start threads of its own in every thread that reads
        # photos.
        channels_first = np.moveaxis(pixels, 3, 1)
        if self.order == "bgr":
            channels_first = channels_first[:, ::-1]
        scaled = np.divide(
            channels_first,
            np.float32(255 / self.scale),
            dtype=np.float32,
            order="C",
        )
        scaled -= self._mean(scaled.shape[2], scaled.shape[3])
        scaled /= _by_channel(self.std)
        return torch.from_numpy(scaled)

    def _mean(
        self, rows: int, cols: int
    ) -> Float32[np.ndarray, "channel mean_row mean_col"]:
        """The mean that is subtracted from an input of so many rows and columns."""
        if isinstance(self.mean, MeanImage):
            return np.ascontiguousarray(self.mean.within(rows, cols))
        assert isinstance(self.mean, tuple)
        return _by_channel(self.mean)

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
        return size if self.resizing is None else self.resizing.size(size)

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


def reading_of(preprocessing: AnyPreprocessing) -> Reading:
    """How photos must be read for a preprocessing."""
    if isinstance(preprocessing, Preprocessing):
        original: Original | None = None
        if preprocessing.takes_bands:
            original = "bands"
        return Reading(preprocessing.white, original, preprocessing.resizing)
    if isinstance(preprocessing.transform, RawPictures):
        return Reading(original="file")
    return Reading()


def _planes(photos: Sequence[Pixels], channels: int) -> list[Pixels]:
    """The bands of photos one by one, as grey pictures; raises PhotoError.

    Pillow would multiply the others by a fourth band when it resizes them together.
    """
    planes: list[Pixels] = []
    for photo in photos:
        bands = image_of(photo).split()
        if len(bands) != channels:
            raise PhotoError(
                f"a photo has {len(bands)} bands ({image_of(photo).mode}), and the "
                f"preprocessing has numbers for {channels} channels: give photos of as "
                "many bands, a (batch, channel, row, col) tensor, or a preprocessing "
                "unitscope.RawPictures(your_function)"
            )
        planes += bands
    return planes


def _by_channel(
    values: tuple[float, ...],
) -> Float32[np.ndarray, "channel 1 1"]:
    array = np.array(values, dtype=np.float32)
    return array.reshape(-1, 1, 1)


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
