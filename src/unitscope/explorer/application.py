"""Application: the explorer's addresses, each with the document or file it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Sequence,
)
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from unitscope.errors import BusyError, UnitscopeError
from unitscope.explorer.answers import (
    NO_STORE,
    CachedFile,
    encoding_headers,
    http_error,
    json_bytes,
    json_response,
    media_type_of_name,
    media_type_of_picture,
    tag_of,
    takes_gzip,
    unitscope_error,
)
from unitscope.explorer.documents import Documents
from unitscope.explorer.guard import Guard
from unitscope.explorer.limits import Limits
from unitscope.explorer.requests import (
    ablation_request,
    evidence_request,
    head_map_request,
    number,
    path_numbers,
    photo_name,
    require_json,
)
from unitscope.explorer.static_files import static_files
from unitscope.explorer.tiles import PER_FOLDER
from unitscope.explorer.uploads import Uploads, read_body
from unitscope.explorer.web import (
    ClientDisconnect,
    HTTPException,
    Middleware,
    Request,
    Response,
    Route,
    Starlette,
)
from unitscope.explorer.worker import Worker

# Pages ask for many small files at once, and the pages' worker is quick.
_PAGES_PER_MODEL_REQUEST = 8

_Endpoint: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
_T = TypeVar("_T")


def create_app(
    documents: Documents,
    *,
    hosts: Collection[str] = (),
    limits: Limits | None = None,
) -> Starlette:
    """The explorer as an ASGI application, with two threads that its lifespan ends.

    It answers to localhost, to the address at which a client reached it, and to the
    names `hosts`, see `Guard`.
    """
    limits = Limits() if limits is None else limits
    site = _Site(documents, limits)
    app = Starlette(
        routes=site.routes(),
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            UnitscopeError: unitscope_error,
            HTTPException: http_error,
        },
        lifespan=site.lifespan,
    )
    app.router.redirect_slashes = False
    app.state.close = site.close
    app.state.limits = limits
    return app


class _Site:
    """The endpoints: one thread runs the network, another one reads and draws."""

    def __init__(self, documents: Documents, limits: Limits) -> None:
        self._documents = documents
        self._limits = limits
        self._model = Worker("model", limits.waiting)
        self._pages = Worker("pages", _PAGES_PER_MODEL_REQUEST * limits.waiting)
        self._uploads = Uploads(limits)
        self._static = static_files()
        self._head_files: dict[bool, CachedFile] = {}
        self._freezing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """The time in which the application serves; its threads end with it."""
        try:
            yield
        finally:
            self.close(patience=1.0)

    def close(self, patience: float = 0.0) -> None:
        """End both threads; requests that wait for them fail with BusyError."""
        self._model.close(patience)
        self._pages.close(patience)

    def routes(self) -> list[Route]:
        """All addresses."""
        documents = self._documents
        from_pages, from_model = self._of_pages, self._of_model
        return [
            Route("/", self._static_file),
            Route("/static/{name}", self._static_file),
            Route("/data/index.json", from_pages(documents.index)),
            Route(
                "/data/units-{place}-{chunk}.json",
                from_pages(documents.units, path_numbers),
            ),
            Route(
                "/data/neighbours-{place}-{chunk}.json",
                from_pages(documents.neighbours, path_numbers),
            ),
            Route(
                "/data/classes-{chunk}.json",
                from_pages(documents.classes, path_numbers),
            ),
            Route("/images/{folder}/{image}.{suffix}", self._tile),
            Route("/sprites/{place}/{unit}.{suffix}", self._sprite),
            Route("/data/head.json", self._head),
            Route("/data/network.json", from_model(documents.network)),
            Route(
                "/data/filters/{layer:path}.json",
                from_model(documents.filters, _filters_arguments),
            ),
            Route("/data/photos/{photo}.json", self._photo),
            Route("/data/photos/{photo}.jpg", self._picture),
            Route(
                "/data/evidence.json",
                from_model(documents.evidence, evidence_request),
            ),
            Route(
                "/data/head-map.json",
                from_model(documents.head_map, head_map_request),
            ),
            Route("/data/photos", self._upload, methods=["POST"]),
            Route("/data/ablated", self._ablated, methods=["POST"]),
        ]

    # Documents

    def _of_pages(
        self,
        function: Callable[..., Any],
        arguments_of: Callable[[Request], Sequence[Any]] | None = None,
    ) -> _Endpoint:
        return _document_endpoint(self._pages, function, arguments_of)

    def _of_model(
        self,
        function: Callable[..., Any],
        arguments_of: Callable[[Request], Sequence[Any]] | None = None,
    ) -> _Endpoint:
        return _document_endpoint(self._model, function, arguments_of)

    async def _head(self, request: Request) -> Response:
        """The head, encoded once: it never changes, and may have 100 megabytes."""
        compress = takes_gzip(request)

        def encode() -> CachedFile:
            body = json_bytes(self._documents.head(), compress)
            return CachedFile(tag_of(body), "application/json", body)

        if compress not in self._head_files:
            self._head_files[compress] = await _run(
                request, self._model, encode, key=("head", compress)
            )
        response = self._head_files[compress].response(request)
        response.headers.update(encoding_headers(compress))
        return response

    async def _photo(self, request: Request) -> Response:
        photo = request.path_params["photo"]
        layer = request.query_params.get("layer") or None
        response = await _shared_json(
            request, self._model, self._documents.photo, photo, layer
        )

        if self._freezing is None:
            # Compiling takes seconds, for which the first photo need not wait. They
            # pass while somebody looks at it.
            self._freezing = asyncio.create_task(self._freeze())
        return response

    async def _freeze(self) -> None:
        with contextlib.suppress(BusyError):  # The server ends.
            await self._model.run(self._documents.freeze)

    async def _upload(self, request: Request) -> Response:
        name = photo_name(request)
        client = "" if request.client is None else request.client.host

        async with contextlib.AsyncExitStack() as stack:
            place = self._uploads.place(client)
            data = await read_body(
                request,
                self._limits.upload_bytes,
                "the photo",
                self._limits,
                wait_for_place=lambda: stack.enter_async_context(place),
            )
            return await _json(
                request,
                self._pages,
                lambda: self._documents.add_photo(data, name),
            )

    async def _ablated(self, request: Request) -> Response:
        require_json(request)
        body = await read_body(
            request,
            self._limits.question_bytes,
            "the list of units",
            self._limits,
        )
        photo, layer, units = ablation_request(body)
        function = self._documents.ablated
        return await _json(
            request,
            self._model,
            lambda: function(photo, layer, units),
            key=(function, photo, layer, tuple(units)),
        )

    # Files

    async def _static_file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self._static:
            raise HTTPException(404)
        return self._static[name].response(request)

    async def _picture(self, request: Request) -> Response:
        photo = request.path_params["photo"]
        body = await _run(
            request,
            self._pages,
            lambda: self._documents.picture(photo),
            key=("picture", photo),
        )
        media_type = media_type_of_picture(body)
        return Response(body, media_type=media_type, headers=NO_STORE)

    async def _tile(self, request: Request) -> Response:
        image = number(request.path_params["image"])
        if request.path_params["folder"] != str(image // PER_FOLDER):
            raise HTTPException(404)
        return await self._image_file(request, self._documents.tile, image)

    async def _sprite(self, request: Request) -> Response:
        place = number(request.path_params["place"])
        unit = number(request.path_params["unit"])
        return await self._image_file(
            request, self._documents.sprite, place, unit
        )

    async def _image_file(
        self, request: Request, find: Callable[..., Path], *numbers: int
    ) -> Response:
        known_tag = request.headers.get("if-none-match", "")
        file = await _run(
            request,
            self._pages,
            lambda: _read(find(*numbers), known_tag),
            key=(find, numbers, known_tag),
        )
        suffix = request.path_params["suffix"]
        if media_type_of_name(f"x.{suffix}") != file.media_type:
            raise HTTPException(404)
        return file.response(request)


def _document_endpoint(
    worker: Worker,
    function: Callable[..., Any],
    arguments_of: Callable[[Request], Sequence[Any]] | None,
) -> _Endpoint:
    """An endpoint that answers with the document `function(*arguments_of(request))`."""

    async def endpoint(request: Request) -> Response:
        arguments = () if arguments_of is None else arguments_of(request)
        return await _shared_json(request, worker, function, *arguments)

    return endpoint


def _filters_arguments(request: Request) -> list[Any]:
    layer = request.path_params["layer"]
    first = request.query_params.get("from")
    return [layer] if first is None else [layer, number(first)]


def _read(path: Path, known_tag: str) -> CachedFile:
    """A file, without its bytes where the browser has them."""
    stat = path.stat()
    tag = tag_of(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode())
    body = None if tag in known_tag else path.read_bytes()
    return CachedFile(tag, media_type_of_name(path.name), body)


async def _shared_json(
    request: Request,
    worker: Worker,
    function: Callable[..., Any],
    *arguments: Any,
) -> Response:
    """A document, computed once for all who ask for it at the same time."""
    return await _json(
        request,
        worker,
        lambda: function(*arguments),
        key=(function, *arguments),
    )


async def _json(
    request: Request,
    worker: Worker,
    make: Callable[[], Any],
    key: Hashable | None = None,
) -> Response:
    """A document that a worker makes, as the response; `key` as in `Worker.run`."""
    compress = takes_gzip(request)
    body = await _run(
        request,
        worker,
        lambda: json_bytes(make(), compress),
        key=None if key is None else (key, compress),
    )
    return json_response(body, compress)


async def _run(
    request: Request,
    worker: Worker,
    function: Callable[[], _T],
    *,
    key: Hashable | None,
) -> _T:
    """The result of a worker; gives up the place in its queue when the client leaves.

    Raises ClientDisconnect then.
    """
    result = asyncio.ensure_future(worker.run(function, key=key))
    departure = asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait(
            {result, departure}, return_when=asyncio.FIRST_COMPLETED
        )
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        result.cancel()
        departure.cancel()


async def _departure(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
