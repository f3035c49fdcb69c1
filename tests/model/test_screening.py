"""Screening: estimates for all units of all layers, each against a slow obvious twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import (
    Blocks,
    ChannelsLast,
    Dense,
    Gap,
    Mlp,
    ObjectBlock,
    OneRelu,
    Runs,
    SharedConv,
    Tokens,
    TupleBlock,
    seeded,
)
from tiny_vit import TinyVit
from unitscope.attribution.screening import rank_correlation
from unitscope.errors import (
    ClassError,
    HeadError,
    InputError,
    LayerError,
    UnitscopeWarning,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.tracing.layers import Layer
from unitscope.tracing.outputs import first_tensor, with_tensor

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def small(module: nn.Module, size: int = 32) -> Classifier:
    return wrap(module, preprocessing=Preprocessing(resize=size, crop=size))


class Same(nn.Module):
    """Returns its argument itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class WritesLater(nn.Module):
    """Writes in place into a tensor that a layer returned, where that matters or not."""

    def __init__(self, matters: bool = False) -> None:
        super().__init__()
        self.matters = matters
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.same = Same()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        own = x * 2
        same = self.same(own)
        if self.matters:
            own += 1
        y = same * 0.5
        if not self.matters:
            own += 1
        x = self.relu(self.conv(y)) + own
        logits: Tensor = self.fc(F.gelu(x).mean((2, 3)))
        return logits


class Frozen(nn.Module):
    """Features without gradients, and a head with."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.gap = Gap()
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "no_grad":
            with torch.no_grad():
                x = self.gap.features(x)
        else:
            x = self.gap.features(x).detach()
        logits: Tensor = self.gap.fc(x.mean((2, 3)))
        return logits


class WithDeadBranch(Gap):
    """A branch whose result nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.dead = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        return super().forward(x)


class Pixels(Gap):
    """Takes whole numbers only, through which no gradient passes."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype is torch.uint8
        return super().forward(x.float() / 128 - 1)


def slowly(net: nn.Module, layer: Layer, x: Tensor, index: int) -> Tensor:
    """−Σ gradient · activation (unit) of one layer and photo, in a pass of its own."""
    kept: list[Tensor] = []
    path, _, run = layer.name.partition(":")
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs != int(run or 1):
            return None
        tensor = first_tensor(output)
        assert tensor is not None
        kept.append(tensor.detach().clone().requires_grad_())
        return with_tensor(output, tensor, kept[0].clone())

    handle = net.get_submodule(path).register_forward_hook(hook)
    with torch.enable_grad():
        logits = net(x.clone())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, index], kept)
    product = gradient * kept[0].detach()
    assert layer.axes is not None
    axis = product.ndim - 1
    if layer.axes.order in ("units first", "units, tokens"):
        axis = 1
    others = [each for each in range(product.ndim) if each != axis]
    return -product.sum(others)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "gap": (Gap, X),
    "dense": (Dense, X),
    "one relu": (OneRelu, X),
    "runs": (Runs, X),
    "shared": (SharedConv, X),
    "channels last": (ChannelsLast, X),
    "class token": (Tokens, X),
    "tuple": (lambda: Blocks(TupleBlock()), X),
    "hidden layer": (Mlp, X),
    "in place": (WritesLater, X),
    "dead branch": (WithDeadBranch, X),
    "transformer": (TinyVit, X),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_estimate_is_that_of_a_pass_of_its_own(name: str) -> None:
    make, x = NETWORKS[name]
    net = seeded(make).eval()
    model = small(net, x.shape[-1])
    screening = model.screen(x)
    assert screening.classes == tuple(net(x).argmax(1).tolist())
    layers = {layer.name: layer for layer in model.layers()}
    assert screening.layers
    for layer, estimates in screening.estimates.items():
        if layer == "dead":
            assert not estimates.any()
            continue
        for image, index in enumerate(screening.classes):
            slow = slowly(net, layers[layer], x[image : image + 1], index)
            torch.testing.assert_close(
                estimates[image], slow, rtol=1e-4, atol=1e-6
            )


def test_layers_are_listed_in_order_of_execution_and_outermost_of_one_output() -> (
    None
):
    screening = small(seeded(Gap)).screen(X)
    assert screening.layers == (
        "features.0",
        "features.1",
        "features.2",
        "features.3",
        "features",
    )
    assert small(seeded(OneRelu)).screen(X).layers == tuple(
        name for run in (1, 2, 3) for name in (f"conv{run}", f"relu:{run}")
    )


def test_before_an_exact_head_the_estimate_is_the_contribution() -> None:
    model = small(seeded(Gap))
    explanation = model.explain(X)
    for which in (None, 3, "class 1"):
        screening = model.screen(X, which, layers="features")
        for image, index in enumerate(screening.classes):
            torch.testing.assert_close(
                screening.estimates["features"][image],
                -explanation.contributions_of(index)[image, 0],
            )
    assert screening.classes == (1, 1) and screening.label() == "class 1"


def test_photos_do_not_count_for_each_other_and_batches_join() -> None:
    model = small(seeded(Gap))
    together = model.screen(X)
    apart = model.screen(X, batch_size=1)
    assert apart.classes == together.classes
    for layer in together.layers:
        torch.testing.assert_close(
            apart.estimates[layer], together.estimates[layer]
        )


def test_verification_measures_the_top_units_and_a_sample() -> None:
    net = seeded(Gap).eval().requires_grad_(False)
    model = small(net)
    screening = model.screen(X, verify=4)
    for image, verified in enumerate(screening.verified):
        assert len(verified.top) == len(verified.sample) == 4
        assert list(verified.top) == screening.top(4, image)
        assert len({each.layer for each in verified.sample}) == 4
        for each in (*verified.top, *verified.sample):
            photo = X[image : image + 1]
            without = model.forward_without(photo, each.unit, each.layer)
            effect = (without - net(photo))[0, screening.classes[image]]
            assert each.measured == pytest.approx(float(effect), abs=1e-5)
    again = model.screen(X, verify=4)
    assert again.verified == screening.verified

    every = model.screen(X[:1], verify=1000)
    units = sum(len(each[0]) for each in every.estimates.values())
    assert len(every.verified[0].sample) == units
    (verified,) = every.verified
    slow = scipy.stats.spearmanr(
        [each.estimate for each in verified.sample],
        [each.measured for each in verified.sample],
    )
    assert verified.correlation == pytest.approx(slow.statistic)


def test_the_correlation_of_a_linear_ending_is_one() -> None:
    screening = small(seeded(Gap)).screen(X, layers="features", verify=6)
    for verified in screening.verified:
        assert verified.correlation == pytest.approx(1)
        assert verified.top_correlation == pytest.approx(1)


def test_a_unit_behind_a_relu_is_listed_once() -> None:
    screening = small(seeded(OneRelu)).screen(X)
    top = screening.top(100)
    assert len(top) < 36
    for layer in ("relu:1", "relu:2", "relu:3"):
        assert layer not in {each.layer for each in top if each.estimate}
        assert len(screening.top(100, layer=layer)) == 6


def test_strengths_say_what_layers_carry() -> None:
    screening = small(seeded(Gap)).screen(X)
    strength = screening.strengths(1)[-1]
    sizes = screening.estimates["features"][1].abs()
    assert strength.layer == "features" and strength.units == 6
    assert strength.total == pytest.approx(float(sizes.sum()))
    assert strength.largest == pytest.approx(float(sizes.max()))
    assert strength.unit == int(sizes.argmax())
    ordered = sizes.sort(descending=True).values
    least = next(
        count
        for count in range(1, 7)
        if ordered[:count].sum() >= 0.9 * ordered.sum()
    )
    assert strength.share == pytest.approx(least / 6)


def test_the_outline_goes_as_deep_as_its_number_of_layers_allows() -> None:
    screening = small(seeded(Gap)).screen(X)
    assert screening.outline(2) == ["features"]
    assert screening.outline(10) == list(screening.layers)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_parameters_and_whole_numbers_carry_gradients_all_the_same(
    frozen: bool,
) -> None:
    net = seeded(Pixels).requires_grad_(not frozen)
    x = torch.randint(
        0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(1)
    ).to(torch.uint8)
    model = wrap(net)
    screening = model.screen(x)
    contributions = model.explain(x).contributions_of(screening.classes[0])
    torch.testing.assert_close(
        screening.estimates["features"], -contributions[:, 0]
    )
    assert screening.estimates["features.0"].any()


@pytest.mark.parametrize("spelling", ["no_grad", "detach"])
def test_layers_without_gradients_are_left_out_with_the_reason(
    spelling: str,
) -> None:
    net = seeded(lambda: Frozen(spelling)).eval()
    model = small(net)
    with pytest.raises(HeadError, match=r"gradient.*model\.ablate|no_grad"):
        model.screen(X)
    with pytest.raises(HeadError, match=r"outside autograd|gradient"):
        model.screen(X, layers="gap.features.0")


def test_a_network_whose_numbers_leave_autograd_is_refused_with_the_remedy() -> (
    None
):
    class Numpy(Gap):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x).detach().numpy()
            return torch.from_numpy(np.array(logits))

    with pytest.raises(HeadError, match=r"outside autograd.*model\.ablate"):
        small(seeded(Numpy)).screen(X)


def test_behind_a_softmax_the_logits_are_screened() -> None:
    class Ended(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(1)

    expected = small(seeded(Gap)).screen(X, verify=2)
    found = small(seeded(Ended)).screen(X, verify=2)
    assert found.classes == expected.classes
    torch.testing.assert_close(found.logits, expected.logits)
    for layer in expected.layers:
        torch.testing.assert_close(
            found.estimates[layer], expected.estimates[layer]
        )


def test_every_photo_keeps_its_further_inputs_when_it_is_verified() -> None:
    class Conditioned(Gap):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
            x = self.features(x) * weight[:, None, None, None]
            logits: Tensor = self.fc(x.mean((2, 3)))
            return logits

    net = seeded(Conditioned).eval().requires_grad_(False)
    model = small(net)
    weight = torch.tensor([0.5, 2.0])
    screening = model.screen(X, also={"weight": weight}, verify=3)
    for image, verified in enumerate(screening.verified):
        photo, own = X[image : image + 1], weight[image : image + 1]
        before = net(photo, own)
        for each in verified.sample:
            without = model.forward_without(
                photo, each.unit, each.layer, also={"weight": own}
            )
            effect = (without - before)[0, screening.classes[image]]
            assert each.measured == pytest.approx(float(effect), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_have_the_same_estimates_to_rounding(
    dtype: torch.dtype,
) -> None:
    expected = small(seeded(Gap)).screen(X, 2)
    found = small(seeded(Gap).to(dtype)).screen(X.to(dtype), 2)
    for layer, estimates in expected.estimates.items():
        torch.testing.assert_close(
            found.estimates[layer], estimates, rtol=0.1, atol=0.02
        )


def test_a_write_that_a_copy_would_miss_is_refused() -> None:
    model = small(seeded(lambda: WritesLater(matters=True)))
    with pytest.raises(HeadError, match=r"'same' in place, by another name"):
        model.screen(X)


def test_weights_made_in_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        net = seeded(Gap)
    with pytest.raises(HeadError, match="inference_mode"):
        small(net).screen(X)


def test_a_layer_whose_output_cannot_be_rebuilt_is_left_out() -> None:
    model = small(seeded(lambda: Blocks(ObjectBlock())))
    with pytest.warns(UnitscopeWarning, match=r"'block' is not screened"):
        screening = model.screen(X)
    assert "block" in screening.left_out and "block.conv" in screening.layers
    with pytest.raises(HeadError, match=r"'block' cannot be screened"):
        model.screen(X, layers="block")
    with pytest.raises(LayerError, match="was not screened: it returns"):
        screening.top(layer="block")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_inside_the_users_contexts(
    context: Callable[[], Any],
) -> None:
    net = seeded(Gap)
    expected = small(net).screen(X)
    with context():
        found = small(net).screen(X)
    for layer in expected.layers:
        assert torch.equal(found.estimates[layer], expected.estimates[layer])


def test_refusals_name_the_remedy() -> None:
    model = small(seeded(Gap))
    with pytest.raises(InputError, match="0 or more, not -1"):
        model.screen(X, verify=-1)
    with pytest.raises(ClassError, match="there is no class 9"):
        model.screen(X, 9)
    with pytest.raises(LayerError, match="there is no layer 'feature'"):
        model.screen(X, layers="feature")
    with pytest.raises(LayerError, match="not a feature map"):
        model.screen(X, layers=["fc"])
    with pytest.raises(InputError, match="layers is empty"):
        model.screen(X, layers=[])
    with pytest.raises(InputError, match="whole number from 1, not 0"):
        model.screen(X).top(0)
    with pytest.raises(LayerError, match=r"'features\.4' was not screened"):
        model.screen(X).top(3, layer="features.4")


@pytest.mark.parametrize(
    "values",
    [[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, -1.0], [1.0, 2.0, 3.0, 9.0]],
)
def test_rank_correlation_is_spearmans(values: list[float]) -> None:
    others = [0.5, -1.0, 7.0, 7.0]
    expected = scipy.stats.spearmanr(values, others).statistic
    assert rank_correlation(values, others) == pytest.approx(expected)
    assert rank_correlation(values[:2], others[:2]) is None
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
