"""Resizing: Pillow's filters, the bilinear one by torch where that is faster.

torch's result is within one of 255 levels of Pillow's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch.nn import functional

from unitscope.inputs.large import FILTERS, is_large, shrunk
from unitscope.inputs.photos import Pixels, image_of, size_of

# With these instructions torch resizes several times as fast as Pillow. Its code for
# other processors is slower than Pillow's, and wrong for pictures one pixel wide.
_PROCESSORS = ("AVX2", "AVX512")

# Where both sides shrink at least this much, torch resizes rows and columns. Elsewhere
# it resizes only the columns, and Pillow the rows.
#
# torch rounds weights to 16 bits, Pillow to 22, and both round to whole levels between
# columns and rows. Where only a few pixels make one, many sums lie on the very edge
# between two levels, and both roundings may go the same way: then the results differ by
# two levels, in 8 of a million values for 128 pixels to 144, in 1 of 10⁸ for 1.6 to 1.
# From this factor on, 2·10⁹ values had no such difference.
_BOTH_SIDES_FROM = 2


def resized(
    photos: Sequence[Pixels], width: int, height: int, by: str
) -> UInt8[np.ndarray, "photo height width *rgb"]:
    """Pictures of one size and mode in another size, by one of the FILTERS.

    Large ones are resized as they are where they are decoded. Everything runs in the
    caller's thread.
    """
    images = [image_of(photo) for photo in photos if is_large(size_of(photo))]
    if images:
        made = [shrunk(image, (width, height), by) for image in images]
        return np.stack([np.asarray(image) for image in made])
    if by == "bilinear" and _torch_is_faster(photos[0]):
        return _resized_by_torch(_stacked(photos), width, height)

    arrays = []
    for photo in photos:
        image = image_of(photo)
        new = image.resize((width, height), FILTERS[by])
        arrays.append(np.asarray(new))
    return np.stack(arrays)


def _torch_is_faster(photo: Pixels) -> bool:
    is_grey = isinstance(photo, Image.Image) and photo.mode != "RGB"
    if is_grey:
        return False
    return torch.backends.cpu.get_cpu_capability() in _PROCESSORS


def _stacked(photos: Sequence[Pixels]) -> UInt8[np.ndarray, "photo row col 3"]:
    arrays = []
    for photo in photos:
        if isinstance(photo, Image.Image):
            # A copy: torch takes no array that cannot be written to.
            photo = np.array(photo)
        arrays.append(photo)

    if len(arrays) > 1:
        return np.stack(arrays)
    # Not array[None], whose first stride is 0: torch tells by the strides that channels
    # come last.
    (array,) = arrays
    return array.reshape(1, *array.shape)


def _resized_by_torch(
    stack: UInt8[np.ndarray, "photo row col 3"], width: int, height: int
) -> UInt8[np.ndarray, "photo height width 3"]:
    _, rows, cols, _ = stack.shape
    new_rows = rows
    if min(rows / height, cols / width) >= _BOTH_SIDES_FROM:
        new_rows = height

    channels_first = torch.from_numpy(stack).permute(0, 3, 1, 2)
    planes = functional.interpolate(
        channels_first,
        (new_rows, width),
        mode="bilinear",
        antialias=True,
    )
    channels_last = planes.permute(0, 2, 3, 1)
    pixels = channels_last.contiguous().numpy()
    if new_rows == height:
        return pixels
    return _with_rows(pixels, height)


def _with_rows(
    stack: UInt8[np.ndarray, "photo row col 3"], height: int
) -> UInt8[np.ndarray, "photo height col 3"]:
    """The pictures with another number of rows, by Pillow.

    They are resized as one picture, side by side: columns do not influence each other.
    """
    count, rows, cols, channels = stack.shape
    side_by_side = np.moveaxis(stack, 0, 1)
    side_by_side = np.ascontiguousarray(side_by_side)
    width = count * cols
    wide = Image.fromarray(side_by_side.reshape(rows, width, channels))
    wide = wide.resize((width, height), FILTERS["bilinear"])

    resized_pixels = np.asarray(wide)
    photos = resized_pixels.reshape(height, count, cols, channels)
    return np.moveaxis(photos, 1, 0)
