"""Ending: where the logits of a network are in its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import HeadError
from unitscope.tracing.outputs import THE_RESULT, OutputChoice
from unitscope.tracing.taps import CallCounter


@dataclass(frozen=True)
class Ending:
    """How a network ends, and so where its logits are.

    `call` (index and name) makes the logits of a network that ends in a softmax or a
    sigmoid; None where the network gives its logits, and `output` says which of its
    results they are. `complement` is set for a network that gives one number for two
    classes: the number is the second class's, and the first class has `complement` − the
    number. That is −z for a logit, and 1 − p for a probability.
    """

    call: tuple[int, str] | None = None
    output: OutputChoice = THE_RESULT
    complement: float | None = None

    def logits(
        self,
        forward: Callable[[], Any],
        photos: int,
        counter: CallCounter | None = None,
    ) -> Float[Tensor, "batch class"]:
        """Run one forward pass of so many photos, and read its logits, float32.

        `counter` watches the calls of the pass. The logits carry gradients where these
        are recorded. Raises ModelError where the network gives no logits, HeadError where
        it takes another path than before.
        """
        if self.call is None and counter is None:
            output = forward()
        else:
            counter = CallCounter() if counter is None else counter
            counter.keep = self.call
            with counter.on():
                output = forward()

        if self.call is not None:
            assert counter is not None
            output = counter.kept
            if output is None:
                raise another_path()
            check_rows(output, photos)
            logits = THE_RESULT.logits(output, photos)
        else:
            logits = self.output.logits(output, photos)
        logits = logits.to(torch.float32)
        return self.with_both_sides(logits.clone())

    def with_both_sides(
        self, logits: Float[Tensor, "batch class"]
    ) -> Float[Tensor, "batch class2"]:
        """The logits of both classes where the network gives one number for two."""
        if self.complement is None:
            return logits
        return torch.cat([self.complement - logits, logits], dim=1)


IN_OUTPUT = Ending()
"""The ending of a network that gives its logits."""


def check_rows(made: Tensor, photos: int) -> None:
    """Raise HeadError where a call of the traced pass made one photo's part of a batch."""
    # In this order: a graph that is exported for any number of photos asks no more of it.
    if made.shape[0] != photos and made.shape[0] == 1:
        raise HeadError(
            f"the network takes the {photos} photos of a batch one after the other, by a "
            "loop in its forward, and is watched for the first one only: explain photos "
            "one at a time"
        )


def another_path() -> HeadError:
    """The error for a forward pass that makes other calls than the traced one."""
    return HeadError(
        "the network took another path on this input than on the one its head was "
        "found with: wrap a network whose forward does not depend on the values of its "
        "input"
    )
