"""Arrays: safetensors files of an atlas, written whole and read in part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unitscope.errors import AtlasError
from unitscope.files import make_folder, written_whole


def write_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as one safetensors file, whole or not at all."""
    contiguous = {
        name: np.ascontiguousarray(array) for name, array in arrays.items()
    }
    write_bytes(
        path, save(contiguous, None if metadata is None else dict(metadata))
    )


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a safetensors file, and its metadata."""
    with opened_arrays(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
        return arrays, dict(file.metadata() or {})


@contextlib.contextmanager
def opened_arrays(path: Path) -> Iterator[Any]:
    """A safetensors file, open for reading.

    Raises AtlasError where it is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise AtlasError(
            f"'{path}' is missing: finish the scan, or copy the atlas again"
        ) from None
    except PermissionError:
        raise AtlasError(
            f"'{path}' may not be read: check its permissions"
        ) from None
    except (SafetensorError, OSError) as error:
        raise AtlasError(
            f"'{path}' is damaged ({error}): scan again into another folder"
        ) from None


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and wait until it is on disk."""
    make_folder(path.parent)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        # Later writes rely on this one, so it must reach the disk before them.
        os.fsync(file.fileno())
