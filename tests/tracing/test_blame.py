"""Errors of the network are told as the network's, and those of unitscope as ours."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from torch import nn

import unitscope
from unitscope.cli import main
from unitscope.errors import InternalError, ModelError
from unitscope.tracing.calls import Recorder
from unitscope.tracing.taps import Tap

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A pooled network whose forward fails from pass number `sound` on."""

    def __init__(self, error: BaseException | None, sound: int = 0) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.error, self.sound = error, sound
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.error is not None and self.passes > self.sound:
            raise self.error
        logits: torch.Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return logits


@pytest.mark.parametrize("sound", [0, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("dog"), "KeyError: 'dog'"),
        (AssertionError(), "AssertionError"),
        (SystemExit(3), r"the network ended with SystemExit\(3\)"),
        (GeneratorExit(), r"the network ended with GeneratorExit\(\)"),
    ],
)
def test_whatever_the_network_raises_in_any_pass_is_the_networks(
    error: BaseException, text: str, sound: int
) -> None:
    with pytest.raises(ModelError, match=text):
        unitscope.wrap(Net(error, sound)).explain(X)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(9, 5)),
        torch.fx.symbolic_trace(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(9, 5))
        ),
    ],
)
def test_networks_of_torchs_own_modules_are_networks_too(
    module: nn.Module,
) -> None:
    with pytest.raises(ModelError, match=r"the network failed .*multiplied"):
        unitscope.wrap(module).explain(X)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Recorder, "_record_call"), (Tap, "meet")],
)
@pytest.mark.parametrize("bug", [KeyError("bug"), AssertionError("bug")])
def test_a_bug_of_ours_is_told_as_ours(
    kind: type, method: str, bug: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, method, _as_ours(bug))
    with pytest.raises(InternalError, match="please report it") as failure:
        unitscope.wrap(Net(None)).explain(X)
    assert failure.value.__cause__ is bug
    assert type(bug).__name__ in str(failure.value)


def test_a_signal_that_ends_the_program_ends_it_inside_a_network_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stopped(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            signal.raise_signal(signal.SIGTERM)
            return super().forward(x)

    before = signal.signal(signal.SIGTERM, _as_ours(SystemExit(143)))
    try:
        with pytest.raises(SystemExit, match="143"):
            unitscope.wrap(Stopped(None)).explain(X)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "bug", [KeyError("bug"), FileNotFoundError(2, "gone", "a.file")]
)
def test_the_command_line_tells_a_bug_in_one_line(
    bug: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("unitscope.cli._run", _as_ours(bug))
    assert main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"unitscope: internal error, {type(bug).__name__}: ")
    assert said.count("\n") == 1 and "please report it" in said


def _as_ours(error: BaseException) -> Any:
    """A function of a module of unitscope that raises an error."""
    names = {"__name__": "unitscope.bug", "error": error}
    exec("def fail(*_, **__):\n    raise error", names)
    return names["fail"]
