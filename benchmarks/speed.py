"""What unitscope costs, against the user's own plain forward pass, its peers and the
machine: one run, paired.

    python benchmarks/speed.py [--out docs/speed.md] [--json FILE] [--rounds 15]
        [--networks resnet50 ...]

Every round times each contender once, in random order (peers that run the network
backward in rounds of their own); a ratio is that to the plain pass of the same round,
and the table gives the median and the quartiles of the ratios. "everything" reads the
maps of all classes, the contributions of all units to all classes, photo by photo, and
the logits with every unit off in turn, a few units at a time; "held in memory" keeps
the last two for all photos at once, batch × unit × class numbers each. Peers are timed
where they are installed, on five classes of each photo, as people use them. The floor
is the network's multiplications over what this machine's own convolutions reach at
their best. Photos are made of noise and shapes, so that nothing need be downloaded.
Models are frozen, unless a row says otherwise; "the engine alone" is the compiled
forward pass with nothing around it. Where there is a GPU, the same is measured on it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from costs.contenders import measure_networks
from costs.freezing import readiness
from costs.growth import growth
from costs.machine import peaks, processor
from costs.memory import memory
from costs.networks import NETWORKS
from costs.page import page
from costs.profiling import profile
from costs.reading import reading
from costs.starting import starting

Steps = dict[str, Callable[[], Any]]

_MOST_ROUNDS_OF_READING = 7


def main() -> None:
    options = _parser().parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)

    results: dict[str, Any] = {}
    if options.again:
        results = json.loads(options.json.read_text())
    results["machine"] = _machine()

    with tempfile.TemporaryDirectory() as folder:
        for name, step in _steps(options, Path(folder)).items():
            if name not in results or name in options.again:
                results[name] = step()
                gc.collect()
            # After every step: all of them take a quarter of an hour.
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))

    text = page(results)
    if options.out:
        options.out.write_text(text)
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--again",
        nargs="+",
        default=[],
        help="measure these parts of --json anew, and what it lacks",
    )
    parser.add_argument("--out", type=Path)
    return parser


def _steps(options: argparse.Namespace, folder: Path) -> Steps:
    """What is measured, by name and in order."""
    names: list[str] = options.networks
    sizes: list[int] = options.batch
    rounds: int = options.rounds

    def gpu() -> list[dict[str, Any]]:
        if not torch.cuda.is_available():
            return []
        return measure_networks(names, sizes, rounds, "cuda")

    return {
        "peaks": peaks,
        "networks": lambda: measure_networks(names, sizes, rounds, "cpu"),
        "profile": lambda: profile(sizes, rounds),
        "readiness": lambda: readiness(names),
        "growth": lambda: growth(rounds),
        "reading": lambda: reading(
            min(rounds, _MOST_ROUNDS_OF_READING), folder
        ),
        "starting": lambda: starting(rounds, folder),
        "memory": memory,
        "gpu": gpu,
    }


def _machine() -> str:
    name = processor("model name") or platform.machine()
    software = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    return f"{name}, {software}, float32, 224×224 (miniplaces 128×128)"


if __name__ == "__main__":
    main()
