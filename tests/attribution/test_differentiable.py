"""Maps that carry gradients, beside the same maps written out in plain torch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import HEADED, Mlp, Tokens, seeded
from unitscope.errors import HeadError, InputError, UnitscopeWarning
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap


def small(module: nn.Module) -> Classifier:
    return wrap(module, preprocessing=Preprocessing(resize=12, crop=12))


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, 12, 12), generator=generator)
    return x.requires_grad_()


class Smooth(nn.Module):
    """A small network with derivatives of every order, its head linear or not."""

    def __init__(self, hidden: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Tanh())
        self.fc = (
            nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
            if hidden
            else nn.Linear(4, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x).mean((2, 3)))
        return logits


class SmoothMlp(Smooth):
    """With a hidden layer in its head."""

    def __init__(self) -> None:
        super().__init__(hidden=True)


def written_out(net: Smooth, x: Tensor, index: int) -> Tensor:
    """The map of a class: gradient · activation, by the whole network's own graph."""
    activation = net.features(x)
    logits = net.fc(activation.mean((2, 3)))
    (gradient,) = torch.autograd.grad(
        logits[:, index].sum(), activation, create_graph=True
    )
    cells = activation.shape[2] * activation.shape[3]
    map_: Tensor = (gradient * activation).sum(1) * cells
    return map_


def gradients_of(value: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1, value.numel()).reshape(value.shape)
    gradients = torch.autograd.grad(
        (value * weights.to(value)).sum(),
        of,
        retain_graph=True,
        allow_unused=True,
    )
    return tuple(
        torch.zeros_like(source) if found is None else found
        for found, source in zip(gradients, of, strict=True)
    )


@pytest.mark.parametrize("make", [Smooth, SmoothMlp])
def test_gradients_of_maps_are_those_of_maps_written_out(
    make: Callable[[], Smooth],
) -> None:
    net, x = seeded(make), inputs()
    explanation = small(net).explain(x, differentiable=True)
    assert explanation.exact == (make is Smooth)
    of = (x, *net.parameters())
    for index in range(3):
        found = gradients_of(explanation.cams[:, index], *of)
        expected = gradients_of(written_out(net, x, index), *of)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    found = gradients_of(explanation.logits, *of)
    torch.testing.assert_close(found, gradients_of(net(x), *of))
    found = gradients_of(explanation.contributions.sum(2), *of)
    expected = gradients_of(explanation.cams.mean((2, 3)), *of)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [Smooth, SmoothMlp])
def test_gradients_agree_with_finite_differences(
    make: Callable[[], Smooth],
) -> None:
    net = seeded(make).double()
    model = small(net)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((1, 3, 5, 5), generator=generator, dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        cams = model.explain(x, differentiable=True).cams
        return (cams * torch.arange(12.0).reshape(3, 2, 2)).sum()

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(total(x), x)
    for cell in ((0, 0, 0), (1, 2, 2), (2, 4, 3)):
        step = torch.zeros_like(x)
        step[(0, *cell)] = 1e-2
        slope = (total(x + step) - total(x - step)) / 2e-2
        assert float(gradient[(0, *cell)]) == pytest.approx(
            float(slope.detach()), rel=2e-3, abs=2e-3
        )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hidden layer": Mlp,
    "tokens": Tokens,
    **{
        name: make
        for name, (make, *_) in HEADED.items()
        if name != "one channel"
    },
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if place % 4 == 0 else pytest.mark.slow)
        for place, name in enumerate(NETWORKS)
    ],
)
def test_every_number_carries_gradients_and_is_the_detached_one(
    name: str,
) -> None:
    net = seeded(NETWORKS[name])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, 3, 32, 32), generator=generator)
    model = wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
    plain = model.explain(x)
    x.requires_grad_()
    explanation = model.explain(x, differentiable=True)
    pairs: dict[str, Callable[[Any], Tensor]] = {
        "logits": lambda e: e.logits,
        "feature map": lambda e: e.feature_map,
        "maps": lambda e: e.cams,
        "contributions": lambda e: e.contributions,
        "pooled": lambda e: e.pooled,
        "ablated": lambda e: e.ablate([1]).logits,
        "each ablated": lambda e: e.ablate_each(units=[0, 2]),
        "all ablated": lambda e: e.ablate_each(),
        "left out": lambda e: e.logits - e.left_out,
    }
    for number_name, read in pairs.items():
        number = read(explanation)
        torch.testing.assert_close(
            number.detach(), read(plain), rtol=1e-4, atol=1e-5, msg=number_name
        )
        (gradient,) = torch.autograd.grad(
            number.square().sum(), x, retain_graph=True
        )
        assert gradient.any(), number_name
        assert not read(plain).requires_grad, number_name
    assert all(parameter.grad is None for parameter in net.parameters())
    assert x.grad is None


def test_the_ablated_logits_of_a_normalised_head_have_the_right_gradients() -> (
    None
):
    net = seeded(HEADED["layer norm after the pool"][0])
    x = torch.randn(
        (1, 3, 32, 32), generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    model = wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
    explanation = model.explain(x, differentiable=True)
    each = explanation.ablate_each()
    for unit in range(each.shape[1]):
        one = explanation.ablate([unit]).logits
        torch.testing.assert_close(
            gradients_of(each[:, unit], x),
            gradients_of(one, x),
            rtol=1e-3,
            atol=1e-6,
        )


@pytest.mark.parametrize("make", [Smooth, SmoothMlp])
def test_a_loss_made_from_a_map_goes_down(make: Callable[[], Smooth]) -> None:
    """Right for the right reasons: evidence for a class is pushed off the left half."""
    net, x = seeded(make).train(), inputs().detach()
    model = small(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(8):
        explanation = model.explain(x, differentiable=True)
        loss = explanation.cams_of(1)[..., :2].square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0] and net.training


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, contextlib.nullcontext],
)
@pytest.mark.parametrize("make", [Smooth, SmoothMlp])
def test_the_callers_context_does_not_matter(
    context: Any, make: Callable[[], Smooth]
) -> None:
    net, x = seeded(make), inputs()
    model = small(net)
    with context():
        explanation = model.explain(x, differentiable=True)
        maps = explanation.cams
    expected = gradients_of(model.explain(x, differentiable=True).cams, x)
    torch.testing.assert_close(gradients_of(maps, x), expected)


def test_batches_and_photos_are_linked_to_the_input() -> None:
    net, x = seeded(SmoothMlp), inputs()
    model = small(net)
    whole = model.explain(x, differentiable=True).cams
    parts = model.explain(x, differentiable=True, batch_size=1)
    torch.testing.assert_close(
        gradients_of(parts.cams, x), gradients_of(whole, x)
    )
    (of_second,) = gradients_of(parts[1].cams, x)
    assert of_second[1].any() and not of_second[0].any()


def test_a_frozen_network_runs_as_it_is() -> None:
    net, x = seeded(Smooth), inputs()
    model = small(net).freeze()
    with pytest.warns(
        UnitscopeWarning, match="compiled passes carry no gradients"
    ):
        explanation = model.explain(x, differentiable=True)
    assert gradients_of(explanation.cams, x)[0].any()


def test_a_detached_answer_says_so_where_gradients_are_wanted() -> None:
    net, x = seeded(Smooth), inputs()
    with pytest.warns(
        UnitscopeWarning,
        match="the input requires gradients, but this explanation is detached and "
        r"carries none: explain\(x, differentiable=True\) gives maps for a loss",
    ):
        explanation = small(net).explain(x)
    assert not explanation.cams.requires_grad
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        small(net).explain(x)


def test_what_can_carry_no_gradients_is_told() -> None:
    frozen = small(seeded(Smooth).requires_grad_(False))
    with pytest.raises(
        InputError,
        match=r"neither the inputs nor any parameter of the network requires "
        r"gradients: call x.requires_grad_\(\) first",
    ):
        frozen.explain(inputs().detach(), differentiable=True)
    with pytest.raises(InputError, match="bfloat16 answers carry no gradients"):
        frozen.explain(inputs(), differentiable=True, precision="bfloat16")

    class Cut(Smooth):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(HeadError, match="computes its logits outside autograd"):
        small(seeded(Cut)).explain(inputs(), differentiable=True)
    # Of the parameters alone, and of the inputs alone.
    net = seeded(Smooth)
    cams = small(net).explain(inputs().detach(), differentiable=True).cams
    assert gradients_of(cams, net.get_parameter("fc.weight"))[0].any()
    x = inputs()
    assert gradients_of(frozen.explain(x, differentiable=True).cams, x)[0].any()


@pytest.mark.parametrize("make", [Smooth, SmoothMlp])
def test_it_is_drawn_like_any_other(
    make: Callable[[], Smooth], tmp_path: Path
) -> None:
    explanation = small(seeded(make)).explain(inputs(), differentiable=True)
    explanation.save(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size
    detached = explanation.detach()
    assert not detached.differentiable and not detached.cams.requires_grad
    assert explanation.top(2)[0][0].label == detached.top(2)[0][0].label
    assert explanation.cams_on_photo(0, 1).shape == (1, 12, 12)
    assert len(explanation.top_units(1)) == 4
