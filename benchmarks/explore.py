"""What the explorer takes: its pages alone, ten clients at once who have photos
explained, and clicks in a browser.

    python benchmarks/explore.py [ATLAS] [--model SPEC] [--clients 10] [--photos 10] [--json FILE]

The server is a process of its own, as `unitscope explore` starts it; the clients are
threads of this one. Photos are noise of 640×480 pixels, another one each time. Times
are from the first byte sent to the last one received, over a connection of their own,
as the worst case of a browser.

In the browser (playwright, and a Chromium on the path; left out without them) the
network is as wide as a ResNet-50 for Places365, 2,048 units and 365 classes
(benchmarks/wide.py). First view: from going to the address of a photo that the server
has until its units are shown. A toggle: from the click on a unit until the top five are
changed and the page's script is done; what the browser takes to paint comes on top, and
is given beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

from explorer_load.browser import clicks
from explorer_load.clients import crowd, photo, send, timed
from explorer_load.serving import server

Results = dict[str, Any]


def main() -> None:
    options = _parser().parse_args()
    machine = platform.processor() or platform.machine()
    results: Results = {"machine": machine}

    arguments = []
    if options.atlas:
        arguments.append(options.atlas)
    if options.model:
        arguments += ["--model", options.model]

    begin = time.perf_counter()
    with server(arguments) as address:
        results["start_seconds"] = time.perf_counter() - begin
        print(f"started in {results['start_seconds']:.1f} s")

        paths = ["/", "/data/index.json", send(address, photo(0))]
        if options.atlas:
            paths += ["/data/units-0-0.json", "/sprites/0/0.webp"]
        results["documents"] = {path: timed(address, path) for path in paths}
        _print_documents(results["documents"])

        results["crowd"] = crowd(address, options.clients, options.photos)
        _print_crowd(results["crowd"])

    results["browser"] = clicks()
    _print_clicks(results["browser"])
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("atlas", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument(
        "--photos", type=int, default=10, help="of every client"
    )
    parser.add_argument("--json", type=Path)
    return parser


def _print_documents(documents: dict[str, dict[str, float]]) -> None:
    for path, row in documents.items():
        size = f"{row['bytes']:,} bytes"
        print(f"{path}: {size} in {row['milliseconds']:.1f} ms")


def _print_crowd(row: Results) -> None:
    print(
        f"{row['clients']} clients: {row['photos_a_second']:.1f} photos a second"
    )

    median = f"{row['photo_milliseconds']:.0f} ms"
    worst = f"{row['photo_worst_milliseconds']:.0f}"
    print(f"a photo: {median} (worst {worst})")

    median = f"{row['static_milliseconds']:.1f} ms"
    worst = f"{row['static_worst_milliseconds']:.0f}"
    print(f"a static file meanwhile: {median} (worst {worst})")


def _print_clicks(row: Results) -> None:
    if "reason" in row:
        print(f"no browser: {row['reason']}")
        return

    median = f"{row['first_view_milliseconds']:.0f} ms"
    worst = f"{row['first_view_worst_milliseconds']:.0f}"
    print(
        f"first view of a photo, 2,048 units and 365 classes: {median}", end=" "
    )
    print(f"(worst {worst})")

    low, high = row["toggle_quartiles"]
    median = f"{row['toggle_milliseconds']:.1f} ms ({low:.1f}–{high:.1f})"
    painted = f"{row['toggle_painted_milliseconds']:.1f} ms"
    print(f"a unit off: {median}, painted after {painted}")


if __name__ == "__main__":
    main()
