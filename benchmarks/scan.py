"""What a scan costs, against a bare loop that only decodes and runs the same compiled
network: one run, paired.

    python benchmarks/scan.py [SOURCE] [--model SPEC] [--layer LAYER ...] [--rounds 5]
        [--memory 1000,10000]

SOURCE is any data set that `unitscope scan` takes; photos of noise are made where none
is named. Every round runs both once, in turn, on the same photos; the ratio is that of
the pass itself, with committing its shards. What is done once at the end (tables, the
ablation of every unit and of sets of units) is given in seconds beside it. Memory is
the peak of a fresh process over a list of so many photos.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

import unitscope
from costs.engine import compiled_pass
from costs.pictures import jpeg, noise
from costs.timing import quartiles, ratios
from unitscope.datasets import Dataset, open_dataset
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.photos import Encoded

_BATCH = 32
_MADE_PHOTOS = 2000

_PEAK = """
import resource, sys
import unitscope
unitscope.scan(unitscope.load(sys.argv[1] or None), sys.argv[2], sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


class Scan(NamedTuple):
    """Seconds of a scan's pass, and of all of it; and the layers that it watched."""

    pass_seconds: float
    total_seconds: float
    layers: list[str]


def bare(model: unitscope.Classifier, dataset: Dataset) -> float:
    """Seconds of a loop that decodes, preprocesses and runs the compiled network, and
    keeps nothing."""
    photos = [
        Encoded(entry.id, lambda index=index: dataset.read(index), entry.size)  # type: ignore[misc]
        for index, entry in enumerate(dataset.entries)
    ]
    engine = compiled_pass(model)
    if engine is None:
        raise SystemExit(
            "the network could not be compiled: there is nothing to compare with"
        )

    begin = time.perf_counter()
    for batch in batches(photos, model.preprocessing, _BATCH):
        tensors = [tensor for _, tensor in batch]
        engine(stacked(tensors))
    return time.perf_counter() - begin


def scanned(
    model: unitscope.Classifier, source: str, layers: list[str], folder: Path
) -> Scan:
    """Scan a data set, and time it."""
    begin = time.perf_counter()
    atlas = unitscope.scan(
        model, source, folder, layers=layers or None, batch_size=_BATCH
    )
    total = time.perf_counter() - begin

    first_run = (folder / "runs.jsonl").read_text().splitlines()[0]
    seconds = float(json.loads(first_run)["seconds"])
    return Scan(seconds, total, [layer.name for layer in atlas.layers])


def compare(
    spec: str | None, source: str, layers: list[str], rounds: int
) -> dict[str, Any]:
    """Medians of the bare loop and of the scan, and the ratio of every round."""
    model = unitscope.load(spec).freeze()
    dataset = open_dataset(source)
    loops: list[float] = []
    scans: list[Scan] = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            loops.append(bare(model, dataset))
            scans.append(scanned(model, source, layers, Path(folder) / "atlas"))

    # The first round warms up.
    loops = loops[1:]
    scans = scans[1:]

    passes = [scan.pass_seconds for scan in scans]
    after = [scan.total_seconds - scan.pass_seconds for scan in scans]
    low, median, high = quartiles(ratios(passes, loops))
    return {
        "photos": len(dataset),
        "layers": scans[0].layers,
        "bare_seconds": statistics.median(loops),
        "pass_seconds": statistics.median(passes),
        "ratio": median,
        "ratio_low": low,
        "ratio_high": high,
        "after_seconds": statistics.median(after),
    }


def peak(spec: str | None, source: str, count: int) -> float:
    """The peak memory, in MiB, of a fresh process that scans `count` photos: those of
    the source, again and again."""
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        photos.mkdir()
        _repeat_photos(open_dataset(source), photos, count)

        atlas = Path(name) / "atlas"
        arguments = [spec or "", str(photos), str(atlas)]
        command = [sys.executable, "-c", _PEAK, *arguments]
        run = subprocess.run(
            command, capture_output=True, text=True, check=True
        )
    return float(run.stdout)


def _repeat_photos(dataset: Dataset, folder: Path, count: int) -> None:
    stored: list[Path] = []
    for index in range(min(count, len(dataset))):
        path = folder / f"{index:06}.jpg"
        path.write_bytes(dataset.read(index))
        stored.append(path)

    for index in range(len(stored), count):
        original = stored[index % len(stored)]
        (folder / f"{index:06}.jpg").hardlink_to(original)


def _make_photos(folder: Path) -> str:
    """Photos of noise, where no data set is named."""
    for index in range(_MADE_PHOTOS):
        picture = noise((160, 128), index, (16, 16))
        (folder / f"{index:05}.jpg").write_bytes(jpeg(picture))
    return str(folder)


def _print_speed(row: dict[str, Any]) -> None:
    spread = (
        f"{row['ratio']:.3f} ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})"
    )
    layers = ", ".join(row["layers"])
    print(
        f"{row['photos']} photos, {layers}: bare loop {row['bare_seconds']:.1f} s"
    )
    print(f"scan's pass {row['pass_seconds']:.1f} s, ratio {spread}")
    print(f"tables and ablation, once: {row['after_seconds']:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--layer", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory", default="1000,10000", help="numbers of photos, or nothing"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    results: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or _make_photos(Path(folder))
        if options.rounds:
            results["speed"] = compare(
                options.model, source, options.layer, options.rounds
            )
            _print_speed(results["speed"])

        results["memory"] = {}
        counts = [int(text) for text in options.memory.split(",") if text]
        for count in counts:
            size = peak(options.model, source, count)
            results["memory"][count] = size
            print(f"{count} photos: peak {size:.0f} MiB")

    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
