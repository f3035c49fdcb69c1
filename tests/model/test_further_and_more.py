"""Further inputs together with gradients, chosen outputs and answers on photos."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import unitscope
from networks import features, seeded
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.errors import InputError, ModelError, UnitscopeWarning

X = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(3))
META = torch.randn(3, 4, generator=torch.Generator().manual_seed(4))


class Gated(nn.Module):
    """Metadata gates the units before the pool: an exact head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()
        self.gate, self.fc = nn.Linear(4, 6), nn.Linear(6, 5)

    def maps(self, x: Tensor, meta: Tensor) -> Tensor:
        gate = self.gate(meta).sigmoid()[:, :, None, None]
        gated: Tensor = self.features(x) * gate
        return gated

    def answer(self, maps: Tensor, _meta: Tensor) -> Tensor:
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.answer(self.maps(x, meta), meta)


class Hidden(Gated):
    """Metadata beside the pooled units before a smooth hidden layer: a local answer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, 6)

    def maps(self, x: Tensor, _meta: Tensor) -> Tensor:
        maps: Tensor = self.features(x)
        return maps

    def answer(self, maps: Tensor, meta: Tensor) -> Tensor:
        both = torch.cat([maps.mean((2, 3)), meta], 1)
        logits: Tensor = self.fc(self.hidden(both).tanh())
        return logits


class Added(Gated):
    """Metadata adds to the pooled units: an exact head for each photo alone."""

    def maps(self, x: Tensor, _meta: Tensor) -> Tensor:
        maps: Tensor = self.features(x)
        return maps

    def answer(self, maps: Tensor, meta: Tensor) -> Tensor:
        logits: Tensor = self.fc(maps.mean((2, 3)) + self.gate(meta))
        return logits


def written_out(net: Gated, x: Tensor, meta: Tensor) -> Tensor:
    """Contributions to class 1, by the whole network's own graph."""
    maps = net.maps(x, meta)
    logits = net.answer(maps, meta)
    (gradient,) = torch.autograd.grad(
        logits[:, 1].sum(), maps, create_graph=True
    )
    return (gradient * maps).sum((2, 3))


def wanting(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


@pytest.mark.parametrize("batch_size", [16, 2])
@pytest.mark.parametrize("make", [Gated, Hidden, Added])
def test_maps_carry_gradients_to_further_inputs(
    make: type[Gated], batch_size: int
) -> None:
    net = seeded(make).eval()
    x, meta = wanting(X), wanting(META)
    e = unitscope.wrap(net).explain(
        x, also={"meta": meta}, differentiable=True, batch_size=batch_size
    )
    assert e.exact == (make is Gated)
    wanted = written_out(net, x, meta)
    torch.testing.assert_close(e.contributions[:, 1], wanted)

    numbers = (x, meta, net.fc.weight)
    for loss, slow in (
        (e.contributions[:, 1].square().sum(), wanted.square().sum()),
        (e.logits.square().sum(), net(x, meta).square().sum()),
    ):
        fast_gradients = torch.autograd.grad(
            loss, numbers, retain_graph=True, allow_unused=True
        )
        slow_gradients = torch.autograd.grad(
            slow, numbers, retain_graph=True, allow_unused=True
        )
        for fast, right in zip(fast_gradients, slow_gradients, strict=True):
            torch.testing.assert_close(
                _or_zeros(fast), _or_zeros(right), rtol=1e-4, atol=1e-6
            )


def _or_zeros(gradient: Tensor | None) -> Tensor:
    """The gradient; zero where the loss does not depend on the numbers."""
    if gradient is None or not bool(gradient.any()):
        return torch.zeros(())
    return gradient


@pytest.mark.parametrize("make", [Gated, Hidden])
def test_a_detached_answer_says_so_and_holds_no_graph(
    make: type[Gated],
) -> None:
    model = unitscope.wrap(seeded(make).eval())
    with pytest.warns(UnitscopeWarning, match=r"differentiable=True\) gives"):
        detached = model.explain(X, also={"meta": wanting(META)})
    linked = model.explain(X, also={"meta": wanting(META)}, differentiable=True)
    for e in (detached, linked.detach()):
        assert not e.contributions.requires_grad
        assert not e.also["meta"].requires_grad
        if isinstance(e, LocalExplanation):
            further = e.suffix.calling.further
            assert not further.values["meta"].requires_grad
    assert not linked.also["meta"].requires_grad
    torch.testing.assert_close(linked.contributions, detached.contributions)


def test_further_inputs_alone_may_want_gradients() -> None:
    net = seeded(Gated).eval().requires_grad_(False)
    model, meta = unitscope.wrap(net), wanting(META)
    e = model.explain(X, also={"meta": meta}, differentiable=True)
    (gradient,) = torch.autograd.grad(e.cams.square().sum(), meta)
    assert bool(gradient.any())
    with pytest.raises(InputError, match="neither the inputs nor any"):
        model.explain(X, also={"meta": META}, differentiable=True)


class TakesPixels(nn.Module):
    """Wants uint8 numbers, and scales them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = features(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype is torch.uint8
        logits: Tensor = self.fc(self.features(x / 255).mean((2, 3)))
        return logits


def test_no_gradient_passes_pixels() -> None:
    net = seeded(TakesPixels).eval()
    model = unitscope.wrap(net)
    pixels = (X * 50 + 128).clamp(0, 255).round()
    with pytest.raises(InputError, match="no gradient passes whole numbers"):
        model.explain(wanting(pixels), differentiable=True)

    e = model.explain(pixels.to(torch.uint8), differentiable=True)
    (gradient,) = torch.autograd.grad(e.cams.square().sum(), net.fc.weight)
    assert bool(gradient.any())


class TwoTables(Gated):
    """Gives two tables; metadata is part of only one."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(6, 7)

    def forward(  # type: ignore[override]
        self, x: Tensor, meta: Tensor
    ) -> dict[str, Tensor]:
        pooled = self.maps(x, meta).mean((2, 3))
        plain = self.features(x).mean((2, 3))
        return {"gated": self.fc(pooled), "plain": self.other(plain)}


def test_an_output_is_chosen_of_a_network_with_further_inputs() -> None:
    net = seeded(TwoTables).eval()
    also = {"meta": META}
    with torch.no_grad():
        right = net(X, META)
    with pytest.raises(ModelError, match="which of them are the logits"):
        unitscope.wrap(net).explain(X, also=also)

    model = unitscope.wrap(net, output="plain").freeze()
    with pytest.warns(UnitscopeWarning, match="runs as it is, not compiled"):
        e = model.explain(X, also=also)
    torch.testing.assert_close(e.logits, right["plain"])
    assert e.exact and model.output == "plain"

    model.output = "gated"
    with pytest.warns(UnitscopeWarning, match="runs as it is, not compiled"):
        e = model.explain(X, also=also)
    torch.testing.assert_close(e.logits, right["gated"])
    assert e.exact and model.output == "gated"
    real = model.forward_without(X, [0, 2], also=also)
    torch.testing.assert_close(e.ablate([0, 2]).logits, real)


def test_a_fixed_input_may_say_how_many_outputs_there_are() -> None:
    class Asked(TwoTables):
        def forward(  # type: ignore[override]
            self, x: Tensor, meta: Tensor, both: bool = False
        ) -> dict[str, Tensor] | Tensor:
            tables = super().forward(x, meta)
            return tables if both else tables["gated"]

    net = seeded(Asked).eval()
    model = unitscope.wrap(net, output="plain", also={"both": True})
    e = model.explain(X, also={"meta": META})
    with torch.no_grad():
        torch.testing.assert_close(e.logits, net(X, META, both=True)["plain"])
    assert unitscope.wrap(net).explain(X, also={"meta": META}).exact


class Shy(nn.Module):
    """A hidden unit that counts on a bright photo whose `strength` is large."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, padding=1)
        self.hidden, self.fc = nn.Linear(6, 8), nn.Linear(8, 5)
        with torch.no_grad():
            self.features.weight.abs_()
            self.hidden.weight.abs_()
            self.hidden.bias.fill_(-3)

    def forward(self, x: Tensor, strength: Tensor) -> Tensor:
        pooled = self.features(x).mean((2, 3)) * strength
        logits: Tensor = self.fc(self.hidden(pooled).relu())
        return logits


def test_each_photo_shows_with_its_own_inputs_what_counts() -> None:
    net = seeded(Shy).eval()
    bright, strength = X + 9, torch.tensor([[0.0], [0.0], [1.0]])
    model = unitscope.wrap(net)
    with pytest.warns(UnitscopeWarning, match="does on input 0 and 2 more"):
        e = model.explain(bright, also={"strength": strength})
    assert isinstance(e, LocalExplanation)
    assert e.head.found_on == "input 0 and 2 more"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitscopeWarning)
        counts = e.cams.flatten(1).any(dim=1)
    assert counts.tolist() == [False, False, True]

    maps = net.features(bright)
    logits = net.fc(net.hidden(maps.mean((2, 3)) * strength).relu())
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), maps)
    cams = (gradient * maps).sum(1) * 12 * 12
    torch.testing.assert_close(e.cams[:, 1], cams.detach())
