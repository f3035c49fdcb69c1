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
_RATIO_OF_READING = 0.5

# Aims for starting, in seconds.
_STARTING = {HELP: 0.15, IMPORT: 0.1, FIRST: 0.7}


def losses(results: dict[str, Any]) -> list[str]:
    """A list entry for every row that misses its aim."""
    lines = [
        line
        for row in (*results["networks"], *results["gpu"])
        for line in _of_network(row)
    ]
    for row in results["reading"]:
        lines += _of_reading(row)
    for row in results["starting"]:
        lines += _of_starting(row)
    return lines or ["Nowhere in this run."]


def _of_network(row: Row) -> Iterator[str]:
    what = row["what"]
    place = f"- {row['network']}, {counted(row['batch'], 'photo')}, {what}"

    aim = _RATIOS.get((row["network"], what), _RATIOS.get(("", what), 1.0))
    is_judged = what.startswith("unitscope") and what != NOT_FROZEN
    if is_judged and row["ratio"] > aim:
        yield f"{place}: {row['ratio']:.2f} × the plain pass, aimed at {aim:.2f}."

    to_engine = row.get("to_engine", 0.0)
    if what == EVERYTHING and to_engine > _RATIO_TO_ENGINE:
        ratio = f"{to_engine:.2f} × the engine alone"
        yield f"{place}: {ratio}, aimed at {_RATIO_TO_ENGINE:.2f}."


def _of_reading(row: Row) -> Iterator[str]:
    if row["what"] == "unitscope" and row["ratio"] > _RATIO_OF_READING:
        speed = f"{1 / row['ratio']:.1f} times as fast"
        aim = f"{1 / _RATIO_OF_READING:.0f}"
        yield f"- reading photos of {row['photos']}: {speed}, aimed at {aim}."


def _of_starting(row: Row) -> Iterator[str]:
    aims = (aim for what, aim in _STARTING.items() if row["what"].startswith(what))
    aim = next(aims, row["seconds"])
    if row["seconds"] > aim:
        yield f"- {row['what']}: {row['seconds']:.2f} seconds, aimed at {aim:.2f}."
