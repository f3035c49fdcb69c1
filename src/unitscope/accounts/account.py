"""Account: everything that is told of one photo, computed once, for reports, pictures and JSON alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from PIL import Image

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.classes import Prediction, class_indices
from unitscope.attribution.explanation import Explanation, UnitContribution
from unitscope.attribution.readout import ablation_difference, relative_difference
from unitscope.drawable import Drawable
from unitscope.engine.passes import ROUNDED
from unitscope.errors import LayerError
from unitscope.inputs.photos import Encoded, Photo
from unitscope.inputs.subjects import Subject
from unitscope.kernels import Filters, convolutions, filters
from unitscope.model import Classifier, OnePhoto
from unitscope.network_facts import NetworkFacts


@dataclass(frozen=True)
class UnitStory:
    """One unit's part in a prediction: its contribution to the class, and the classes it speaks for by its weights."""

    unit: int
    contribution: UnitContribution
    serves: tuple[tuple[str, float], ...]
    logit_without: float


@dataclass(frozen=True)
class Check:
    """One identity, put to the test on this photo.

    `error` is relative to the largest |logit|; `allowed` is what rounding may do.
    """

    name: str
    statement: str
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the error is within what rounding allows."""
        return self.error <= self.allowed


@dataclass(frozen=True, eq=False)
class Account(Drawable):
    """The complete account of one photo: what the network said, where, through which units, and how it was verified.

    `explanation` is of this one photo; `predictions` its top classes; `classes` the
    indices whose maps are shown; `units` the units that add most to the first class
    (the first of `classes`); `ablation` the prediction without the chosen units;
    `maximal` says that the unit switched off was the first class's maximal one (argmax
    of its weights); `turning` lists the units each of which, switched off alone, would
    change the first prediction (None for a local answer, where every one of them would
    cost a forward pass); `filters` are kernels of the first convolution and of a later
    one; `checks` are the identities tested on this photo.
    """

    network: NetworkFacts
    explanation: Explanation
    predictions: tuple[Prediction, ...]
    classes: tuple[int, ...]
    units: tuple[UnitStory, ...]
    ablation: Ablation
    maximal: bool
    turning: tuple[int, ...] | None
    filters: tuple[Filters, ...]
    checks: tuple[Check, ...]

    def __repr__(self) -> str:
        return f"<Account of {self.subject.name}: {self.sentence()}>"

    @classmethod
    def of(cls, model: Classifier, explanation: Explanation, **options: Any) -> Account:
        """The account of the first photo of an explanation; the options are those of `accounts`."""
        return next(accounts(model, explanation, **options))

    @property
    def subject(self) -> Subject:
        """The photo."""
        return self.explanation.subjects[0]

    def label(self, index: int) -> str:
        """The label of a class."""
        return self.explanation.labels[index]

    def sentence(self) -> str:
        """What was found, in words: one or two sentences."""
        first = self.predictions[0]
        text = f"{first.label} ({first.probability:.0%}, logit {first.logit:.2f})"
        if len(self.predictions) > 1:
            second = self.predictions[1]
            text += f", ahead of {second.label} ({second.probability:.0%})"
        if not self.ablation.units:
            return text + "."
        change = self.ablation.changes(1)
        after = min(change, key=lambda row: row.rank_after)
        units = [str(unit) for unit in self.ablation.units]
        listed = (
            ", ".join(units[:3]) + " …"
            if len(units) > 3
            else " and ".join(filter(None, (", ".join(units[:-1]), units[-1])))
        )
        noun = "unit" if len(units) == 1 else "units"
        if torch.equal(self.ablation.before, self.ablation.after):
            text += f". Without {noun} {listed}, which did not fire, nothing changes"
        elif after.index == first.index:
            text += f". Without {noun} {listed} it is still {first.label} (logit {after.logit_after:.2f})"
        else:
            text += f". Without {noun} {listed} it would be {after.label} (logit {after.logit_after:.2f})"
        return text + "."


def accounts(
    model: Classifier,
    explanation: Explanation,
    *,
    top: int = 5,
    classes: Sequence[int | str] | None = None,
    units: Sequence[int] | None = None,
    unit_count: int = 8,
) -> Iterator[Account]:
    """Give the complete account of every explained photo, one after the other.

    `top` classes are listed, and their maps shown unless `classes` names others;
    `units` are switched off for the ablation (by default the maximal unit of the first
    class shown); `unit_count` units are told of.

    Raises ClassError and UnitError for what does not exist.
    """
    network = NetworkFacts.of(model)
    kernels = tuple(_shown_filters(model))
    for one in explanation:
        predictions = tuple(one.top(top)[0])
        shown = (
            class_indices(one.labels, classes)
            if classes
            else [prediction.index for prediction in predictions]
        )
        first = shown[0]
        off = [one.maximal_unit(first)] if units is None else list(units)
        ablation = Ablation.of(one, off)
        stories, turning = _units_of(one, first, unit_count)
        yield Account(
            network=network,
            explanation=one,
            predictions=predictions,
            classes=tuple(shown),
            units=tuple(stories),
            ablation=ablation,
            maximal=units is None,
            turning=turning,
            filters=kernels,
            checks=tuple(_checks(model, one, ablation)),
        )


def _units_of(
    one: Explanation, first: int, count: int
) -> tuple[list[UnitStory], tuple[int, ...] | None]:
    """What is told of the units that add most to the first class, and which units turn the prediction over."""
    parts = one.top_units(first, count)
    if not one.exact:
        # Which classes a unit serves, and what each unit of the layer does, would cost
        # a pass for every class and unit.
        without = one.ablate_each(first, [part.unit for part in parts])[0, :, 0]
        return [
            UnitStory(part.unit, part, (), float(left))
            for part, left in zip(parts, without, strict=True)
        ], None
    each = one.ablate_each()[0]
    stories = [
        UnitStory(
            part.unit,
            part,
            tuple(one.classes_of_unit(part.unit)),
            float(each[part.unit, first]),
        )
        for part in parts
    ]
    return stories, tuple(
        torch.nonzero(each.argmax(dim=1) != one.logits[0].argmax()).flatten().tolist()
    )


def accounts_of(
    model: Classifier,
    photos: OnePhoto | Iterable[OnePhoto],
    *,
    layer: str | None = None,
    method: str | None = None,
    precision: str | None = None,
    batch_size: int = 16,
    **options: Any,
) -> Iterator[Account]:
    """Explain photos in batches and give the account of each; the options are those of `explain` and `accounts`."""
    waiting = iter(
        [photos]
        if isinstance(photos, (str, os.PathLike, Image.Image, Encoded, Photo))
        else photos
    )
    while batch := list(islice(waiting, batch_size)):
        explanation = model.explain(
            batch,
            layer=layer,
            method=method,
            precision=precision,
            batch_size=batch_size,
        )
        yield from accounts(model, explanation, **options)


def _shown_filters(model: Classifier) -> list[Filters]:
    """The first convolution's filters, and thirty kernels of one from the middle of the network."""
    shown = []
    spatial = [
        name
        for name, convolution in convolutions(model.network).items()
        if len(kernel := getattr(convolution, "kernel_size", ())) == 2
        and max(kernel) > 1
    ]
    if spatial:
        first, later = spatial[0], spatial[1:]
        shown.append(filters(model, first))
        if (
            shown[0].images.size > 500_000
        ):  # hundreds of channels a filter: too many to look at
            shown[0] = filters(model, first, channels=0)
        if later:
            name = later[(len(later) - 1) // 2]
            try:
                count = getattr(
                    dict(model.network.named_modules())[name], "out_channels", 30
                )
                shown.append(
                    filters(model, name, filters=range(min(30, count)), channels=0)
                )
            except LayerError:
                pass
    return shown


def _checks(
    model: Classifier, explanation: Explanation, ablation: Ablation
) -> list[Check]:
    logits = explanation.logits
    allowed = explanation.rounding_error(model.like.dtype)
    rounded = explanation.rounded
    layer = None if explanation.exact else explanation.layer
    real = model.forward_without(explanation.inputs(), list(ablation.units), layer)
    off = "unit off" if len(ablation.units) == 1 else f"{len(ablation.units)} units off"
    maps = "its map" if len(ablation.units) == 1 else "their maps"
    how = "logits" if explanation.exact else "logits from what follows the layer alone,"
    checks = [
        Check(
            "ablation",
            f"{how} with the {off} = a real forward pass with {maps} set to zero",
            float(ablation_difference(ablation.after, real, logits).max()),
            max(allowed, 4 * rounded),  # the real pass is float32
        )
    ]
    if rounded:
        statement = "logits and feature map, computed in bfloat16 = those in float32, on the first photos"
        checks.append(Check("precision", statement, rounded, ROUNDED))
    if not explanation.exact:
        return checks
    summed = explanation.contributions.sum(dim=2) + explanation.left_out
    return [
        Check(
            "maps",
            "mean of every class's map + its bias = its logit",
            float(explanation.completeness_error.max()),
            allowed,
        ),
        Check(
            "contributions",
            "contributions of all units + bias = logit, for every class",
            float(relative_difference(summed, logits).max()),
            allowed,
        ),
        *checks,
    ]
