"""A real HTTP server on this machine that serves files well or badly, as told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """One file: its bytes, and how the server misbehaves; `cut` and `statuses` are
    used up, one for each request."""

    body: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    ranges: bool = True
    content_type: str = "application/octet-stream"
    cut: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    announced: int | None = None
    says_length: bool = True
    chunked: bool = False
    pause: float = 0.0
    range_shift: int = 0


@dataclass
class Site:
    url: str
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def serve(self, name: str, body: bytes, **behaviour: Any) -> str:
        self.files[f"/{name}"] = Served(body, **behaviour)
        return f"{self.url}/{name}"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(
        self, request: object, client_address: object
    ) -> None: ...  # Clients may hang up.


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        site = self.server.site
        site.requests.append((self.path, dict(self.headers)))
        file = site.files.get(self.path)
        if file is None or file.statuses:
            self.send_error(404 if file is None else file.statuses.pop(0))
            return
        self.close_connection = True
        begin = self._begin(file)
        if begin is not None and begin >= len(file.body):
            self.send_error(416)
            return
        body = file.body[begin or 0 :]
        self._send_headers(file, begin, len(body))
        self._send(file, body[: file.cut.pop(0)] if file.cut else body)

    def _begin(self, file: Served) -> int | None:
        wanted = self.headers.get("Range")
        same = self.headers.get("If-Range") in (
            None,
            file.etag,
            file.last_modified,
        )
        return (
            int(wanted.removeprefix("bytes=").rstrip("-"))
            if wanted and file.ranges and same
            else None
        )

    def _send_headers(
        self, file: Served, begin: int | None, length: int
    ) -> None:
        self.send_response(200 if begin is None else 206)
        if begin is not None:
            shifted = begin + file.range_shift
            self.send_header(
                "Content-Range",
                f"bytes {shifted}-{len(file.body) - 1}/{len(file.body)}",
            )
        if file.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif file.says_length:
            self.send_header(
                "Content-Length",
                str(length if file.announced is None else file.announced),
            )
        for name, value in (
            ("ETag", file.etag),
            ("Last-Modified", file.last_modified),
        ):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", file.content_type)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, file: Served, body: bytes) -> None:
        for start in range(0, len(body), 65536):
            piece = body[start : start + 65536]
            self.wfile.write(
                b"%x\r\n%b\r\n" % (len(piece), piece) if file.chunked else piece
            )
            self.wfile.flush()
            time.sleep(file.pause)
        if file.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.site = site = Site(f"http://127.0.0.1:{server.server_port}")
        with serving(server):
            yield site


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Answer requests in a thread meanwhile."""
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
