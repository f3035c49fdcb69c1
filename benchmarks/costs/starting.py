"""Starting: whole processes, and the first photo explained in a fresh one.

Run as a module with a photo and the name of a network, it prints the seconds of the
first explanation.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import unitscope
from costs.pictures import scene
from costs.processes import fresh
from costs.timing import bind, seconds_of

HELP = "unitscope --help"
IMPORT = "import unitscope"
FIRST = "first photo explained"

_SPECS = ("miniplaces", "torchvision:resnet50")
_FRESH_PROCESSES = 5


def starting(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Median seconds of whole processes, and of one photo explained in a fresh one."""
    commands = {
        HELP: [str(Path(sys.executable).with_name("unitscope")), "--help"],
        IMPORT: [sys.executable, "-c", "import unitscope"],
        "python alone": [sys.executable, "-c", "pass"],
    }
    rows = []
    for what, command in commands.items():
        run = bind(_run, command)
        times = [seconds_of(run) for _ in range(rounds)]
        rows.append({"what": what, "seconds": statistics.median(times)})

    photo = folder / "photo.jpg"
    scene((640, 480), 1).save(photo)
    for spec in _SPECS:
        times = [
            fresh("costs.starting", str(photo), spec)[0]
            for _ in range(_FRESH_PROCESSES)
        ]
        rows.append(
            {"what": f"{FIRST}, {spec}", "seconds": statistics.median(times)}
        )
    return rows


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _first_explanation(photo: str, spec: str) -> float:
    """Seconds of the first explanation, after the network itself has run."""
    model = unitscope.load(spec)
    torch.set_grad_enabled(False)
    model.module.eval()(torch.randn(1, *model.input_shape))

    begin = time.perf_counter()
    explanation = model.explain(photo)
    explanation.top(5)
    explanation.cams  # noqa: B018
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(_first_explanation(sys.argv[1], sys.argv[2]))
