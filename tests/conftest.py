"""What all tests share: run-time type checking of the package, the shared data, small networks."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

import runtime_types

# Before the package is imported for the first time: every annotation is checked while
# the tests run.
runtime_types.install()

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from networks import Gap, seeded  # noqa: E402
from unitscope.inputs.preprocessing import Preprocessing  # noqa: E402
from unitscope.model import Classifier, wrap  # noqa: E402

# Small networks gain nothing from a second thread, and lose much waiting for it where
# other work runs beside the tests.
torch.set_num_threads(1)

_export = torch.export.export


def _unchecked_export(*arguments: Any, **options: Any) -> Any:
    """torch.export without the checks of shapes, which would make a number of a
    batch's unknown length."""
    _read_operators_once()
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return _export(*arguments, **options)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@functools.cache
def _read_operators_once() -> None:
    """Share the ONNX exporter's table of operators, which it parses anew for every
    network, for half a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    cached = functools.cache(ONNXRegistry.from_torchlib)
    ONNXRegistry.from_torchlib = staticmethod(cached)  # type: ignore[method-assign]


torch.export.export = _unchecked_export

settings.register_profile(
    "default",
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of pytest-xdist neighbouring tests: few fixtures of a module
    are then made in both."""
    if (
        config.getvalue("dist") != "load"
    ):  # the default: nothing else was asked for
        return None
    from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped]

    return WorkStealingScheduling(config, log)


DATA = Path(
    os.environ.get("UNITSCOPE_DATA")
    or Path(__file__).parents[2] / "shared" / "data"
)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real photos and weights, which is not part of the project."""
    if not DATA.is_dir():
        pytest.skip(
            f"no shared data at {DATA}: set UNITSCOPE_DATA to their folder"
        )
    return DATA


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the run-time type checking off: what a user without it gets to see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def small() -> Preprocessing:
    """A preprocessing for the small networks: 32×32 inputs."""
    return Preprocessing(resize=36, crop=32)


@pytest.fixture
def gap(small: Preprocessing) -> Classifier:
    """A small classifier with a head: six units, five classes."""
    return wrap(seeded(Gap), preprocessing=small)


@pytest.fixture(scope="session")
def vit() -> Classifier:
    """A small transformer whose answers are residual: four heads, five classes."""
    from tiny_vit import TinyVit

    preprocessing = Preprocessing(resize=36, crop=32)
    labels = [f"scene {index}" for index in range(5)]
    return wrap(TinyVit().eval(), labels, preprocessing)


@pytest.fixture(scope="session")
def vit_account(vit: Classifier) -> Any:
    """The account of a photo by `vit`, without head 0.1 and head 1.0."""
    from PIL import Image

    from unitscope.accounts.account import Account

    pixels = torch.rand(9, 13, 3, generator=torch.Generator().manual_seed(1))
    small = Image.fromarray((255 * pixels).to(torch.uint8).numpy())
    photo = small.resize((64, 48), Image.Resampling.BICUBIC)
    return Account.of(vit, vit.explain(photo), units=[1, 2])


@pytest.fixture
def x() -> torch.Tensor:
    """A batch of three inputs."""
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, whose event loop is there until a module's tests are done;
    skips where there is none."""
    from browsing import chromium

    with chromium() as browser:
        yield browser
