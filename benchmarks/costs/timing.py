"""Timing: contenders run in turn, and every ratio is of two runs of the same round."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

Timed = dict[str, Callable[[], object]]
Seconds = dict[str, list[float]]

ENGINE = "the engine alone"

_Settings = TypeVar("_Settings")


def measure(
    timed: Timed, rounds: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Median seconds, and the ratio to the first contender of the same round: median and quartiles.

    Where the engine alone is among the contenders, `to_engine` is the median ratio to
    that.
    """
    seconds = _run_rounds(timed, rounds, device)
    first = seconds[next(iter(timed))]
    engine = seconds.get(ENGINE)

    results = {}
    for name, times in seconds.items():
        low, median, high = quartiles(ratios(times, first))
        results[name] = {
            "seconds": statistics.median(times),
            "ratio": median,
            "ratio_low": low,
            "ratio_high": high,
        }
        if engine is not None:
            results[name]["to_engine"] = statistics.median(
                ratios(times, engine)
            )
    return results


def _run_rounds(timed: Timed, rounds: int, device: str) -> Seconds:
    """Seconds of every contender, in every round but the first, which warms up."""
    seconds: Seconds = {name: [] for name in timed}
    order = random.Random(0)
    for round_ in range(rounds + 1):
        # In another order each round: what runs before leaves caches and memory in a
        # state of its own.
        for name in order.sample(list(timed), len(timed)):
            _synchronise(device)
            begin = time.perf_counter()
            result = timed[name]()
            _synchronise(device)
            if round_ > 0:
                seconds[name].append(time.perf_counter() - begin)
            del result
    return seconds


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ratios(times: list[float], base: list[float]) -> list[float]:
    """The ratios of times to those of the same rounds."""
    return [mine / other for mine, other in zip(times, base, strict=True)]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; a single value is all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4)
    return low, median, high


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def bind(
    function: Callable[[_Settings], object], value: _Settings
) -> Callable[[], object]:
    """A call of the function with this value, whatever a loop's variable becomes later."""
    return lambda: function(value)
