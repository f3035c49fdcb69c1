"""Transfers: one file over HTTP into a .part file, resumed where it broke off."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from unitscope.errors import DownloadError
from unitscope.sources.cache import sync, write_text_whole

_CHUNK = 1 << 18  # bytes
_LONGEST_PAUSE = 5.0  # seconds
_TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
# No route, no name, nobody listening: waiting half a second does not bring the network
# back.
_OFFLINE = (
    errno.ECONNREFUSED,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
)


class _TryAgainError(Exception):
    """The connection failed in a way that may pass; the .part file stays."""


@dataclass(frozen=True)
class Transfer:
    """A file on its way from `url` into `part`, which is to become `target`.

    `progress` False shows no bar; `timeout` is in seconds of silence.
    """

    url: str
    part: Path
    target: Path
    progress: bool | None
    timeout: float

    def run(self, attempts: int) -> None:
        """Bring the whole file into `part`, in several attempts.

        After `attempts` failures without progress between them, raises DownloadError.
        """
        failures = furthest = 0
        while True:
            try:
                return self._attempt()
            except _TryAgainError as error:
                size = self.part.stat().st_size if self.part.is_file() else 0
                failures = 1 if size > furthest else failures + 1
                furthest = max(size, furthest)
                if failures >= attempts:
                    raise self._unavailable(
                        f"{error}, {failures} times"
                    ) from None
            time.sleep(min(0.25 * 2**failures, _LONGEST_PAUSE))

    def discard(self) -> None:
        """Delete the .part file, and what is known of its version."""
        self.part.unlink(missing_ok=True)
        self._validator_file.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file, which is whole, its own name."""
        self.part.replace(self.target)
        self._validator_file.unlink(missing_ok=True)

    def _attempt(self) -> None:
        begin, validator = self._resumable()
        with self._response(begin, validator) as response:
            begin = self._check_resumed(response, begin, validator)
            length = _length(response, begin)
            self._refuse_headers(response, length)
            if begin == 0:
                self.discard()
                self._save_validator(response)
            size = self._receive(response, begin, length)
        self._check_content(size, length)

    @property
    def _validator_file(self) -> Path:
        return self.part.with_name(f"{self.part.name}.validator")

    def _resumable(self) -> tuple[int, str]:
        """The size of the .part file in bytes, and the validator of its version.

        By the validator the server can tell that the file is still the same. (0, "")
        where the download starts afresh.
        """
        try:
            size = self.part.stat().st_size
            validator = self._validator_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return 0, ""
        return (size, validator) if size and validator else (0, "")

    def _save_validator(self, response: http.client.HTTPResponse) -> None:
        """Save what tells this version of the file from another."""
        tag = response.getheader("ETag") or ""
        # A weak ETag does not say that the bytes are the same (RFC 9110, 13.1.5).
        strong = tag.startswith('"')
        validator = tag if strong else response.getheader("Last-Modified") or ""
        if validator and validator.isascii():
            write_text_whole(self._validator_file, validator)

    def _response(self, begin: int, validator: str) -> http.client.HTTPResponse:
        """The server's answer, from byte `begin` on if the file is still the same."""
        # A compressed answer would have other lengths and ranges than the file.
        headers = {"User-Agent": "unitscope", "Accept-Encoding": "identity"}
        if begin:
            headers |= {"Range": f"bytes={begin}-", "If-Range": validator}
        try:
            request = urllib.request.Request(self.url, headers=headers)
            response: http.client.HTTPResponse = urllib.request.urlopen(
                request, timeout=self.timeout
            )
        except urllib.error.HTTPError as error:
            with error:
                raise self._status_error(error) from None
        except urllib.error.URLError as error:
            raise self._connection_error(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgainError(str(error) or type(error).__name__) from None
        except ValueError as error:
            # A port that is no number, or a control character in the path.
            raise self._unavailable(str(error)) from None
        return response

    def _status_error(self, error: urllib.error.HTTPError) -> Exception:
        if error.code == 416:
            self.discard()
            return _TryAgainError(
                "the server would not go on where the download stopped"
            )
        answer = f"the server answered {error.code} {error.reason}"
        if error.code in _TEMPORARY_STATUSES:
            return _TryAgainError(answer)
        return self._unavailable(answer)

    def _connection_error(self, cause: str | BaseException) -> Exception:
        if isinstance(cause, OSError):
            unknown_host = isinstance(cause, socket.gaierror)
            if unknown_host or cause.errno in _OFFLINE:
                return self._unavailable(cause.strerror or str(cause))
        return _TryAgainError(str(cause))

    def _check_resumed(
        self, response: http.client.HTTPResponse, begin: int, validator: str
    ) -> int:
        """The byte of the file at which the answer begins.

        That is the end of the .part file, or 0 when the whole file comes again.
        """
        if response.status != 206:
            return 0

        content_range = response.getheader("Content-Range") or ""
        match = re.match(r"bytes (\d+)-", content_range)
        same_place = match is not None and int(match[1]) == begin

        tag = response.getheader("ETag") or validator
        other_version = validator.startswith('"') and tag != validator
        if not same_place or other_version:
            self.discard()
            raise _TryAgainError(
                "the server went on elsewhere than the download stopped"
            )
        return begin

    def _refuse_headers(
        self, response: http.client.HTTPResponse, length: int | None
    ) -> None:
        """Refuse an answer whose end could not be recognised, and a web page."""
        encoding = response.getheader("Transfer-Encoding") or ""
        if length is None and encoding.lower() != "chunked":
            raise self._unavailable(
                "the server does not say how long the file is"
            )
        kind = response.getheader("Content-Type") or ""
        if "html" in kind.lower():
            raise self._unavailable(
                "the server sent a web page instead of the file"
            )

    def _receive(
        self, response: http.client.HTTPResponse, begin: int, length: int | None
    ) -> int:
        """Append what arrives to the .part file, and return its size.

        What arrived stays there, whatever happens.
        """
        # None: tqdm shows its bar on a terminal only.
        hidden = True if self.progress is False else None
        bar = tqdm(
            total=length,
            initial=begin,
            desc=self.target.name,
            unit="B",
            unit_scale=True,
            disable=hidden,
            file=sys.stderr,
            leave=False,
        )
        with self.part.open("ab" if begin else "wb") as file, bar:
            while chunk := _next_chunk(response):
                file.write(chunk)
                bar.update(len(chunk))
            sync(file)
            return file.tell()

    def _check_content(self, size: int, length: int | None) -> None:
        """Refuse a web page, an empty file, and one of another length."""
        with self.part.open("rb") as handle:
            page = looks_like_html(handle.read(256))
        if page:
            self.discard()
            raise self._unavailable(
                "the server sent a web page instead of the file"
            )

        if length is not None and size < length:
            raise _TryAgainError(
                f"the connection ended after {size:,} of {length:,} bytes"
            )
        if length is not None and size > length:
            self.discard()
            raise _TryAgainError(
                f"the server sent {size:,} bytes and had announced {length:,}"
            )
        if size == 0:
            self.discard()
            raise self._unavailable("the server sent an empty file")

    def _unavailable(self, reason: str) -> DownloadError:
        return DownloadError(
            f"{self.url} cannot be fetched ({reason}): check the connection, or save "
            f"that file yourself as '{self.target}'"
        )


def looks_like_html(begin: bytes) -> bool:
    """Whether bytes begin as a web page does.

    Many servers send a page instead of a file that is not there.
    """
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return text.startswith(
        (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")
    )


def _length(response: http.client.HTTPResponse, begin: int) -> int | None:
    """The length of the whole file in bytes, where the server says it."""
    if response.status == 206:
        content_range = response.getheader("Content-Range") or ""
        match = re.match(r"bytes \d+-\d+/(\d+)", content_range)
        if match is not None:
            return int(match[1])
    length = response.getheader("Content-Length") or ""
    return begin + int(length) if length.isdigit() else None


def _next_chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(
            f"the connection broke ({error or type(error).__name__})"
        ) from None
