"""Scores: what the numbers of a network say of its classes, and their probabilities."""

from __future__ import annotations

from enum import StrEnum

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import in_float64
from unitscope.errors import ModelError, near_matches


class Scores(StrEnum):
    """The kind of a network's numbers, and so how they become probabilities.

    "softmax": one class is right, so that probabilities add up to one. "sigmoid": each
    class stands alone, and several may be right at once. "none": regression or
    embeddings, which have no probabilities. "probabilities": the network gives no
    logits, and its probabilities are shown as they are.
    """

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"
    PROBABILITIES = "probabilities"

    @classmethod
    def read(cls, value: str) -> Scores:
        """The kind of a name; raises ModelError for an unknown one."""
        try:
            return cls(value)
        except ValueError:
            kinds = list(map(str, cls))
            raise ModelError(
                f"there are no scores {value!r}{near_matches(str(value), kinds)}: "
                f"choose {', '.join(kinds[:-1])} or {kinds[-1]}"
            ) from None

    @property
    def has_probabilities(self) -> bool:
        """Whether there is anything to show as a probability."""
        return self is not Scores.NONE

    @property
    def has_logits(self) -> bool:
        """Whether the numbers are something else than the probabilities."""
        return self is not Scores.PROBABILITIES

    @property
    def number(self) -> str:
        """What one of the network's numbers is called: "logit", "output", "probability"."""
        match self:
            case Scores.NONE:
                return "output"
            case Scores.PROBABILITIES:
                return "probability"
        return "logit"

    @property
    def numbers(self) -> str:
        """The plural of `number`."""
        return (
            "probabilities"
            if self is Scores.PROBABILITIES
            else f"{self.number}s"
        )

    @property
    def accuracy(self) -> str:
        """What the share of photos whose own class has the largest number is called."""
        if self is Scores.SIGMOID:
            return "top-1 accuracy (of the largest logit; each class has a sigmoid)"
        return "accuracy"

    def describe(self) -> str:
        """One line in words."""
        match self:
            case Scores.SOFTMAX:
                return "softmax, so that the probabilities of all classes add up to 100%"
            case Scores.SIGMOID:
                return "sigmoid, each class for itself: probabilities do not add up"
            case Scores.NONE:
                return "none: the outputs are no class scores and have no probabilities"
        return "probabilities, as the network gives them"

    def probabilities(
        self, logits: Float[Tensor, "*batch class"]
    ) -> Float[Tensor, "*batch class"] | None:
        """The probabilities (0–1) of logits, in float64, on the processor.

        None where there are none.
        """
        match self:
            case Scores.SOFTMAX:
                return in_float64(logits).softmax(dim=-1)
            case Scores.SIGMOID:
                return in_float64(logits).sigmoid()
            case Scores.PROBABILITIES:
                return in_float64(logits)
        return None

    def columns(self) -> list[str]:
        """The headings of a table's columns: probability and logit, where there are any."""
        headings = ["probability"] if self.has_probabilities else []
        return [*headings, self.number] if self.has_logits else headings

    def shown(self, probability: str, number: str) -> list[str]:
        """Of one class's probability and number, as texts, those that there are."""
        texts = []
        if self.has_probabilities:
            texts.append(probability)
        if self.has_logits:
            texts.append(f"{self.number} {number}")
        return texts
