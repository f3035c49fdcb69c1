"""Screening: what switching off each unit of each layer would do, to first order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.scores import Scores
from unitscope.counts import is_count
from unitscope.drawable import Drawable
from unitscope.errors import InputError, LayerError, near_matches
from unitscope.inputs.subjects import Subject
from unitscope.plurals import plural
from unitscope.tracing.layers import nesting

# The strongest units whose |estimates| add up to this share of all count.
_COUNTING = 0.9

# Estimates that differ by less, relative to one of them, are the same but for rounding.
_SAME = 1e-4

# Layers that a picture shows by default.
_MOST_SHOWN = 24


class UnitEstimate(NamedTuple):
    """What switching a unit off does to the logit: estimated, and measured if it was.

    Both are the logit without the unit − the logit.
    """

    layer: str
    unit: int
    estimate: float
    measured: float | None = None


class LayerStrength(NamedTuple):
    """What the units of one layer carry on one photo, by their estimates, in logits.

    `total` is the sum of |estimate|, `largest` the largest of them and `unit` whose it
    is. `share` is the least share of units that gives 90 % of the total.
    """

    layer: str
    units: int
    total: float
    largest: float
    unit: int
    share: float


@dataclass(frozen=True)
class Verified:
    """Units of one photo that were switched off by real forward passes.

    `top` have the largest |estimates| of all layers. `sample` were drawn at random, the
    layers taking turns. Spearman's rank correlation between estimates and real effects is
    None where fewer than three units, or only equal numbers, are compared.
    """

    top: tuple[UnitEstimate, ...]
    sample: tuple[UnitEstimate, ...]

    @property
    def correlation(self) -> float | None:
        """The rank correlation over the random sample: an estimate of that over all units."""
        return _correlation(self.sample)

    @property
    def top_correlation(self) -> float | None:
        """The rank correlation over the top units alone; it is not that over all units."""
        return _correlation(self.top)


@dataclass(frozen=True, eq=False, repr=False)
class Screening(Drawable):
    """First-order estimates of switching off every unit of every layer, one photo a row.

    `estimates` are by layer, in order of execution, (batch, unit) in logits:
    −Σ gradient · activation over all places of a unit's map, which estimates what the
    class's logit gains when that map is zero. `classes` are the class of each photo.
    `left_out` says which layers carry no estimate, and why. `verified` holds, for each
    photo, the units that were switched off by real forward passes.
    """

    estimates: Mapping[str, Float[Tensor, "batch unit"]]
    classes: tuple[int, ...]
    logits: Float[Tensor, "batch class"]
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    scores: Scores
    left_out: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[Verified, ...] = ()

    def __repr__(self) -> str:
        units = sum(each.shape[1] for each in self.estimates.values())
        return (
            f"<Screening of {plural(units, 'unit')} in {plural(len(self.layers), 'layer')} "
            f"on {plural(len(self.classes), 'photo')}{', verified' if self.verified else ''}>"
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers in order of execution."""
        return tuple(self.estimates)

    def label(self, image: int = 0) -> str:
        """The label of the class whose logit a photo was screened for."""
        return self.labels[self.classes[image]]

    def logit(self, image: int = 0) -> float:
        """The class's logit with all units on."""
        return float(self.logits[image, self.classes[image]])

    def top(
        self, count: int = 10, image: int = 0, layer: str | None = None
    ) -> list[UnitEstimate]:
        """The units with the largest |estimate| on one photo, of all layers or of one.

        Those that were verified have their measured effect beside it. Of all layers, a
        unit that passes a ReLU or a pool is listed once: off before or behind it, the
        estimate is the same.
        """
        _check_number(count)
        if layer is None:
            rows = self._rows_once(image)
        else:
            name = self._name(layer)
            rows = {name: self.estimates[name][image]}

        places = [
            (name, unit)
            for name, row in rows.items()
            for unit in range(len(row))
        ]
        together = torch.cat(list(rows.values()))
        sizes = together.abs().nan_to_num(-1.0)
        order = torch.argsort(sizes, descending=True, stable=True)
        measured = self._measured(image)
        listed: list[UnitEstimate] = []
        for index in order.tolist():
            estimate = float(together[index])
            if len(listed) == count or math.isnan(estimate):
                break
            name, unit = places[index]
            effect = UnitEstimate(
                name, unit, estimate, measured.get((name, unit))
            )
            listed.append(effect)
        return listed

    def strengths(self, image: int = 0) -> list[LayerStrength]:
        """What the units of every layer carry on one photo, in order of execution."""
        return [
            _strength(name, estimates[image])
            for name, estimates in self.estimates.items()
        ]

    def outline(self, most: int = _MOST_SHOWN) -> list[str]:
        """The outermost layers, as deep as at most so many of them go, in order."""
        depths = {name: nesting(name)[0] for name in self.layers}
        shown = [name for name in self.layers if depths[name] == 0]
        for depth in sorted(set(depths.values())):
            deeper = [name for name in self.layers if depths[name] <= depth]
            if len(deeper) > most and shown:
                break
            shown = deeper
        return shown

    def _rows_once(self, image: int) -> dict[str, Float[Tensor, " unit"]]:
        """The estimates by layer; NaN where the layer just before has the same one."""
        rows: dict[str, Float[Tensor, " unit"]] = {}
        before: Float[Tensor, " unit"] | None = None
        for name, estimates in self.estimates.items():
            row = estimates[image]
            rows[name] = row
            if before is not None and before.shape == row.shape:
                same = torch.isclose(row, before, rtol=_SAME, atol=0)
                rows[name] = row.masked_fill(same & (row != 0), math.nan)
            before = row
        return rows

    def _measured(self, image: int) -> dict[tuple[str, int], float | None]:
        if not self.verified:
            return {}
        of_photo = self.verified[image]
        return {
            (each.layer, each.unit): each.measured
            for each in (*of_photo.sample, *of_photo.top)
        }

    def _name(self, layer: str) -> str:
        if layer in self.estimates:
            return layer
        if layer in self.left_out:
            raise LayerError(
                f"layer '{layer}' was not screened: {self.left_out[layer]}"
            )
        raise LayerError(
            f"layer '{layer}' was not screened{near_matches(layer, self.layers)}: "
            "screening.layers lists those that were; of several layers with one output "
            "the outermost is"
        )


def rank_correlation(
    one: Sequence[float], other: Sequence[float]
) -> float | None:
    """Spearman's rank correlation; None for fewer than three numbers, or equal ones."""
    if len(one) < 3:
        return None
    first = _ranks(np.asarray(one, dtype=np.float64))
    second = _ranks(np.asarray(other, dtype=np.float64))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(
    values: Float[np.ndarray, " number"],
) -> Float[np.ndarray, " number"]:
    """Ranks from 0; equal numbers share the mean of theirs."""
    _, inverse, counts = np.unique(
        values, return_inverse=True, return_counts=True
    )
    ends = np.cumsum(counts)
    middles = ends - (counts + 1) / 2
    ranks: Float[np.ndarray, " number"] = middles[inverse]
    return ranks


def _correlation(effects: Sequence[UnitEstimate]) -> float | None:
    measured = [
        (each.estimate, each.measured)
        for each in effects
        if each.measured is not None
    ]
    return rank_correlation(
        [estimate for estimate, _ in measured],
        [effect for _, effect in measured],
    )


def _strength(name: str, estimates: Float[Tensor, " unit"]) -> LayerStrength:
    sizes, order = estimates.abs().sort(descending=True, stable=True)
    total = float(sizes.sum())
    counting = 0
    if total:
        reached = sizes.cumsum(0) < _COUNTING * total
        counting = min(int(reached.sum()) + 1, len(sizes))
    return LayerStrength(
        layer=name,
        units=len(sizes),
        total=total,
        largest=float(sizes[0]),
        unit=int(order[0]),
        share=counting / len(sizes),
    )


def _check_number(count: int) -> None:
    if not is_count(count, 1):
        raise InputError(
            f"the number of units to list is a whole number from 1, not {count!r}"
        )
