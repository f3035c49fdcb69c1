"""What the explorer takes: its pages alone, ten clients at once who have photos explained, and clicks in a browser.

    python benchmarks/explore.py [ATLAS] [--model SPEC] [--clients 10] [--photos 10] [--json FILE]

The server is a process of its own, as `unitscope explore` starts it; the clients are
threads of this one. Photos are noise of 640×480 pixels, another one each time. Times
are from the first byte sent to the last one received, over a connection of their own,
as the worst case of a browser.

In the browser (playwright, and a Chromium on the path; left out without them) the
network is as wide as a ResNet-50 for Places365, 2,048 units and 365 classes
(benchmarks/wide.py). First view: from going to the address of a photo that the server
has until its units are shown. A toggle: from the click on a unit until the top five are
changed and the page's script is done; what the browser takes to paint that comes on
top, and is told beside it.
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
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
from PIL import Image


@contextlib.contextmanager
def server(arguments: list[str]) -> Iterator[tuple[str, int]]:
    """`unitscope explore`, on a free port."""
    command = [
        sys.executable,
        "-m",
        "unitscope",
        "explore",
        "--port",
        "0",
        "--no-browser",
        *arguments,
    ]
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


def ask(at: tuple[str, int], path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection(*at, timeout=120)
    headers = {"X-Photo-Name": "a.jpg"} if body else {}
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path}: {told[:200]!r}")
    return told


def timed(at: tuple[str, int], path: str, rounds: int = 50) -> dict[str, float]:
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        body = ask(at, path)
        seconds.append(time.perf_counter() - begin)
    middle, worst = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
    return {"bytes": len(body), "milliseconds": middle, "worst_milliseconds": worst}


def photo(seed: int) -> bytes:
    small = Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
    )
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
            ask(at, f"/data/photos/{given}.json")
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
        seconds = [
            one for answers in threads.map(one, range(clients)) for one in answers
        ]
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


FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FIRST = """async () => {
  while (!document.querySelector(".unit-switch")) await new Promise(requestAnimationFrame);
  return performance.now();
}"""
TOGGLES = """async (count) => {
  const channel = new MessageChannel();
  const task = () => new Promise((done) => { channel.port1.onmessage = done; channel.port2.postMessage(0); });
  const frame = () => new Promise(requestAnimationFrame);
  const found = [];
  for (let click = 0; click < count; click++) {
    const units = document.querySelectorAll(".unit-switch");
    const top = document.querySelector(".predictions").innerText;
    await frame();
    await task();
    const begin = performance.now();
    units[click % units.length].click();
    await task();
    const changed = performance.now() - begin;
    await frame();
    await task();
    if (document.querySelector(".predictions").innerText === top) throw new Error("nothing changed");
    found.push([changed, performance.now() - begin]);
    await new Promise((done) => setTimeout(done, 60));
  }
  return found;
}"""


def clicks(rounds: int = 48) -> dict[str, Any]:
    """How long a browser takes to show a photo's page, and to switch one of 2,048 units off."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {"reason": "playwright is not installed"}
    program = next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := which(name))
        ),
        None,
    )
    if program is None:
        return {"reason": "there is no Chromium"}
    wide = Path(__file__).parent / "wide.py"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "noise.jpg"
        path.write_bytes(photo(0))
        with server(["--model", f"python:{wide}:Wide", "--photo", str(path)]) as at:
            browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
            firsts = []
            for _ in range(5):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto(
                    f"http://{at[0]}:{at[1]}/#/photo/photo-0", wait_until="commit"
                )
                firsts.append(page.evaluate(FIRST))
                page.wait_for_load_state()
                found = page.evaluate(TOGGLES, rounds)
                page.close()
            browser.close()
    changed, painted = zip(*found, strict=True)
    return {
        "first_view_milliseconds": statistics.median(firsts),
        "first_view_worst_milliseconds": max(firsts),
        "toggle_milliseconds": statistics.median(changed),
        "toggle_quartiles": statistics.quantiles(changed, n=4)[::2],
        "toggle_painted_milliseconds": statistics.median(painted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("atlas", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--photos", type=int, default=10, help="of every client")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    arguments = [
        *([options.atlas] if options.atlas else []),
        *(["--model", options.model] if options.model else []),
    ]
    begin = time.perf_counter()
    with server(arguments) as at:
        found["start_seconds"] = time.perf_counter() - begin
        print(f"started in {found['start_seconds']:.1f} s")
        given = json.loads(ask(at, "/data/photos", photo(0)))["photo"]
        paths = ["/", "/data/index.json", f"/data/photos/{given}.json"]
        paths += ["/data/units-0-0.json", "/sprites/0/0.webp"] if options.atlas else []
        documents = found["documents"] = {}
        for path in paths:
            row = documents[path] = timed(at, path)
            print(f"{path}: {row['bytes']:,} bytes in {row['milliseconds']:.1f} ms")
        row = found["crowd"] = crowd(at, options.clients, options.photos)
        print(f"{row['clients']} clients: {row['photos_a_second']:.1f} photos a second")
        print(
            f"a photo: {row['photo_milliseconds']:.0f} ms (worst "
            f"{row['photo_worst_milliseconds']:.0f})"
        )
        static = f"{row['static_milliseconds']:.1f} ms (worst {row['static_worst_milliseconds']:.0f})"
        print(f"a static file meanwhile: {static}")
    row = found["browser"] = clicks()
    if "reason" in row:
        print(f"no browser: {row['reason']}")
    else:
        first = f"{row['first_view_milliseconds']:.0f} ms (worst {row['first_view_worst_milliseconds']:.0f})"
        quartiles = "–".join(f"{end:.1f}" for end in row["toggle_quartiles"])
        print(f"first view of a photo, 2,048 units and 365 classes: {first}")
        print(
            f"a unit off: {row['toggle_milliseconds']:.1f} ms ({quartiles}), ", end=""
        )
        print(f"painted after {row['toggle_painted_milliseconds']:.1f} ms")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
