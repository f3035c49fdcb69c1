"""Several threads are answered rightly, and Ctrl-C at any moment loses nothing."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from networks import Gap, seeded
from unitscope.interrupts import undone
from unitscope.model import wrap

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


class Normed(Gap):
    """A network whose statistics a pass in training mode would change."""

    def __init__(self) -> None:
        super().__init__()
        self.features.append(nn.BatchNorm2d(6))


@pytest.fixture
def net() -> nn.Module:
    """A network in training mode."""
    return seeded(Normed).train()


@pytest.fixture
def alarm() -> Iterator[None]:
    """Inside, the alarm clock's signal does what Ctrl-C does."""
    before = signal.signal(
        signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT)
    )
    yield
    signal.signal(signal.SIGALRM, before)


def state_of(net: nn.Module) -> list[object]:
    flags = [module.training for module in net.modules()]
    hooks = [len(module._forward_hooks) for module in net.modules()]
    weights = [tensor.sum().item() for tensor in net.state_dict().values()]
    return [flags, hooks, weights]


def global_state() -> list[object]:
    return [
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        signal.getsignal(signal.SIGINT),
        torch.get_rng_state().sum().item(),
    ]


def test_threads_that_share_a_network_are_all_answered_rightly(
    net: nn.Module,
) -> None:
    model = wrap(net)
    before = state_of(net)
    inputs = [X + number for number in range(12)]
    expected = [model.explain(x).logits for x in inputs]

    def explain(number: int) -> Tensor:
        if number % 3 == 2:
            return model.ablate(inputs[number], "features.0", [1]).before
        return model.explain(inputs[number]).logits

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(explain, range(12)))
    for answer, wanted in zip(answers, expected, strict=True):
        assert torch.equal(answer, wanted)
    assert state_of(net) == before


@pytest.mark.parametrize(
    "interrupts", [30, pytest.param(750, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("alarm")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # the dropped ones
)
def test_an_interrupt_at_any_moment_loses_nothing(
    net: nn.Module, interrupts: int
) -> None:
    model = wrap(net)
    model.explain(X)
    before, outside = state_of(net), global_state()
    moments = random.Random(0)
    interrupted = 0
    while interrupted < interrupts:
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-4, 0.02))
            # Python drops an exception that comes while an object is deleted.
            for _ in range(20):
                model.explain(X)
                model.ablate(X, "features.0", [1])
        except KeyboardInterrupt:
            interrupted += 1
        assert state_of(net) == before and global_state() == outside


def test_an_interrupt_waits_for_what_is_undone() -> None:
    done: list[str] = []

    def undo() -> None:
        if "undone" not in done:
            signal.raise_signal(signal.SIGINT)
        done.append("undone")

    def do() -> Callable[[], None]:
        signal.raise_signal(signal.SIGINT)
        done.append("done")
        return undo

    with pytest.raises(KeyboardInterrupt), undone(do):
        done.append("inside")
    assert done == ["done", "undone", "undone"]
