"""The page docs/transformer-maps.md: methods side by side, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maps.measures import BLUR, RESETS, STEPS, TOLERANCE
from maps.methods import BASELINES, METHODS
from maps.objects import LARGEST, OFTENER, SHARE
from unitscope.evaluation.bootstrap import mean_with_interval

_TEMPLATE = Path(__file__).with_name("page.txt")

Record = Mapping[str, Mapping[str, float | None]]
"""What was measured of one photo, by method and measure."""


@dataclass(frozen=True)
class Measure:
    """A number by which methods are compared; `sign` is 1 where more is better."""

    key: str
    title: str
    sign: int
    percent: bool = False

    def of(self, records: Sequence[Record], method: str) -> NDArray[np.float64]:
        values = [record[method][self.key] for record in records]
        return np.array(values, dtype=np.float64)


MEASURES = (
    Measure("deletion", "deletion ↓", -1),
    Measure("insertion", "insertion ↑", 1),
    Measure("points", "pointing ↑", 1, percent=True),
)
RESET_MEASURES = tuple(Measure(name, name, -1) for name in RESETS)


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean over photos and its 95 % bootstrap interval (percentiles)."""
    mean, low, high = mean_with_interval(values)
    return mean, low, high


def page(records: Sequence[Record], about: Mapping[str, Any]) -> str:
    """The whole page."""
    return _TEMPLATE.read_text(encoding="utf-8").format(
        **about,
        photos=len(records),
        steps=STEPS,
        blur=BLUR,
        tolerance=TOLERANCE,
        oftener=OFTENER,
        share=SHARE,
        largest=LARGEST,
        faithful=_table(records, MEASURES, list(METHODS)),
        differences=_differences(records),
        verdicts=_verdicts(records),
        resets=_table(
            records,
            RESET_MEASURES,
            [name for name in METHODS if name not in BASELINES],
        ),
        reset_verdicts=_reset_verdicts(records),
    )


def _cell(values: NDArray[np.float64], percent: bool, signed: bool) -> str:
    numbers = [100 * each if percent else each for each in interval(values)]
    form = ("{:+.1f}" if signed else "{:.1f}") if percent else "{:.3f}"
    if signed and not percent:
        form = "{:+.3f}"
    mean, low, high = (form.format(number) for number in numbers)
    return f"{mean} ({low} to {high})"


def _table(
    records: Sequence[Record],
    measures: Sequence[Measure],
    methods: Sequence[str],
) -> str:
    titles = " | ".join(measure.title for measure in measures)
    rows = [f"| method | {titles} |", "|---" * (len(measures) + 1) + "|"]
    for method in methods:
        cells = [
            _cell(measure.of(records, method), measure.percent, signed=False)
            for measure in measures
        ]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _difference(
    records: Sequence[Record], measure: Measure, method: str
) -> NDArray[np.float64]:
    """How much better `residual` is than a method, photo by photo."""
    first = next(iter(METHODS))
    return measure.sign * (
        measure.of(records, first) - measure.of(records, method)
    )


def _differences(records: Sequence[Record]) -> str:
    titles = " | ".join(measure.title[:-2] for measure in MEASURES)
    rows = [f"| than | {titles} |", "|---" * (len(MEASURES) + 1) + "|"]
    for method in list(METHODS)[1:]:
        cells = [
            _cell(
                _difference(records, measure, method),
                measure.percent,
                signed=True,
            )
            for measure in MEASURES
        ]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _verdicts(records: Sequence[Record]) -> str:
    return "\n".join(_verdict(records, measure) for measure in MEASURES)


def _verdict(records: Sequence[Record], measure: Measure) -> str:
    """Which method does best, and what `residual` is surely better and worse than."""
    means = {
        method: measure.sign * measure.of(records, method).mean()
        for method in METHODS
    }
    best = max(means, key=lambda method: means[method])
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    for method in list(METHODS)[1:]:
        _, low, high = interval(_difference(records, measure, method))
        where = better if low > 0 else worse if high < 0 else open_
        where.append(method)
    return (
        f"- **{measure.title[:-2]}**: {best} has the best mean. `residual` is better than "
        f"{_listed(better)}; worse than {_listed(worse)}; not to be told from "
        f"{_listed(open_)}."
    )


def _reset_verdicts(records: Sequence[Record]) -> str:
    """Of every reset which maps are least and most like before."""
    looking = [name for name in METHODS if name not in BASELINES]
    lines = []
    for measure in RESET_MEASURES:
        likeness = {
            method: abs(measure.of(records, method).mean())
            for method in looking
        }
        least = min(looking, key=lambda method: likeness[method])
        most = max(looking, key=lambda method: likeness[method])
        lines.append(
            f"- **{measure.title}**: least like before are the maps of {least}, most "
            f"those of {most}."
        )
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
