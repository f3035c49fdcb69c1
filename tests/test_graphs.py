"""A compiled replay gives what the replay gives, shows the head the same, and is given up where it could not."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Dense, Gap, ResNet20, seeded
from unitscope import prepared
from unitscope.errors import NonFiniteError
from unitscope.graphs import Graph
from unitscope.model import Classifier, wrap
from unitscope.prepared import Prepared
from unitscope.preprocessing import Preprocessing
from unitscope.replay import Replay

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch._C, "_jit_set_llga_enabled"),
    reason="torch was built without oneDNN's graph compiler",
)

X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """A convolution, whatever `between` does, and a head."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], head: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.bn, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.between, self.head = between, head or nn.Linear(8, 5)
        self.second, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm(8)
        self.one, self.other = torch.ones(3), torch.zeros(5)
        self.mask = torch.zeros(8, 1, 1).index_fill(0, torch.tensor([2]), -math.inf)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self, self.bn(self.conv(x)).relu())
        return self.head(self.last(x).relu().mean((2, 3)))


def small(net: nn.Module) -> Classifier:
    return wrap(net.eval(), preprocessing=Preprocessing(resize=32, crop=32))


def state(model: Classifier, dtype: torch.dtype = torch.float32, kept: tuple[str, ...] = ()) -> Prepared:
    found = model._structure((3, 32, 32)).prepared[dtype, kept]
    assert isinstance(found, Prepared)
    return found


def runs(model: Classifier, dtype: torch.dtype = torch.float32, kept: tuple[str, ...] = ()) -> dict[int, type]:
    """What runs for how many photos together."""
    return {photos: type(run) for photos, (_, run) in state(model, dtype, kept)._replays.items()}


@pytest.fixture(autouse=True)
def soon(trusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is compiled in the third pass."""
    monkeypatch.setattr(prepared, "_COMPILED", 3)
    monkeypatch.setattr(prepared, "_SLOWER", math.inf)  # so small a network gains little


def explained(model: Classifier, x: Tensor = X, times: int = 7, **options: Any) -> Any:
    for _ in range(times):
        explanation = model.explain(x, **options)
    return explanation


NETS: dict[str, Callable[[], nn.Module]] = {
    "a ResNet": ResNet20,
    "a DenseNet": Dense,
    "without normalisations": Gap,
    "a normalised head": lambda: Net(lambda net, x: x, nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5))),
    "two linear layers": lambda: Net(lambda net, x: x, nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 5))),
    "a batch normalised head": lambda: Net(lambda net, x: x, nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 5))),
    "a head by keywords": lambda: Net(lambda net, x: x, Keywords()),
    "weights made in the pass": lambda: Net(lambda net, x: x, Scaled()),
    "frozen numbers in a tuple": lambda: Net(lambda net, x: x + torch.cat((net.one, net.other))[:, None, None]),
    "two sums": lambda: Net(lambda net, x: net.second(net.last(x) + net.second(x) + x)),
    "written in place": lambda: Net(lambda net, x: x.mul_(net.conv.bias[:, None, None]).add_(x).relu_()),
    "an alias written": lambda: Net(lambda net, x: (y := x[:, :4], x.add_(x), torch.cat([y, y], 1))[-1]),
    "several results": lambda: Net(lambda net, x: torch.cat(x.chunk(2, 1)[::-1], 1) + x.split([3, 5], 1)[0][:, :1]),
    "other sizes": lambda: Net(lambda net, x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:], mode="bilinear")),
    "gates": lambda: Net(lambda net, x: x * net.last(F.silu(x.mean((2, 3), keepdim=True))).sigmoid()),
    "tokens": lambda: Net(
        lambda net, x: F.gelu(net.norm(x.flatten(2).transpose(1, 2))).transpose(1, 2).reshape(x.shape)
    ),
}


class Keywords(nn.Module):
    """A linear layer that is called by keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(input=x, bias=self.bias, weight=self.weight)


class Scaled(nn.Module):
    """A linear layer whose weights are made anew in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.gain = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.rand(5, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain)


@pytest.mark.parametrize("name", NETS)
def test_a_graph_gives_what_the_network_gives(name: str) -> None:
    net = seeded(NETS[name])
    model, plain = small(net), small(net)
    plain.prepares = False
    explained(model)
    assert set(runs(model).values()) == {Graph}
    for seed in range(3):
        x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        one, other = model.explain(x), plain.explain(x)
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.feature_map, other.feature_map, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.head.weight, other.head.weight)
        torch.testing.assert_close(one.ablate_each(), other.ablate_each(), rtol=1e-4, atol=1e-5)
    assert set(runs(model).values()) == {Graph}


def test_maps_of_layers_come_out_of_a_graph_too() -> None:
    net, names = seeded(ResNet20), ["layer1.0", "layer2.1.bn2", "layer3"]
    model, plain = small(net), small(net)
    plain.prepares = False
    for _ in range(6):
        found = model.activations(X, names)
    assert set(runs(model, kept=tuple(names)).values()) == {Graph}
    expected = plain.activations(X, names)
    for name in names:
        torch.testing.assert_close(found.layers[name], expected.layers[name], rtol=1e-4, atol=1e-5)


def test_a_graph_in_bfloat16_is_as_far_off_as_it_says() -> None:
    net = seeded(ResNet20)
    model = small(net)
    found = explained(model, precision="bfloat16")
    assert set(runs(model, torch.bfloat16).values()) == {Graph}
    plain = small(net).explain(X)
    assert 1e-5 < found.rounded < 0.05
    assert float((found.logits - plain.logits).abs().max() / plain.logits.abs().max()) <= found.rounded


# Where a number could be rectified that was none, a shape depends on values, or the compiler has only slow code.
OTHER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a logarithm": lambda net, x: (50 + x).log().clamp(0, 1),
    "a quotient": lambda net, x: (1 / (50 + x).relu()).clamp(max=5),
    "a root": lambda net, x: F.relu((50 + x).sqrt()),
    "attention": lambda net, x: F.scaled_dot_product_attention(x, x, x),
    "as many as are lit": lambda net, x: x * (1 + x[x > 1].shape[0] / 1000),
    "infinities of its own": lambda net, x: (x + net.mask).softmax(1) * 8,
    "sparse": lambda net, x: x.to_sparse().to_dense(),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_the_compiler_is_not_known_to_do_well_is_not_compiled(name: str) -> None:
    net = seeded(lambda: Net(OTHER[name]))
    model, x = small(net), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    explained(model, X[:1])
    assert Graph not in runs(model).values()
    for _ in range(4):
        with torch.no_grad():
            torch.testing.assert_close(model.explain(x).logits, net(x), rtol=1e-4, atol=1e-5)


def test_inputs_that_are_not_finite_are_said() -> None:
    model = small(seeded(ResNet20))
    explained(model)
    x = X.clone()
    x[0, 0, 5, 5] = math.nan
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            model.explain(x)


CHANGES: dict[str, Callable[[Any], object]] = {
    "one number of the head, past torch's versions": lambda net: net.head.weight.data.__setitem__((3, 1), 5.0),
    "one number of the head, through numpy": lambda net: net.head.weight.detach().numpy().__setitem__((3, 1), 5.0),
    "a number in a tuple": lambda net: net.one.mul_(3),
    "a bias": lambda net: net.head.bias.data.add_(1),
    "a filter": lambda net: net.last.weight.data.mul_(2),
    "the head": lambda net: setattr(net, "head", nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 5))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    net = seeded(NETS["frozen numbers in a tuple"])
    model = small(net)
    explained(model)
    assert set(runs(model).values()) == {Graph}
    with torch.no_grad():
        CHANGES[name](net)
        real = net(X)
    for _ in range(6):
        torch.testing.assert_close(model.explain(X).logits, real, rtol=1e-4, atol=1e-5)
    assert set(runs(model).values()) == {Graph}


def test_the_compiler_is_switched_on_for_a_moment_only() -> None:
    for enabled in (False, True):
        torch._C._jit_set_llga_enabled(enabled)
        try:
            model = small(seeded(ResNet20))
            explained(model)
            assert set(runs(model).values()) == {Graph}
            assert torch._C._jit_llga_enabled() is enabled
        finally:
            torch._C._jit_set_llga_enabled(False)


def test_another_number_of_threads_is_compiled_for_anew() -> None:
    model, threads = small(seeded(ResNet20)), torch.get_num_threads()
    expected = explained(model).logits
    assert set(runs(model).values()) == {Graph}
    try:
        torch.set_num_threads(threads + 1)
        torch.testing.assert_close(model.explain(X).logits, expected, rtol=1e-4, atol=1e-5)
        assert (torch.float32, ()) not in model._structure((3, 32, 32)).prepared
        torch.testing.assert_close(explained(model).logits, expected, rtol=1e-4, atol=1e-5)
        assert set(runs(model).values()) == {Graph}
    finally:
        torch.set_num_threads(threads)


def test_a_callers_autocast_changes_nothing() -> None:
    model = small(seeded(ResNet20))
    expected = explained(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.explain(X)
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.feature_map, expected.feature_map)


def test_a_graph_that_takes_longer_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "_SLOWER", 0.0)
    model = small(seeded(ResNet20))
    explained(model)
    assert set(runs(model).values()) == {Replay}


def test_where_there_is_no_compiler_the_replay_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_jit_llga_enabled")
    model = small(seeded(ResNet20))
    explained(model)
    assert Graph not in runs(model).values() and runs(model)


def test_a_settled_network_gives_the_same_numbers_for_the_same_photos() -> None:
    """Whatever went through before, and in whatever company."""
    net = seeded(ResNet20)
    model, other = small(net), small(net)
    explained(other, X[:2], 9)
    for one in (model, other):
        one.settle((), 5)
    seen = [model.activations(x) for x in [X, X[:2]] * 6]
    for _ in range(9):
        other.settle((), 5)
        assert torch.equal(other.activations(X).logits, seen[0].logits)
        assert torch.equal(other.activations(X[:2]).logits, seen[1].logits)
    for even, odd in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(even.logits, seen[0].logits) and torch.equal(odd.logits, seen[1].logits)
    assert Graph in runs(model).values() and sorted(runs(model)) == sorted(runs(other))


def test_a_graph_goes_with_its_classifier() -> None:
    model = small(seeded(ResNet20))
    explained(model)
    graph = weakref.ref(next(run for _, run in state(model)._replays.values()))
    del model
    gc.collect()
    assert graph() is None


@pytest.mark.slow
def test_what_was_compiled_gives_its_memory_back() -> None:
    code = """
import gc, torch, unitscope
from torch import nn
from unitscope import prepared
prepared._COMPILED = 3
def used():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
torch.set_grad_enabled(False)
seen = []
for _ in range(6):
    body = nn.Sequential(nn.Conv2d(3, 1024, 1), nn.ReLU(), nn.Conv2d(1024, 1024, 3), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 5))
    model = unitscope.wrap(nn.Sequential(body, head).eval())
    for _ in range(8):
        model.explain(torch.randn(1, 3, 8, 8))
    replays = model._structure((3, 8, 8)).prepared[torch.float32, ()]._replays
    assert [type(run).__name__ for _, run in replays.values()] == ["Graph"], replays
    del model, body, head, replays
    seen.append(used())
assert seen[-1] - seen[2] < 40, seen
"""
    subprocess.run([sys.executable, "-c", code], check=True)
