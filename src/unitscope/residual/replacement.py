"""Replacement: what is put in place of what heads of attention give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from unitscope.residual.grounds import Attention
from unitscope.residual.path import StreamPath, other_network


class Replacement(ABC):
    """What is put in place of what heads give: what they gave to some photos, on average."""

    @abstractmethod
    def check_usable(self, path: StreamPath) -> None:
        """Raise InputError unless this may take the place of heads along a path."""

    @abstractmethod
    def outputs(self) -> Sequence[Float[Tensor, "1 _ _ _"]]:
        """What all tokens take from the heads of every block: (1, head, token, unit)."""

    @abstractmethod
    def taken(
        self, path: StreamPath, place: int
    ) -> Float[Tensor, "1 head unit"]:
        """What the token that is read takes at the attention step at a place of a path."""


@dataclass(frozen=True, eq=False)
class HeadMeans(Replacement):
    """What all tokens take from every head, on average over the `images` of a data set.

    `Atlas.head_means` makes it. `means` are (1, head, token, unit) by block, in
    the order of the calls.
    """

    means: tuple[Float[Tensor, "1 _ _ _"], ...] = field(repr=False)
    images: int

    def check_usable(self, path: StreamPath) -> None:
        """See Replacement."""
        blocks = len(path.calls)
        if len(self.means) != blocks:
            raise other_network(len(self.means), blocks, "blocks")

    def outputs(self) -> Sequence[Float[Tensor, "1 _ _ _"]]:
        """See Replacement."""
        return self.means

    def taken(
        self, path: StreamPath, place: int
    ) -> Float[Tensor, "1 head unit"]:
        """See Replacement."""
        step = path.steps[place]
        assert isinstance(step, Attention)
        blocks = [call.index for call in path.calls]
        tokens = self.means[blocks.index(step.index)]
        query = step.call.query
        if query >= tokens.shape[2]:
            raise other_network(tokens.shape[2], f"more than {query}", "tokens")
        return tokens[:, :, query]
