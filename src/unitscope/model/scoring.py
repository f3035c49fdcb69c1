"""Scoring: the labels of a network's classes, and what kind of scores they get."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

from unitscope.attribution.guess import (
    PROBABILITIES,
    Guess,
    are_probabilities,
    guessed,
    looked_through,
)
from unitscope.attribution.look_through import look_through
from unitscope.attribution.probes import probes
from unitscope.attribution.scores import Scores
from unitscope.errors import ModelError, warn_user
from unitscope.labels import check_label_count
from unitscope.model.network import Network
from unitscope.tracing.ending import Ending
from unitscope.tracing.trace import Trace

# How far rounding takes probabilities out of 0 to 1.
_SLACK = 1e-3


class Scoring:
    """The labels of a network's classes, and what kind of scores they get.

    `labels` are None where there are none. `wanted` are the scores that the user or a
    source asks for; without them they are guessed from the numbers of the first pass.
    """

    def __init__(
        self,
        network: Network,
        labels: Sequence[str] | None,
        wanted: Scores | None,
    ) -> None:
        self._network = network
        self.names = None if labels is None else tuple(labels)
        self.wanted = wanted
        self._guess: Guess | None = None
        self.forget()

    @property
    def guess(self) -> Guess | None:
        """The kind of scores, and why; None before the first pass."""
        return self._guess

    def forget(self) -> None:
        """Find the kind of scores anew with the next pass."""
        self._guess = None if self.wanted is None else Guess(self.wanted)

    def labels_for(self, classes: int) -> tuple[str, ...]:
        """The labels of so many classes; "class 0", "class 1" … without any.

        Raises LabelsError where they are not as many.
        """
        if self.names is None:
            guess = self._guess
            is_class = guess is None or guess.scores is not Scores.NONE
            return _unnamed("class" if is_class else "output", classes)
        check_label_count(self.names, classes)
        return self.names

    def ending_of(self, example: Tensor, traced: Trace) -> tuple[Ending, Trace]:
        """Where the logits are in a traced pass of `example`, and the trace up to them.

        Finds the kind of scores at the first pass. The network must be in evaluation mode,
        without gradients.
        """
        ending = Ending(output=traced.choice)
        if self.wanted in (None, Scores.SOFTMAX, Scores.SIGMOID):
            looked = look_through(self._network.module, example, traced)
            if looked is not None:
                ending, traced = looked.ending, looked.traced
                self._take(looked_through(looked.function))
            elif self.wanted is not None:
                self._check_no_probabilities(example, traced, ending)
        if self.wanted is Scores.PROBABILITIES:
            self._check_bounds(example, traced, ending)
        if self._guess is None:
            self._take(self._guessed(example, traced, ending))

        assert traced.logits is not None
        if traced.logits.shape[1] > 1:
            return ending, traced
        self._check_one_logit()
        if self.names is None or len(self.names) != 2:
            return ending, traced
        return self._with_both_sides(ending, traced)

    def _guessed(self, example: Tensor, traced: Trace, ending: Ending) -> Guess:
        run, is_named = self._run(ending), self.names is not None
        return guessed(traced, example, run, is_named=is_named)

    def _run(self, ending: Ending) -> Callable[[Tensor], Tensor]:
        return lambda x: self._network.logits(x.clone(), ending)

    def _check_no_probabilities(
        self, example: Tensor, traced: Trace, ending: Ending
    ) -> None:
        """Take no softmax or sigmoid of probabilities, also where it was asked for."""
        if not are_probabilities(traced, example, self._run(ending)):
            return
        note = (
            f"Scores are asked to be {self.wanted}, but the network gives probabilities "
            f"already. {PROBABILITIES.note}"
        )
        guess = PROBABILITIES._replace(note=note)
        if not (self._guess and self._guess.note.startswith(note)):
            warn_user(note)
        self._guess = guess

    def _check_bounds(
        self, example: Tensor, traced: Trace, ending: Ending
    ) -> None:
        """Raise ModelError where what is called probabilities leaves 0 to 1 on noise."""
        assert traced.logits is not None
        outputs = [traced.logits, *map(self._run(ending), probes(example))]
        low = min(float(output.min()) for output in outputs)
        high = max(float(output.max()) for output in outputs)
        if low < -_SLACK or high > 1 + _SLACK:
            raise ModelError(
                f"the network's outputs are no probabilities: they go from {low:.3g} to "
                f"{high:.3g} on noise, and not from 0 to 1; use scores 'softmax' or "
                "'sigmoid' for logits, or 'none'"
            )

    def _take(self, guess: Guess) -> None:
        """Take a kind of scores; the user's word counts more."""
        if self.wanted is not None and guess.scores is not self.wanted:
            note = (
                f"Probabilities are a {self.wanted}, as asked; the network itself ends in "
                f"a {guess.scores}."
            )
            guess = Guess(self.wanted, note)
        if guess.is_doubtful and guess != self._guess:
            warn_user(guess.note)
        self._guess = guess

    def _check_one_logit(self) -> None:
        if self.wanted is Scores.SOFTMAX:
            raise ModelError(
                "the softmax of one logit is always 1, and the network gives one: use "
                "scores='sigmoid' (--scores), or 'none' for a regression"
            )

    def _with_both_sides(
        self, ending: Ending, traced: Trace
    ) -> tuple[Ending, Trace]:
        """Two classes from one number: it is evidence for the second label."""
        assert self._guess is not None and self.names is not None
        is_share = self._guess.scores is Scores.PROBABILITIES
        ending = dataclasses.replace(
            ending, complement=1.0 if is_share else 0.0
        )
        assert traced.logits is not None
        both = ending.with_both_sides(traced.logits)

        first, second = self.names
        number = self._guess.scores.number
        other = f"1 − that {number}" if is_share else f"that {number} negated"
        note = f"The network gives one {number}, of {second!r}: {first!r} has {other}."
        if note not in self._guess.note:
            notes = (self._guess.note, note)
            self._guess = self._guess._replace(
                note=" ".join(filter(None, notes))
            )
        return ending, dataclasses.replace(traced, logits=both)


@cache
def _unnamed(noun: str, classes: int) -> tuple[str, ...]:
    return tuple(f"{noun} {index}" for index in range(classes))
