"""The cache: the folder of downloads, and a lock for each file in it."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CACHE_VARIABLE = "UNITSCOPE_CACHE"


def cache_folder() -> Path:
    """`$UNITSCOPE_CACHE`, or unitscope's folder in the platform's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return _platform_folder() / "unitscope"


def _platform_folder() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(
            os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
        )
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


@contextlib.contextmanager
def locked(target: Path) -> Iterator[bool]:
    """Keep other processes and threads from fetching `target` meanwhile.

    Gives False where files cannot be locked. The lock is the operating system's, so
    that it goes with a process that dies. Its file stays: to remove it would let two
    processes lock two files of the same name.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock_file = target.with_name(f"{target.name}.lock")
            _lock(stack.enter_context(lock_file.open("ab")))
        except OSError:
            exclusive = False
        else:
            exclusive = True
        yield exclusive


def _lock(handle: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


def write_text_whole(file: Path, text: str) -> None:
    """Write a small text file by way of a temporary one; it is never partial."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def sync(file: IO[bytes]) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    # Windows cannot open folders, and some file systems cannot sync them.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
