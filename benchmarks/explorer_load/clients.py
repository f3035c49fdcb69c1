"""Clients: requests over connections of their own, one after the other or many at once."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from costs.pictures import jpeg, noise
from costs.timing import bind, seconds_of
from explorer_load.serving import Address

_ROUNDS = 50
_PAUSE = 0.02


def photo(seed: int) -> bytes:
    """A JPEG file of noise."""
    return jpeg(noise((640, 480), seed, (20, 15)))


def ask(address: Address, path: str, body: bytes | None = None) -> bytes:
    """The answer to one request: GET, or POST with a body."""
    method = "GET" if body is None else "POST"
    headers = {} if body is None else {"X-Photo-Name": "a.jpg"}
    connection = http.client.HTTPConnection(*address, timeout=120)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()

    if response.status != 200:
        raise SystemExit(f"{path}: {content[:200]!r}")
    return content


def send(address: Address, data: bytes) -> str:
    """Send a photo, and give the path of the document that explains it."""
    answer = json.loads(ask(address, "/data/photos", data))
    return f"/data/photos/{answer['photo']}.json"


def timed(address: Address, path: str) -> dict[str, float]:
    """Bytes of a document, and how long it takes to get."""
    seconds = [seconds_of(lambda: ask(address, path)) for _ in range(_ROUNDS)]
    return {"bytes": len(ask(address, path)), **_milliseconds("", seconds)}


def crowd(address: Address, clients: int, photos: int) -> dict[str, float]:
    """So many clients at once, each with so many photos; and somebody who opens a page
    meanwhile, again and again."""
    done = threading.Event()
    waits: list[float] = []

    def explain(seed: int) -> None:
        ask(address, send(address, photo(seed)))

    def visit(client: int) -> list[float]:
        seeds = [1000 * client + number for number in range(photos)]
        return [seconds_of(bind(explain, seed)) for seed in seeds]

    def look() -> None:
        while not done.is_set():
            waits.append(seconds_of(lambda: ask(address, "/static/main.js")))
            time.sleep(_PAUSE)

    with ThreadPoolExecutor(clients + 1) as threads:
        watching = threads.submit(look)
        begin = time.perf_counter()
        seconds = list(chain.from_iterable(threads.map(visit, range(clients))))
        total = time.perf_counter() - begin
        done.set()
        watching.result()

    return {
        "clients": clients,
        "photos": clients * photos,
        "photos_a_second": clients * photos / total,
        **_milliseconds("photo_", seconds),
        **_milliseconds("static_", waits),
    }


def _milliseconds(prefix: str, seconds: list[float]) -> dict[str, float]:
    return {
        f"{prefix}milliseconds": 1e3 * statistics.median(seconds),
        f"{prefix}worst_milliseconds": 1e3 * max(seconds),
    }
