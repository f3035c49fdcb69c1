"""FullGrad: logits as sums over pixels and biases, against loops, autograd and torchvision."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import ChannelsLast, Dense, Gap, OneRelu, SharedConv, seeded
from tiny_vit import TinyVit
from unitscope.attribution.full_gradient import FullGradient
from unitscope.errors import ClassError, HeadError, LayerError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def small(module: nn.Module, size: int = 32) -> Classifier:
    return wrap(module, preprocessing=Preprocessing(resize=size, crop=size))


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with statistics and biases that matter."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name, tensor in (
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
        ):
            if name in ("bias", "running_mean"):
                tensor.data.normal_(0, 0.3, generator=generator)
            if name == "running_var":
                tensor.data.uniform_(0.5, 2, generator=generator)
    return module.eval()


def check(result: FullGradient, exact: bool = True) -> None:
    """All sums that the result promises, to 1e-5 of the largest logit."""
    largest = float(result.logits.abs().max())
    together = torch.stack(list(result.parts.values())).sum(dim=0)
    assert torch.allclose(
        together, result.explained, rtol=0, atol=1e-9 * largest
    )
    gap = float(result.left_out.abs().max()) / largest
    assert (gap <= 1e-5) == exact == result.exact, gap
    beside = result.beside + result.left_out
    for total in (
        result.combined.sum((2, 3)) + beside,
        result.cams.mean((2, 3)) + beside,
        result.blocks(7).sum((2, 3)) + beside,
    ):
        assert torch.allclose(
            total, result.explained, rtol=0, atol=1e-6 * largest
        )
    curved = sum(result.curved.values(), torch.zeros_like(result.left_out))
    assert torch.allclose(
        curved, result.left_out, rtol=0, atol=1e-5 * largest
    ), "what curved functions add is what is left out"


class Functional(nn.Module):
    """Every piecewise linear function that adds something, without modules for it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.prelu = nn.PReLU(4)
        self.shift = nn.Parameter(torch.linspace(-1, 1, 4).reshape(4, 1, 1))
        self.fc = nn.Linear(8, 5)
        self.row = nn.Parameter(torch.linspace(0, 1, 4))
        self.last = nn.Parameter(torch.ones(5, 5) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.3) / 0.7
        x = F.pad(self.conv(x), (1, 1, 1, 1), value=0.5)
        x = self.prelu(x + self.shift)
        x = F.hardtanh(x, -1.0, 0.8, inplace=True)
        x = F.relu6(self.up(x) * 9, inplace=True)
        x = torch.clamp(1 - x, min=-4.5) + F.softshrink(x, 0.2)
        x = torch.maximum(x, self.shift) + F.hardsigmoid(x)
        x = torch.where(x > 0.4, x, self.shift)
        x = x.masked_fill(x > 3, 2.5)
        x += 0.25
        x = F.max_pool2d(F.leaky_relu(x), 3, stride=2, padding=1)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        pooled = torch.cat([x.mean((2, 3)), self.row.expand(len(x), 4)], dim=1)
        return torch.addmm(self.row.sum(), self.fc(pooled).abs(), self.last)


EXACT: dict[str, Callable[[], nn.Module]] = {
    "convolutions, batch norm": Gap,
    "concatenations, an in-place ReLU": Dense,
    "one ReLU that runs twice": OneRelu,
    "a convolution that runs twice": SharedConv,
    "functions": Functional,
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_and_biases_add_up_to_the_logits(name: str) -> None:
    result = small(stirred(seeded(EXACT[name]))).fullgrad(X, [0, 3, 4])
    check(result)
    assert result.explained.shape == (2, 3)
    assert float(result.biases[list(result.biases)[-1]].abs().max()) > 0


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """A few piecewise linear layers in any order, with pools, skips and norms."""
    channels = 3
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(
            st.sampled_from("conv norm relu relu6 max mean leaky".split())
        )
        if kind == "conv":
            wide = draw(st.integers(1, 5))
            layers.append(
                nn.Conv2d(
                    channels,
                    wide,
                    draw(st.sampled_from([1, 2, 3])),
                    stride=draw(st.integers(1, 2)),
                    padding=draw(st.integers(0, 1)),
                    bias=draw(st.booleans()),
                )
            )
            channels = wide
        more: dict[str, list[nn.Module]] = {
            "norm": [nn.BatchNorm2d(channels)],
            "relu": [nn.ReLU(inplace=draw(st.booleans()))],
            "relu6": [nn.ReLU6(inplace=True)],
            "max": [nn.MaxPool2d(2, ceil_mode=True, padding=1)],
            "mean": [nn.AvgPool2d(2, ceil_mode=True)],
            "leaky": [nn.LeakyReLU(0.1)],
        }
        layers += more.get(kind, [])
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return nn.Sequential(*layers, *head)


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(0, 99))
def test_the_identity_holds_for_any_piecewise_linear_network(
    network: nn.Module, seed: int
) -> None:
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    result = small(stirred(network, seed), 24).fullgrad(x, [0, 1, 2, 3])
    largest = float(result.logits.abs().max())
    assert float(result.left_out.abs().max()) <= 1e-5 * largest
    assert not result.curved


class Twin(nn.Module):
    """Two convolutions, a batch normalisation and a ReLU6, whose offsets are tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU6()
        self.two = nn.Conv2d(4, 6, 3)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.one(x)) * 5)
        logits: Tensor = self.fc(F.relu(self.two(x)).mean((2, 3)))
        return logits


def test_each_bias_map_is_the_bias_times_the_gradient_in_its_place() -> None:
    net = stirred(seeded(Twin))
    assert isinstance(net, Twin)
    result = small(net).fullgrad(X, 2)
    assert isinstance(net.norm.running_var, Tensor)
    assert isinstance(net.norm.running_mean, Tensor)
    assert net.one.bias is not None and net.two.bias is not None
    gain = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    shift = net.norm.bias - net.norm.running_mean * gain
    offsets = {
        "one": net.one.bias.expand(2, 16, 16, 4).permute(0, 3, 1, 2),
        "norm": shift.expand(2, 16, 16, 4).permute(0, 3, 1, 2),
        "two": net.two.bias.expand(2, 14, 14, 6).permute(0, 3, 1, 2),
        "fc": net.fc.bias.expand(2, 5),
    }
    leaves = {
        name: each.detach().clone().requires_grad_()
        for name, each in offsets.items()
    }
    x = X.clone().requires_grad_()
    one = F.conv2d(x, net.one.weight, stride=2, padding=1) + leaves["one"]
    norm = (one * gain[:, None, None] + leaves["norm"]) * 5
    act = norm.clamp(0, 6)
    two = F.conv2d(act, net.two.weight) + leaves["two"]
    logits = two.relu().mean((2, 3)) @ net.fc.weight.T + leaves["fc"]
    assert torch.allclose(logits, net(X), atol=1e-5)
    grads = torch.autograd.grad(logits[:, 2].sum(), [x, act, *leaves.values()])

    def close(ours: Tensor, theirs: Tensor) -> bool:
        return torch.allclose(ours.float(), theirs, rtol=1e-4, atol=1e-6)

    assert close(result.input_map[:, 0], (grads[0] * x).sum(1))
    sixes = (grads[1] * 6 * (norm >= 6)).sum(1)
    assert bool(sixes.any())
    assert close(result.bias_maps["act"][:, 0], sixes)
    for (name, leaf), grad in zip(leaves.items(), grads[2:], strict=True):
        product = grad * leaf
        assert close(result.biases[name][:, 0], product.flatten(1).sum(1))
        if name != "fc":
            assert close(result.bias_maps[name][:, 0], product.sum(1))
    assert "fc" not in result.bias_maps
    assert list(result.biases) == ["one", "norm", "act", "two", "fc"]
    assert torch.allclose(result.beside, result.biases["fc"])


def test_the_sums_are_those_of_autograd_for_each_bias_parameter() -> None:
    net = stirred(seeded(Twin))
    assert isinstance(net, Twin)
    result = small(net).fullgrad(X, [2, 4])
    for image in range(2):
        for place, which in enumerate((2, 4)):
            for name in ("one", "two", "fc"):
                bias = net.get_parameter(f"{name}.bias")
                logit = net(X[[image]])[0, which]
                (gradient,) = torch.autograd.grad(logit, bias)
                assert float(
                    result.biases[name][image, place]
                ) == pytest.approx(
                    float((gradient * bias.detach()).sum()), rel=1e-4, abs=1e-7
                )


@pytest.mark.parametrize(
    "bend",
    [F.gelu, torch.sigmoid, F.silu, torch.exp, lambda x: x * x, torch.tanh],
)
def test_what_a_curved_function_adds_is_left_out_and_named(
    bend: Callable[[Tensor], Tensor],
) -> None:
    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(bend(self.conv(x)).mean((2, 3)))
            return logits

    net = stirred(seeded(Bent))
    result = small(net).fullgrad(X, 1)
    check(result, exact=False)
    assert isinstance(net, Bent)
    inner = net.conv(X).detach().requires_grad_()
    bent = bend(inner)
    (slope,) = torch.autograd.grad(bent.sum(), inner)
    weights = net.fc.weight[1] / bent[0, 0].numel()
    gap = ((bent - slope * inner).sum((2, 3)) * weights).sum(1)
    assert torch.allclose(result.left_out[:, 0].float(), gap, atol=1e-5)
    assert len(result.curved) == 1


class Gated(nn.Module):
    """Squeeze and excitation: a product of two things that the photo sets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.gate = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        gate = F.relu6(self.gate(x.mean((2, 3))))[:, :, None, None]
        logits: Tensor = self.fc((x * gate).mean((2, 3)))
        return logits


def test_gates_attention_and_normalisations_are_named() -> None:
    gated = small(stirred(seeded(Gated))).fullgrad(X)
    check(gated, exact=False)
    assert list(gated.curved) == ["mul"]
    vit = small(seeded(TinyVit).eval()).fullgrad(X, [0, 1])
    check(vit, exact=False)
    assert {"layer_norm", "gelu", "scaled_dot_product_attention"} == set(
        vit.curved
    )
    last = small(seeded(ChannelsLast).eval()).fullgrad(X)
    check(last, exact=False)
    assert "layer_norm" in last.curved


def test_class_tokens_have_no_place_on_the_photo() -> None:
    result = small(seeded(TinyVit).eval()).fullgrad(X, 0)
    name = next(
        name
        for name in result.bias_maps
        if not torch.allclose(
            result.bias_maps[name].sum((2, 3)), result.biases[name]
        )
    )
    assert result.bias_maps[name].shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("vgg11_bn", 64),
        ("densenet121", 64),
        ("mobilenet_v2", 64),
        ("squeezenet1_1", 64),
        ("alexnet", 64),
        ("shufflenet_v2_x0_5", 64),
        ("mnasnet0_5", 64),
        ("googlenet", 64),
    ],
)
def test_torchvisions_piecewise_linear_networks_add_up(
    name: str, size: int
) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    more = {"init_weights": True} if name == "googlenet" else {}
    net = stirred(seeded(lambda: models.get_model(name, weights=None, **more)))
    x = F.interpolate(X, (size, size), mode="bilinear", align_corners=False)
    result = small(net, size).fullgrad(x, [0, 7])
    check(result)
    assert not result.curved


def test_photos_go_by_themselves_and_together() -> None:
    model = small(stirred(seeded(Gap)))
    both = model.fullgrad(X)
    assert both.classes == tuple(
        (int(index),) for index in both.logits.argmax(1)
    )
    one_by_one = model.fullgrad(X, batch_size=1)
    each = [model.fullgrad(X[image : image + 1]) for image in (0, 1)]
    for other in (one_by_one, each[0].joined(each[1:])):
        assert torch.allclose(both.combined, other.combined, atol=1e-6)
        assert list(both.biases) == list(other.biases)
        for name in both.biases:
            assert torch.allclose(
                both.biases[name], other.biases[name], atol=1e-6
            )


def test_a_bias_is_spread_over_the_pixels_under_its_cell() -> None:
    result = small(stirred(seeded(Twin))).fullgrad(X, 0)
    for name, maps in result.bias_maps.items():
        spread = result.spread(name)
        assert spread.shape == result.input_map.shape
        assert torch.allclose(spread.sum((2, 3)), maps.sum((2, 3)), atol=1e-6)
    with pytest.raises(LayerError, match="bias_maps lists"):
        result.spread("fc")


def test_the_users_module_is_left_alone() -> None:
    net = seeded(Dense)
    stirred(net).train()
    before = {name: each.clone() for name, each in net.state_dict().items()}
    small(net).fullgrad(X, 0)
    assert net.training and net.norm.training
    for part in net.modules():
        assert not part._forward_hooks and not part._backward_hooks
        assert not part._forward_pre_hooks
    assert all(each.grad is None for each in net.parameters())
    assert all(each.requires_grad for each in net.parameters())
    for name, each in net.state_dict().items():
        assert torch.equal(each, before[name])


def test_frozen_parameters_and_no_grad_of_the_caller_do_no_harm() -> None:
    net = stirred(seeded(Gap))
    expected = small(net).fullgrad(X, 0).combined
    net.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(small(net).fullgrad(X, 0).combined, expected)
    with torch.inference_mode():
        assert torch.equal(small(net).fullgrad(X, 0).combined, expected)


class WritesOver(Gap):
    """As many networks are written: gradients cannot be had of them as they are."""

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.features(x))
        maps = maps.sub_(0.1).relu_()
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


def test_what_in_place_operations_write_over_is_copied() -> None:
    net = stirred(seeded(WritesOver))
    x = X.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="inplace"):
        net(x).sum().backward()
    result = small(net).fullgrad(X, [0, 1])
    check(result)
    assert any("sub" in name for name in result.biases)


class Caching(Gap):
    """Makes something in its first pass and remembers it, as LeViT does its biases."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "known"):
            self.known = torch.ones(6) + torch.ones(6)
        logits: Tensor = self.fc(self.pooled(x) + self.known)
        return logits


def test_a_first_pass_that_fills_a_cache_is_not_the_one_that_is_traced() -> (
    None
):
    check(small(stirred(seeded(Caching))).fullgrad(X))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_add_up_as_far_as_they_reach(
    dtype: torch.dtype,
) -> None:
    net = stirred(seeded(Gap)).to(dtype)
    result = small(net).fullgrad(X.to(dtype), 0)
    assert result.exact
    gap = result.left_out.abs().max() / result.logits.abs().max()
    assert float(gap) <= {torch.float64: 1e-6, torch.bfloat16: 2e-2}[dtype]


class Cut(Gap):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = super().forward(x)
        return logits


class CutHalf(Gap):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        cut: Tensor = self.fc(self.pooled(x)).detach()
        return logits + cut


def test_what_has_no_gradient_is_refused_or_left_out() -> None:
    with pytest.raises(HeadError, match="outside autograd"):
        small(seeded(Cut)).fullgrad(X)
    result = small(stirred(seeded(CutHalf))).fullgrad(X, 0)
    assert not result.exact
    assert torch.allclose(result.left_out, result.explained / 2, atol=1e-5)
    with pytest.raises(ClassError):
        small(seeded(Gap)).fullgrad(X, 99)


def test_it_is_drawn_and_told_as_data(tmp_path: Any) -> None:
    model = small(stirred(seeded(Functional)))
    result = model.fullgrad(X, [0, 1])
    assert "adds up" in repr(result)
    data = json.loads(json.dumps(result.as_json()))
    first = data[0]["classes"][1]
    assert sum(first["parts"].values()) == pytest.approx(
        first["logit"], abs=1e-5
    )
    squares = sum(sum(row) for row in first["map"])
    assert squares + first["beside"] + first["left_out"] == pytest.approx(
        first["logit"], abs=1e-5
    )
    assert result.save(tmp_path / "map.png").stat().st_size > 10_000
    assert result.save(tmp_path / "pixels.png", cells=None, image=1).exists()
    assert "FullGrad" in result._repr_html_()
    bent = small(seeded(TinyVit).eval()).fullgrad(X)
    assert "left out" in bent._repr_html_() and "left out" in repr(bent)
    grouped = result.grouped(0, 1, most=3)
    assert len(grouped) <= 5
    assert sum(grouped.values()) == pytest.approx(
        float(result.explained[0, 1]), abs=1e-5
    )
