"""What the explorer's server takes: its pages alone, and ten clients at once who have photos explained.

    python benchmarks/explore.py [ATLAS] [--model SPEC] [--clients 10] [--photos 10] [--json FILE]

The server is a process of its own, as `unitscope explore` starts it; the clients are threads of this one. Photos are
noise of 640×480 pixels, another one each time. Times are from the first byte sent to the last one received, over a
connection of their own, as the worst case of a browser.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@contextlib.contextmanager
def server(arguments: list[str]) -> Iterator[tuple[str, int]]:
    """`unitscope explore`, on a free port."""
    command = [sys.executable, "-m", "unitscope", "explore", "--port", "0", "--no-browser", *arguments]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    try:
        found = re.search(r"http://([^:]+):(\d+)/", program.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
        yield found[1], int(found[2])
    finally:
        program.send_signal(signal.SIGINT)
        program.wait()


def ask(at: tuple[str, int], path: str, body: bytes | None = None, encoding: str = "identity") -> bytes:
    connection = http.client.HTTPConnection(*at, timeout=120)
    headers = {"Accept-Encoding": encoding} | ({"X-Photo-Name": "a.jpg"} if body else {})
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path}: {told[:200]!r}")
    return told


def timed(at: tuple[str, int], path: str, encoding: str, rounds: int = 50) -> dict[str, float]:
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        body = ask(at, path, encoding=encoding)
        seconds.append(time.perf_counter() - begin)
    middle, worst = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
    return {"bytes": len(body), "milliseconds": middle, "worst_milliseconds": worst}


def photo(seed: int) -> bytes:
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def crowd(at: tuple[str, int], clients: int, photos: int) -> dict[str, float]:
    """So many clients at once, each with so many photos; and somebody who opens a page meanwhile, again and again."""
    done = threading.Event()
    waits: list[float] = []

    def one(client: int) -> list[float]:
        seconds = []
        for number in range(photos):
            data = photo(1000 * client + number)
            begin = time.perf_counter()
            given = json.loads(ask(at, "/data/photos", data))["photo"]
            ask(at, f"/data/photos/{given}.json", encoding="gzip")
            seconds.append(time.perf_counter() - begin)
        return seconds

    def look() -> None:
        while not done.is_set():
            begin = time.perf_counter()
            ask(at, "/static/main.js")
            waits.append(time.perf_counter() - begin)
            time.sleep(0.02)

    with ThreadPoolExecutor(clients + 1) as threads:
        watching = threads.submit(look)
        begin = time.perf_counter()
        seconds = [one for answers in threads.map(one, range(clients)) for one in answers]
        total = time.perf_counter() - begin
        done.set()
        watching.result()
    return {
        "clients": clients,
        "photos": clients * photos,
        "photos_a_second": clients * photos / total,
        "photo_milliseconds": 1e3 * statistics.median(seconds),
        "photo_worst_milliseconds": 1e3 * max(seconds),
        "static_milliseconds": 1e3 * statistics.median(waits),
        "static_worst_milliseconds": 1e3 * max(waits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atlas", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--photos", type=int, default=10, help="of every client")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    arguments = [*([options.atlas] if options.atlas else []), *(["--model", options.model] if options.model else [])]
    begin = time.perf_counter()
    with server(arguments) as at:
        found["start_seconds"] = time.perf_counter() - begin
        print(f"started in {found['start_seconds']:.1f} s")
        given = json.loads(ask(at, "/data/photos", photo(0)))["photo"]
        paths = ["/", "/data/index.json", f"/data/photos/{given}.json"]
        paths += ["/data/units-0-0.json", "/sprites/0/0.webp"] if options.atlas else []
        documents = found["documents"] = {}
        for path in paths:
            documents[path] = {encoding: timed(at, path, encoding) for encoding in ("identity", "gzip")}
            told = [f"{row['bytes']:,} bytes in {row['milliseconds']:.1f} ms" for row in documents[path].values()]
            print(f"{path}: {told[0]}; gzip {told[1]}")
        row = found["crowd"] = crowd(at, options.clients, options.photos)
        print(f"{row['clients']} clients: {row['photos_a_second']:.1f} photos a second")
        print(f"a photo: {row['photo_milliseconds']:.0f} ms (worst {row['photo_worst_milliseconds']:.0f})")
        static = f"{row['static_milliseconds']:.1f} ms (worst {row['static_worst_milliseconds']:.0f})"
        print(f"a static file meanwhile: {static}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
