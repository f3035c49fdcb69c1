"""Answers: the HTTP responses of the explorer, from bytes, from data and from errors."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitscope.errors import (
    BusyError,
    ClassError,
    LayerError,
    MissingError,
    UnitError,
)
from unitscope.explorer.web import HTTPException, Request, Response
from unitscope.render.words import without_folders

NO_STORE = {"cache-control": "no-store"}

_REVALIDATE = "private, no-cache"
_GZIP_LEVEL = 3
_UNKNOWN_TYPE = "application/octet-stream"
_TYPE_OF_SUFFIX = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}
_TYPE_OF_SIGNATURE = {
    b"\xff\xd8": "image/jpeg",
    b"\x89PNG": "image/png",
    b"RIFF": "image/webp",
}
_STATUS_OF_ERROR = {
    MissingError: 404,
    LayerError: 404,
    UnitError: 404,
    ClassError: 404,
    BusyError: 503,
}
_OTHER_ERRORS = 422
_SECONDS_TO_RETRY = "2"


@dataclass(frozen=True)
class CachedFile:
    """Bytes that a browser may cache, provided that it revalidates them each time.

    `body` is None where the browser is known to have the bytes with this tag.
    """

    tag: str
    media_type: str
    body: bytes | None

    def response(self, request: Request) -> Response:
        """The bytes, or status 304 where the browser has them."""
        headers = {"etag": self.tag, "cache-control": _REVALIDATE}
        in_browser = self.tag in request.headers.get("if-none-match", "")

        if in_browser or self.body is None:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def tag_of(contents: bytes) -> str:
    """An entity tag: the beginning of the contents' SHA-256 hash, in quotes."""
    return f'"{hashlib.sha256(contents).hexdigest()[:24]}"'


def media_type_of_name(name: str) -> str:
    """The media type of a file name's ending; machines' own tables differ."""
    return _TYPE_OF_SUFFIX.get(Path(name).suffix, _UNKNOWN_TYPE)


def media_type_of_picture(data: bytes) -> str:
    """The media type of a picture, from its first bytes."""
    for signature, media_type in _TYPE_OF_SIGNATURE.items():
        if data.startswith(signature):
            return media_type
    return _UNKNOWN_TYPE


def takes_gzip(request: Request) -> bool:
    """Whether an answer is compressed: for clients on other machines that accept it.

    Base64 and tables shrink to a third or less, which pays on a network only: the
    weights of a head take a tenth of a second to compress.
    """
    accepted = "gzip" in request.headers.get("accept-encoding", "")
    return accepted and not _is_local(request)


def _is_local(request: Request) -> bool:
    if request.client is None:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def json_bytes(document: Any, compress: bool) -> bytes:
    """A document as JSON without spaces; raises ValueError for NaN and infinity."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    body = text.encode()
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compress else body


def encoding_headers(compressed: bool) -> dict[str, str]:
    """The headers that say how a document is encoded."""
    headers = {"vary": "accept-encoding"}
    if compressed:
        headers["content-encoding"] = "gzip"
    return headers


def json_response(body: bytes, compressed: bool) -> Response:
    """The response for a document that `json_bytes` encoded."""
    headers = NO_STORE | encoding_headers(compressed)
    return Response(body, media_type="application/json", headers=headers)


def error_response(
    status: int, line: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The response for an error: {"error": line}."""
    return Response(
        json.dumps({"error": line}).encode(),
        status,
        media_type="application/json",
        headers={**NO_STORE, **(headers or {})},
    )


async def http_error(_request: Request, error: Exception) -> Response:
    """The response for an `HTTPException`."""
    assert isinstance(error, HTTPException)
    lines = {
        404: "there is nothing at this address: begin at /",
        405: "this address does not accept that method",
    }
    line = lines.get(error.status_code, error.detail)
    return error_response(error.status_code, line, error.headers)


async def unitscope_error(_request: Request, error: Exception) -> Response:
    """The response for a `UnitscopeError`: its line, without folders of this machine."""
    status = _status_of(error)
    headers = {"retry-after": _SECONDS_TO_RETRY} if status == 503 else None
    return error_response(status, without_folders(str(error)), headers)


def _status_of(error: Exception) -> int:
    for kind, status in _STATUS_OF_ERROR.items():
        if isinstance(error, kind):
            return status
    return _OTHER_ERRORS
