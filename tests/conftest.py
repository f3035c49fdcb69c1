"""What all tests share: run-time type checking of the package, the shared data, small networks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

# Before the package is imported for the first time: every annotation is checked while the tests run.
jaxtyping.install_import_hook("unitscope", "runtime_types.checked")

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from networks import Gap, seeded  # noqa: E402
from unitscope import guards, prepared  # noqa: E402
from unitscope.model import Classifier, wrap  # noqa: E402
from unitscope.preprocessing import Preprocessing  # noqa: E402

# Small networks gain nothing from a second thread, and lose much waiting for it where other work runs beside the tests.
torch.set_num_threads(1)

settings.register_profile("default", deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

DATA = Path(os.environ.get("UNITSCOPE_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real photos and weights, which is not part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"no shared data at {DATA}: set UNITSCOPE_DATA to their folder")
    return DATA


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the run-time type checking off: what a user without it gets to see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The code of the tests counts as a library's, so that passes of it are replayed."""
    monkeypatch.setattr(guards, "_TRUSTED", guards._TRUSTED | {request.module.__name__, "networks"})


@pytest.fixture(params=["replayed", "compiled"])
def compiled(trusted: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Whether replays are compiled as soon as they can be, or never."""
    monkeypatch.setattr(prepared, "_COMPILED", 3 if request.param == "compiled" else math.inf)
    monkeypatch.setattr(prepared, "_SLOWER", math.inf)  # so small a network gains little
    return bool(request.param == "compiled")


@pytest.fixture
def small() -> Preprocessing:
    """A preprocessing for the small networks: 32×32 inputs."""
    return Preprocessing(resize=36, crop=32)


@pytest.fixture
def gap(small: Preprocessing) -> Classifier:
    """A small classifier with a head: six units, five classes."""
    return wrap(seeded(Gap), preprocessing=small)


@pytest.fixture
def x() -> torch.Tensor:
    """A batch of three inputs."""
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, whose event loop is there until a module's tests are done; skips where there is none."""
    from browsing import chromium

    with chromium() as browser:
        yield browser
