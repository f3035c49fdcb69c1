"""Contents: the bytes of a photo's file or pipe, before anything decodes them."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from unitscope.errors import PhotoError

_LARGE_FILE = 64 << 20
_LARGEST_IN_PIPE = 256 << 20


def contents_of(path: Path) -> bytes | Path:
    """The file's bytes, or the path of a very large file.

    They are read at once: Pillow reads headers in dozens of pieces, and threads would
    switch at each. A pipe cannot be read twice.
    """
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                is_large = status.st_size > _LARGE_FILE
                return path if is_large else file.read()
            return _from_pipe(path, file, status.st_mode)
    except OSError:
        if path.is_dir():
            raise PhotoError(
                f"'{path}' is a folder: name the photos in it, e.g. {path}/*.jpg"
            ) from None
        raise


def _from_pipe(path: Path, file: io.FileIO, mode: int) -> bytes:
    """What comes through a pipe; a device never ends."""
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise PhotoError(f"'{path}' is a device, not a file: name a photo")
    parts: list[bytes] = []
    size = 0
    while part := file.read(1 << 20):
        parts.append(part)
        size += len(part)
        if size > _LARGEST_IN_PIPE:
            raise PhotoError(
                f"more than {_LARGEST_IN_PIPE >> 20} MiB come through '{path}': give "
                "the photo as a file"
            )
    return b"".join(parts)
