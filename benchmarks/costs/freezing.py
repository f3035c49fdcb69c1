"""Freezing: what it takes before the first photo, and the memory it holds.

Run as a module, it measures one network and prints three numbers: the seconds of the
first freezing, those of a second one in the same process, and the MiB it holds.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

import torch

import unitscope
from costs.networks import BUNDLED, fill_zero_layers
from costs.processes import fresh, resident

_WARM_UP = 3


def readiness(names: list[str]) -> list[dict[str, Any]]:
    """What freezing costs, beside the plain network; every network in a process of its own."""
    rows = []
    for name in names:
        first, again, mebibytes = fresh("costs.freezing", name)
        rows.append(
            {
                "network": name,
                "seconds": first,
                "again": again,
                "mebibytes": mebibytes,
            }
        )
    return rows


def _measure(name: str) -> tuple[float, float, float]:
    if name == BUNDLED:
        model = unitscope.load(name)
    else:
        model = unitscope.load(f"torchvision:{name}", weights=None)
        fill_zero_layers(model.module)

    x = torch.randn(1, *model.input_shape)
    _explain(model, x)
    before = _held()
    first = _freeze(model)
    _explain(model, x)
    again = _freeze(model)
    return first, again, _held() - before


def _explain(model: unitscope.Classifier, x: torch.Tensor) -> None:
    for _ in range(_WARM_UP):
        model.explain(x)


def _freeze(model: unitscope.Classifier) -> float:
    begin = time.perf_counter()
    model.freeze().engine()
    return time.perf_counter() - begin


def _held() -> float:
    gc.collect()
    return resident("VmRSS")


if __name__ == "__main__":
    print(*_measure(sys.argv[1]))
