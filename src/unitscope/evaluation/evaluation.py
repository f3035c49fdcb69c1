"""Evaluation: what methods are worth by some measures, photo by photo and on average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from unitscope.atlas.intervals import Estimate
from unitscope.drawable import Drawable
from unitscope.errors import InputError, near_matches
from unitscope.evaluation.bootstrap import mean_with_interval
from unitscope.evaluation.measure import Measure
from unitscope.plurals import plural

_SAME = 1e-6
"""Values of one photo that differ by less are the same."""


class Compared(NamedTuple):
    """A method of an evaluation: its name, its promise, and whether it is a baseline."""

    name: str
    promise: str
    is_null: bool


class EvaluatedPhoto(NamedTuple):
    """A photo by its id, the class explained, and the one whose masks were compared."""

    id: str
    explained: int
    label: int | None


@dataclass(frozen=True, eq=False)
class Evaluation(Drawable):
    """What methods are worth by some measures over the same photos.

    `values` has for each measure the value of every method on every photo, NaN where
    there is none. The first method is the one that all others are compared with.
    `about` says what was asked and of what, in words, for readers.
    """

    methods: tuple[Compared, ...]
    measures: tuple[Measure, ...]
    photos: tuple[EvaluatedPhoto, ...]
    values: Mapping[str, Float[np.ndarray, "method photo"]]
    labels: tuple[str, ...] = field(repr=False)
    about: Mapping[str, str]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        photos = plural(len(self.photos), "photo")
        methods = ", ".join(method.name for method in self.methods)
        measures = ", ".join(measure.name for measure in self.measures)
        return f"<Evaluation of {methods} over {photos}: {measures}>"

    @property
    def first(self) -> Compared:
        """The method that the others are compared with."""
        return self.methods[0]

    def of(self, measure: str, method: str) -> Float[np.ndarray, " photo"]:
        """The values of a method's maps, photo by photo.

        Raises InputError for a measure or a method that is not part of the evaluation.
        """
        names = [each.name for each in self.methods]
        for name, known in ((measure, list(self.values)), (method, names)):
            if name not in known:
                raise InputError(
                    f"{name!r} was not evaluated{near_matches(name, known)}: choose from "
                    f"{', '.join(known)}"
                )
        values: np.ndarray = self.values[measure][names.index(method)]
        return values

    def mean(self, measure: str, method: str) -> Estimate:
        """The mean over photos, with its 95 % bootstrap interval."""
        return self._means[measure, method]

    def count(self, measure: str, method: str) -> int:
        """The number of photos that have a value."""
        return int((~np.isnan(self.of(measure, method))).sum())

    def difference(self, measure: str, method: str) -> Estimate:
        """How much better the first method is, photo by photo, with its 95 % interval.

        Above 0 the first is better. Of a measure without a direction it is the first
        method's value − the other's.
        """
        return self._differences[measure, method]

    def verdict(self, measure: str, method: str) -> str:
        """What the interval allows to say of the first method beside another.

        "better", "worse", "as good" where both are the same on every photo, or "open".
        Empty for a measure without a direction, and where there is no interval.
        """
        estimate = self.difference(measure, method)
        if not self._measure(measure).better or math.isnan(estimate.low):
            return ""
        if estimate.low > 0:
            return "better"
        if estimate.high < 0:
            return "worse"
        is_same = estimate.low == estimate.high == 0
        return "as good" if is_same else "open"

    def statements(self) -> list[str]:
        """For each measure what the intervals allow to say of the first method."""
        found = []
        for measure in self.measures:
            by_verdict: dict[str, list[str]] = {}
            for method in self.methods[1:]:
                verdict = self.verdict(measure.name, method.name)
                by_verdict.setdefault(verdict, []).append(method.name)
            parts = [
                f"{words} {', '.join(by_verdict[verdict])}"
                for verdict, words in _VERDICTS
                if verdict in by_verdict
            ]
            if parts:
                found.append(
                    f"{measure.name}: {self.first.name} is {'; '.join(parts)}"
                )
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each photo, method and measure: what was measured."""
        for measure in self.measures:
            for method in self.methods:
                values = self.of(measure.name, method.name)
                for photo, value in zip(self.photos, values, strict=True):
                    yield {
                        "photo": photo.id,
                        "method": method.name,
                        "measure": measure.name,
                        "value": _or_none(float(value)),
                    }

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain data: the document "evaluation" of docs/json.md."""
        return {
            "about": dict(self.about),
            "methods": [method._asdict() for method in self.methods],
            "measures": [_measure_as_json(each) for each in self.measures],
            "photos": [self._photo_as_json(photo) for photo in self.photos],
            "skipped": dict(self.skipped),
            "results": [
                self._result(measure, method)
                for measure in self.measures
                for method in self.methods
            ],
            "statements": self.statements(),
        }

    def _photo_as_json(self, photo: EvaluatedPhoto) -> dict[str, Any]:
        label = None if photo.label is None else self.labels[photo.label]
        return {
            "id": photo.id,
            "class": self.labels[photo.explained],
            "label": label,
        }

    def _result(self, measure: Measure, method: Compared) -> dict[str, Any]:
        difference = None
        if method is not self.first:
            estimate = self.difference(measure.name, method.name)
            difference = {
                **_estimate_as_json(estimate),
                "verdict": self.verdict(measure.name, method.name) or None,
            }
        values = self.of(measure.name, method.name)
        return {
            "measure": measure.name,
            "method": method.name,
            **_estimate_as_json(self.mean(measure.name, method.name)),
            "photos": self.count(measure.name, method.name),
            "difference": difference,
            "values": [_or_none(float(value)) for value in values],
        }

    def _measure(self, name: str) -> Measure:
        return next(each for each in self.measures if each.name == name)

    @cached_property
    def _means(self) -> dict[tuple[str, str], Estimate]:
        return {
            (measure.name, method.name): mean_with_interval(
                self.of(measure.name, method.name)
            )
            for measure in self.measures
            for method in self.methods
        }

    @cached_property
    def _differences(self) -> dict[tuple[str, str], Estimate]:
        found = {}
        for measure in self.measures:
            first = self.of(measure.name, self.first.name)
            for method in self.methods:
                other = self.of(measure.name, method.name)
                gain = (measure.better or 1) * (first - other)
                # Two ways to the same numbers differ by rounding, which proves nothing.
                gain = np.where(np.abs(gain) < _SAME, 0.0, gain)
                found[measure.name, method.name] = mean_with_interval(gain)
        return found


_VERDICTS: Sequence[tuple[str, str]] = (
    ("better", "better than"),
    ("worse", "worse than"),
    ("as good", "the same as"),
    ("open", "not told apart from"),
)


def _measure_as_json(measure: Measure) -> dict[str, Any]:
    directions = {1: "more", -1: "less", 0: None}
    return {
        "name": measure.name,
        "formula": measure.formula,
        "unit": measure.unit,
        "better": directions[measure.better],
        "low": measure.low,
        "high": measure.high,
        "source": measure.source,
    }


def _estimate_as_json(estimate: Estimate) -> dict[str, float | None]:
    return {
        "mean": _or_none(estimate.value),
        "low": _or_none(estimate.low),
        "high": _or_none(estimate.high),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
