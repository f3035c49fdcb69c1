"""Flip: the smallest set of units, or of cells, whose switching off lets another class win."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import told_apart
from unitscope.attribution.explained import Explained

Flipping: TypeAlias = Literal["units", "cells", "region"]
"""What is switched off: units everywhere, or all units in some cells of the map; the cells
of a "region" hang together."""

FLIPPINGS: tuple[str, ...] = get_args(Flipping)

_MOST_NAMED = 8


@dataclass(frozen=True, eq=False)
class Flip:
    """A smallest set whose switching off turns the prediction for one photo.

    `a` is the class that wins as things are, `b` the one that overtakes it, None where
    nothing was found. `of` says what is switched off: `units`, or all units in the `cells`
    (row, col). `after` (class) are the logits then, those as they are where nothing was
    found. A class overtakes where it leads by more than rounding, 1e-5 of the largest
    logit.

    `minimal` says that the answer is proved: that no smaller set does it, or that none
    does where none was found. So it is for an exact head without a normalisation. Logits
    are then sums over units, and over cells: those that give most to A beyond what they
    give to B, in that order, are fewest for each class B. A connected region grows from
    cell to cell, and is proved only where no cells at all could be fewer. Other answers are
    greedy: units or cells in the same order, for the class that needs fewest by first
    order, until a real pass (with a normalisation: the head's algebra) shows another class
    ahead. Of at most 16, those not needed are left on. A smaller set may exist.

    With a class `to` that was asked for it is enough that this class overtakes A; a third
    one may then be first. `most` is the limit that was set, None without one. `confirmed`
    (class) are the logits of a real forward pass with the set off: see
    `Classifier.flip`.
    """

    explanation: Explained
    of: Flipping
    a: int
    b: int | None
    units: tuple[int, ...]
    cells: tuple[tuple[int, int], ...]
    minimal: bool
    after: Float[Tensor, " class"]
    to: int | None = None
    most: int | None = None
    confirmed: Float[Tensor, " class"] | None = None

    def __repr__(self) -> str:
        return f"<Flip: {self.sentence()}>"

    def __len__(self) -> int:
        return len(self.units) + len(self.cells)

    @property
    def found(self) -> bool:
        """Whether there is a set that turns the prediction."""
        return self.b is not None

    @property
    def region(self) -> Float[Tensor, "row col"]:
        """The cells as a mask of the map: 1 where they are off."""
        mask = torch.zeros(self.explanation.feature_map.shape[2:])
        for row, col in self.cells:
            mask[row, col] = 1
        return mask

    @property
    def margins(self) -> tuple[float, float]:
        """The lead of A over B before and after; where nothing was found, over the next class."""
        before = self.explanation.logits[0].cpu()
        other = self.b
        if other is None:
            other = self.to if self.to is not None else self._second(before)
        after = self.after.cpu()
        return (
            float(before[self.a] - before[other]),
            float(after[self.a] - after[other]),
        )

    @property
    def holds(self) -> bool | None:
        """Whether a real forward pass shows the same; None where there was none."""
        if self.confirmed is None or self.b is None:
            return None
        return bool(self.confirmed[self.b] > self.confirmed[self.a])

    def confirmed_by(self, logits: Float[Tensor, " class"]) -> Flip:
        """The same, with the logits of a real forward pass."""
        return replace(self, confirmed=logits)

    def what(self) -> str:
        """What is switched off, in words: "unit 41", "units 3 and 5", "7 of 49 cells"."""
        if self.of == "units":
            return self._units_in_words()
        rows, cols = self.explanation.feature_map.shape[2:]
        cells = f"{len(self.cells)} of {rows * cols} cells"
        return f"a region of {cells}" if self.of == "region" else cells

    def sentence(self) -> str:
        """The finding in one sentence."""
        if self.b is None:
            return self._nothing()
        a, b = self.labels(self.b)
        return f"without {self.what()}, {b} overtakes {a} ({self.proof()})"

    def labels(self, other: int) -> tuple[str, str]:
        """The labels of A and of another class."""
        return told_apart(self.explanation.labels, self.a, other)

    def proof(self) -> str:
        """Whether the set is known to be smallest, in words."""
        noun = self._noun() if self.of == "units" else "cell"
        if self.minimal:
            alone = f"one {noun} is enough"
            return alone if len(self) == 1 else "no smaller set does it"
        how = (
            "grown from cell to cell"
            if self.of == "region"
            else "found greedily"
        )
        return f"{how}: a smaller set may exist"

    def _nothing(self) -> str:
        a, other = self.explanation.labels[self.a], "any other class"
        if self.to is not None:
            a, other = self.labels(self.to)
        noun = f"{self._noun()}s" if self.of == "units" else "cells"
        within = "" if self.most is None else f" of at most {self.most}"
        if not self.minimal:
            return (
                f"no set of {noun}{within} was found that lets {other} overtake {a}: the "
                "search is greedy"
            )
        why = "" if self.most is not None else ": its bias alone keeps it ahead"
        return f"no set of {noun}{within} lets {other} overtake {a}{why}"

    def _units_in_words(self) -> str:
        head = self.explanation.head
        if len(self.units) == 1:
            return head.unit_title(self.units[0])
        names = [head.unit_name(unit) for unit in self.units]
        if len(names) > _MOST_NAMED:
            shown = ", ".join(names[:_MOST_NAMED])
            return f"{len(names)} {self._noun()}s ({shown} …)"
        return f"{self._noun()}s {', '.join(names[:-1])} and {names[-1]}"

    def _noun(self) -> str:
        return self.explanation.head.unit_noun

    def _second(self, logits: Tensor) -> int:
        others = logits.clone()
        others[self.a] = -torch.inf
        return int(others.argmax())
