"""Step: one call on the way from what was written into a stream to the logits.

Every step is computed in two ways: of sums, part by part, where divisors are held at
what they were in the pass; and of whole vectors, where everything is computed anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from jaxtyping import Float
from torch import Tensor

from unitscope.residual.sums import Sums
from unitscope.tracing.arguments import WithArguments, tensors_in
from unitscope.tracing.taps import Caught

# Whole vectors (photo, variant, unit), of variants of what was written; a constant has one.
Variants: TypeAlias = Float[Tensor, "_ _ _"]


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamStep(ABC):
    """One call on the way to the logits, and the steps before it, by place.

    In a pass the call is known by `index` and `name`. `meet` reads its arguments, `made`
    its result; what they give is handed to `of_sums` and `of_vectors` as `read`. It is
    `of_photos` if its first axis holds the photos.
    """

    of_photos: ClassVar[bool] = False

    index: int = -1
    name: str = ""
    before: tuple[int, ...] = ()

    def meet(self, call: WithArguments) -> Any:
        """What the step reads of a call's arguments; None where it reads nothing."""
        return None

    def made(self, result: Any) -> Any:
        """What the step reads of a call's result; None where it reads nothing."""
        return None

    @abstractmethod
    def of_sums(self, before: Sequence[Sums], read: Any) -> Sums:
        """The parts of the step's vector."""

    @abstractmethod
    def of_vectors(self, before: Sequence[Variants], read: Any) -> Variants:
        """The step's vectors."""


def caught_of(call: WithArguments) -> Caught:
    """A call that is met in a pass, as the readers of exact heads take it."""
    first = next(tensors_in((call.args, call.kwargs)))
    return Caught(first.detach(), call.args, call.kwargs)
