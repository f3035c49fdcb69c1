"""A recipe: everything that decides what a training makes of the same photos."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from miniplaces.augmentation import Augmentation


class RecipeError(ValueError):
    """A recipe that cannot be trained as given; the message says why and what to change."""


@dataclass(frozen=True)
class Phase:
    """Some epochs at one size of crop."""

    size: int
    epochs: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training makes of the same photos."""

    phases: tuple[Phase, ...] = (Phase(64, 20), Phase(96, 6))
    batch: int = 256
    optimizer: str = "muon"
    lr: float = 0.03
    small_lr: float = 0.003
    """AdamW's, for what Muon does not train."""
    weight_decay: float = 0.05
    warmup: int = 300
    """Steps before the learning rate's peak."""
    decay: float = 0.45
    """Share of the steps, the last ones, over which the learning rate falls to nothing."""
    label_smoothing: float = 0.1
    averaging: float = 0.0
    """Decay of the moving average of the weights that is kept; 0 keeps the last."""
    distil: float = 0.0
    """Share of the loss that asks for the teacher's answer rather than for the label."""
    dense: float = 0.0
    """Weight of what asks a transformer's patches for the teacher's class maps, cell by cell."""
    temperature: float = 2.0
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def size_at(self, epoch: int) -> int:
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase.size
            epoch -= phase.epochs
        return self.phases[-1].size

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate as a share of its peak: a straight line up, a plateau, a
        straight line down to nothing.

        With a plateau (Zhai et al. 2022; Hägele et al. 2024) how long to train may be
        decided while it lasts.
        """
        return min(
            1.0,
            (step + 1) / self.warmup,
            (steps - step) / max(1.0, self.decay * steps),
        )

    def fingerprint(self, photos: NDArray[np.int64], done: int) -> str:
        """Tells whether a checkpoint after `done` steps is one that this recipe on
        these photos would have made.

        So a schedule may be made longer or shorter as long as it agrees on what is
        done.
        """
        rest = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("phases", "decay")
        }
        steps = len(photos) // self.batch
        past = [
            (
                self.size_at(step // steps),
                self.rate_at(step, steps * self.epochs),
            )
            for step in range(done)
        ]
        digest = hashlib.sha256(
            json.dumps([rest, past], sort_keys=True).encode()
        )
        digest.update(np.ascontiguousarray(photos).tobytes())
        return digest.hexdigest()
