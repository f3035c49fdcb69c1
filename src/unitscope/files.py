"""Files: write whole or not at all, and say in one line why not."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from unitscope.errors import OutputError

# What the names of temporary folders begin with.
_STAGING = ".unitscope-"

# Holds files that are complete and only have to be moved to their places.
_FINISHED = "finished"

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
    """Give a temporary path to write to, and rename it to `path` at the end.

    It is removed when anything fails, or by the next run when this one is killed.
    Raises OutputError.
    """
    try:
        with staging_folder(path.parent) as staging:
            temporary = staging / path.name
            yield temporary
            temporary.replace(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            raise OutputError(
                f"cannot write '{path}': there is no folder '{path.parent}': make it "
                "first"
            ) from None
        raise output_error(path, error) from None


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write to, and move its files into `folder` at the end.

    All is removed when anything fails. Files that were in `folder` before stay, unless
    one of the same name replaces them. Pages (.html) are moved last, so that whoever
    sees one sees all that belongs to it. When this run is killed while it moves files,
    the next one goes on with that. Raises OutputError.
    """
    made = _made(folder)
    try:
        with staging_folder(folder) as staging:
            yield staging
            _move_files(staging.rename(staging.with_name(_FINISHED)), folder)
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise output_error(folder, error) from None
        raise


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, which is removed at the end.

    It is locked as long as its process lives. What killed processes left in `folder` is
    cleaned up first.
    """
    clean_up(folder)
    top, lock = _locked_folder(folder)
    try:
        files = top / "files"
        files.mkdir()
        yield files
    finally:
        lock.release()
        shutil.rmtree(top, ignore_errors=True)


def _locked_folder(folder: Path) -> tuple[Path, filelock.BaseFileLock]:
    while True:
        top = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
        lock = _lock_of(top)
        try:
            lock.acquire()
            return top, lock
        except filelock.Timeout:
            continue  # in this moment another process took it for abandoned
        except OSError:
            if top.is_dir():
                shutil.rmtree(top, ignore_errors=True)
                raise


def clean_up(folder: Path) -> None:
    """Finish or remove what killed processes left in a folder.

    Files that are complete are moved to their places, and temporary ones removed.
    """
    for top in folder.glob(f"{_STAGING}*"):
        with contextlib.suppress(filelock.Timeout, OSError), _lock_of(top):
            _move_files(top / _FINISHED, folder)
            shutil.rmtree(top, ignore_errors=True)


def _lock_of(top: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(top / "lock", timeout=0)


def _move_files(staging: Path, folder: Path) -> None:
    files = [path for path in staging.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.suffix == ".html"):
        target = folder / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def read_at_most(path: Path, most: int) -> bytes | None:
    """The contents of a file, None where it holds more bytes; a device never ends."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    return data if len(data) <= most else None


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
