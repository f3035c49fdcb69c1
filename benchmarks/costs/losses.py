"""Losses: every row in which unitscope is slower than was aimed at, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costs.contenders import BFLOAT16, EVERYTHING, EXPLAIN, LOCALLY, NOT_FROZEN
from costs.growth import counted
from costs.starting import FIRST, HELP, IMPORT

Row = dict[str, Any]

# Aims as ratios to the plain pass, by network and what is computed; for all networks
# where none is named.
_RATIOS = {
    ("resnet50", EVERYTHING): 0.55,
    ("miniplaces", EVERYTHING): 0.50,
    ("convnext_tiny", EVERYTHING): 0.80,
    ("efficientnet_b0", EVERYTHING): 0.65,
    ("densenet121", EVERYTHING): 0.65,
    ("vit_b_16", EXPLAIN): 0.90,
    ("", BFLOAT16): 0.25,
    ("", LOCALLY): 2.0,
}
_RATIO_TO_ENGINE = 1.10
_SPEED_OF_READING = 2.0

# Aims for starting, in seconds.
_STARTING = {HELP: 0.15, IMPORT: 0.1, FIRST: 0.7}


def losses(results: dict[str, Any]) -> list[str]:
    """A list entry for every row that misses its aim."""
    lines: list[str] = []
    for row in (*results["networks"], *results["gpu"]):
        lines += _of_network(row)
    for row in results["reading"]:
        lines += _of_reading(row)
    for row in results["starting"]:
        lines += _of_starting(row)
    return lines or ["Nowhere in this run."]


def _of_network(row: Row) -> Iterator[str]:
    network = row["network"]
    what = row["what"]
    photos = counted(row["batch"], "photo")
    place = f"- {network}, {photos}, {what}"

    ratio = row["ratio"]
    general_aim = _RATIOS.get(("", what), 1.0)
    aim = _RATIOS.get((network, what), general_aim)
    is_judged = what.startswith("unitscope") and what != NOT_FROZEN
    if is_judged and ratio > aim:
        yield f"{place}: {ratio:.2f} × the plain pass, aimed at {aim:.2f}."

    to_engine = row.get("to_engine", 0.0)
    aim = _RATIO_TO_ENGINE
    if what == EVERYTHING and to_engine > aim:
        yield f"{place}: {to_engine:.2f} × the engine alone, aimed at {aim:.2f}."


def _of_reading(row: Row) -> Iterator[str]:
    speed = 1 / row["ratio"]
    if row["what"] == "unitscope" and speed < _SPEED_OF_READING:
        place = f"- reading photos of {row['photos']}"
        aim = f"aimed at {_SPEED_OF_READING:.0f}"
        yield f"{place}: {speed:.1f} times as fast, {aim}."


def _of_starting(row: Row) -> Iterator[str]:
    seconds = row["seconds"]
    for what, aim in _STARTING.items():
        if row["what"].startswith(what) and seconds > aim:
            yield f"- {row['what']}: {seconds:.2f} seconds, aimed at {aim:.2f}."
