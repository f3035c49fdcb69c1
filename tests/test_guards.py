"""A pass is replayed without the network's code only where that is a library's, and while it could do nothing else."""

from __future__ import annotations

import cProfile
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from networks import ResNet20, seeded
from unitscope.guards import Guard, UnsteadyError, Witness
from unitscope.model import Classifier, wrap
from unitscope.prepared import Prepared
from unitscope.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))

SCALE = 1.0
SETTINGS = {"scale": 1.0}
helpers, elsewhere = types.ModuleType("test_guards.helpers"), types.ModuleType("elsewhere")
helpers.scale = elsewhere.scale = 1.0  # type: ignore[attr-defined]


@dataclass
class Config:
    """What somebody's network reads its numbers from."""

    scale: float = 1.0


class Slotted:
    """An object whose numbers no dictionary holds."""

    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1.0


class Net(nn.Module):
    """A convolution and, between it and the head, whatever `between` does."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.between = between
        self.scale, self.scales, self.nested = 1.0, [1.0], {"deep": ({"scale": 1.0},)}
        self.config, self.slotted, self.offset, self.calls = Config(), Slotted(), torch.zeros(1), 0
        self.array, self.unregistered = np.ones(1), [nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.between(self, self.bn(self.conv(x)).relu()).mean((2, 3)))

    def scaled(self, x: Tensor) -> Tensor:
        return x * 1.0


def model_of(between: Callable[[Any, Tensor], Tensor], without: tuple[str, ...] = ("array", "slotted")) -> Classifier:
    net = seeded(lambda: Net(between)).eval()
    for name in without:
        delattr(net, name)
    return wrap(net, preprocessing=Preprocessing(resize=16, crop=16))


def replays(model: Classifier, x: Tensor = X) -> int:
    """How many passes are replayed after a few explanations."""
    for _ in range(5):
        model.explain(x)
    found = model._structure(tuple(x.shape[1:])).prepared[torch.float32, ()]
    assert isinstance(found, Prepared)
    return len(found._replays)


def is_as_it_is_now(model: Classifier, x: Tensor = X) -> None:
    for _ in range(4):
        explained = model.explain(x).logits
        with torch.no_grad():
            torch.testing.assert_close(explained, model.network(x), rtol=1e-4, atol=1e-5)


def set_global(name: str, value: Any) -> None:
    globals()[name] = value


def read_global(net: Any, x: Tensor) -> Tensor:
    return x * SCALE


def helped(x: Tensor) -> Tensor:
    return x * 1.0


def call_helper(net: Any, x: Tensor) -> Tensor:
    return helped(x)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before, method = dict(globals()), Net.scaled
    yield
    globals().update(before)
    SETTINGS["scale"], Net.scaled = 1.0, method  # type: ignore[method-assign]
    helpers.scale = elsewhere.scale = 1.0  # type: ignore[attr-defined]


def twice(self: Any, x: Tensor) -> Tensor:
    return 2 * x


# What a network's code reads of its modules, and how that changes: where the code is trusted, replayed before, and
# noticed after.
SEEN: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[Any], object]]] = {
    "an attribute": (lambda net, x: x * net.scale, lambda net: setattr(net, "scale", 2.0)),
    "a number in a list": (lambda net, x: x * net.scales[0], lambda net: net.scales.__setitem__(0, 2.0)),
    "one number more in a list": (lambda net, x: x * sum(net.scales), lambda net: net.scales.append(2.0)),
    "a number deep in containers": (
        lambda net, x: x * net.nested["deep"][0]["scale"],
        lambda net: net.nested["deep"][0].__setitem__("scale", 2.0),
    ),
    "an attribute of an object": (lambda net, x: x * net.config.scale, lambda net: setattr(net.config, "scale", 2.0)),
    "a flag": (lambda net, x: x if net.scale else -x, lambda net: setattr(net, "scale", 0.0)),
    "an attribute that was not there": (
        lambda net, x: x * getattr(net, "extra", 1.0),
        lambda net: setattr(net, "extra", 3.0),
    ),
    "an attribute that is gone": (lambda net, x: x * (2 - hasattr(net, "calls")), lambda net: delattr(net, "calls")),
    "two names that changed places": (
        lambda net, x: x * net.scale + net.calls,
        lambda net: net.__dict__.update(scale=net.calls, calls=net.scale),
    ),
    "a method": (lambda net, x: net.scaled(x), lambda net: setattr(Net, "scaled", twice)),
    "a method of one object": (
        lambda net, x: net.scaled(x),
        lambda net: setattr(net, "scaled", types.MethodType(twice, net)),
    ),
    "the class": (
        lambda net, x: net.scaled(x),
        lambda net: setattr(net, "__class__", type("Other", (Net,), {"scaled": twice})),
    ),
    "a tensor's numbers": (lambda net, x: x + net.offset, lambda net: net.offset.add_(3)),
    "another tensor": (lambda net, x: x + net.offset, lambda net: setattr(net, "offset", torch.ones(1))),
    "a module in a list": (
        lambda net, x: net.unregistered[0](x - 1),
        lambda net: net.unregistered.__setitem__(0, nn.Tanh()),
    ),
    "the state of a module in a list": (
        lambda net, x: net.unregistered[0](x - 1),
        lambda net: setattr(net.unregistered[0], "forward", lambda x: x),
    ),
    "a hook": (
        lambda net, x: net.unregistered[0](x - 1),
        lambda net: net.unregistered[0].register_forward_hook(lambda *given: 2 * given[2]),
    ),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", SEEN)
def test_what_the_code_reads_is_watched(name: str) -> None:
    between, change = SEEN[name]
    model = model_of(between)
    assert replays(model) == 1
    is_as_it_is_now(model)
    change(model.network)
    is_as_it_is_now(model)


def closing(scale: float) -> tuple[Callable[[Any, Tensor], Tensor], Callable[[Any], None]]:
    def between(net: Any, x: Tensor) -> Tensor:
        return x * scale

    def change(net: Any) -> None:
        nonlocal scale
        scale = 2.0

    return between, change


def count(net: Any, x: Tensor) -> Tensor:
    net.calls += 1
    return x


def imported(net: Any, x: Tensor) -> Tensor:
    import random

    return x * (1 if random is sys.modules["random"] else 2)


# What the code of somebody's own network may read or do beside.
OTHER: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[Any], object]]] = {
    "a global number": (read_global, lambda net: set_global("SCALE", 2.0)),
    "a function of the file": (call_helper, lambda net: set_global("helped", lambda x: x * 2.0)),
    "a number of another file": (
        lambda net, x: x * helpers.scale,  # type: ignore[attr-defined]
        lambda net: setattr(helpers, "scale", 2.0),
    ),
    "closes over a number": closing(1.0),
    "counts its calls": (count, lambda net: None),
    "keeps what it saw": (lambda net, x: net.__dict__.__setitem__("kept", x.sigmoid()) or x, lambda net: None),
    "reads a global dictionary": (lambda net, x: x * SETTINGS["scale"], lambda net: SETTINGS.update(scale=2.0)),
    "reads another package": (
        lambda net, x: x * elsewhere.scale,  # type: ignore[attr-defined]
        lambda net: setattr(elsewhere, "scale", 2.0),
    ),
    "asks the clock": (lambda net, x: x + 0 * time.time(), lambda net: None),
    "draws a number": (lambda net, x: x + 0 * random.random(), lambda net: None),
    "asks numpy": (lambda net, x: x + 0 * float(np.float32(1)), lambda net: None),
    "imports": (imported, lambda net: None),
    "writes to the terminal": (lambda net, x: print(end="") or x, lambda net: None),
    "looks at numbers": (lambda net, x: x if bool(x.sum() > -1e9) else -x, lambda net: None),
    "takes a number out": (lambda net, x: x + 0 * x.amax().item(), lambda net: None),
    "has an array": (lambda net, x: x * float(net.array[0]), lambda net: net.array.__setitem__(0, 2.0)),
    "has an object with slots": (lambda net, x: x * net.slotted.scale, lambda net: setattr(net.slotted, "scale", 2.0)),
}


@pytest.mark.parametrize("name", [*SEEN, *OTHER])
def test_anybodys_own_code_runs(name: str) -> None:
    between, change = {**SEEN, **OTHER}[name]
    model = model_of(between, without=())
    assert replays(model) == 0
    is_as_it_is_now(model)
    change(model.network)
    is_as_it_is_now(model)


def test_what_the_code_does_beside_its_result_is_still_done() -> None:
    model = model_of(count)
    assert replays(model) == 0
    before = model.network.calls
    model.explain(X)
    assert model.network.calls == before + 1


def test_the_code_runs_once_a_pass_whatever_comes_of_it() -> None:
    for name in ("counts its calls", "takes a number out", "asks the clock"):
        between, _ = OTHER[name]
        model, runs = model_of(between), []
        forward = model.network.conv.forward
        replays(model)
        model.network.conv.forward = lambda x, forward=forward, runs=runs: (runs.append(1), forward(x))[1]
        model.explain(X), model.explain(X)
        runs.clear()
        for size in (4, 2, 2, 2, 1, 1, 1):
            runs.clear()
            model.explain(X[:size])
            assert len(runs) == 1, (name, size)


# Calls that a replay must make again as they were: several results, writing in place, lists of tensors.
CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "chunks": lambda net, x: torch.cat([part * place for place, part in enumerate(x.chunk(3, 1))], 1),
    "one of two results": lambda net, x: x + x.max(3, keepdim=True)[0] + x.topk(1, 2).values,
    "written into a part": lambda net, x: (x.__setitem__((slice(None), 0), 1.0), x)[1],
    "written in place, read before": lambda net, x: (x.clone().mul_(2), x.add_(1))[0],
    "an alias": lambda net, x: (y := x[:, :4], x.mul_(3), torch.cat([y, y], 1))[-1],
    "made of nothing": lambda net, x: x + torch.arange(14.0) + torch.zeros(14, dtype=x.dtype, device=x.device),
    "an own tensor": lambda net, x: x + net.offset * net.fc.bias.mean(),
    "a condition on shapes": lambda net, x: x if x.shape[1] == 8 and x.dim() == 4 and len(x.size()) else -x,
    "a list comprehension": lambda net, x: torch.stack([x * scale for scale in net.scales]).sum(0),
    "pooled and grown": lambda net, x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:], mode="nearest"),
    "keywords": lambda net, x: torch.add(input=x, other=x, alpha=2).clamp(min=0.1),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", CALLS)
def test_a_replay_makes_the_same_calls(name: str) -> None:
    model = model_of(CALLS[name])
    assert replays(model) == 1
    is_as_it_is_now(model)
    is_as_it_is_now(model, torch.randn(4, 3, 16, 16))
    is_as_it_is_now(model, torch.randn(3, 3, 16, 16))
    is_as_it_is_now(model, torch.randn(1, 3, 16, 16))


@pytest.mark.usefixtures("trusted")
def test_a_replay_gives_the_very_numbers_of_the_pass() -> None:
    net = seeded(ResNet20).eval()
    model = wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    seen = [model.explain(x) for _ in range(6)]
    found = model._structure((3, 32, 32)).prepared[torch.float32, ()]
    assert isinstance(found, Prepared) and sorted(found._replays) == [2, 4]
    for one in seen[2:]:
        assert torch.equal(one.logits, seen[1 + 1].logits) and torch.equal(one.feature_map, seen[2].feature_map)


@pytest.mark.usefixtures("trusted")
def test_maps_of_layers_are_kept_of_a_replay_too() -> None:
    model = wrap(seeded(ResNet20).eval(), preprocessing=Preprocessing(resize=32, crop=32))
    layers = ["layer1.0", "layer2.1.bn2", "layer3"]
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    model.settle(layers, 5)
    seen = [model.activations(x, layers) for _ in range(5)]
    found = model._structure((3, 32, 32)).prepared[torch.float32, tuple(layers)]
    assert isinstance(found, Prepared) and sorted(found._replays) == [1, 4]
    for one in seen[1:]:
        assert all(torch.equal(one.layers[name], seen[0].layers[name]) for name in layers)
        assert torch.equal(one.logits, seen[0].logits)


@pytest.mark.usefixtures("compiled")
def test_a_network_that_flips_between_two_states_is_followed() -> None:
    model = model_of(lambda net, x: x * net.scale)
    for turn in range(12):
        model.network.scale = float(turn % 3 + 1)
        is_as_it_is_now(model)


@pytest.mark.usefixtures("compiled")
def test_a_changed_network_is_written_down_again() -> None:
    model = model_of(lambda net, x: x * net.scale)
    assert replays(model) == 1
    model.network.scale = 3.0
    model.explain(X)
    assert (torch.float32, ()) not in model._structure((3, 16, 16)).prepared
    assert replays(model) == 1
    is_as_it_is_now(model)


@pytest.mark.usefixtures("trusted")
def test_a_profiler_of_the_caller_goes_on() -> None:
    model, profiler = model_of(lambda net, x: x), cProfile.Profile()
    profiler.enable()
    try:
        assert replays(model) == 0
        assert sys.getprofile() is profiler
    finally:
        profiler.disable()
    assert any(code.co_name == "forward" for code, *_ in profiler.getstats() if not isinstance(code, str))
    for batch in (X, X[:2]):
        is_as_it_is_now(model, batch)


@pytest.mark.usefixtures("compiled")
def test_shapes_that_depend_on_values_are_asked_each_time() -> None:
    def lit(net: Any, x: Tensor) -> Tensor:
        return x / (1 + x[x > net.threshold].shape[0])

    model = model_of(lit)
    model.network.threshold = 0.5
    for seed in range(12):
        is_as_it_is_now(model, torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))


def test_code_of_libraries_is_replayed() -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = seeded(lambda: nn.Sequential(body, nn.Dropout(), nn.Linear(8, 5))).eval()
    model = wrap(net, preprocessing=Preprocessing(resize=16, crop=16))
    assert replays(model) == 1
    for change in (
        lambda: setattr(body[0], "stride", (2, 2)),
        lambda: body.__setitem__(2, nn.Softplus()),
        lambda: setattr(body[2], "beta", 3),
        lambda: body[1].register_forward_hook(lambda *given: 2 * given[2]),
        lambda: setattr(body[2], "forward", lambda x: x),
        lambda: net[2].weight.data.mul_(2),
        lambda: setattr(net[2], "weight", nn.Parameter(torch.randn(5, 8))),
        lambda: body.insert(1, nn.Tanh()),
    ):
        change()
        is_as_it_is_now(model)


def test_a_tensor_that_the_network_begins_to_keep_is_its_own() -> None:
    def keep(net: Any, x: Tensor) -> Tensor:
        if net.scale > 1:
            net.kept = net.conv(net.input)
        return x

    model = model_of(keep)
    model.network.input = X
    assert replays(model) == 0
    model.network.scale = 2.0
    model.explain(X)
    with torch.no_grad():
        torch.testing.assert_close(model.network.kept, model.network.conv(X))


def test_whoever_watches_the_calls_sees_all_of_them() -> None:
    class Watching(TorchFunctionMode):
        seen: list[str] = []  # noqa: RUF012

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    model = model_of(lambda net, x: x)
    replays(model)
    with Watching() as watching:
        model.explain(X)
    assert {"conv2d", "batch_norm", "relu", "linear"} <= set(watching.seen)
    is_as_it_is_now(model)


def test_a_guard_says_why_it_cannot_watch() -> None:
    net = seeded(lambda: Net(lambda net, x: x))
    with pytest.raises(UnsteadyError, match="slotted is a Slotted"):
        Guard(net)
    del net.slotted
    assert Guard(net).holds()
    net.many = list(range(100_000))
    with pytest.raises(UnsteadyError, match=r"holds \d+ values"):
        Guard(net)
    witness = Witness()
    with torch.no_grad():
        witness.call(net, X)
    assert witness.why == f"forward of {__name__} ran"
