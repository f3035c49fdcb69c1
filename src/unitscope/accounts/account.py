"""Account: everything about one photo, computed once for reports, pictures and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.accounts.checks import Check, checks_of
from unitscope.accounts.heads import HeadsStory
from unitscope.accounts.rival import rival_of
from unitscope.attribution.ablation import Ablation
from unitscope.attribution.classes import Prediction, class_indices
from unitscope.attribution.contrast import Contrast
from unitscope.attribution.explanation import (
    Explanation,
    UnitContribution,
    Units,
)
from unitscope.attribution.flip import Flip
from unitscope.attribution.scores import Scores
from unitscope.attribution.screening import Screening
from unitscope.drawable import Drawable
from unitscope.errors import LayerError, ModelError, NonFiniteError
from unitscope.inputs.photos import is_photo
from unitscope.inputs.subjects import Subject
from unitscope.kernels import Filters, convolutions, filters
from unitscope.model import Classifier, OnePhoto
from unitscope.network_facts import NetworkFacts
from unitscope.residual.explanation import ResidualExplanation

# A first convolution with more weights than this has hundreds of channels a filter:
# too many to look at.
_MOST_WEIGHTS = 500_000

_LATER_FILTERS = 30

# Units that the sentence names.
_MOST_NAMED = 3


@dataclass(frozen=True)
class UnitStory:
    """One unit's part in a prediction.

    `contribution` is what it adds to the class; `serves` are the labels with its
    largest weights, and those weights; `logit_without` is the class's logit with the
    unit switched off. An attention head has no weights: `serves` are the labels to which
    it gives most here, and how much. `logit_without` is then its total effect,
    `direct_without` its direct one, and `from_patches` what of its contribution came from
    the patches.
    """

    unit: int
    contribution: UnitContribution
    serves: tuple[tuple[str, float], ...]
    logit_without: float
    direct_without: float | None = None
    from_patches: float | None = None


@dataclass(frozen=True, eq=False)
class Account(Drawable):
    """The complete account of one photo: what the network said, where, and why.

    `explanation` is of this photo alone. `predictions` are its top classes; `classes`
    the indices of those whose maps are shown. `units` add most to the first of
    `classes`. `ablation` is the prediction without the chosen units; `maximal` says
    that the chosen unit is the maximal one of the first class (argmax of its weights).
    `turning` lists the units that change the top prediction when switched off alone;
    it is None for a local answer, where each of them would cost a forward pass. Of
    attention heads it is the direct effect that changes it. `heads` is what those gave to
    the first class, None for other answers. `filters` are kernels of the first
    convolution and of a later one. `checks` are the identities tested on this photo.
    `contrast` says why one class and not another, by default the top two; `flip` what lets
    another class win. Both are None where there is one class or none.
    `screening` estimates what the units of every layer carry for the first class; None
    where that was not asked for, or cannot be had for the reason `no_screening`.
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
    heads: HeadsStory | None = None
    contrast: Contrast | None = None
    flip: Flip | None = None
    screening: Screening | None = None
    no_screening: str = ""

    def __repr__(self) -> str:
        return f"<Account of {self.subject.name}: {self.sentence()}>"

    @classmethod
    def of(
        cls, model: Classifier, explanation: Explanation, **options: Any
    ) -> Account:
        """The account of the first photo of an explanation.

        The options are those of `accounts`.
        """
        return next(accounts(model, explanation, **options))

    @property
    def subject(self) -> Subject:
        """The photo."""
        return self.explanation.subjects[0]

    def label(self, index: int) -> str:
        """The label of a class."""
        return self.explanation.labels[index]

    def sentence(self) -> str:
        """The finding in one or two sentences: the prediction, and the ablation."""
        if not self.ablation.units:
            return f"{self._prediction_words()}."
        return f"{self._prediction_words()}. {self._ablation_words()}."

    def _prediction_words(self) -> str:
        scores = self.explanation.scores
        if scores is Scores.NONE:
            return self._output_words()
        first, *others = self.predictions
        words = f"{first.label} ({', '.join(_shown(scores, first))})"
        if not others:
            return words
        second = others[0]
        return f"{words}, ahead of {second.label} ({_shown(scores, second)[0]})"

    def _output_words(self) -> str:
        """Of a regression or an embedding, which predicts no class."""
        first, *others = self.predictions
        if not others:
            return f"{first.label} is {first.logit:.2f}"
        second = others[0]
        return (
            f"the largest output is {first.label} ({first.logit:.2f}), ahead of "
            f"{second.label} ({second.logit:.2f})"
        )

    def _ablation_words(self) -> str:
        units = self.ablation.maps.called(_MOST_NAMED)
        if torch.equal(self.ablation.before, self.ablation.after):
            silent = "" if self.heads else ", which did not fire,"
            return f"Switching off {units}{silent} changes nothing"

        changes = self.ablation.changes(1)
        after = min(changes, key=lambda change: change.rank_after)
        same = after.index == self.predictions[0].index
        what = self.explanation.scores.number
        verb = "it is still" if same else "it would be"
        return f"Without {units} {verb} {after.label} ({what} {after.logit_after:.2f})"


def _shown(scores: Scores, entry: Prediction) -> list[str]:
    """A prediction's probability and logit in words, where it has them."""
    share = entry.probability
    probability = "" if share is None else f"{share:.0%}"
    return scores.shown(probability, f"{entry.logit:.2f}")


def accounts(
    model: Classifier,
    explanation: Explanation,
    *,
    top: int = 5,
    classes: Sequence[int | str] | None = None,
    units: Units | None = None,
    unit_count: int = 8,
    against: int | str | None = None,
    screen: bool = False,
) -> Iterator[Account]:
    """Give the account of every explained photo, one after the other.

    `top` classes are listed, and their maps shown unless `classes` names others.
    `units` are switched off for the ablation; the default is the maximal unit of the
    first class shown. The `unit_count` units that add most to that class are described.
    The contrast is of the first of `classes`, or the top class, `against` another one, by
    default the best other class.
    `screen` also estimates what every layer carries: a forward and a backward pass a photo.

    Raises ClassError and UnitError for what does not exist.
    """
    network = NetworkFacts.of(model)
    kernels = tuple(_shown_filters(model))

    for photo in explanation:
        predictions = photo.top(top)[0]
        shown = [entry.index for entry in predictions]
        if classes:
            shown = class_indices(photo.labels, classes)
        first = shown[0]

        off = photo.maximal_unit(first) if units is None else units
        account = _account_of(model, photo, first, off, unit_count)
        rival = rival_of(model, photo, first if classes else None, against)
        screening, reason = None, ""
        if screen:
            screening, reason = _screened(model, photo, first)
        yield account(
            network=network,
            predictions=tuple(predictions),
            classes=tuple(shown),
            maximal=units is None,
            filters=kernels,
            contrast=rival.contrast,
            flip=rival.flip,
            screening=screening,
            no_screening=reason,
        )


def _account_of(
    model: Classifier,
    photo: Explanation,
    first: int,
    off: Units,
    unit_count: int,
) -> Callable[..., Account]:
    """The account of one photo as far as its units tell it; the rest is still to be given."""
    ablation = Ablation.of(photo, off)
    stories, turning = _units_of(photo, first, unit_count)
    heads = None
    if isinstance(photo, ResidualExplanation):
        heads = _heads_of(photo, first, stories, ablation)
        stories = _with_patches(stories, heads)
    return partial(
        Account,
        explanation=photo,
        units=tuple(stories),
        ablation=ablation,
        turning=turning,
        checks=tuple(checks_of(model, photo, ablation)),
        heads=heads,
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
    """Explain photos in batches and give the account of each.

    The options are those of `explain` and `accounts`.
    """
    several: Any = [photos] if is_photo(photos) else photos
    waiting = iter(several)
    while batch := list(islice(waiting, batch_size)):
        explanation = model.explain(
            batch,
            layer=layer,
            method=method,
            precision=precision,
            batch_size=batch_size,
        )
        yield from accounts(model, explanation, **options)


def _screened(
    model: Classifier, photo: Explanation, first: int
) -> tuple[Screening | None, str]:
    """What the units of every layer carry; else None, and why it cannot be had."""
    try:
        also = photo.also or None
        return model.screen(photo.inputs(), first, also=also), ""
    except (ModelError, LayerError, NonFiniteError) as refusal:
        return None, str(refusal)


def _units_of(
    photo: Explanation, first: int, count: int
) -> tuple[list[UnitStory], tuple[int, ...] | None]:
    """The units that add most to the first class, and those that turn the prediction.

    With a local answer, the classes that a unit serves and the units that turn the
    prediction would cost a forward pass for every class and unit: both are left out.
    """
    strongest = photo.top_units(first, count)
    units = [part.unit for part in strongest]
    if isinstance(photo, ResidualExplanation):
        return _attention_heads(photo, first, strongest)

    if not photo.exact:
        without = photo.ablate_each(first, units)[0, :, 0]
        return [
            UnitStory(part.unit, part, (), float(logit))
            for part, logit in zip(strongest, without, strict=True)
        ], None

    logits_without = photo.ablate_each()[0]
    stories = []
    for part in strongest:
        serves = tuple(photo.classes_of_unit(part.unit))
        logit = float(logits_without[part.unit, first])
        stories.append(UnitStory(part.unit, part, serves, logit))
    return stories, _turning(logits_without, photo.logits[0])


def _attention_heads(
    photo: ResidualExplanation,
    first: int,
    strongest: Sequence[UnitContribution],
) -> tuple[list[UnitStory], tuple[int, ...]]:
    """The heads that give most to the first class, by real passes and by algebra.

    Turning the prediction means by their direct effects: all heads at once, no pass.
    """
    units = [part.unit for part in strongest]
    total = photo.ablate_each(first, units)[0, :, 0].tolist()
    direct = photo.direct_logits_each()[0]
    stories = [
        UnitStory(
            part.unit,
            part,
            tuple(photo.classes_of_unit(part.unit)),
            logit,
            float(direct[part.unit, first]),
        )
        for part, logit in zip(strongest, total, strict=True)
    ]
    return stories, _turning(direct, photo.logits[0])


def _heads_of(
    photo: ResidualExplanation,
    first: int,
    stories: Sequence[UnitStory],
    ablation: Ablation,
) -> HeadsStory:
    """What the heads shown, and those switched off, gave to the first class."""
    units = [story.unit for story in stories]
    return HeadsStory.of(photo, first, [*units, *ablation.units])


def _with_patches(
    stories: Sequence[UnitStory], heads: HeadsStory
) -> list[UnitStory]:
    return [
        dataclasses.replace(story, from_patches=heads.from_patches(story.unit))
        for story in stories
    ]


def _turning(
    logits_without: Float[Tensor, "unit class"], logits: Float[Tensor, " class"]
) -> tuple[int, ...]:
    """The units without which another class has the largest logit."""
    changed = logits_without.argmax(dim=1) != logits.argmax()
    return tuple(torch.nonzero(changed).flatten().tolist())


def _shown_filters(model: Classifier) -> Iterator[Filters]:
    """The first convolution's filters, and kernels of one halfway through."""
    spatial = [
        name
        for name, convolution in convolutions(model.network).items()
        if _is_spatial(convolution)
    ]
    if not spatial:
        return

    first, *later = spatial
    shown = filters(model, first)
    if shown.images.size > _MOST_WEIGHTS:
        shown = filters(model, first, channels=0)
    yield shown

    if later:
        name = later[(len(later) - 1) // 2]
        convolution = model.network.get_submodule(name)
        count = min(
            _LATER_FILTERS, getattr(convolution, "out_channels", _LATER_FILTERS)
        )
        try:
            yield filters(model, name, filters=range(count), channels=0)
        except LayerError:
            pass


def _is_spatial(convolution: torch.nn.Module) -> bool:
    """Whether the kernels have two sides, and more than a single weight."""
    sides = getattr(convolution, "kernel_size", ())
    return len(sides) == 2 and max(sides) > 1
