"""What a scan costs, against a bare loop that only decodes and runs the same compiled network: one run, paired.

    python benchmarks/scan.py [SOURCE] [--model SPEC] [--layer LAYER ...] [--rounds 5] [--memory 1000,10000]

SOURCE is any data set that `unitscope scan` takes; photos of shapes and noise are made
where there is none. Every round runs both once, in turn, on the same photos; the ratio
is that of the pass itself, with committing its shards, and what is done once at the end
(tables, the ablation of every unit and of sets of units) is told in seconds beside it.
Memory is the peak of a fresh process over a list of so many photos.
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
from typing import Any

import numpy as np
import torch
from PIL import Image

import unitscope
from unitscope.atlas.atlas import Atlas
from unitscope.datasets import Dataset, open_dataset
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.photos import Encoded
from unitscope.model import Classifier

BATCH = 32


def bare(model: Classifier, dataset: Dataset) -> float:
    """Seconds of a loop that decodes, preprocesses and runs the compiled network, and keeps nothing."""
    photos = [
        Encoded(entry.id, lambda index=index: dataset.read(index), entry.size)  # type: ignore[misc]
        for index, entry in enumerate(dataset.entries)
    ]
    compiled = model._forward.compiled(model.input_shape, ())
    if compiled is None:
        raise SystemExit(
            "the network could not be compiled: there is nothing to compare with"
        )
    begin = time.perf_counter()
    for read in batches(photos, model.preprocessing, BATCH):
        compiled.run(stacked([tensor for _, tensor in read]))
    return time.perf_counter() - begin


def scanned(
    model: Classifier, source: str, layers: list[str], folder: Path
) -> tuple[float, float, Atlas]:
    """Seconds of a scan's pass, and of all of it."""
    begin = time.perf_counter()
    atlas = unitscope.scan(
        model, source, folder, layers=layers or None, batch_size=BATCH
    )
    total = time.perf_counter() - begin
    lines = (folder / "runs.jsonl").read_text().splitlines()
    return float(json.loads(lines[0])["seconds"]), total, atlas


def compare(
    spec: str | None, source: str, layers: list[str], rounds: int
) -> dict[str, Any]:
    model, dataset = unitscope.load(spec), open_dataset(source)
    model.freeze()
    loops, passes, totals = [], [], []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            loop = bare(model, dataset)
            one, total, atlas = scanned(model, source, layers, Path(folder) / "atlas")
        loops.append(loop)
        passes.append(one)
        totals.append(total)
    ratios = [
        one / loop for one, loop in zip(passes[1:], loops[1:], strict=True)
    ]  # the first round warms up
    low, median, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
    return {
        "photos": len(dataset),
        "layers": [layer.name for layer in atlas.layers],
        "bare_seconds": statistics.median(loops[1:]),
        "pass_seconds": statistics.median(passes[1:]),
        "ratio": median,
        "ratio_low": low,
        "ratio_high": high,
        "after_seconds": statistics.median(
            total - one for total, one in zip(totals[1:], passes[1:], strict=True)
        ),
    }


_PEAK = """
import resource, sys
import unitscope
unitscope.scan(unitscope.load(sys.argv[1] or None), sys.argv[2], sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(spec: str | None, source: str, count: int) -> float:
    """The peak memory, in MiB, of a fresh process that scans `count` photos: those of the source, again and again."""
    dataset = open_dataset(source)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        stored: list[Path] = []
        for index in range(min(count, len(dataset))):
            path = folder / f"{index:06}.jpg"
            path.write_bytes(dataset.read(index))
            stored.append(path)
        for index in range(len(stored), count):
            (folder / f"{index:06}.jpg").hardlink_to(stored[index % len(stored)])
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, spec or "", str(folder), str(Path(name) / "atlas")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return float(done.stdout)


def made(folder: Path, count: int) -> str:
    """Photos of noise, where none are given."""
    random = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8))
        small.resize((160, 128), Image.Resampling.BICUBIC).save(
            folder / f"{index:05}.jpg", quality=90
        )
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or made(Path(folder), 2000)
        found: dict[str, Any] = {
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        }
        if options.rounds:
            found["speed"] = compare(
                options.model, source, options.layer, options.rounds
            )
            row = found["speed"]
            spread = (
                f"{row['ratio']:.3f} ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})"
            )
            print(
                f"{row['photos']} photos, {', '.join(row['layers'])}: bare loop "
                f"{row['bare_seconds']:.1f} s"
            )
            print(f"scan's pass {row['pass_seconds']:.1f} s, ratio {spread}")
            print(f"tables and ablation, once: {row['after_seconds']:.1f} s")
        counts = [int(count) for count in options.memory.split(",") if count]
        found["memory"] = {
            count: peak(options.model, source, count) for count in counts
        }
        for count, size in found["memory"].items():
            print(f"{count} photos: peak {size:.0f} MiB")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
