"""Files: write whole or not at all, and say in one line why not."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from unitscope.errors import OutputError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EACCES: "permission denied: choose a folder that you may write to",
    errno.EPERM: "not permitted: choose a folder that you may write to",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another path",
    errno.EEXIST: (
        "there is a file where the folder should be: move it or choose another path"
    ),
    errno.EISDIR: "there is a folder of that name: choose another name",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """The error for a file or folder that cannot be written, with the remedy."""
    reason = _REMEDIES.get(
        error.errno or 0, f"{error.strerror or error}: choose another place"
    )
    return OutputError(f"cannot write '{path}': {reason}")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and rename it at the end.

    It is removed when anything fails. Raises OutputError.
    """
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name[:40]}.", suffix=path.suffix, dir=path.parent
        )
    except FileNotFoundError:
        raise OutputError(
            f"cannot write '{path}': there is no folder '{path.parent}': make it first"
        ) from None
    except OSError as error:
        raise output_error(path, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes a private file; a result is as readable as the user's other
        # files.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write to, and move its files into `folder` at the end.

    All is removed when anything fails. Files that were in `folder` before stay, unless
    one of the same name replaces them. Pages (.html) are moved last, so that whoever
    sees one sees all that belongs to it. Raises OutputError.
    """
    made = _made(folder)
    try:
        with tempfile.TemporaryDirectory(
            prefix=".unitscope-", dir=folder, ignore_cleanup_errors=True
        ) as name:
            staging = Path(name)
            yield staging
            _move_files(staging, folder)
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise output_error(folder, error) from None
        raise


def _move_files(staging: Path, folder: Path) -> None:
    files = [path for path in staging.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.suffix == ".html"):
        target = folder / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def make_folder(folder: Path) -> Path:
    """Make a folder with its parents unless it is there; raises OutputError."""
    _made(folder)
    return folder


def _made(folder: Path) -> Path | None:
    """Make a folder with its parents.

    Returns the topmost that was not there; None when all were.
    """
    missing: list[Path] = []
    try:
        missing = [
            path for path in (folder, *folder.parents) if not path.exists()
        ]
        if folder.is_file():
            raise OutputError(
                f"cannot write into '{folder}': it is a file, not a folder: choose "
                "another path"
            )
        folder.mkdir(parents=True, exist_ok=True)
    except OutputError:
        raise
    except OSError as error:
        if missing and missing[-1].is_dir():
            shutil.rmtree(missing[-1], ignore_errors=True)
        raise output_error(folder, error) from None
    return missing[-1] if missing else None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
