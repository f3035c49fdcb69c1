"""Uploads: bodies of requests, read within limits of size, time and number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import WeakValueDictionary

from unitscope.errors import BusyError
from unitscope.explorer.limits import Limits
from unitscope.explorer.web import HTTPException, Request

_SHARE_OF_ONE_CLIENT = 4


class Uploads:
    """Places for large uploads, a quarter of them for one client.

    The quarter keeps one client from holding up all others.
    """

    def __init__(self, limits: Limits) -> None:
        places = limits.uploads_at_once
        self._limits = limits
        self._places = asyncio.Semaphore(places)
        self._places_of_one = max(1, places // _SHARE_OF_ONE_CLIENT)
        self._by_client: WeakValueDictionary[str, asyncio.Semaphore] = (
            WeakValueDictionary()
        )

    @property
    def clients(self) -> int:
        """The number of clients that hold or await a place."""
        return len(self._by_client)

    @contextlib.asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """Hold a place for an upload of a client.

        Raises BusyError where none becomes free in time.
        """
        own = asyncio.Semaphore(self._places_of_one)
        own = self._by_client.setdefault(client, own)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._limits.grace):
                    await stack.enter_async_context(own)
                    await stack.enter_async_context(self._places)
            except TimeoutError:
                raise BusyError(
                    "too many photos are being sent already: try again in a moment"
                ) from None
            yield


async def read_body(
    request: Request,
    most_bytes: int,
    noun: str,
    limits: Limits,
    *,
    wait_for_place: Callable[[], Awaitable[None]] | None = None,
) -> bytes:
    """The body of a request, whatever length it claims, if it arrives steadily.

    `noun` names the body in errors. `wait_for_place` is awaited once before more than
    `limits.small_bytes` are read. Raises HTTPException: 413 for more than `most_bytes`,
    408 for a body that takes too long.
    """
    too_large = HTTPException(
        413, f"{noun} has more than {most_bytes:,} bytes: send a smaller one"
    )
    claimed = int(request.headers.get("content-length", "0"))
    if claimed > most_bytes:
        raise too_large

    body = bytearray()
    clock = asyncio.get_running_loop().time
    start = clock()
    try:
        async with asyncio.timeout(limits.grace) as timer:
            async for piece in request.stream():
                body += piece
                if len(body) > most_bytes:
                    raise too_large

                if (
                    wait_for_place is not None
                    and len(body) > limits.small_bytes
                ):
                    # The wait for a place is not the client's fault: it does not count.
                    timer.reschedule(None)
                    wait_start = clock()
                    await wait_for_place()
                    wait_for_place = None
                    start += clock() - wait_start

                allowed = limits.grace + len(body) / limits.slowest
                timer.reschedule(start + min(allowed, limits.longest))
    except TimeoutError:
        line = f"{noun} took too long to arrive: send it again over a faster connection"
        raise HTTPException(408, line, {"connection": "close"}) from None
    return bytes(body)
