"""Trace: where cells lie, against the pixels that they depend on; layouts; outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import ChannelsLast, Output, seeded
from unitscope.tracing.axes import Axes
from unitscope.tracing.layers import Layer, evaluating, layers_of
from unitscope.tracing.outputs import first_tensor
from unitscope.tracing.trace import trace

C = nn.Conv2d


class Probe(nn.Module):
    """The net whose last map is looked at, behind a head."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x).mean((2, 3))
        return logits


class Both(nn.Module):
    """Two branches that meet."""

    def __init__(
        self, one: nn.Module, other: nn.Module, add: bool = True
    ) -> None:
        super().__init__()
        self.one, self.other, self.add = one, other, add

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.one(x), self.other(x)
        return one + other if self.add else torch.cat([one, other], 1)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def traced_layers(
    net: nn.Module, rows: int = 64, cols: int = 64
) -> dict[str, Layer]:
    with evaluating(net):
        return {
            layer.name: layer
            for layer in layers_of(trace(net, torch.zeros(1, 3, rows, cols)))
        }


def all_positive(net: nn.Module) -> nn.Module:
    """A copy whose cells depend on every pixel they see.

    Its weights are positive, and its maximum pools are averages.
    """
    net = copy.deepcopy(net).double().eval()
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                assert child.dilation == 1
                pool = nn.AvgPool2d(
                    child.kernel_size,
                    child.stride,
                    child.padding,
                    child.ceil_mode,
                )
                setattr(module, name, pool)
            if isinstance(child, C):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
    return net


def seen_centre(
    net: nn.Module, rows: int, cols: int, cell: tuple[int, int]
) -> tuple[float, float]:
    """The slow way: the middle of the pixels with a gradient of one interior cell."""
    x = torch.ones(1, 3, rows, cols, dtype=torch.float64, requires_grad=True)
    made = all_positive(net)(x)
    (gradient,) = torch.autograd.grad(made[0, :, cell[0], cell[1]].sum(), x)
    touched = gradient[0].abs().sum(0).nonzero()
    first, last = touched.min(0).values, touched.max(0).values
    assert (first > 0).all() and (
        last < torch.tensor([rows - 1, cols - 1])
    ).all(), "the cell is not an interior one"
    centre = (first + last + 1) / 2
    return float(centre[0]), float(centre[1])


NETS: dict[str, tuple[nn.Module, float]] = {
    "padded convolution": (C(3, 2, 3, padding=1), 0),
    "unpadded, stride 3": (C(3, 2, 5, stride=3), 0),
    "too much padding": (C(3, 2, 3, padding=4), 0),
    "oblong": (C(3, 2, (1, 7), stride=(1, 2), padding=(0, 1)), 0),
    "dilated": (C(3, 2, 3, dilation=(2, 3), padding=1), 0),
    "even kernel": (C(3, 2, 4, stride=2, padding=1), 0),
    "same, odd": (C(3, 2, 3, padding="same"), 0),
    "same, even": (C(3, 2, 4, padding="same"), 0),
    "same, even and dilated": (C(3, 2, 4, padding="same", dilation=3), 0),
    "valid": (C(3, 2, 4, padding="valid"), 0),
    "reflected": (C(3, 2, 5, stride=2, padding=2, padding_mode="reflect"), 0),
    "resnet stem": (
        nn.Sequential(
            C(3, 2, 7, 2, 3),
            nn.BatchNorm2d(2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ),
        0,
    ),
    "ceil mode": (
        nn.Sequential(
            C(3, 2, 3, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.AvgPool2d(2, ceil_mode=True),
        ),
        0,
    ),
    "pool without a stride": (nn.Sequential(nn.AvgPool2d(3), C(3, 2, 3)), 0),
    "functional pools": (
        Function(
            lambda x: F.avg_pool2d(
                F.avg_pool2d(x, kernel_size=3, stride=1, padding=1),
                (2, 3),
                (2, 1),
            )
        ),
        0,
    ),
    "padded on one side": (
        Function(lambda x: F.avg_pool2d(F.pad(x, (3, 0, 1, 2)), 2)),
        0,
    ),
    "cropped by negative padding": (
        Function(lambda x: F.avg_pool2d(F.pad(x, (-3, 0, -1, -2)), 2)),
        0,
    ),
    "zero-pad module": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), C(3, 2, 3, 2)),
        0,
    ),
    "residual": (
        Both(
            nn.Sequential(C(3, 2, 3, 2, 1), nn.ReLU(), C(2, 2, 3, 1, 1)),
            C(3, 2, 1, 2),
        ),
        0,
    ),
    "concatenation": (Both(C(3, 2, 3, 2, 1), C(3, 4, 5, 2, 2), add=False), 0),
    "adaptive pool": (
        nn.Sequential(C(3, 2, 3, 2, 1), nn.AdaptiveAvgPool2d((8, 9))),
        0,
    ),
    "adaptive pool that does not divide": (nn.AdaptiveAvgPool2d(9), 0.5),
    "nearest enlargement": (
        nn.Sequential(
            C(3, 2, 4, 4), nn.Upsample(scale_factor=2), C(2, 2, 2, 2)
        ),
        0,
    ),
    "corners aligned": (
        nn.Sequential(C(3, 2, 4, 4), nn.UpsamplingBilinear2d(size=31)),
        2.01,
    ),
    "slices": (
        Function(
            lambda x: (
                F.avg_pool2d(x, 3, 1, 1)[:, :2, 3::2, ::3]
                + F.avg_pool2d(x, 3, 1, 1)[:1, 1:, 3::2, ::3]
            )
        ),
        0,
    ),
    "slices behind dots": (
        Function(lambda x: F.avg_pool2d(x, 3, 1, 1)[..., 1:, 2:]),
        0,
    ),
    "parameter-free shortcut": (
        Both(
            C(3, 5, 3, 2, 1),
            Function(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))),
        ),
        0,
    ),
    "channel shuffle": (
        nn.Sequential(
            C(3, 4, 3, 2, 1),
            Function(
                lambda x: (
                    x.view(len(x), 2, 2, *x.shape[2:])
                    .transpose(1, 2)
                    .reshape(x.shape)
                )
            ),
        ),
        0,
    ),
    "there and back to NHWC": (
        nn.Sequential(
            C(3, 4, 4, 2),
            Function(lambda x: (x.permute(0, 2, 3, 1) * 2).movedim(-1, 1)),
        ),
        0,
    ),
}


@pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning"
)
@pytest.mark.parametrize("name", NETS)
def test_a_cell_lies_in_the_middle_of_what_it_sees(name: str) -> None:
    net, tolerance = NETS[name]
    rows, cols = 64, 72
    layer = traced_layers(Probe(net), rows, cols)["net"]
    assert layer.grid.traced
    cell = (layer.shape[1] // 2, layer.shape[2] // 2)
    expected = seen_centre(net, rows, cols, cell)
    assert layer.grid.rows.start + cell[
        0
    ] * layer.grid.rows.step == pytest.approx(expected[0], abs=tolerance + 1e-9)
    assert layer.grid.cols.start + cell[
        1
    ] * layer.grid.cols.step == pytest.approx(expected[1], abs=tolerance + 1e-9)


@pytest.mark.parametrize(
    ("name", "part", "side"),
    [
        ("resnet18", "layer2", 160),
        pytest.param(
            "densenet121", "features.transition1", 96, marks=pytest.mark.slow
        ),
        ("mobilenet_v2", "features.10", 256),
        ("squeezenet1_1", "features.9", 160),
    ],
)
def test_cells_of_torchvisions_networks_lie_in_the_middle_of_what_they_see(
    name: str, part: str, side: int
) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    net = seeded(lambda: models.get_model(name))
    layer = traced_layers(net, side, side)[part]
    made = []
    net = all_positive(net)
    # So small that ReLU6 does not saturate.
    x = torch.full(
        (1, 3, side, side), 1e-3, dtype=torch.float64, requires_grad=True
    )
    net.get_submodule(part).register_forward_hook(
        lambda _module, _inputs, output: made.append(output)
    )
    net(x)
    cell = layer.shape[1] // 2
    (gradient,) = torch.autograd.grad(made[0][0, :, cell, cell].sum(), x)
    rows = gradient[0].abs().sum((0, 2)).nonzero()
    assert rows[0] > 0 and rows[-1] < side - 1, (
        "the cell is not an interior one"
    )
    assert layer.grid.traced
    assert (
        layer.grid.rows.start + cell * layer.grid.rows.step
        == float(rows[0] + rows[-1] + 1) / 2
    )
    assert layer.grid.rows == layer.grid.cols


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.roll(3, 2),
        lambda x: x.transpose(2, 3),
        lambda x: x[:, :, torch.arange(63, -1, -1)],
        lambda x: x.flip(2) + F.max_pool2d(x, 1),
    ],
)
def test_what_cannot_be_followed_is_said_not_to_be_traced(
    function: Callable[[Tensor], Tensor],
) -> None:
    assert not traced_layers(Probe(Function(function)))["net"].grid.traced


def test_branches_that_look_elsewhere_are_not_claimed_to_agree() -> None:
    shifted = Both(C(3, 2, 2, stride=2), C(3, 2, 3, stride=2, padding=1))
    assert not traced_layers(Probe(shifted))["net"].grid.traced


def test_maps_with_channels_last_are_listed_with_units_first() -> None:
    layers = traced_layers(seeded(ChannelsLast), 32, 32)
    assert layers["stem"].shape == (6, 8, 8) and layers["stem"].axes == Axes()
    assert layers["mlp.0"].shape == (12, 8, 8) and layers["mlp.0"].axes == Axes(
        "units last"
    )
    assert (
        layers["last"].is_map
        and layers["last"].grid.traced
        and layers["last"].grid.rows.step == 4
    )


def test_the_layers_of_swin_are_read_with_units_first() -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    layers = traced_layers(seeded(lambda: models.swin_t()), 96, 96)
    for name, shape in {
        "features.1": (96, 24, 24),
        "features.3": (192, 12, 12),
        "features.7": (768, 3, 3),
    }.items():
        assert layers[name].shape == shape and layers[name].is_map


def test_a_tensor_that_a_convolution_reads_has_units_first_whatever_made_it() -> (
    None
):
    made = nn.Sequential(
        C(3, 4, 4, 4),
        Function(lambda x: torch.einsum("burc->bucr", x)),
        nn.ReLU(),
        C(4, 2, 1),
    )
    layers = traced_layers(Probe(made))
    assert layers["net.1"].is_map and layers["net.2"].is_map
    assert not layers["net.2"].grid.traced


def test_parametrizations_are_no_layers() -> None:
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(C(3, 4, 3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    layers = traced_layers(net)
    assert list(layers) == ["0", "1", "2"] and layers["0"].leaf


def test_hooks_are_removed_when_one_cannot_be_set() -> None:
    class Unhookable(nn.ReLU):
        def register_forward_hook(self, *args: Any, **kwargs: Any) -> NoReturn:
            raise RuntimeError("no hooks here")

    net = nn.Sequential(C(3, 2, 1), Unhookable())
    with pytest.raises(RuntimeError, match="no hooks here"), evaluating(net):
        trace(net, torch.zeros(1, 3, 4, 4))
    assert not net[0]._forward_hooks


def test_the_tensor_of_a_result_is_found() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert first_tensor(one) is one
    assert first_tensor((None, [one, two])) is one
    assert first_tensor({"hidden": one, "logits": two}) is two
    assert first_tensor(Output(two, one)) is two
    assert first_tensor({"out": one}) is one
    assert (
        first_tensor("dog") is None
        and first_tensor(()) is None
        and first_tensor(None) is None
    )
