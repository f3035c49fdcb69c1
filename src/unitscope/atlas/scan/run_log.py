"""Run log: one line for every run of a scan, beside the atlas."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from unitscope.atlas.disk.layout import RUNS


@dataclass(frozen=True)
class Run:
    """One run of a stage, for the log; `started` is in seconds since the epoch."""

    stage: str
    started: float
    workers: int

    @classmethod
    def start(cls, stage: str, workers: int) -> Run:
        """A run that starts now."""
        return cls(stage, time.time(), workers)

    def log(self, folder: Path, images: int, skipped: int) -> None:
        """Append the run to the log of an atlas."""
        line = {
            "stage": self.stage,
            "started": time.strftime(
                "%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)
            ),
            "seconds": round(time.time() - self.started, 3),
            "images": images,
            "skipped": skipped,
            "workers": self.workers,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        with (folder / RUNS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
