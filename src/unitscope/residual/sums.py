"""Sums: a vector of the residual stream as the sum of what was written into it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)

# (photo, part, unit); a constant is one for all photos.
Vectors: TypeAlias = Float[Tensor, "_ _ _"]


@dataclass(frozen=True)
class Sums:
    """The parts of a vector, each as vectors (photo, part, unit), that add up to it.

    `patches` are what the patches gave, one vector each, by (rows, cols) of the patches;
    `others` what other tokens gave, by name; `written` what layers wrote for the token
    itself, by the call that did. `embedding` is what the token begins with, `constant`
    what is added later and depends on no photo. `heads` tell patches and other tokens
    once more: the heads of every attention call, and the patches of a single head.
    """

    patches: dict[tuple[int, int], Vectors] = field(default_factory=dict)
    others: dict[str, Vectors] = field(default_factory=dict)
    written: dict[int, Vectors] = field(default_factory=dict)
    heads: dict[Hashable, Vectors] = field(default_factory=dict)
    embedding: Vectors | None = None
    constant: Vectors | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Sums:
        """The parts after a linear map of vectors."""
        # All small parts at once: few large products cost less than many small ones.
        small = [
            *self.others.values(),
            *self.written.values(),
            *self.heads.values(),
            *(
                part
                for part in (self.embedding, self.constant)
                if part is not None
            ),
        ]
        changed = iter(_changed_at_once(small, change))
        return Sums(
            {key: change(part) for key, part in self.patches.items()},
            {key: next(changed) for key in self.others},
            {key: next(changed) for key in self.written},
            {key: next(changed) for key in self.heads},
            None if self.embedding is None else next(changed),
            None if self.constant is None else next(changed),
        )

    def times(self, factor: float) -> Sums:
        """The parts of a multiple of the vector."""
        return self.mapped(lambda vectors: vectors * factor)

    def plus(self, other: Sums) -> Sums:
        """The parts of the sum of two vectors."""
        return Sums(
            _joined(self.patches, other.patches),
            _joined(self.others, other.others),
            _joined(self.written, other.written),
            _joined(self.heads, other.heads),
            _added(self.embedding, other.embedding),
            _added(self.constant, other.constant),
        )

    def shifted(self, constant: Tensor) -> Sums:
        """The parts of the vector plus a constant one."""
        return self.plus(Sums(constant=constant))

    def total(self) -> Float[Tensor, "photo unit"]:
        """The vector itself."""
        parts = [
            *self.patches.values(),
            *self.others.values(),
            *self.written.values(),
        ]
        alone = (self.embedding, self.constant)
        parts += [part for part in alone if part is not None]
        total: Tensor = sum(part.sum(dim=1) for part in parts)  # type: ignore[assignment]
        return total


def _changed_at_once(
    parts: Sequence[Vectors], change: Callable[[Tensor], Tensor]
) -> Sequence[Vectors]:
    """Several parts after a linear map of their vectors."""
    if len(parts) < 2:
        return [change(part) for part in parts]
    photos = max(len(part) for part in parts)
    joined = torch.cat([part.expand(photos, -1, -1) for part in parts], dim=1)
    counts = [part.shape[1] for part in parts]
    return torch.split(change(joined), counts, dim=1)


def _added(one: Vectors | None, other: Vectors | None) -> Vectors | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _joined(
    one: dict[Key, Vectors], other: dict[Key, Vectors]
) -> dict[Key, Vectors]:
    joined = dict(one)
    for key, part in other.items():
        joined[key] = joined[key] + part if key in joined else part
    return joined
