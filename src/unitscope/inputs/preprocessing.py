"""Preprocessing: from a photo to the network's input, and the record of where the input lies on the photo."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.errors import PhotoError, PreprocessingError, one_line
from unitscope.geometry import Placement
from unitscope.inputs.photos import Pixels, image_of
from unitscope.inputs.resizing import FILTERS, resized

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# An intermediate picture larger than this comes from an absurd aspect ratio (1 ×
# 10,000), not from a photo.
_LARGEST_RESIZED = 100_000_000


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale to 0–1 and normalise, as torchvision's transforms do PIL images: to 1 of 255 levels.

    `resize` is the shorter side in pixels, or (rows, cols) to squash the photo to, or
    None; `crop` is the side of the centre crop, or (rows, cols), or None; `mean` and
    `std` are per channel on the 0–1 scale; `interpolation` is Pillow's (antialiased)
    filter. One `mean` value makes a one-channel (grey) input. `note` says where the
    convention comes from.
    """

    resize: int | tuple[int, int] | None = 256
    crop: int | tuple[int, int] | None = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse values that could not be meant, before a photo meets them."""
        for name in ("resize", "crop", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
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
        """Read a preprocessing from text such as "resize=144,crop=128" or "resize=227x227,crop=none,mean=0.5/0.5/0.5".

        Keys are resize, crop (pixels, ROWSxCOLS, or none), mean, std (numbers joined by
        /) and interpolation; what is left out is ImageNet's: mean and std, bilinear,
        and no crop where only a resize is given.
        """
        given: dict[str, Any] = (
            {"crop": None} if "resize" in text and "crop" not in text else {}
        )
        for item in text.split(","):
            key, _, value = (part.strip() for part in item.partition("="))
            try:
                if key in ("resize", "crop"):
                    sides = (
                        [int(side) for side in value.lower().split("x")]
                        if value.lower() != "none"
                        else []
                    )
                    given[key] = (
                        (None, *sides)[len(sides)]
                        if len(sides) < 2
                        else (sides[0], sides[1])
                    )
                elif key in ("mean", "std"):
                    given[key] = tuple(float(number) for number in value.split("/"))
                elif key == "interpolation":
                    given[key] = value
                else:
                    raise ValueError(key)
            except ValueError:
                raise PreprocessingError(
                    f"preprocessing {item.strip()!r} cannot be read: write for "
                    "instance 'resize=256,crop=224' or "
                    "'resize=227x227,mean=0.5/0.5/0.5,std=0.5/0.5/0.5,interpolation=bicubic'"
                ) from None
        return cls(**given)

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
        """Turn an upright RGB photo into the network's input, a float32 tensor (channel, row, col)."""
        return self.together([photo])[0]

    def together(
        self, photos: Sequence[Pixels]
    ) -> Float[Tensor, "photo channel row col"]:
        """Turn photos of one size into inputs, with less ado than one by one; in the caller's thread alone."""
        first = photos[0]
        size = (
            first.size
            if isinstance(first, Image.Image)
            else (first.shape[1], first.shape[0])
        )
        width, height = self._resized(size)
        if (width, height) != size and width * height > _LARGEST_RESIZED:
            raise PhotoError(
                f"a photo of {size[0]}×{size[1]} pixels would become {width}×{height} "
                "when resized: "
                "crop it to an ordinary shape first"
            )
        if self.channels == 1:
            photos = [image_of(photo).convert("L") for photo in photos]
        if (width, height) != size:
            pixels = resized(photos, width, height, self.interpolation)
        else:
            pixels = np.stack([np.asarray(photo) for photo in photos])
        pixels = pixels.reshape(len(photos), height, width, self.channels)
        if self.crop is not None:
            pixels = _cropped(pixels, *self._crop_box((width, height)))
        # With numpy, which does not start threads of its own in each of those that
        # photos are read in.
        scaled = np.divide(
            np.moveaxis(pixels, 3, 1), np.float32(255), dtype=np.float32, order="C"
        )
        mean, std = (
            np.array(values, dtype=np.float32).reshape(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        scaled -= mean
        scaled /= std
        return torch.from_numpy(scaled)

    def placement(self, photo_size: tuple[int, int]) -> Placement:
        """Say where the network's input lies on a photo of `photo_size` (width, height)."""
        width, height = self._resized(photo_size)
        left, top, right, bottom = (
            self._crop_box((width, height))
            if self.crop is not None
            else (0, 0, width, height)
        )
        across, down = photo_size[0] / width, photo_size[1] / height
        return Placement(
            photo_size,
            (bottom - top, right - left),
            left * across,
            top * down,
            right * across,
            bottom * down,
        )

    def undo(self, tensor: Float[Tensor, "channel row col"]) -> Image.Image:
        """Turn a network's input back into a picture, for looking at (8 bits, clipped)."""
        values = tensor.detach().to("cpu", torch.float32)
        mean, std = (
            torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)
            for numbers in (self.mean, self.std)
        )
        pixels = (values * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).convert(
            "RGB"
        )

    def describe(self) -> str:
        """One line in words: sizes in pixels, the filter, mean and std."""
        steps = []
        if isinstance(self.resize, tuple):
            steps.append(
                f"squash to {self.resize[0]}×{self.resize[1]} ({self.interpolation})"
            )
        elif self.resize is not None:
            steps.append(f"shorter side to {self.resize} ({self.interpolation})")
        if self.crop is not None:
            rows, cols = _pair(self.crop)
            steps.append(f"centre crop {rows}×{cols}")
        steps.append(f"mean {_numbers(self.mean)}, std {_numbers(self.std)}")
        return ", ".join(steps) + (f" — {self.note}" if self.note else "")

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        width, height = size
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        # torchvision truncates the longer side.
        if width <= height:
            return self.resize, max(1, int(self.resize * height / width))
        return max(1, int(self.resize * width / height)), self.resize

    def _crop_box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        assert self.crop is not None
        rows, cols = _pair(self.crop)
        width, height = size
        # torchvision pads a side that is too short by (missing // 2) before and crops
        # at round(surplus / 2) otherwise.
        left = -((cols - width) // 2) if cols > width else round((width - cols) / 2.0)
        top = -((rows - height) // 2) if rows > height else round((height - rows) / 2.0)
        return left, top, left + cols, top + rows


@dataclass(frozen=True)
class MeasuredPreprocessing:
    """Somebody's own callable (PIL image → tensor), and where it puts the photo, found by measuring.

    Any function, torchvision pipeline or albumentation that maps an RGB PIL image to a
    (channel, row, col) tensor. Its geometry is measured by sending ramps through it: a
    picture that brightens from left to right says, at every input column, which column
    of the photo that is. Good to about a thousandth of the photo's side.
    """

    transform: Callable[[Image.Image], Any]
    note: str = ""
    _placements: dict[tuple[int, int], Placement] = field(
        default_factory=dict, repr=False, compare=False
    )

    @functools.cached_property
    def input_size(self) -> tuple[int, int] | None:
        """(rows, cols) of the network's input, or None when it depends on the photo (two shapes of photo are tried)."""
        wide, tall = (
            tuple(self(Image.new("RGB", size)).shape[1:])
            for size in ((640, 480), (300, 500))
        )
        return (wide[0], wide[1]) if wide == tall else None

    @functools.cached_property
    def channels(self) -> int:
        """How many channels the network's input has."""
        return self(Image.new("RGB", (64, 64))).shape[0]

    def __call__(self, image: Image.Image) -> Float[Tensor, "channel row col"]:
        """Apply the callable to an upright RGB photo; raises PreprocessingError unless it gives (channel, row, col)."""
        try:
            tensor = self.transform(image)
        except PhotoError:
            raise
        except Exception as error:
            raise PreprocessingError(
                f"the preprocessing {_name(self.transform)} failed on a PIL image of "
                f"{image.width}×{image.height} "
                f"pixels ({type(error).__name__}: {one_line(error)}): "
                "it must map a PIL image to a (channel, row, col) tensor"
            ) from error
        if not isinstance(tensor, Tensor):
            raise PreprocessingError(
                f"the preprocessing {_name(self.transform)} gave "
                f"{type(tensor).__name__}, not a (channel, row, col) "
                "tensor: end it with a conversion to a tensor"
            )
        if tensor.ndim == 4 and tensor.shape[0] == 1:
            tensor = tensor[0]
        if tensor.ndim != 3 or not tensor.is_floating_point() or not tensor.numel():
            kind = f"a {tensor.dtype}" if tensor.numel() else "an empty"
            raise PreprocessingError(
                f"the preprocessing {_name(self.transform)} gave {kind} tensor of "
                f"shape {tuple(tensor.shape)}, "
                "not floating-point (channel, row, col)"
            )
        return tensor

    def placement(self, photo_size: tuple[int, int]) -> Placement:
        """Measure where the network's input lies on a photo of `photo_size` (width, height).

        Raises PreprocessingError when the callable is random, or when what it does is
        not a resize and a crop.
        """
        if photo_size not in self._placements:
            self._placements[photo_size] = self._measure(photo_size)
        return self._placements[photo_size]

    def undo(self, tensor: Float[Tensor, "channel row col"]) -> Image.Image:
        """Turn a network's input back into a picture, stretching its values to 0–255 (its scale is not known)."""
        return picture_of(tensor)

    def describe(self) -> str:
        """One line in words."""
        text = (
            " ".join(repr(self.transform).split())
            if not hasattr(self.transform, "__name__")
            else _name(self.transform)
        )
        return f"own callable {text}" + (f" — {self.note}" if self.note else "")

    def _measure(self, photo_size: tuple[int, int]) -> Placement:
        width, height = photo_size
        if not self._steady:
            raise PreprocessingError(
                f"the preprocessing {_name(self.transform)} gives another result each "
                "time: use the one for "
                "evaluation, without random crops or flips"
            )
        black, white = (
            self(Image.new("RGB", photo_size, (level,) * 3)).cpu() for level in (0, 255)
        )
        down, across = np.meshgrid(_ramp(height), _ramp(width), indexing="ij")
        ramps = [np.repeat(values[..., None], 3, axis=2) for values in (across, down)]
        inputs = [self(Image.fromarray(ramp)).cpu() for ramp in ramps]
        span = (white - black).abs().amax(dim=(1, 2))
        channel = int(span.argmax())
        contrast = (white - black)[channel].to(torch.float64)
        if not float(span[channel]) > 0:
            raise self._unmeasurable(
                "it gives the same input for a black and a white photo"
            )
        seen = contrast.abs() > 0.5 * float(span[channel])
        edges = []
        for tensor, extent, axis in ((inputs[0], width, 1), (inputs[1], height, 0)):
            level = (tensor - black)[channel].to(torch.float64) / torch.where(
                seen, contrast, torch.ones_like(contrast)
            )
            edges.append(self._fit(level, seen, extent, axis))
        (left, right), (top, bottom) = edges
        return Placement(
            photo_size,
            (int(contrast.shape[0]), int(contrast.shape[1])),
            left,
            top,
            right,
            bottom,
        )

    @functools.cached_property
    def _steady(self) -> bool:
        """Whether the same photo always gives the same input; a coin that falls the same way 16 times is missed."""
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        first, *others = (self(Image.fromarray(noise)) for _ in range(16))
        return all(torch.equal(first, other) for other in others)

    def _fit(
        self, level: Tensor, seen: Tensor, extent: int, axis: int
    ) -> tuple[float, float]:
        """Fit position on the photo = a + b · position on the input, along one axis, from the ramp's levels."""
        count = level.shape[axis]
        if extent == 1:
            return 0.0, 1.0
        steps = torch.arange(count, dtype=torch.float64) + 0.5
        index = (steps[None, :] if axis else steps[:, None]).expand_as(level)
        position = (level * 255 + 0.5) / 256 * extent
        # Beyond the centres of the photo's outermost pixels resampling has nothing to
        # go by, and gives plateaus.
        lowest, highest = (float(end) / 255 for end in _ramp(extent)[[0, -1]])
        use = seen & (level > lowest + 1.5 / 255) & (level < highest - 1.5 / 255)
        use = use if _spread(index[use]) else seen
        name = "columns" if axis else "rows"
        if not _spread(index[use]):
            raise self._unmeasurable(
                f"a ramp leaves fewer than two levels along {name}"
            )
        design = torch.stack([torch.ones_like(index[use]), index[use]], dim=1)
        solution = torch.linalg.lstsq(design, position[use][:, None]).solution[:, 0]
        residual = float((design @ solution - position[use]).abs().max())
        if not residual <= 0.02 * extent + 1 or float(solution[1]) <= 0:
            raise self._unmeasurable(
                f"the photo's {name} are not kept in order and proportion"
            )
        begin, per_pixel = float(solution[0]), float(solution[1])
        return begin, begin + per_pixel * count

    def _unmeasurable(self, why: str) -> PreprocessingError:
        return PreprocessingError(
            f"where the preprocessing {_name(self.transform)} puts the photo cannot be "
            f"measured ({why}): "
            "pass unitscope.Preprocessing(resize=…, crop=…, mean=…, std=…) instead"
        )


AnyPreprocessing: TypeAlias = Preprocessing | MeasuredPreprocessing


def as_preprocessing(
    value: AnyPreprocessing | Callable[[Image.Image], Any] | None,
) -> AnyPreprocessing:
    """Accept what people have: our own, a preset of torchvision, any callable, or None for ImageNet's convention."""
    if value is None:
        return Preprocessing(
            note="assumed: ImageNet's convention, since none was given"
        )
    if isinstance(value, (Preprocessing, MeasuredPreprocessing)):
        return value
    preset = ("resize_size", "crop_size", "mean", "std", "interpolation")
    if type(value).__name__ == "ImageClassification" and all(
        hasattr(value, name) for name in preset
    ):
        return _from_torchvision_preset(value)
    if not callable(value):
        raise PreprocessingError(
            "a preprocessing is unitscope.Preprocessing or a callable from PIL image "
            "to tensor, "
            f"not {type(value).__name__}"
        )
    return MeasuredPreprocessing(value)


def _from_torchvision_preset(preset: Any) -> Preprocessing:
    """torchvision.transforms._presets.ImageClassification: sizes are one-element lists, the filter an enum."""
    resize, crop = (
        list(getattr(preset, name)) for name in ("resize_size", "crop_size")
    )
    return Preprocessing(
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        crop=crop[0] if len(crop) == 1 else (crop[0], crop[1]),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=str(preset.interpolation.value),
        note="torchvision's evaluation preset",
    )


def picture_of(tensor: Float[Tensor, "channel row col"]) -> Image.Image:
    """Make a picture of a tensor of unknown scale: its range is stretched to 0–255, extra channels are dropped."""
    values = tensor.detach().to("cpu", torch.float32)
    values = values[:3] if values.shape[0] >= 3 else values[:1]
    low, high = values.min(), values.max()
    pixels = (
        ((values - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny))
        .mul(255)
        .round()
        .to(torch.uint8)
    )
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).convert("RGB")


def _cropped(
    pixels: np.ndarray, left: int, top: int, right: int, bottom: int
) -> np.ndarray:
    """A part of pictures (photo, row, col, channel); black where it leaves them, as with torchvision's centre crop."""
    count, rows, cols, channels = pixels.shape
    inside = pixels[:, max(top, 0) : bottom, max(left, 0) : right]
    if min(top, left) >= 0 and bottom <= rows and right <= cols:
        return inside
    cropped = np.zeros((count, bottom - top, right - left, channels), np.uint8)
    down, across = max(-top, 0), max(-left, 0)
    cropped[:, down : down + inside.shape[1], across : across + inside.shape[2]] = (
        inside
    )
    return cropped


def _ramp(length: int) -> np.ndarray:
    # A level v stands for the position (v + 0.5) / 256 of the length.
    return (
        np.round((np.arange(length) + 0.5) / length * 256 - 0.5)
        .clip(0, 255)
        .astype(np.uint8)
    )


def _spread(values: Tensor) -> bool:
    return len(values) > 1 and bool(values.max() > values.min())


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _are_pixels(value: object) -> bool:
    sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    return all(
        isinstance(side, int) and not isinstance(side, bool) and side > 0
        for side in sides
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


def _name(function: object) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
