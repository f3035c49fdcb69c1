"""A tar file: where its members lie, read in place."""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from unitscope.errors import DatasetError, PhotoError, one_line

COMPRESSED = (
    ".tar.gz",
    ".tgz",
    ".tar.xz",
    ".txz",
    ".tar.bz2",
    ".tbz2",
    ".tar.zst",
)
_MAGICS = (b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")
_LONGEST_MAGIC = 6


@dataclass(frozen=True, eq=False)
class TarFile:
    """A tar, and where its members lie in it: name → (offset, size) in bytes.

    `name` tells it from the other tars of a data set; `stamp` is its modification time
    (ns) when it was opened.
    """

    path: Path
    name: str
    stamp: int
    members: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self, member: str) -> bytes:
        """The contents of a member."""
        offset, size = self.members[member]
        return read_at(self.path, offset, size, self.stamp)


def open_tar(path: Path, name: str) -> TarFile:
    """Read the headers of a tar once.

    Raises DatasetError for a tar that is compressed, damaged or cut short.
    """
    with _reporting(path), path.open("rb") as file:
        _refuse_compressed(path, file)
        file.seek(0)
        status = os.fstat(file.fileno())
        tar = TarFile(path, name, status.st_mtime_ns)
        _add_members(tar, file)

    ends = (offset + size for offset, size in tar.members.values())
    if max(ends, default=0) > status.st_size:
        raise DatasetError(
            f"'{path}' is cut short: get a whole copy of the tar"
        )
    return tar


def _refuse_compressed(path: Path, file: IO[bytes]) -> None:
    begin = file.read(_LONGEST_MAGIC)
    if path.name.lower().endswith(COMPRESSED) or begin.startswith(_MAGICS):
        raise DatasetError(
            f"'{path}' is a compressed tar, in which no photo can be read on its own: "
            "unpack it (tar xf) and give the folder, or the .tar"
        )


def _add_members(tar: TarFile, file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if not member.isreg() or member.issparse():
                continue
            inner = member.name.removeprefix("./")
            if inner in tar.members:
                raise DatasetError(
                    f"'{tar.path}' has the member {inner!r} twice: every photo needs "
                    "a name of its own"
                )
            tar.members[inner] = (member.offset_data, member.size)
            # tarfile stores all headers, which are larger than many a photo.
            archive.members = []  # type: ignore[attr-defined]

        # tarfile takes a damaged header for the end; the true end is the end of the
        # file, or a block of zeros.
        file.seek(archive.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise DatasetError(
                f"'{tar.path}' is damaged at byte {archive.offset}: get a whole copy "
                "of the tar"
            )


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a tar into a DatasetError."""
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(
            f"there is no tar '{path}': check the path (looked in {Path.cwd()})"
        ) from None
    except tarfile.TarError as error:
        raise DatasetError(
            f"'{path}' is no whole tar ({one_line(error)}): get a whole copy of it"
        ) from None
    except OSError as error:
        raise DatasetError(
            f"'{path}' cannot be read ({one_line(error)}): check the path and its "
            "permissions"
        ) from None


def read_at(path: Path, offset: int, size: int, stamp: int) -> bytes:
    """Read `size` bytes of a file from `offset` on; raises PhotoError.

    `stamp` is the modification time (ns) that the file must still have.
    """
    try:
        # Opened anew each time, which costs microseconds: thousands of shards are more
        # than a process may hold open.
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_mtime_ns != stamp:
                raise PhotoError(
                    f"'{path}' was written anew since it was opened: open the data set "
                    "again"
                )
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise PhotoError(
            f"'{path}' cannot be read ({one_line(error)}): check the file and its "
            "permissions"
        ) from None
    if len(data) != size:
        raise PhotoError(
            f"'{path}' is cut short at byte {offset + len(data)}: get a whole copy of "
            "it"
        )
    return data
