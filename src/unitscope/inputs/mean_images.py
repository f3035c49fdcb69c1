"""Mean images: a mean for every pixel of the input, from a file or an array."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from unitscope.errors import PreprocessingError, one_line


@dataclass(frozen=True)
class MeanImage:
    """A mean for every pixel: `values` (channel, row, col), as the network orders them.

    `name` is that of its file. Two are equal where their numbers are.
    """

    name: str = field(compare=False)
    sha256: str
    values: Float32[np.ndarray, "channel row col"] = field(
        compare=False, repr=False
    )

    def __str__(self) -> str:
        shape = "×".join(map(str, self.values.shape))
        return f"of {self.name} ({shape}, {self.sha256[:8]})"

    def within(
        self, rows: int, cols: int
    ) -> Float32[np.ndarray, "channel row col"]:
        """The part in the middle of so many rows and columns, where a crop takes it.

        Raises PreprocessingError where the mean image is smaller.
        """
        _, own_rows, own_cols = self.values.shape
        if own_rows < rows or own_cols < cols:
            raise PreprocessingError(
                f"the mean image {self} is smaller than the input of {rows}×{cols}: "
                "give one of the input's size, or of the photo's before the crop"
            )
        top = round((own_rows - rows) / 2)
        left = round((own_cols - cols) / 2)
        return self.values[:, top : top + rows, left : left + cols]


MeanSource: TypeAlias = (
    tuple[float, ...]
    | list[float]
    | MeanImage
    | np.ndarray
    | str
    | os.PathLike[str]
)


def read_mean(value: Any, channels: int) -> tuple[float, ...] | MeanImage:
    """A mean as users have it: numbers, an array of them, or the path of a .npy file.

    An array of one axis has a number for each channel; one of three is a mean image,
    (channel, row, col) or (row, col, channel). Raises PreprocessingError.
    """
    name = "the array"
    if isinstance(value, (str, os.PathLike)):
        name = Path(value).name
        value = _read_file(Path(value))
    if isinstance(value, (list, tuple)):
        return tuple(value)

    array = np.asarray(value, dtype=np.float32)
    if array.ndim == 1:
        return tuple(array.tolist())
    if array.ndim == 2 and channels == 1:
        array = array[None]
    if array.ndim == 3 and array.shape[0] != channels == array.shape[2]:
        array = np.moveaxis(array, 2, 0)
    if array.ndim != 3 or array.shape[0] != channels:
        raise PreprocessingError(
            f"the mean image of {name} has the shape {array.shape}: expected (channel, "
            f"row, col) with {channels} channels, as many as std has numbers"
        )
    if not np.isfinite(array).all():
        raise PreprocessingError(
            f"the mean image of {name} holds NaN or infinite numbers: check what made it"
        )
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes())
    return MeanImage(name, digest.hexdigest(), array)


def _read_file(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise PreprocessingError(
            f"there is no mean image '{path}': check the path (looked in {Path.cwd()})"
        ) from None
    except Exception as error:
        raise PreprocessingError(
            f"the mean image '{path}' cannot be read ({one_line(error)}): save the "
            "array with numpy.save"
        ) from None
