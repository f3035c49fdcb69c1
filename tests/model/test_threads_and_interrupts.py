"""Several threads are answered rightly, and Ctrl-C at any moment loses nothing."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from networks import Gap, seeded
from unitscope.interrupts import undone
from unitscope.model import wrap
from unitscope.tracing.mode import Mode

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
        modes_on(),
    ]


def modes_on() -> int:
    """How many modes torch has on its stack."""
    return len(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]


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


@contextlib.contextmanager
def pressed_in(module: str, function: str, event: str) -> Iterator[None]:
    """Inside, Ctrl-C comes once, as a function of a module is called or returns."""
    tracing = sys.gettrace()

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        name = frame.f_globals.get("__name__"), frame.f_code.co_name
        if name != (module, function):
            return None
        if what == event:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(tracing)


def test_contexts_that_an_interrupt_left_open_end_before_those_around_them() -> (
    None
):
    ended: list[str] = []

    @contextlib.contextmanager
    def inner() -> Iterator[None]:
        try:
            yield
        finally:
            ended.append("inner")

    def enter_and_leave() -> None:
        with undone(lambda: lambda: ended.append("outer")), inner():
            pass

    # contextlib's own end of `inner` never begins: its generator waits.
    with (
        pytest.raises(KeyboardInterrupt),
        pressed_in("contextlib", "__exit__", "call"),
    ):
        enter_and_leave()
    assert ended == ["inner", "outer"]


class Counted(Mode):
    """Counts the calls that it sees."""

    seen = 0

    def watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.seen += 1
        return func(*args, **kwargs)


class Watching(TorchFunctionMode):
    """A mode of the user's."""

    seen = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.seen += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("module", "function", "event"),
    [
        ("torch.overrides", "_pop_mode_temporarily", "return"),
        ("contextlib", "__exit__", "call"),
        ("torch.overrides", "_push_mode", "call"),
    ],
)
def test_an_interrupt_while_torch_moves_its_modes_leaves_them_as_they_were(
    module: str, function: str, event: str
) -> None:
    mode, users = Counted(), Watching()

    def watched() -> None:
        ones = torch.ones(2)
        with mode.on(), pressed_in(module, function, event):
            # In Python, torch hands the call to the mode by itself.
            torch.overrides.handle_torch_function(torch.add, (ones,), ones, 1)

    with users:
        with pytest.raises(KeyboardInterrupt):
            watched()
        before = mode.seen, users.seen
        torch.ones(2).add(1)
        assert (mode.seen, users.seen) == (before[0], before[1] + 2)
    assert modes_on() == 0
