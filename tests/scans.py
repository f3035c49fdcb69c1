"""Photos and scans for the tests of this room."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from networks import Gap, seeded
from unitscope.atlas.scan.options import Progress
from unitscope.atlas.scanning import scan
from unitscope.errors import (
    UnitscopeError,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

CLASSES = ("ash", "birch", "cedar", "elm", "fir")
PHOTOS = 45
# Compiling takes longer than these scans. Compiled scans are tested in test_engine.py.
OPTIONS: dict[str, Any] = {
    "top": 4,
    "sample": 6,
    "batch_size": 4,
    "shard_size": 10,
    "engine": "torch",
}


def photo(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def make(
    preprocessing: Preprocessing,
    module: nn.Module | None = None,
    labels: Any = CLASSES,
    scores: str | None = None,
) -> Classifier:
    return wrap(
        module or seeded(Gap),
        labels=labels,
        preprocessing=preprocessing,
        scores=scores,
    )


def contents(path: Path) -> dict[str, str]:
    """The hash of every file of an atlas except those of its runs."""
    files = (
        file
        for file in path.rglob("*")
        if file.is_file()
        and file.name != "runs.jsonl"
        and file.parent.name != ".scan"
    )
    return {
        str(file.relative_to(path)): hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
        for file in files
    }


class Stop(Exception):
    """Interrupts a scan in these tests."""


def stopping_at(photos: int, stage: str = "scan") -> Callable[[Progress], None]:
    def progress(now: Progress) -> None:
        if now.stage == stage and now.done >= photos:
            raise Stop

    return progress


def paths(folder: Path) -> list[Path]:
    return sorted(
        folder.rglob("*.png"),
        key=lambda path: path.relative_to(folder).as_posix(),
    )


def refused(kind: type[UnitscopeError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        scan(*arguments, **{"engine": "torch", **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)
