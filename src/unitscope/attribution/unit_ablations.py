"""UnitAblations: the prediction with every unit of a layer off in turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unitscope.attribution.classes import class_index
from unitscope.attribution.effects import Effect
from unitscope.attribution.scores import Scores
from unitscope.drawable import Drawable
from unitscope.inputs.subjects import Subject
from unitscope.plurals import plural


class UnitEffect(NamedTuple):
    """What switching one unit off does to a class: its logit before and after.

    `first` is the class that then has the largest logit.
    """

    unit: int
    name: str
    before: float
    after: float
    first: str

    @property
    def change(self) -> float:
        """What the logit gains; negative where the unit speaks for the class."""
        return self.after - self.before


@dataclass(frozen=True, eq=False)
class UnitAblations(Drawable):
    """The logits of photos with each of some units of a layer off in turn.

    `before` is (batch, class) and `after` (batch, unit, class), in the order of `units`.
    `done` (batch, unit) says which were measured: all, unless the work was interrupted;
    the others are NaN. `exact` says that algebra gave them, else real forward passes of
    the network or of what follows the layer. `replaced` says in words what is put in place
    of a unit, "" where it is off; `where` which cells get it, "" for all. `effect` is the
    total or the direct one where there are both.
    """

    layer: str
    units: tuple[int, ...]
    before: Float[Tensor, "batch class"]
    after: Float[Tensor, "batch unit class"]
    done: Bool[Tensor, "batch unit"]
    labels: tuple[str, ...]
    subjects: tuple[Subject, ...]
    scores: Scores
    exact: bool
    noun: str = "unit"
    names: tuple[str, ...] = field(default=(), repr=False)
    replaced: str = ""
    where: str = ""
    effect: Effect | None = None

    def __repr__(self) -> str:
        how = "exact" if self.exact else "measured"
        left = "" if self.complete else ", interrupted"
        return (
            f"<UnitAblations of {plural(len(self.units), self.noun)} of '{self.layer}' on "
            f"{plural(len(self.before), 'photo')}, {how}{left}>"
        )

    @property
    def complete(self) -> bool:
        """Whether every unit was measured on every photo."""
        return bool(self.done.all())

    @property
    def unit_names(self) -> tuple[str, ...]:
        """What every unit is called: its number, where it has no name."""
        return self.names or tuple(map(str, self.units))

    def effects(
        self, which: int | str | None = None, image: int = 0
    ) -> list[UnitEffect]:
        """What every unit that was measured does to a class, the largest changes first.

        The class is the photo's first one where it is None.
        """
        index = self.class_of(which, image)
        before = float(self.before[image, index])
        after = self.after[image, :, index].cpu()
        first = self.after[image].argmax(dim=1).tolist()
        changes = (after - before).abs()
        order = torch.argsort(changes, descending=True, stable=True).tolist()
        done = self.done[image].tolist()
        names = self.unit_names
        return [
            UnitEffect(
                self.units[place],
                names[place],
                before,
                float(after[place]),
                self.labels[first[place]],
            )
            for place in order
            if done[place]
        ]

    def turning(self, image: int = 0) -> tuple[int, ...]:
        """The units that change the top prediction when they are off alone."""
        first = self.before[image].argmax()
        changed = self.after[image].argmax(dim=1) != first
        places = (changed & self.done[image].to(changed.device)).nonzero()
        return tuple(self.units[place] for place in places.flatten().tolist())

    def first_class(self, image: int = 0) -> int:
        """The index of a photo's top class."""
        return int(self.before[image].argmax())

    def class_of(self, which: int | str | None, image: int = 0) -> int:
        """The index of a class; of the photo's top class when None. Raises ClassError."""
        if which is None:
            return self.first_class(image)
        return class_index(self.labels, which)


class AblationsInterrupted(KeyboardInterrupt):
    """Ctrl-C while units were switched off in turn; `partial` has what was measured.

    In a notebook `sys.last_value.partial` is the same.
    """

    def __init__(self, partial: UnitAblations) -> None:
        done, count = int(partial.done.sum()), partial.done.numel()
        super().__init__(
            f"interrupted after {done:,} of {count:,} {partial.noun}s of layer "
            f"'{partial.layer}': the exception's .partial has those"
        )
        self.partial = partial
