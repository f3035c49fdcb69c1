"""Downloads: files fetched once into the cache, whole or not at all, then checked."""

from __future__ import annotations

import os
import re
import urllib.parse
import uuid
from dataclasses import dataclass
from pathlib import Path

from unitscope.errors import DownloadError
from unitscope.sources.cache import (
    CACHE_VARIABLE,
    cache_folder,
    locked,
    sync_folder,
)
from unitscope.sources.checksums import (
    check_file,
    difference,
    record_of,
    sha256_of,
)
from unitscope.sources.transfers import Transfer


@dataclass(frozen=True)
class Download:
    """A file in the cache, and its SHA-256, the same as when it was fetched."""

    path: Path
    sha256: str


def fetch(
    url: str,
    folder: str | os.PathLike[str] = "",
    *,
    sha256_prefix: str = "",
    progress: bool | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
) -> Download:
    """Give the file at `url` from the cache; the first time, fetch it over the network.

    `folder` is within the cache folder unless it is absolute. The file's SHA-256 is
    written beside it (in the format of `sha256sum`) on first use and checked from then
    on; `sha256_prefix` is its published beginning, where there is one. An interrupted
    download leaves a .part file, which the next call resumes when the server can say
    that the file is still the same, and discards otherwise; the file itself appears
    only when it is whole. Several processes may ask for the same file: one fetches it,
    the others wait. `progress` False shows no bar; otherwise there is one where stderr
    is a terminal. `timeout` is in seconds of silence; after `attempts` failures without
    progress between them the connection is given up.

    Raises DownloadError when the file cannot be had, is not what it was, or is a web
    page.
    """
    target = cache_folder() / folder / _file_name(url)
    if target.is_file() and record_of(target).is_file():
        return Download(target, check_file(target, url, sha256_prefix))

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target) as exclusive:
            if not target.is_file():
                part = _part_of(target, exclusive)
                transfer = Transfer(url, part, target, progress, timeout)
                try:
                    _fetch_whole(transfer, attempts, sha256_prefix)
                finally:
                    if not exclusive:
                        transfer.discard()
            return Download(target, check_file(target, url, sha256_prefix))
    except OSError as error:
        raise DownloadError(
            f"{url} cannot be saved as '{target}' ({error.strerror or error}): free "
            f"some space, or set {CACHE_VARIABLE} to a folder that can be written"
        ) from None


def _file_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DownloadError(
            f"'{url}' is not a web address: give one that begins with https:// or "
            "http://"
        )
    name = urllib.parse.unquote(parts.path.rsplit("/", 1)[-1])
    if not re.fullmatch(r"[\w.\-+ ]*\w[\w.\-+ ]*", name):
        raise DownloadError(
            f"'{url}' does not end in a file's name: give the address of the file "
            "itself"
        )
    return name


def _part_of(target: Path, exclusive: bool) -> Path:
    if exclusive:
        return target.with_name(f"{target.name}.part")
    # Without a lock another process may be writing the shared .part: take one of our
    # own, not resumed.
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")


def _fetch_whole(transfer: Transfer, attempts: int, sha256_prefix: str) -> None:
    """Fetch the file, and give it its name only if its SHA-256 is the expected one."""
    transfer.run(attempts)
    sha256 = sha256_of(transfer.part)
    mismatch = difference(transfer.target, sha256, sha256_prefix)
    if mismatch is not None:
        transfer.discard()
        raise DownloadError(f"{transfer.url} is not the file {mismatch}")
    transfer.finish()
    sync_folder(transfer.target.parent)
