"""Server: the explorer's pages and documents over HTTP, for one person on this machine or a few on a network."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import tempfile
import traceback
import warnings
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Sequence,
)
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote
from weakref import WeakValueDictionary

from unitscope.atlas.atlas import Atlas
from unitscope.datasets import Dataset
from unitscope.errors import (
    BusyError,
    ClassError,
    InputError,
    LayerError,
    MissingError,
    MissingExtraError,
    UnitError,
    UnitscopeError,
    UnitscopeWarning,
    one_line,
)
from unitscope.explorer.documents import Documents, photos_of
from unitscope.explorer.worker import Worker
from unitscope.model import Classifier
from unitscope.render.words import without_folders

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtraError(
        str(error.name).split(".")[0], "explore", "the explorer"
    ) from None

DEFAULT_PORT = 8421
UPLOAD_BYTES = 32 << 20
WAITING = 32

_PORTS_TRIED = 20
# So many large bodies are in memory at once, a quarter of them of one client's; small
# ones are taken at any time.
_UPLOADS_AT_ONCE = 8
_SMALL_BYTES = 256 << 10
_QUESTION_BYTES = 256 << 10
_GZIP_LEVEL = 3
# A client may take so many seconds, and one more for every so many bytes that it sent,
# but never longer than the last.
_GRACE, _SLOWEST, _LONGEST = 15.0, 64 << 10, 60.0
# Seconds after which a connection on which nothing moves is given up.
_PATIENCE = 20.0
# Seconds that those who still wait get when the program is interrupted.
_FAREWELL = 1

_SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_KEEP_NOT = {"cache-control": "no-store"}
_KEEP_AND_ASK = "private, no-cache"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}
_PICTURES = (
    (b"\xff\xd8", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"RIFF", "image/webp"),
)
_STATUS = (
    (MissingError, 404),
    (LayerError, 404),
    (UnitError, 404),
    (ClassError, 404),
    (BusyError, 503),
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(:\d{1,5})?")

_Endpoint: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
_T = TypeVar("_T")

_log = logging.getLogger("unitscope.explorer")


class _Kept(NamedTuple):
    """Bytes that browsers may keep, if they ask every time whether these are still the ones with this tag."""

    tag: str
    kind: str
    body: bytes | None

    def response(self, request: Request) -> Response:
        known = self.tag in request.headers.get("if-none-match", "")
        headers = {"etag": self.tag, "cache-control": _KEEP_AND_ASK}
        if known or self.body is None:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.kind, headers=headers)


def create_app(
    documents: Documents,
    *,
    hosts: Collection[str] = (),
    upload_bytes: int = UPLOAD_BYTES,
    waiting: int = WAITING,
) -> Starlette:
    """The explorer as an ASGI application; closing it (its lifespan) ends the two threads that it works in.

    It answers to localhost, to the address that it is reached at, and to the names
    `hosts`: not to any other name, so that no web site can give this machine a name of
    its own and read along. `upload_bytes` is the largest photo that is taken, `waiting`
    how many requests may wait for the model before more are refused with 503.
    """
    site = _Site(documents, upload_bytes, waiting)
    app = Starlette(
        routes=site.routes(),
        middleware=[Middleware(_Guard, hosts=hosts)],
        exception_handlers={UnitscopeError: _refused, HTTPException: _refused},
        lifespan=site.open,
    )
    app.router.redirect_slashes = False
    app.state.close = site.close
    return app


class _Site:
    """What is asked, of whom: the model's thread for what runs the network, the pages' thread for all else on disk."""

    def __init__(self, documents: Documents, upload_bytes: int, waiting: int) -> None:
        self._documents, self._upload_bytes = documents, upload_bytes
        self._model, self._pages = (
            Worker("model", waiting),
            Worker("pages", 8 * waiting),
        )
        self._uploads = _Uploads(_UPLOADS_AT_ONCE)
        self._static = _static_files()
        self._heads: dict[bool, _Kept] = {}
        self._freezing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def open(self, _app: Starlette) -> AsyncIterator[None]:
        """Whatever happens between, the threads are closed at the end."""
        try:
            yield
        finally:
            self.close(patience=1.0)

    def close(self, patience: float = 0.0) -> None:
        """End both threads; whoever waits for them is told so."""
        self._model.close(patience)
        self._pages.close(patience)

    def routes(self) -> list[Route]:
        """Every address there is."""
        told, asked = self._documents, self._document
        model, pages = self._model, self._pages
        return [
            Route("/", self._page),
            Route("/static/{name}", self._page),
            Route("/data/index.json", asked(pages, lambda _: (told.index,))),
            Route(
                "/data/units-{place}-{chunk}.json",
                asked(pages, lambda r: (told.units, *_numbers(r))),
            ),
            Route(
                "/data/neighbours-{place}-{chunk}.json",
                asked(pages, lambda r: (told.neighbours, *_numbers(r))),
            ),
            Route(
                "/data/classes-{chunk}.json",
                asked(pages, lambda r: (told.classes, *_numbers(r))),
            ),
            Route("/images/{folder}/{image}.{suffix}", self._tile),
            Route("/sprites/{place}/{unit}.{suffix}", self._sprite),
            Route("/data/head.json", self._head),
            Route("/data/network.json", asked(model, lambda _: (told.network,))),
            Route("/data/filters/{layer:path}.json", asked(model, self._filters)),
            Route("/data/photos/{photo}.json", self._photo),
            Route("/data/photos/{photo}.jpg", self._picture),
            Route("/data/evidence.json", asked(model, self._evidence)),
            Route("/data/photos", self._given, methods=["POST"]),
            Route("/data/ablated", self._ablated, methods=["POST"]),
        ]

    async def _page(self, request: Request) -> Response:
        kept = self._static.get(request.path_params.get("name", "index.html"))
        if kept is None:
            raise HTTPException(404)
        return kept.response(request)

    def _document(
        self, worker: Worker, call: Callable[[Request], tuple[Any, ...]]
    ) -> _Endpoint:
        async def answer(request: Request) -> Response:
            function, *arguments = call(request)
            return await _json(
                request, worker, function, *arguments, key=(function, *arguments)
            )

        return answer

    async def _head(self, request: Request) -> Response:
        # It stays the same, and may have a hundred megabytes.
        small = _shrinks(request)

        def made() -> _Kept:
            body = _written(self._documents.head(), small)
            return _Kept(_tag(body), "application/json", body)

        if small not in self._heads:
            self._heads[small] = await _done(
                request, self._model, made, key=("head", small)
            )
        answer = self._heads[small].response(request)
        answer.headers.update(_encoding(small))
        return answer

    def _filters(self, request: Request) -> tuple[Any, ...]:
        begin = request.query_params.get("from")
        return (
            self._documents.filters,
            request.path_params["layer"],
            *([] if begin is None else [_number(begin)]),
        )

    async def _photo(self, request: Request) -> Response:
        asked = request.path_params["photo"], request.query_params.get("layer") or None
        function = self._documents.photo
        answer = await _json(
            request, self._model, function, *asked, key=(function, *asked)
        )
        if self._freezing is None:
            # After the first photo, which need not wait for it: the network is compiled
            # while that is looked at.
            self._freezing = asyncio.create_task(self._freeze())
        return answer

    async def _freeze(self) -> None:
        with contextlib.suppress(BusyError):  # the server ends
            await self._model.run(self._documents.freeze)

    def _evidence(self, request: Request) -> tuple[Any, ...]:
        asked = request.query_params
        lacking = [name for name in ("photo", "layer", "class") if not asked.get(name)]
        if lacking:
            raise InputError(
                f"the question lacks {', '.join(lacking)}: ask "
                "evidence.json?photo=…&layer=…&class=…"
            )
        return (
            self._documents.evidence,
            asked["photo"],
            asked["layer"],
            _number(asked["class"]),
        )

    async def _picture(self, request: Request) -> Response:
        photo = request.path_params["photo"]
        body = await _done(
            request, self._pages, self._documents.picture, photo, key=("picture", photo)
        )
        kind = next(
            (kind for begin, kind in _PICTURES if body.startswith(begin)),
            "application/octet-stream",
        )
        return Response(body, media_type=kind, headers=_KEEP_NOT)

    async def _tile(self, request: Request) -> Response:
        image = _number(request.path_params["image"])
        if request.path_params["folder"] != str(image // 1000):
            raise HTTPException(404)
        return await self._file(request, self._documents.tile, image)

    async def _sprite(self, request: Request) -> Response:
        parts = request.path_params
        return await self._file(
            request,
            self._documents.sprite,
            _number(parts["place"]),
            _number(parts["unit"]),
        )

    async def _file(
        self, request: Request, find: Callable[..., Path], *which: int
    ) -> Response:
        known = request.headers.get("if-none-match", "")
        kept = await _done(
            request, self._pages, _read, find, which, known, key=(find, which, known)
        )
        if _kind(f"x.{request.path_params['suffix']}") != kept.kind:
            raise HTTPException(404)
        return kept.response(request)

    async def _given(self, request: Request) -> Response:
        # A header that is not among a form's makes browsers ask us first whether
        # another site may send it: never.
        name = request.headers.get("x-photo-name")
        if name is None:
            raise HTTPException(
                400, "a photo is sent with its name in the header X-Photo-Name: add it"
            )
        async with contextlib.AsyncExitStack() as held:
            room = self._uploads.room(
                "" if request.client is None else request.client.host
            )
            data = await _body(
                request,
                self._upload_bytes,
                "a photo",
                lambda: held.enter_async_context(room),
            )
            return await _json(
                request,
                self._pages,
                self._documents.given,
                data,
                unquote(name, errors="replace"),
            )

    async def _ablated(self, request: Request) -> Response:
        if (
            request.headers.get("content-type", "").partition(";")[0].strip().lower()
            != "application/json"
        ):
            raise HTTPException(
                415,
                "units to switch off are sent as application/json: say so in "
                "Content-Type",
            )
        photo, layer, units = _question(
            await _body(request, _QUESTION_BYTES, "a list of units")
        )
        key = (self._documents.ablated, photo, layer, tuple(units))
        return await _json(
            request, self._model, self._documents.ablated, photo, layer, units, key=key
        )


class _Uploads:
    """Room for so many large uploads at once, a quarter of it for one client, so that none keeps out the others."""

    def __init__(self, most: int) -> None:
        self._each, self._all = max(1, most // 4), asyncio.Semaphore(most)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def room(self, client: str) -> AsyncIterator[None]:
        """Room for one of a client's, for which it may have to wait; raises BusyError when that takes too long."""
        own = self._of.setdefault(client, asyncio.Semaphore(self._each))
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(_GRACE):
                    await held.enter_async_context(own)
                    await held.enter_async_context(self._all)
            except TimeoutError:
                raise BusyError(
                    "too many photos are being sent already: try again in a moment"
                ) from None
            yield


class _Guard:
    """Lets in only whom it may concern, gives every answer its headers, and every failure one readable line."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {
            "localhost",
            *(host.strip("[]").rstrip(".").lower() for host in hosts),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def answered(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {
                    **message,
                    "headers": [*message.get("headers", ()), *_SECURITY],
                }
            await send(message)

        try:
            refusal = self._refusal(Request(scope))
            await (self._app if refusal is None else refusal)(scope, receive, answered)
        except ClientDisconnect:
            return
        except Exception as error:
            _log.error("unitscope: %s", _where(scope, error))
            if begun:
                raise
            told = f"unexpected {type(error).__name__}: the explorer's standard error says where"
            await _error(500, told)(scope, receive, answered)

    def _refusal(self, request: Request) -> Response | None:
        """Why a request is not answered, if so."""
        host = request.headers.get("host", "")
        found = _HOST.fullmatch(host)
        if found is None or not self._is_ours(
            found[1].strip("[]").rstrip(".").lower(), request
        ):
            return _error(
                400,
                f"'{host[:80]}' is no name of this server: use localhost, or start it "
                "with --allow-host",
            )
        # Browsers say who asks. Other sites may lead here, but neither read nor send
        # anything.
        leads_here = (
            request.method in ("GET", "HEAD")
            and request.headers.get("sec-fetch-mode") == "navigate"
            and request.headers.get("sec-fetch-dest") == "document"
        )
        if (
            request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
            and not leads_here
        ):
            return _error(403, "another site asked: only the explorer's own pages may")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in (
            f"http://{host.lower()}",
            f"https://{host.lower()}",
        ):
            return _error(
                403,
                f"a page of '{origin[:80]}' asked: only the explorer's own pages may",
            )
        return None

    def _is_ours(self, name: str, request: Request) -> bool:
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Whoever wrote an address and reached us there meant us; only names can be made
        # to mean another machine.
        reached, _ = request.scope.get("server") or ("", 0)
        return address.is_loopback or str(address) == str(reached).removeprefix(
            "::ffff:"
        )


async def _refused(_request: Request, error: Exception) -> Response:
    """The answer for an error that was foreseen."""
    if isinstance(error, HTTPException):
        usual = {
            404: "there is nothing at this address: begin at /",
            405: "this address does not take that method",
        }
        return _error(
            error.status_code, usual.get(error.status_code, error.detail), error.headers
        )
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 422)
    return _error(
        status,
        without_folders(str(error)),
        {"retry-after": "2"} if status == 503 else None,
    )


def _error(status: int, line: str, headers: Any = None) -> Response:
    body = json.dumps({"error": line}).encode()
    return Response(
        body,
        status,
        media_type="application/json",
        headers={**_KEEP_NOT, **(headers or {})},
    )


def _where(scope: Scope, error: Exception) -> str:
    """An error that was not foreseen, with where in the code it arose, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{scope['method']} {scope['path'][:200]!r}: {type(error).__name__}: {one_line(error)}{place}"


async def _json(
    request: Request,
    worker: Worker,
    function: Callable[..., Any],
    *arguments: Any,
    key: Any = None,
) -> Response:
    small = _shrinks(request)

    def written() -> bytes:
        return _written(function(*arguments), small)

    body = await _done(
        request, worker, written, key=None if key is None else (key, small)
    )
    return Response(
        body, media_type="application/json", headers={**_KEEP_NOT, **_encoding(small)}
    )


def _shrinks(request: Request) -> bool:
    """Whether an answer is compressed.

    Base64 and tables shrink to a third or less, which matters on the way from another
    machine, and only there: a head's weights take a tenth of a second to be compressed.
    """
    return "gzip" in request.headers.get("accept-encoding", "") and not _is_here(
        request
    )


def _written(plain: Any, small: bool) -> bytes:
    body = json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if small else body


def _encoding(small: bool) -> dict[str, str]:
    return {"vary": "accept-encoding"} | ({"content-encoding": "gzip"} if small else {})


def _is_here(request: Request) -> bool:
    """Whether who asks is on this machine."""
    try:
        return (
            request.client is not None
            and ipaddress.ip_address(request.client.host).is_loopback
        )
    except ValueError:
        return False


async def _done(
    request: Request,
    worker: Worker,
    function: Callable[..., _T],
    *arguments: Any,
    key: Any,
) -> _T:
    """What a worker found; raises ClientDisconnect, and gives up the place in its queue, when the client has gone."""
    found = asyncio.ensure_future(worker.run(function, *arguments, key=key))
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({found, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            raise ClientDisconnect
        return found.result()
    finally:
        found.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(
    request: Request,
    limit: int,
    what: str,
    room: Callable[[], Awaitable[None]] | None = None,
) -> bytes:
    """The body of a request of at most so many bytes, whatever it says of its length, sent without long pauses.

    Before more of it than a little is read, `room` is waited for, once.
    """
    too_large = HTTPException(
        413, f"{what} of more than {limit:,} bytes is not taken: send a smaller one"
    )
    if int(request.headers.get("content-length", "0")) > limit:
        raise too_large
    body, clock = bytearray(), asyncio.get_running_loop().time
    begin = clock()
    try:
        async with asyncio.timeout(_GRACE) as timer:
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large
                if room is not None and len(body) > _SMALL_BYTES:
                    timer.reschedule(None)
                    came = clock()
                    await room()
                    room, begin = None, begin + clock() - came
                timer.reschedule(begin + min(_GRACE + len(body) / _SLOWEST, _LONGEST))
    except TimeoutError:
        told = f"{what} took too long to arrive: send it again over a faster connection"
        raise HTTPException(408, told, {"connection": "close"}) from None
    return bytes(body)


def _question(body: bytes) -> tuple[str, str, list[int]]:
    """Photo, layer and units of a question of what is left without them."""
    try:
        asked = json.loads(body)
        photo, layer, units = asked["photo"], asked["layer"], asked["units"]
    except (ValueError, KeyError, TypeError, RecursionError):
        photo = layer = units = None
    numbers = isinstance(units, list) and all(
        type(unit) is int and abs(unit) < 10**9 for unit in units
    )
    if not (
        isinstance(photo, str)
        and isinstance(layer, str)
        and isinstance(units, list)
        and numbers
    ):
        raise InputError(
            'a question is {"photo": "…", "layer": "…", "units": [0, 1, …]}: send that'
        )
    return photo, layer, units


def _numbers(request: Request) -> list[int]:
    return [_number(text) for text in request.path_params.values()]


def _number(text: str) -> int:
    """A number of an address; what is no such number is no address of ours."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise HTTPException(404)
    return int(text)


def _read(find: Callable[..., Path], which: Sequence[int], known: str) -> _Kept:
    """A picture of the pages, without its bytes where the browser has them."""
    path = find(*which)
    stat = path.stat()
    tag = _tag(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode())
    return _Kept(tag, _kind(path.name), None if tag in known else path.read_bytes())


def _static_files() -> dict[str, _Kept]:
    """The pages' own files by name, read once: what a client names is looked up here and never on disk."""
    folder = resources.files("unitscope.explorer") / "static"
    bodies = {
        file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()
    }
    return {name: _Kept(_tag(body), _kind(name), body) for name, body in bodies.items()}


def _tag(contents: bytes) -> str:
    return f'"{hashlib.sha256(contents).hexdigest()[:24]}"'


def _kind(name: str) -> str:
    """The media type by a name's ending, from a table of our own: those of machines differ."""
    return _TYPES.get(Path(name).suffix, "application/octet-stream")


def serve(
    documents: Documents,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    allow_hosts: Collection[str] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the pages until interrupted (KeyboardInterrupt), on this machine only unless another `host` is named.

    `port` 0 is any that is free; without a port it is 8421, or the next one that is
    free. `ready` is called with the address of the first page when it can be opened.
    `allow_hosts` are further names that the server is known by.

    Raises UnitscopeError where the host or port cannot be had, and warns
    (UnitscopeWarning) when others on the network can see the pages.
    """
    # Every page needs it, and it runs the network, which two threads must not do at
    # once: before anybody asks.
    documents.index()
    with listening(host, port) as listener:
        bound = ipaddress.ip_address(listener.getsockname()[0])
        if not bound.is_loopback:
            told = "anyone who reaches this machine over the network can use the explorer and give it photos"
            warnings.warn(
                f"{told}: leave --host out to keep it to yourself",
                UnitscopeWarning,
                stacklevel=2,
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
    """Explore a classifier, an atlas, or both, in a browser: serve their pages until interrupted.

    `photos` are files to begin with; `dataset` is where the atlas's images lie, where
    that is not where they were scanned. With `freeze` the model is frozen behind the
    first photo, see `Classifier.freeze`. The other options are those of `serve`.

    Raises what `serve` raises, MissingError where there is nothing to explore, and
    AtlasError where the atlas is of another model.
    """
    if dataset is None and atlas is not None:
        dataset = photos_of(atlas)
        if dataset is None:
            told = "the photos of the atlas are gone from where they were scanned, and are not shown"
            warnings.warn(
                f"{told}: say where they lie with --source",
                UnitscopeWarning,
                stacklevel=2,
            )
    with tempfile.TemporaryDirectory(
        prefix="unitscope-", ignore_cleanup_errors=True
    ) as folder:
        files = [Path(photo) for photo in photos]
        documents = Documents(
            model,
            atlas,
            dataset=dataset,
            folder=Path(folder),
            photos=files,
            freezes=freeze,
        )
        serve(documents, host=host, port=port, allow_hosts=allow_hosts, ready=ready)


def listening(host: str, port: int | None) -> socket.socket:
    """A socket that listens at a host and port, see `serve`; raises UnitscopeError."""
    try:
        family, _, _, _, (address, *_) = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM
        )[0]
    except (OSError, UnicodeError):
        raise UnitscopeError(
            f"there is no host '{host}': name an address of this machine, such as "
            "127.0.0.1"
        ) from None
    tried = range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED) if port is None else [port]
    for one in tried:
        # The protocol by its name, which connections inherit: asyncio sends small
        # packets at once (TCP_NODELAY) only where it sees that, and otherwise every
        # other answer waits 40 ms for the browser to acknowledge its header.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":
                # What was closed a moment ago does not hold the port; elsewhere this
                # would let two have the same.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, one))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                told = f"cannot listen at '{host}' ({error.strerror}): name an address of this machine"
                raise UnitscopeError(told) from None
            reason = (
                "is taken" if error.errno == errno.EADDRINUSE else "may not be used"
            )
    named = (
        f"port {port} of {host} {reason}"
        if port is not None
        else f"ports {tried[0]} to {tried[-1]} are all taken"
    )
    raise UnitscopeError(
        f"{named}: name another with --port, or 0 for any that is free"
    )


def web_server(
    app: Starlette, ready: Callable[[str], None] | None = None
) -> uvicorn.Server:
    """A server for an application, without logs and with limits to its patience; `run(sockets=[…])` serves."""
    # Everything a request can go wrong by is told in its answer, so that the server
    # itself has nothing to say.
    config = uvicorn.Config(
        app,
        http=_Patient,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.CRITICAL + 1,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_FAREWELL,
    )
    return _Server(config, ready, app.state.close)


class _Server(uvicorn.Server):
    """A server that says when and where it listens."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[str], None] | None,
        close: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._ready, self._close = ready, close

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but being asked to end by another program is no way to die of: what is open is tidied up."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but those who wait for an answer are told first that none comes."""
        self._close()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then call `ready`."""
        await super().startup(sockets)
        if self._ready is not None and sockets:
            host, port, *_ = sockets[0].getsockname()
            address = ipaddress.ip_address(host)
            host = (
                "localhost"
                if address.is_unspecified
                else f"[{host}]"
                if address.version == 6
                else host
            )
            self._ready(f"http://{host}:{port}/")


class _Patient(H11Protocol):
    """HTTP as uvicorn speaks it, but whoever neither asks anything nor takes the answer is let go after a while."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at the connection from time to time."""
        super().connection_made(transport)
        self._before: tuple[object, int] = (None, 0)
        self._look = self.loop.call_later(_PATIENCE, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to look at any more."""
        self._look.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        left = self.transport.get_write_buffer_size()
        asked_nothing = self.cycle is None or self.cycle.response_complete
        now = (self.cycle, left)
        if now == self._before and (asked_nothing or left):
            self.transport.abort()
            return
        self._before = now
        self._look = self.loop.call_later(_PATIENCE, self._check)
