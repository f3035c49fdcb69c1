"""Downloads: files fetched once into a cache, whole or not at all, and checked ever after."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from unitscope.errors import DownloadError

CACHE_VARIABLE = "UNITSCOPE_CACHE"

_CHUNK = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)
# No route, no name, nobody listening: waiting half a second does not bring the network
# back.
_OFFLINE = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


@dataclass(frozen=True)
class Download:
    """A file in the cache, and the SHA-256 that it had when it was fetched and has still."""

    path: Path
    sha256: str


class _TryAgainError(Exception):
    """The connection failed in a way that may pass; what arrived so far stays in the .part file."""


def cache_folder() -> Path:
    """Say where downloads are kept: `$UNITSCOPE_CACHE`, or unitscope's folder in the platform's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    home = Path.home()
    folders = {
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
        "darwin": home / "Library" / "Caches",
    }
    return (
        folders.get(
            sys.platform, Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
        )
        / "unitscope"
    )


def fetch(
    url: str,
    folder: str | os.PathLike[str] = "",
    *,
    sha256_prefix: str = "",
    progress: bool | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
) -> Download:
    """Give the file at `url`, from the cache, or else over the network and then from the cache ever after.

    `folder` is within the cache folder unless it is absolute. The file's SHA-256 is
    written beside it (in the format of `sha256sum`) on first use and checked from then
    on; `sha256_prefix` is what it must begin with, where that is published. An
    interrupted download leaves a .part file, which the next call resumes when the
    server can say that the file is still the same, and discards otherwise; the file
    itself appears only when it is whole. Several processes may ask for the same file:
    one fetches it, the others wait. `progress` False shows no bar; otherwise there is
    one where stderr is a terminal. `timeout` is in seconds of silence; after `attempts`
    failures without progress between them the connection is given up.

    Raises DownloadError when the file cannot be had, is not what it was, or is a web
    page.
    """
    target = cache_folder() / folder / _file_name(url)
    if target.is_file() and _sidecar(target).is_file():
        return _checked(target, url, sha256_prefix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target) as alone:
            if not target.is_file():
                # Without a lock another process may be writing the shared .part: take
                # one of our own, not resumed.
                part = target.with_name(
                    f"{target.name}.part"
                    if alone
                    else f"{target.name}.{uuid.uuid4().hex}.part"
                )
                try:
                    _download(url, part, target, progress, timeout, attempts)
                    _compare(part, target, _sha256_of(part), sha256_prefix, url)
                    part.replace(target)
                    _validator_file(part).unlink(missing_ok=True)
                    _sync_folder(target.parent)
                finally:
                    if not alone:
                        _discard(part)
            return _checked(target, url, sha256_prefix)
    except OSError as error:
        raise DownloadError(
            f"{url} cannot be saved as '{target}' ({error.strerror or error}): free "
            "some space, or set "
            f"{CACHE_VARIABLE} to a folder that can be written"
        ) from None


def looks_like_html(begin: bytes) -> bool:
    """Whether bytes begin as a web page does, which many servers send instead of a file that is not there."""
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body"))


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


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _checked(target: Path, url: str, sha256_prefix: str) -> Download:
    """Check the file against what was recorded, or record it on first use."""
    try:
        sha256 = _sha256_of(target)
    except OSError as error:
        raise DownloadError(
            f"'{target}' cannot be read ({error.strerror or error}): check its "
            "permissions"
        ) from None
    recorded = _recorded(target)
    if recorded is not None and recorded != sha256:
        raise DownloadError(
            f"'{target}' is not the file it was on first use (SHA-256 {sha256[:12]}…, "
            f"recorded {recorded[:12]}…): "
            f"delete it to fetch it again from {url}, or delete "
            f"'{_sidecar(target).name}' beside it if you changed it "
            "on purpose"
        )
    if not sha256.startswith(sha256_prefix):
        raise DownloadError(
            f"'{target}' is not the published file (SHA-256 {sha256[:12]}…, published "
            f"{sha256_prefix}…): delete it to "
            f"fetch it again from {url}"
        )
    if recorded is None:
        # A cache that cannot be written serves its files all the same.
        with contextlib.suppress(OSError):
            _write(_sidecar(target), f"{sha256}  {target.name}\n")
    return Download(target, sha256)


def _compare(
    part: Path, target: Path, sha256: str, sha256_prefix: str, url: str
) -> None:
    """Refuse what was fetched when it is not what it was the first time, or not what was published."""
    recorded = _recorded(target)
    expected = recorded if recorded is not None else sha256_prefix
    if not sha256.startswith(expected) or not sha256.startswith(sha256_prefix):
        _discard(part)
        which = "it was on first use" if recorded is not None else "that was published"
        remedy = (
            f"delete '{_sidecar(target)}' if you trust the new file"
            if recorded is not None
            else "try again later"
        )
        raise DownloadError(
            f"{url} is not the file {which} (SHA-256 {sha256[:12]}…, expected "
            f"{expected[:12]}…), so it was discarded: "
            f"{remedy}"
        )


def _recorded(target: Path) -> str | None:
    try:
        text = _sidecar(target).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        text = ""
    found = re.match(r"[0-9a-f]{64}\b", text)
    if found is None:
        raise DownloadError(
            f"'{_sidecar(target)}' holds no SHA-256: delete it to have the file's "
            "recorded again"
        )
    return found[0]


def _sha256_of(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _download(
    url: str,
    part: Path,
    target: Path,
    progress: bool | None,
    timeout: float,
    attempts: int,
) -> None:
    """Bring the whole file into `part`, in several tries; `attempts` failures without progress between them end it."""
    failures, furthest = 0, 0
    while True:
        try:
            return _attempt(url, part, target, progress, timeout)
        except _TryAgainError as error:
            size = part.stat().st_size if part.is_file() else 0
            failures = 1 if size > furthest else failures + 1
            furthest = max(size, furthest)
            if failures >= attempts:
                raise _unavailable(url, target, f"{error}, {failures} times") from None
        time.sleep(min(0.25 * 2**failures, 5.0))


def _attempt(
    url: str, part: Path, target: Path, progress: bool | None, timeout: float
) -> None:
    begin, validator = _resumable(part)
    with _answer(url, part, target, timeout, begin, validator) as response:
        begin = _where_it_begins(response, part, begin, validator)
        length = _length(response, begin)
        if (
            length is None
            and (response.getheader("Transfer-Encoding") or "").lower() != "chunked"
        ):
            raise _unavailable(
                url, target, "the server does not say how long the file is"
            )
        if "html" in (response.getheader("Content-Type") or "").lower():
            raise _unavailable(
                url, target, "the server sent a web page instead of the file"
            )
        if begin == 0:
            _discard(part)
            _remember_validator(response, part)
        size = _receive(response, part, begin, length, target, progress)
    _judge(url, part, target, size, length)


def _judge(url: str, part: Path, target: Path, size: int, length: int | None) -> None:
    with part.open("rb") as handle:
        page = looks_like_html(handle.read(256))
    if page:
        _discard(part)
        raise _unavailable(
            url, target, "the server sent a web page instead of the file"
        )
    if length is not None and size < length:
        raise _TryAgainError(f"the connection ended after {size:,} of {length:,} bytes")
    if length is not None and size > length:
        _discard(part)
        raise _TryAgainError(
            f"the server sent {size:,} bytes and had announced {length:,}"
        )
    if size == 0:
        _discard(part)
        raise _unavailable(url, target, "the server sent an empty file")


def _resumable(part: Path) -> tuple[int, str]:
    """How much of the file is here, and by what the server can tell that it is still the same file."""
    try:
        size, validator = (
            part.stat().st_size,
            _validator_file(part).read_text(encoding="ascii").strip(),
        )
    except (OSError, ValueError):
        return 0, ""
    return (size, validator) if size and validator else (0, "")


def _answer(
    url: str, part: Path, target: Path, timeout: float, begin: int, validator: str
) -> http.client.HTTPResponse:
    # A compressed answer would have other lengths and ranges than the file.
    headers = {"User-Agent": "unitscope", "Accept-Encoding": "identity"}
    if begin:
        headers |= {"Range": f"bytes={begin}-", "If-Range": validator}
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                _discard(part)
                raise _TryAgainError(
                    "the server would not go on where the download stopped"
                ) from None
            if error.code in _PASSING:
                raise _TryAgainError(
                    f"the server answered {error.code} {error.reason}"
                ) from None
            raise _unavailable(
                url, target, f"the server answered {error.code} {error.reason}"
            ) from None
    except urllib.error.URLError as error:
        cause = error.reason
        if isinstance(cause, socket.gaierror) or (
            isinstance(cause, OSError) and cause.errno in _OFFLINE
        ):
            raise _unavailable(url, target, cause.strerror or str(cause)) from None
        raise _TryAgainError(str(cause)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(str(error) or type(error).__name__) from None
    except (
        ValueError
    ) as error:  # A port that is no number, a control character in the path.
        raise _unavailable(url, target, str(error)) from None
    return response


def _where_it_begins(
    response: http.client.HTTPResponse, part: Path, begin: int, validator: str
) -> int:
    """Say at which byte of the file the answer begins: where the .part ends, or 0 when the whole file comes again."""
    if response.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.getheader("Content-Range") or "")
    other = response.getheader("ETag") or validator
    if (
        found is None
        or int(found[1]) != begin
        or (validator.startswith('"') and other != validator)
    ):
        _discard(part)
        raise _TryAgainError("the server went on elsewhere than the download stopped")
    return begin


def _length(response: http.client.HTTPResponse, begin: int) -> int | None:
    """Give the length of the whole file, as far as the server tells."""
    whole = re.match(r"bytes \d+-\d+/(\d+)", response.getheader("Content-Range") or "")
    if response.status == 206 and whole:
        return int(whole[1])
    length = response.getheader("Content-Length") or ""
    return begin + int(length) if length.isdigit() else None


def _remember_validator(response: http.client.HTTPResponse, part: Path) -> None:
    """Keep what tells this version of the file from another (no weak ETag, by RFC 9110, 13.1.5)."""
    tag = response.getheader("ETag") or ""
    validator = (
        tag if tag.startswith('"') else response.getheader("Last-Modified") or ""
    )
    if validator and validator.isascii():
        _write(_validator_file(part), validator)


def _receive(
    response: http.client.HTTPResponse,
    part: Path,
    begin: int,
    length: int | None,
    target: Path,
    progress: bool | None,
) -> int:
    """Append what arrives to the .part and give its size; what arrived stays there, whatever happens."""
    hidden = (
        True if progress is False else None
    )  # None: tqdm shows its bar on a terminal only.
    with (
        part.open("ab" if begin else "wb") as file,
        tqdm(
            total=length,
            initial=begin,
            desc=target.name,
            unit="B",
            unit_scale=True,
            disable=hidden,
            file=sys.stderr,
            leave=False,
        ) as bar,
    ):
        while chunk := _next_chunk(response):
            file.write(chunk)
            bar.update(len(chunk))
        _sync(file)
        return file.tell()


def _next_chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(
            f"the connection broke ({error or type(error).__name__})"
        ) from None


def _unavailable(url: str, target: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"{url} cannot be fetched ({reason}): check the connection, or save that file "
        f"yourself as '{target}'"
    )


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Windows cannot open folders, and some file systems cannot sync them.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[bool]:
    """Keep other processes and threads from fetching `target` meanwhile; gives False where files cannot be locked.

    The lock is the operating system's, so that it goes with a process that dies. Its
    file stays: to remove it would let two processes lock two files of the same name.
    """
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(
                target.with_name(f"{target.name}.lock").open("ab")
            )
            _lock(handle)
        except OSError:
            alone = False
        else:
            alone = True
        yield alone


def _lock(handle: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
