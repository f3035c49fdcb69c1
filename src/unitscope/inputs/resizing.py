"""Resizing as Pillow does it; its bilinear filter to within one level, by torch where that is several times as fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.nn import functional

from unitscope.inputs.photos import Pixels, image_of

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# Without these instructions torch takes another way, which is slower than Pillow's and
# wrong for pictures one wide.
_PROCESSORS = ("AVX2", "AVX512")

# torch rounds weights to 16 bits where Pillow takes 22, and both round to whole levels
# between columns and rows. Where only a few pixels make one, so many sums fall on the
# very edge between two levels that both roundings may differ the same way: by two
# levels in 8 of a million values when 128 pixels become 144, and in 1 of 10⁸ at 1.6 to
# 1. From here on the rows are torch's too; no such value was among 2·10⁹.
_BOTH = 2


def resized(
    photos: Sequence[Pixels], width: int, height: int, by: str
) -> UInt8[np.ndarray, "photo height width *rgb"]:
    """Pictures of one size and mode in another size, by one of the FILTERS, computed in the caller's thread alone."""
    grey = isinstance(photos[0], Image.Image) and photos[0].mode != "RGB"
    if (
        by != "bilinear"
        or grey
        or torch.backends.cpu.get_cpu_capability() not in _PROCESSORS
    ):
        return np.stack(
            [
                np.asarray(image_of(photo).resize((width, height), FILTERS[by]))
                for photo in photos
            ]
        )
    # Copies of images, since torch takes no array that cannot be written to.
    arrays = [
        np.array(photo) if isinstance(photo, Image.Image) else photo for photo in photos
    ]
    # Not arrays[0][None], whose first stride is 0: by the strides torch knows that
    # channels come last.
    stack = (
        np.stack(arrays) if len(arrays) > 1 else arrays[0].reshape(1, *arrays[0].shape)
    )
    rows, cols = stack.shape[1:3]
    both = cols >= _BOTH * width and rows >= _BOTH * height
    planes = torch.from_numpy(stack).permute(0, 3, 1, 2)
    across = functional.interpolate(
        planes, (height if both else rows, width), mode="bilinear", antialias=True
    )
    found = across.permute(0, 2, 3, 1).contiguous().numpy()
    return found if found.shape[1] == height else _with_rows(found, height)


def _with_rows(
    stack: UInt8[np.ndarray, "photo row col 3"], height: int
) -> UInt8[np.ndarray, "photo height col 3"]:
    """The pictures with other rows: side by side they are one picture, whose columns know nothing of each other."""
    count, rows, cols, channels = stack.shape
    beside = Image.fromarray(
        np.ascontiguousarray(np.moveaxis(stack, 0, 1)).reshape(
            rows, count * cols, channels
        )
    )
    tall = np.asarray(beside.resize((beside.width, height), Image.Resampling.BILINEAR))
    return np.moveaxis(tall.reshape(height, count, cols, channels), 1, 0)
