"""Fresh processes: a module of this package run on its own, which prints the numbers
that it measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_BENCHMARKS = Path(__file__).parents[1]


def fresh(module: str, *arguments: str) -> list[float]:
    """The numbers that a module prints when a fresh process runs it."""
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    run = subprocess.run(
        command, cwd=_BENCHMARKS, check=True, capture_output=True, text=True
    )
    words = run.stdout.split()
    return [float(word) for word in words]


def resident(key: str) -> float:
    """Memory of this process in MiB, by its name in /proc/self/status: "VmRSS", or the
    peak "VmHWM".

    NaN where the system has no such file. `getrusage` would count the peak of the
    process that started this one, too.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")

    _, _, line = status.read_text().partition(f"{key}:")
    kibibytes, *_ = line.split()
    return int(kibibytes) / 1024
