"""A prepared network gives what the plain one gives, is given up where it does not, and never outlives a change."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Dense, Gap, ResNet20, seeded
from unitscope.account import Account, accounts
from unitscope.errors import InputError, NonFiniteError, UnitscopeWarning
from unitscope.layers import evaluating
from unitscope.model import Classifier, wrap
from unitscope.prepared import ALLOWED, Prepared
from unitscope.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")

X = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def small(net: nn.Module) -> Classifier:
    return wrap(net, preprocessing=Preprocessing(resize=32, crop=32))


def prepared(model: Classifier, x: Tensor = X) -> Prepared | None:
    """What a network was prepared to, after a few passes."""
    for _ in range(5):
        model.explain(x)
    return model._structure(tuple(x.shape[1:])).prepared.get((x.dtype, ()))


class Headed(nn.Module):
    """Something in front of a pool and a linear layer."""

    def __init__(self, body: nn.Module, units: int = 8) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(units, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


class Residual(nn.Module):
    """Sums of every order, in place or not, with an activation behind them or none."""

    def __init__(self, meet: Callable[[Tensor, Tensor], Tensor], act: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv, self.bn, self.act = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), act
        self.short, self.short_bn, self.meet = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), meet

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        one, other = self.bn(self.conv(x)), self.short_bn(self.short(x))
        return self.act(self.meet(one, other))


def trained(net: nn.Module) -> nn.Module:
    """Normalisations with statistics, scales and shifts of their own."""
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.5, generator=generator)
                nn.init.normal_(module.bias, generator=generator)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a ResNet": (ResNet20, 19),
    "a DenseNet": (Dense, 2),
    "without normalisations": (Gap, 2),
    "sum": (lambda: Headed(Residual(lambda a, b: a + b, nn.ReLU())), 3),
    "sum the other way": (lambda: Headed(Residual(lambda a, b: b + a, nn.ReLU(inplace=True))), 3),
    "sum in place": (lambda: Headed(Residual(lambda a, b: a.add_(b), nn.SiLU(inplace=True))), 3),
    "scaled sum": (lambda: Headed(Residual(lambda a, b: torch.add(a, b, alpha=0.5), nn.ReLU())), 3),
    "sum with itself": (lambda: Headed(Residual(lambda a, b: a + a + b, nn.ReLU6())), 3),
    "sum without an activation": (lambda: Headed(Residual(lambda a, b: a + b, nn.Identity())), 3),
    "product": (lambda: Headed(Residual(lambda a, b: a * b, nn.Hardswish())), 3),
    "clipped": (lambda: Headed(Residual(lambda a, b: a - b, nn.Hardtanh(-0.5, 0.7))), 3),
    "no known activation": (lambda: Headed(Residual(lambda a, b: a + b, nn.Softplus())), 3),
    "grouped, dilated, strided, no bias": (
        lambda: Headed(
            nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 2, dilation=2, bias=False),
                nn.BatchNorm2d(8, affine=False, eps=0.1),
                nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8),
                nn.ReLU(),
            )
        ),
        2,
    ),
    "groups normalised": (
        lambda: Headed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())),
        2,
    ),
    "padding by name": (lambda: Headed(nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 8, 1))), 1),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", NETS)
def test_a_prepared_pass_is_the_plain_one(name: str) -> None:
    make, convolutions = NETS[name]
    net = trained(seeded(make).eval())
    model = small(net)
    found = prepared(model)
    assert found is not None and found.convolutions == convolutions and found.error <= ALLOWED
    with torch.no_grad():
        real = net(X)
    explained = model.explain(X)
    assert float((explained.logits - real).abs().max() / real.abs().max()) < 1e-5
    plain = small(net)
    plain.prepares = False
    assert prepared(plain) is None
    expected = plain.explain(X).feature_map
    assert float((explained.feature_map - expected).abs().max() / expected.abs().max()) < 1e-5
    assert torch.equal(explained.head.weight, plain.explain(X).head.weight)
    torch.testing.assert_close(model.explain(X[:1]).logits[0], real[0], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_photos_of_little_contrast_are_normalised_as_the_network_does() -> None:
    """Torch's group normalisation loses digits where units are last in memory."""
    body = [nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()]
    net = seeded(lambda: Headed(nn.Sequential(*body))).eval()
    model = small(net)
    assert prepared(model, 4 * X) is not None
    for x in (3 + 1e-3 * X, torch.ones_like(X), 0 * X):
        with torch.no_grad():
            torch.testing.assert_close(model.explain(x).logits, net(x), rtol=1e-4, atol=1e-5)


def test_normalisations_sums_and_activations_are_folded() -> None:
    found = prepared(small(trained(seeded(lambda: Headed(Residual(lambda a, b: a + b, nn.ReLU()))).eval())))
    assert found is not None
    assert sorted(one.name for one in found._needless.values()) == ["add", "batch_norm", "batch_norm", "relu"] or (
        sorted(one.name for one in found._needless.values()) == ["__add__", "batch_norm", "batch_norm", "relu"]
    )


class TwoReaders(nn.Module):
    """Whatever a convolution gives is read twice, before and after its normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        normed = self.bn(x)
        return normed.relu() + x.sigmoid() + normed.tanh()


def test_what_somebody_else_reads_is_not_fused() -> None:
    net = trained(seeded(lambda: Headed(TwoReaders())).eval())
    found = prepared(small(net))
    assert found is not None and not found._needless
    with torch.no_grad():
        torch.testing.assert_close(small(net).explain(X).logits, net(X))


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a filter, in place": lambda net: net.body[0].weight.detach().mul_(1.5),
    "a filter, through its data": lambda net: net.body[0].weight.data[2].zero_(),
    "a statistic, through its data": lambda net: net.body[1].running_mean.data.add_(1),
    "a new parameter": lambda net: setattr(net.body[0], "weight", nn.Parameter(torch.randn(8, 3, 3, 3))),
    "a new module": lambda net: net.body.__setitem__(2, nn.Softplus()),
    "a module less": lambda net: net.body.__delitem__(1),
    "a checkpoint": lambda net: net.load_state_dict({k: v + 0.1 for k, v in net.state_dict().items()}),
    "another number": lambda net: setattr(net.body[1], "eps", 0.9),
    "a stride": lambda net: setattr(net.body[0], "stride", (2, 2)),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", CHANGES)
def test_a_network_that_changes_is_explained_as_it_is_now(name: str) -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    net = trained(seeded(lambda: Headed(body)).eval())
    model = small(net)
    assert prepared(model) is not None
    CHANGES[name](net)
    with torch.no_grad():
        real = net(X)
    torch.testing.assert_close(model.explain(X).logits, real, rtol=1e-4, atol=1e-5)
    for _ in range(3):  # and is prepared again
        torch.testing.assert_close(model.explain(X).logits, real, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_batch_statistics_that_training_moves_are_seen() -> None:
    net = trained(seeded(lambda: Headed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))).eval())
    model = small(net)
    assert prepared(model) is not None
    net.train()
    with torch.no_grad():
        net(3 + X)
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.explain(X).logits, net(X), rtol=1e-4, atol=1e-5)


def test_hooks_of_somebody_else_run_on_the_plain_network() -> None:
    net, seen = seeded(Gap), []
    net.features[0].register_forward_hook(lambda *_: seen.append(1))
    assert prepared(small(net)) is None and seen
    net = seeded(Gap)
    model = small(net)
    assert prepared(model) is not None
    expected = []
    net.features[0].register_forward_hook(lambda _module, _inputs, output: expected.append(output.clone()))
    model.explain(X)
    with torch.no_grad():
        first = net.features[0]
        assert torch.equal(expected[-1], F.conv2d(X, first.weight, first.bias, first.stride, first.padding))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_run_as_they_are(dtype: torch.dtype) -> None:
    assert prepared(small(seeded(Gap).to(dtype)), X.to(dtype)) is None


def test_code_that_does_not_take_units_last_in_memory_runs_as_it_is() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).relu()
            return self.fc(x.view(len(x), -1).view(x.shape).mean((2, 3)))

    net = seeded(Views)
    assert prepared(small(net)) is None
    with torch.no_grad():
        torch.testing.assert_close(small(net).explain(X).logits, net(X))


def test_preparing_leaves_the_module_alone_and_keeps_no_activations() -> None:
    net = trained(seeded(lambda: Headed(Residual(lambda a, b: a + b, nn.ReLU()))).eval())
    state = {name: value.clone() for name, value in net.state_dict().items()}
    keys = {name: set(vars(module)) for name, module in net.named_modules()}
    kept: list[weakref.ref[Tensor]] = []

    class Watching(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            result = super().forward(x)
            kept.append(weakref.ref(result))
            return result

    net.body.act = Watching()
    model = small(net)
    assert prepared(model) is not None
    gc.collect()
    assert all(reference() is None for reference in kept)
    net.body.act = nn.ReLU()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert {name: set(vars(module)) for name, module in net.named_modules()} == keys
    assert all(value.is_contiguous() for value in net.state_dict().values())


@pytest.mark.usefixtures("compiled")
def test_parts_of_every_length_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitscope.prepared._CHUNK_BYTES", 4 * 16 * 32 * 32 * 4)
    net = trained(seeded(ResNet20).eval())
    model = small(net)
    x = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = prepared(model, x)
    assert found is not None and found.chunk == 4
    with torch.no_grad(), evaluating(net):
        torch.testing.assert_close(model.explain(x).logits, net(x), rtol=1e-4, atol=1e-5)


def test_bfloat16_says_how_far_it_is_off() -> None:
    net = trained(seeded(ResNet20).eval())
    model = small(net)
    explained = [model.explain(X, precision="bfloat16") for _ in range(2)]
    plain = small(net).explain(X)
    for e in explained:
        assert 1e-5 < e.rounded < 0.05 and e[0].rounded == e.rounded
        assert e.logits.dtype is e.feature_map.dtype is torch.float32
        assert float((e.logits - plain.logits).abs().max() / plain.logits.abs().max()) <= e.rounded
        assert float(e.completeness_error.max()) < 1e-5
    assert plain.rounded == 0 and model.explain(X, precision="float32").rounded == 0
    account = next(iter(model_accounts(model)))
    assert {check.name: check.holds for check in account.checks}["precision"]


def model_accounts(model: Classifier) -> list[Account]:
    return list(accounts(model, model.explain(X[:1], precision="bfloat16")))


def test_bfloat16_that_cannot_be_had_is_said() -> None:
    net = seeded(Gap)
    net.features[0].register_forward_hook(lambda *_: None)
    with pytest.warns(UnitscopeWarning, match="bfloat16 was asked for, but .* cannot be prepared"):
        assert small(net).explain(X, precision="bfloat16").rounded == 0
    with pytest.warns(UnitscopeWarning, match="local answers are computed in that"):
        small(seeded(Gap)).explain(X, method="hirescam", precision="bfloat16")
    with pytest.raises(InputError, match="there is no precision 'half': choose 'float32' or 'bfloat16'"):
        small(net).explain(X, precision="half")


def test_a_classifier_with_a_prepared_network_can_be_copied_and_written_down() -> None:
    model = small(trained(seeded(ResNet20).eval()))
    assert prepared(model) is not None
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copied.explain(X).logits, model.explain(X).logits, rtol=1e-4, atol=1e-5)
        found = prepared(copied)
        assert found is not None and found is not prepared(model)


def test_a_network_that_mixes_its_batch_runs_as_it_is() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).relu()
            return self.fc((x - x.mean(0, keepdim=True) / 2).mean((2, 3)))

    assert prepared(small(seeded(Mixing))) is None


class Routed(nn.Module):
    """Convolutions whose results meet as `route` says, which may change between passes."""

    def __init__(self, route: Callable[..., Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 8, 3, padding=1) for _ in range(3))
        self.bn, self.other, self.fc, self.route = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.Linear(8, 5), route

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.route(self, x, self.one(x), self.two(x)).mean((2, 3)))


ROUTES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "another summand": (
        lambda net, x, a, b: (a + net.bn(net.three(x)) + 0 * b).relu(),
        lambda net, x, a, b: (b + net.bn(net.three(x)) + 0 * a).relu(),
    ),
    "the summand twice": (
        lambda net, x, a, b: (a + net.bn(net.three(x))).relu() + 0 * b,
        lambda net, x, a, b: (a + a + 0 * net.bn(net.three(x))).relu() + 0 * b,
    ),
    "a number for a summand": (
        lambda net, x, a, b: a + net.bn(net.three(x)) + b,
        lambda net, x, a, b: 1.0 + net.bn(net.three(x)) + b + 0 * a,
    ),
    "a factor": (
        lambda net, x, a, b: torch.add(a, net.bn(b)),
        lambda net, x, a, b: torch.add(a, net.bn(b), alpha=0.3),
    ),
    "another normalised": (lambda net, x, a, b: net.bn(a) + b, lambda net, x, a, b: net.bn(b) + a),
    "another rectified": (lambda net, x, a, b: net.bn(a).relu() + b, lambda net, x, a, b: net.bn(b).relu() + a),
    "the summand written into": (
        lambda net, x, a, b: a.detach() + net.bn(b),
        lambda net, x, a, b: a.add_(0.5) + net.bn(b),
    ),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ROUTES)
def test_what_goes_another_way_than_it_went_is_not_mistaken(name: str) -> None:
    before, after = ROUTES[name]
    net = trained(seeded(lambda: Routed(before)).eval())
    model = small(net)
    assert prepared(model) is not None
    net.route = after
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(model.explain(X).logits, net(X), rtol=1e-4, atol=1e-5)


def test_numbers_that_leave_torch_are_a_reader_too() -> None:
    def route(net: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return net.bn(a).relu() + 0 * b + float(a.detach().numpy().mean())

    net = trained(seeded(lambda: Routed(route)).eval())
    model = small(net)
    model.explain(X)
    found = prepared(model)
    assert found is None or not any(one.name == "batch_norm" for one in found._needless.values())


def test_what_the_network_keeps_of_a_pass_stays_its_own() -> None:
    def keep(net: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        net.kept = a
        return net.bn(a) + b

    net = trained(seeded(lambda: Routed(keep)).eval())
    assert prepared(small(net)) is None
    with torch.no_grad():
        assert torch.equal(net.kept, net.one(X))


def test_a_batch_that_only_the_plain_network_takes_is_run_plain() -> None:
    def views(net: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a.view(len(x) * 8, 32, 32).relu().view(len(x), 8, 32, 32) + b

    net = seeded(lambda: Routed(views)).eval()
    model = small(net)
    prepared(model, X[:1])
    with torch.no_grad():
        torch.testing.assert_close(model.explain(X).logits, net(X))


def test_hooks_on_all_modules_run_on_the_plain_network() -> None:
    model = small(seeded(Gap))
    assert prepared(model) is not None
    seen: list[bool] = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(isinstance(module, nn.Conv2d)))
    try:
        model.explain(X)
        assert any(seen) and model._structure((3, 32, 32)).prepared.get((torch.float32, ())) is None
    finally:
        hook.remove()


@pytest.mark.usefixtures("compiled")
def test_a_convolutions_result_that_somebody_else_comes_to_read_is_not_what_was_fused() -> None:
    before = lambda net, x, a, b: net.bn(a).relu() + b.tanh()  # noqa: E731
    net = trained(seeded(lambda: Routed(before)).eval())
    model = small(net)
    assert prepared(model) is not None
    for route in (
        lambda net, x, a, b: net.bn(a).relu() + a.tanh(),
        lambda net, x, a, b: (n := net.bn(a)).relu() + n.tanh(),
    ):
        net.route = route
        for _ in range(3):
            with torch.no_grad():
                torch.testing.assert_close(model.explain(X).logits, net(X), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_nan_is_not_rectified_away() -> None:
    def route(net: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return net.bn(net.three(x / x.abs().amax((2, 3), keepdim=True))).relu() + 0 * a + b

    model = small(trained(seeded(lambda: Routed(route)).eval()))
    assert prepared(model) is not None
    black = X.clone()
    black[1] = 0
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            model.explain(black)


def test_a_network_that_mixes_its_batch_is_found_out_after_single_photos_too() -> None:
    def route(net: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return net.bn(a * (1 + x.square().mean())).relu() + b

    net = trained(seeded(lambda: Routed(route)).eval())
    model = small(net)
    prepared(model, X[:1])
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(model.explain(X).logits, net(X), rtol=1e-4, atol=1e-5)
