"""Server: the explorer's application on a port of this machine, until interrupted."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import ClassVar

from unitscope.atlas.atlas import Atlas
from unitscope.datasets import Dataset
from unitscope.errors import UnitscopeError, warn_user
from unitscope.explorer.application import create_app
from unitscope.explorer.documents import Documents, photos_of
from unitscope.explorer.limits import Limits
from unitscope.explorer.web import H11Protocol, Starlette, uvicorn
from unitscope.model import Classifier

DEFAULT_PORTS = range(8421, 8441)
"""Ports that are tried in turn where none is named."""

_BACKLOG = 128
# Seconds that waiting clients get when the program is interrupted.
_SHUTDOWN_SECONDS = 1
_NO_LOGS = logging.CRITICAL + 1


def serve(
    documents: Documents,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    allow_hosts: Collection[str] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the pages until interrupted (KeyboardInterrupt).

    Only this machine can see them unless another `host` is named. Port 0 is any free
    one; without a port it is 8421, or the next free one. `allow_hosts` are further
    names of this server. `ready` is called with the address of the first page as soon
    as it can be opened.

    Raises UnitscopeError where the host or port is not available, and warns
    (UnitscopeWarning) where others on the network can see the pages.
    """
    # Every page needs the index, which runs the network. Two threads must not run it at
    # once, so it is computed before the first request.
    documents.index()

    with listening(host, port) as listener:
        address = ipaddress.ip_address(listener.getsockname()[0])
        if not address.is_loopback:
            warn_user(
                "anyone who reaches this machine over the network can use the explorer "
                "and send it photos: leave out --host to keep it to yourself"
            )
        app = create_app(documents, hosts={host, *allow_hosts})
        web_server(app, ready).run(sockets=[listener])


def explore(
    model: Classifier | None,
    atlas: Atlas | None = None,
    *,
    dataset: Dataset | None = None,
    photos: Sequence[str | os.PathLike[str]] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    allow_hosts: Collection[str] = (),
    ready: Callable[[str], None] | None = None,
    freeze: bool = False,
) -> None:
    """Explore a classifier, an atlas, or both, in a browser, until interrupted.

    `photos` are files to begin with. `dataset` holds the images of the atlas, where
    they have moved since the scan. With `freeze` the model is frozen after the first
    photo, see `Classifier.freeze`. The other options are those of `serve`.

    Raises what `serve` raises, MissingError where there is nothing to explore, and
    AtlasError where the atlas is of another model.
    """
    if dataset is None and atlas is not None:
        dataset = photos_of(atlas)
        if dataset is None:
            warn_user(
                "the photos of the atlas have moved since the scan and are not shown: "
                "say where they lie with dataset= (--source)"
            )

    with tempfile.TemporaryDirectory(
        prefix="unitscope-", ignore_cleanup_errors=True
    ) as folder:
        documents = Documents(
            model,
            atlas,
            dataset=dataset,
            folder=Path(folder),
            photos=[Path(photo) for photo in photos],
            freezes=freeze,
        )
        serve(
            documents,
            host=host,
            port=port,
            allow_hosts=allow_hosts,
            ready=ready,
        )


def listening(
    host: str, port: int | None, defaults: Sequence[int] = DEFAULT_PORTS
) -> socket.socket:
    """A socket that listens at a host and port, or at the first free one of `defaults`.

    Raises UnitscopeError where the host is not of this machine or no port is free.
    """
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UnitscopeError(
            f"there is no host '{host}': name an address of this machine, such as "
            "127.0.0.1"
        ) from None
    family, _, _, _, (address, *_) = addresses[0]

    reason = ""
    for candidate in defaults if port is None else [port]:
        try:
            return _bound(family, str(address), candidate)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UnitscopeError(
                    f"cannot listen at '{host}' ({error.strerror}): name an address of "
                    "this machine"
                ) from None
            is_taken = error.errno == errno.EADDRINUSE
            reason = "is taken" if is_taken else "may not be used"

    if port is None:
        problem = f"ports {defaults[0]} to {defaults[-1]} are all taken"
    else:
        problem = f"port {port} of {host} {reason}"
    raise UnitscopeError(
        f"{problem}: name another with --port (port=), or 0 for any free port"
    )


def _bound(
    family: socket.AddressFamily, address: str, port: int
) -> socket.socket:
    """A socket that listens at an address; raises OSError."""
    # asyncio turns Nagle's algorithm off only on sockets that name their protocol,
    # which connections inherit. Otherwise every other answer waits 40 ms until the
    # browser acknowledges its header.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # A port can be used again at once after a server closed it. On other
            # systems this option would let two servers share a port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def web_server(
    app: Starlette, ready: Callable[[str], None] | None = None
) -> uvicorn.Server:
    """A server for an application of `create_app`; `run(sockets=[…])` serves.

    It writes no log, as every error is in the answer to its request.
    """
    limits: Limits = app.state.limits
    config = uvicorn.Config(
        app,
        http=_protocol(limits.patience),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=_NO_LOGS,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    return _Server(config, ready, app.state.close)


class _Server(uvicorn.Server):
    """A server that calls `ready` with its address, and `close` before it shuts down."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[str], None] | None,
        close: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._close = close

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End on a signal; SIGTERM ends in the normal way, so that files are removed."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def shutdown(
        self, sockets: list[socket.socket] | None = None
    ) -> None:
        """Shut down, after all waiting clients have got an answer."""
        self._close()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start up, and call `ready` with the address."""
        await super().startup(sockets)
        if self._ready is not None and sockets:
            host, port, *_ = sockets[0].getsockname()
            self._ready(f"http://{_host_in_address(host)}:{port}/")


def _host_in_address(host: str) -> str:
    """A bound IP address as it is written in a URL."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return "localhost"
    return f"[{host}]" if address.version == 6 else host


def _protocol(seconds: float) -> type[H11Protocol]:
    """The HTTP protocol of uvicorn, which closes connections idle for so many seconds."""

    class Protocol(_ClosesIdleConnections):
        patience = seconds

    return Protocol


class _ClosesIdleConnections(H11Protocol):
    """The HTTP protocol of uvicorn, without clients that neither ask nor read."""

    patience: ClassVar[float]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to check the connection from time to time."""
        super().connection_made(transport)
        self._last_state: tuple[object, int] = (None, 0)
        self._timer = self.loop.call_later(self.patience, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        is_idle = self.cycle is None or self.cycle.response_complete

        state = (self.cycle, unsent)
        if state == self._last_state and (is_idle or unsent):
            self.transport.abort()
            return
        self._last_state = state
        self._timer = self.loop.call_later(self.patience, self._check)
