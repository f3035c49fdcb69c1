"""Failures: the remedy is what other inputs show, not a guess."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks import Gap, seeded
from unitscope.errors import ModelError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap

SMALL = Preprocessing(resize=36, crop=32)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Calling(nn.Module):
    """Calls a function before a network that any input size suits."""

    def __init__(self, act: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.net = seeded(Gap)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        self.act(x)
        logits: Tensor = self.net(x)
        return logits


def sized(channels: int, side: int) -> nn.Module:
    """A network for one size of inputs only."""
    return nn.Sequential(
        nn.Conv2d(channels, 2, 3, stride=2),
        nn.Flatten(),
        nn.Linear(2 * ((side - 1) // 2) ** 2, 4),
    )


def out_of_memory(x: Tensor) -> None:
    torch.empty(10**14)


def one_at_a_time(x: Tensor) -> None:
    assert len(x) == 1, "one at a time"


def large(x: Tensor) -> None:
    assert x.abs().max() < 9, "too large"


def wrong(x: Tensor) -> None:
    raise KeyError("dog")


@pytest.mark.parametrize(
    ("module", "x", "remedy"),
    [
        (
            sized(3, 64),
            X,
            "it takes 3×64×64 (channel × row × col): give its own",
        ),
        (
            sized(1, 28),
            X,
            "takes 1 channels: give",
        ),
        (
            sized(5, 32),
            X,
            "takes 5 channels: give",
        ),
        (
            Calling(wrong),
            X,
            "'dog' — it fails on inputs of other usual sizes and",
        ),
        (Calling(one_at_a_time), X, "one photo at a time: use batch_size=1"),
        (Calling(out_of_memory), X, "memory ran out ("),
        (Calling(large), 9 + X, "the cause is in this one's numbers or in the"),
    ],
)
def test_the_remedy_is_what_other_inputs_show(
    module: nn.Module, x: Tensor, remedy: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        wrap(module, preprocessing=SMALL).explain(x)
    message = str(refusal.value)
    assert message.startswith(
        "the network failed on an input of 3×32×32 (channel"
    )
    assert remedy in message and "\n" not in message


def test_a_failure_while_the_head_is_proved_is_told_in_one_line() -> None:
    calls = []

    def often(x: Tensor) -> None:
        calls.append(x)
        if len(calls) > 2:
            raise ValueError("called too often")

    with pytest.raises(ModelError, match="called too often"):
        wrap(Calling(often), preprocessing=SMALL).explain(X)


def test_weights_without_numbers_are_refused() -> None:
    with pytest.raises(
        ModelError, match="on the device 'meta', which holds no"
    ):
        wrap(Gap().to("meta"))
