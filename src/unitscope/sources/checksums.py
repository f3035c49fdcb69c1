"""Checksums: the SHA-256 of a download, recorded beside it and compared ever after."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

from unitscope.errors import DownloadError
from unitscope.sources.cache import write_text_whole

# How many digits of a SHA-256 an error shows.
_SHOWN_DIGITS = 12


def record_of(target: Path) -> Path:
    """The file beside `target` that holds its SHA-256, in the format of `sha256sum`."""
    return target.with_name(f"{target.name}.sha256")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_file(target: Path, url: str, sha256_prefix: str) -> str:
    """Compare a file with its record, or record it on first use; returns its SHA-256.

    `sha256_prefix` is the beginning that was published. Raises DownloadError.
    """
    try:
        sha256 = sha256_of(target)
    except OSError as error:
        raise DownloadError(
            f"'{target}' cannot be read ({error.strerror or error}): check its "
            "permissions"
        ) from None

    recorded = _recorded(target)
    if recorded is not None and recorded != sha256:
        raise DownloadError(
            f"'{target}' is not the file it was on first use (SHA-256 {_short(sha256)}"
            f"…, recorded {_short(recorded)}…): delete it to fetch it again from "
            f"{url}, or delete '{record_of(target).name}' beside it if you changed it "
            "on purpose"
        )
    if not sha256.startswith(sha256_prefix):
        raise DownloadError(
            f"'{target}' is not the published file (SHA-256 {_short(sha256)}…, "
            f"published {sha256_prefix}…): delete it to fetch it again from {url}"
        )

    if recorded is None:
        # A cache that cannot be written serves its files all the same.
        with contextlib.suppress(OSError):
            write_text_whole(record_of(target), f"{sha256}  {target.name}\n")
    return sha256


def difference(target: Path, sha256: str, sha256_prefix: str) -> str | None:
    """How a new copy of `target` differs from the record or the published SHA-256.

    The result completes "URL is not the file …"; None where it does not differ. Raises
    DownloadError where the record is damaged.
    """
    recorded = _recorded(target)
    expected = sha256_prefix if recorded is None else recorded
    if sha256.startswith(expected) and sha256.startswith(sha256_prefix):
        return None

    if recorded is None:
        which, remedy = "that was published", "try again later"
    else:
        which = "it was on first use"
        remedy = f"delete '{record_of(target)}' if you trust the new file"
    return (
        f"{which} (SHA-256 {_short(sha256)}…, expected {_short(expected)}…), so it was "
        f"discarded: {remedy}"
    )


def _recorded(target: Path) -> str | None:
    """The SHA-256 on record; None where there is no record."""
    try:
        text = record_of(target).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        text = ""

    match = re.match(r"[0-9a-f]{64}\b", text)
    if match is None:
        raise DownloadError(
            f"'{record_of(target)}' holds no SHA-256: delete it to have the file's "
            "recorded again"
        )
    return match[0]


def _short(sha256: str) -> str:
    return sha256[:_SHOWN_DIGITS]
