"""One layer back: sums over earlier units, beside loops over windows and real passes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import ChannelsLast, Gap, OneRelu, Runs, Tokens, seeded
from tiny_vit import TinyVit
from unitscope.attribution.map_change import OFF
from unitscope.attribution.unit_inputs import UnitInputs
from unitscope.errors import HeadError, InputError, LayerError, UnitError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.tracing.outputs import first_tensor

X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def small(module: nn.Module, size: int = 32) -> Classifier:
    return wrap(
        module.requires_grad_(False),
        preprocessing=Preprocessing(resize=size, crop=size),
    )


class Convolving(nn.Module):
    """features → one convolution, as asked for, → batch normalisation → ReLU → head."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.Tanh()
        self.conv = nn.Conv2d(6, **options)
        self.bn = nn.BatchNorm2d(self.conv.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(self.conv.out_channels, 5)
        assert self.bn.running_mean is not None
        assert self.bn.running_var is not None
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)
        nn.init.uniform_(self.bn.weight, -1, 2)
        nn.init.uniform_(self.bn.bias, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.relu(self.bn(self.conv(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def windowed(
    conv: nn.Conv2d, before: np.ndarray, unit: int, cell: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """What every unit and cell gives to one number of a convolution, by loops; the bias."""
    weight = conv.weight.numpy().astype(np.float64)
    units, rows, cols = before.shape
    per_group = units // conv.groups
    first = unit // (conv.out_channels // conv.groups) * per_group
    given = np.zeros_like(before)
    padding = conv.padding
    if isinstance(padding, str):
        padding = tuple(
            side * (size - 1) // 2
            for side, size in zip(conv.dilation, conv.kernel_size, strict=True)
        )

    def inside(place: int, size: int) -> int | None:
        if 0 <= place < size:
            return place
        match conv.padding_mode:
            case "circular":
                return place % size
            case "reflect":
                return -place if place < 0 else 2 * size - 2 - place
            case "replicate":
                return min(max(place, 0), size - 1)
            case _:
                return None

    for channel in range(per_group):
        for a in range(conv.kernel_size[0]):
            for b in range(conv.kernel_size[1]):
                row = cell[0] * conv.stride[0] + a * conv.dilation[0]
                col = cell[1] * conv.stride[1] + b * conv.dilation[1]
                y = inside(row - padding[0], rows)
                x = inside(col - padding[1], cols)
                if y is not None and x is not None:
                    earlier = first + channel
                    given[earlier, y, x] += (
                        weight[unit, channel, a, b] * before[earlier, y, x]
                    )
    bias = 0.0 if conv.bias is None else float(conv.bias[unit])
    return given, bias


@pytest.mark.parametrize("layer", ["conv", "bn", "relu"])
@pytest.mark.parametrize(
    "options",
    [
        {"out_channels": 4, "kernel_size": 3},
        {"out_channels": 4, "kernel_size": 1, "bias": False},
        {"out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1},
        {"out_channels": 4, "kernel_size": (3, 5), "dilation": (2, 1)},
        {"out_channels": 6, "kernel_size": 3, "groups": 3, "padding": 1},
        {"out_channels": 12, "kernel_size": 3, "groups": 6, "padding": 1},
        {"out_channels": 4, "kernel_size": 5, "padding": "same"},
        *(
            {
                "out_channels": 4,
                "kernel_size": 3,
                "padding": 2,
                "stride": 2,
                "padding_mode": mode,
            }
            for mode in ("reflect", "circular", "replicate")
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", [(0, 0), (3, 9), None])
def test_a_convolutions_window_in_loops(
    options: dict[str, Any], layer: str, cell: tuple[int, int] | None
) -> None:
    net = seeded(lambda: Convolving(**options)).eval()
    model = small(net)
    inputs = model.inputs_of(X, layer, 2, cell)
    assert inputs.cell is not None and (cell is None or inputs.cell == cell)
    before = net.act(net.stem(X))[0].numpy().astype(np.float64)
    given, bias = windowed(net.conv, before, 2, inputs.cell)
    if layer != "conv":
        norm = net.bn
        assert norm.running_var is not None and norm.running_mean is not None
        scale = float(norm.weight[2] / (norm.running_var[2] + norm.eps).sqrt())
        given = given * scale
        bias = scale * (bias - float(norm.running_mean[2]))
        bias += float(norm.bias[2])
    np.testing.assert_allclose(
        inputs.of("act").numpy(), given, rtol=1e-4, atol=1e-7
    )
    assert inputs.bias == pytest.approx(bias, rel=1e-4, abs=1e-6)
    assert inputs.value == pytest.approx(given.sum() + bias, abs=1e-5)
    assert inputs.functions == (("relu",) if layer == "relu" else ())
    if layer == "relu":
        assert inputs.output == pytest.approx(max(inputs.value, 0), abs=1e-6)
    feeding = net.conv.in_channels // net.conv.groups
    assert len(inputs.summands) == feeding


def adds_up(inputs: UnitInputs, has_token: bool = False) -> None:
    """The summands and the bias are the value, and sources hold nothing else."""
    total = inputs.bias + sum(each.contribution for each in inputs.summands)
    sizes = abs(inputs.bias) + sum(
        abs(each.contribution) for each in inputs.summands
    )
    assert inputs.value == pytest.approx(total, abs=1e-5 * sizes)
    for source in inputs.sources:
        assert source.total == pytest.approx(
            sum(
                each.contribution
                for each in inputs.summands
                if each.source == source.name
            )
        )
        if source.maps is not None and not has_token:
            torch.testing.assert_close(
                source.maps.flatten(1).sum(1), source.contributions
            )


@contextlib.contextmanager
def zeroed(
    net: nn.Module, name: str, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    path, _, run = name.partition(":")
    runs = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        return change(output) if runs == int(run or 1) else None

    handle = net.get_submodule(path).register_forward_hook(hook)
    yield
    handle.remove()


def before_without(
    model: Classifier, inputs: UnitInputs, x: Tensor, number: int
) -> float:
    """The pre-activation in a real pass in which an earlier unit's map is zero.

    The layer asked for has no activation.
    """
    summand = inputs.summands[number]
    layers = {layer.name: layer for layer in model.layers()}
    kept: list[Tensor] = []

    def without(output: Tensor) -> Tensor:
        axes = layers[summand.source].axes
        if axes is None:
            changed = output.clone()
            changed[:, summand.unit] = 0
            return changed
        return OFF.of_output(output, axes, [summand.unit])

    def keep(output: Any) -> None:
        tensor = first_tensor(output)
        assert tensor is not None
        kept.append(layers[inputs.layer].units_first(tensor).clone())

    with (
        torch.no_grad(),
        zeroed(model.module, summand.source, without),
        zeroed(model.module, inputs.layer, keep),  # type: ignore[arg-type]
    ):
        model.module(x.clone())
    values = kept[0][0, inputs.unit]
    return float(values.mean() if inputs.cell is None else values[inputs.cell])


CASES = [
    ("resnet18", 64, ["layer1.0.conv2", "layer2.0.bn2", "layer3.0.downsample"]),
    (
        "densenet121",
        64,
        ["features.denseblock2.denselayer3.conv1", "features.transition1.conv"],
    ),
    (
        "mobilenet_v2",
        64,
        ["features.3.conv.1.0", "features.4.conv.3", "features.2.conv.0.1"],
    ),
    (
        "convnext_tiny",
        64,
        [
            "features.1.0.block.0",
            "features.1.0.block.3",
            "features.3.1.block.5",
        ],
    ),
    (
        "vit_b_16",
        32,
        [
            "encoder.layers.encoder_layer_1.mlp.0",
            "encoder.layers.encoder_layer_1.mlp.3",
        ],
    ),
]


def torchvisions(name: str, size: int) -> Classifier:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    options = {"image_size": size} if name.startswith("vit") else {}
    net = seeded(lambda: models.get_model(name, weights=None, **options))
    return small(net.eval(), size)


@pytest.mark.parametrize(("name", "size", "layers"), CASES)
def test_zeroing_an_earlier_unit_takes_its_contribution_away(
    name: str, size: int, layers: list[str]
) -> None:
    model = torchvisions(name, size)
    x = torch.randn(
        1, 3, size, size, generator=torch.Generator().manual_seed(1)
    )
    for layer in layers:
        for cell in (None, "mean"):
            inputs = model.inputs_of(x, layer, 1, cell)
            adds_up(inputs)
            sizes = sum(abs(each.contribution) for each in inputs.summands)
            for number in {0, len(inputs.summands) // 2}:
                without = before_without(model, inputs, x, number)
                assert inputs.value - without == pytest.approx(
                    inputs.summands[number].contribution, abs=1e-5 * sizes
                )


def test_a_residual_sum_has_its_branch_and_the_same_unit_before() -> None:
    model = torchvisions("resnet18", 64)
    x = X.repeat(1, 1, 2, 2)
    inputs = model.inputs_of(x, "layer2.1", 5)
    adds_up(inputs)
    branch, skip = sorted(inputs.sources, key=lambda each: -len(each.units))
    assert (branch.name, len(branch.units)) == ("layer2.1.relu:1", 128)
    assert (skip.name, skip.units) == ("layer2.0", (5,))
    assert "skip" in skip.reason and inputs.functions == ("relu",)
    map_ = model.units(x, "layer2.0", 5).maps[0, 0]
    assert inputs.cell is not None
    assert skip.total == pytest.approx(float(map_[inputs.cell]), abs=1e-6)

    # Both branches of a block that changes the size have weights.
    first = model.inputs_of(x, "layer2.0", 5)
    adds_up(first)
    assert {each.name for each in first.sources} == {
        "layer2.0.relu:1",
        "layer1",
    }


def test_an_inverted_residual_and_a_layer_scale_have_their_skips() -> None:
    model = torchvisions("mobilenet_v2", 64)
    x = X.repeat(1, 1, 2, 2)
    inputs = model.inputs_of(x, "features.3", 2)
    adds_up(inputs)
    assert {each.name: len(each.units) for each in inputs.sources} == {
        "features.2": 1,
        "features.3.conv.1": 144,
    }
    model = torchvisions("convnext_tiny", 64)
    inputs = model.inputs_of(x, "features.1.1", 2)
    adds_up(inputs)
    assert {each.name: len(each.units) for each in inputs.sources} == {
        "features.1.0": 1,
        "features.1.1.block.4": 384,
    }


def test_a_concatenation_is_split_by_where_units_come_from() -> None:
    model = torchvisions("densenet121", 64)
    x = X.repeat(1, 1, 2, 2)
    block = "features.denseblock1"
    inputs = model.inputs_of(x, f"{block}.denselayer3.conv1", 7)
    adds_up(inputs)
    assert [each.name for each in inputs.sources] == [
        f"{block}.denselayer3.relu1"
    ]
    origins = {each.unit: each.origin for each in inputs.summands}
    assert origins[0] == ("features.pool0", 0)
    assert origins[63] == ("features.pool0", 63)
    assert origins[64] == (f"{block}.denselayer1", 0)
    assert origins[127] == (f"{block}.denselayer2", 31)
    by_origin = inputs.by_origin()
    assert set(by_origin) == {
        "features.pool0",
        f"{block}.denselayer1",
        f"{block}.denselayer2",
    }
    assert sum(by_origin.values()) + inputs.bias == pytest.approx(
        inputs.value, abs=1e-5
    )


def test_a_transformers_block_is_the_block_before_attention_and_neurons() -> (
    None
):
    net = seeded(TinyVit).eval()
    model = small(net)
    blocks = [
        layer.name
        for layer in model.layers()
        if layer.kind == "Block" and layer.is_map
    ]
    inputs = model.inputs_of(X, blocks[1], 3)
    adds_up(inputs)
    sizes = sorted(len(each.units) for each in inputs.sources)
    assert sizes == [1, 16, 24]
    skip = next(each for each in inputs.sources if len(each.units) == 1)
    assert skip.name == blocks[0] and skip.units == (3,)


@pytest.mark.parametrize(
    "make", [Gap, OneRelu, Runs, ChannelsLast, Tokens, TinyVit]
)
def test_every_layer_is_a_sum_or_refused_with_a_layer_to_ask_for(
    make: type[nn.Module],
) -> None:
    model = small(seeded(make).eval())
    answered = 0
    for layer in model.layers():
        try:
            inputs = model.inputs_of(X, layer.name, 1)
        except LayerError as refusal:
            assert "ask for the inputs of" in str(refusal) or "followed" in str(
                refusal
            )
        else:
            adds_up(inputs, has_token=make in (Tokens, TinyVit))
            answered += 1
    assert answered >= 2


def test_following_leads_to_the_photo() -> None:
    model = small(seeded(Gap).eval())
    inputs = model.inputs_of(X, "fc", 2)
    assert inputs.cell == (0, 0)
    names = [inputs.layer]
    while inputs.sources[0].name != "the photo":
        inputs = inputs.follow(0)
        adds_up(inputs)
        names.append(inputs.layer)
    assert names == ["fc", "pool", "features", "features.2"]
    with pytest.raises(LayerError, match="nothing is before the network's"):
        inputs.follow(0)
    with pytest.raises(InputError, match="no summand 99"):
        inputs.follow(99)


def test_a_class_token_counts_and_cannot_be_followed() -> None:
    model = small(seeded(Tokens).eval())
    inputs = model.inputs_of(X, "head", 1)
    adds_up(inputs, has_token=True)
    assert inputs.sources[0].total and not inputs.of("norm").any()
    with pytest.raises(InputError, match="a class token"):
        inputs.follow(0)


def test_following_is_asking_again_at_the_cell_that_gives_most() -> None:
    model = small(seeded(Gap).eval())
    inputs = model.inputs_of(X, "features", 2, (4, 5))
    followed = inputs.follow(1)
    summand = inputs.summands[1]
    of_unit = inputs.of(summand.source)[summand.unit].abs()
    assert followed.cell is not None
    assert float(of_unit[followed.cell]) == float(of_unit.max())
    asked = model.inputs_of(X, summand.source, summand.unit, followed.cell)
    assert asked.value == followed.value
    assert asked.summands == followed.summands


def test_the_mean_is_the_mean_of_all_cells() -> None:
    model = small(seeded(Gap).eval())
    mean = model.inputs_of(X, "features.0", 1, "mean")
    assert mean.cell is None
    rows, cols = model.layers()[0].shape[1:]
    cells = [
        model.inputs_of(X, "features.0", 1, (row, col))
        for row in range(0, rows, 5)
        for col in range(0, cols, 5)
    ]
    whole = model.units(X, "features.0", 1).maps
    assert mean.value == pytest.approx(float(whole.mean()), abs=1e-6)
    assert all(each.bias == pytest.approx(mean.bias) for each in cells)
    adds_up(mean)


def test_what_is_spelled_without_modules_can_be_followed() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
            self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
            self.fc = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv1(x))
            x = x + 0.5 * self.conv2(x)
            logits: Tensor = self.fc(F.gelu(x).mean((2, 3)))
            return logits

    net = seeded(Functional).eval()
    model = small(net)
    inputs = model.inputs_of(X, "fc", 0)
    adds_up(inputs)
    assert inputs.sources[0].layer is None
    inputs = inputs.follow(0)
    adds_up(inputs)
    inputs = inputs.follow(0)
    adds_up(inputs)
    names = {each.name for each in inputs.sources}
    assert names == {"relu after 'conv1'"} and inputs.functions == ("gelu",)
    assert inputs.follow(0).functions == ("relu",)


def test_weights_that_are_computed_count_and_weights_of_the_photo_do_not() -> (
    None
):
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d(3, 6, 3, padding=1)
            self.conv = nn.utils.parametrizations.weight_norm(conv)
            self.own = nn.Conv2d(6, 6, 3)
            self.fc = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            # A dynamic convolution: its weights depend on the photo.
            weight = self.own.weight * x.mean()
            x = self.own(x) + F.conv2d(x, weight)
            logits: Tensor = self.fc(x.mean((2, 3)))
            return logits

    model = small(seeded(Computed).eval())
    adds_up(model.inputs_of(X, "conv", 2))
    inputs = model.inputs_of(X, "fc", 1).follow(0)
    adds_up(inputs)
    reasons = {each.reason for each in inputs.sources}
    assert "a sum (conv2d) with weights that the photo sets" in reasons


def test_further_inputs_and_whole_numbers_are_given_as_ever() -> None:
    class Conditioned(Gap):
        def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
            assert x.dtype is torch.uint8
            x = self.features(x.float() / 128 - 1)
            logits: Tensor = self.fc(x.mean((2, 3)) + bias[:, None])
            return logits

    model = wrap(seeded(Conditioned).eval().requires_grad_(False))
    x = torch.arange(3072).reshape(1, 3, 32, 32).remainder(256)
    inputs = model.inputs_of(
        x.to(torch.uint8), "features", 1, also={"bias": torch.ones(1)}
    )
    adds_up(inputs)


def test_half_precision_adds_up_to_its_rounding() -> None:
    model = small(seeded(Gap).eval().to(torch.bfloat16))
    inputs = model.inputs_of(X, "features", 2)
    assert inputs.error < 0.01
    total = sum(each.contribution for each in inputs.summands) + inputs.bias
    assert inputs.value == pytest.approx(total, rel=0.05)


class Odd(nn.Module):
    """Ends of sums of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.GroupNorm(2, 6)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.Sigmoid()
        )
        self.gated = nn.Identity()
        self.batch = nn.BatchNorm2d(6, track_running_stats=False)
        self.softmax = nn.Softmax(1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.pool(self.stem(x)))
        x = self.batch(self.gated(x * self.gate(x)))
        logits: Tensor = self.fc(self.softmax(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("layer", "reason", "before"),
    [
        ("pool", "a maximum of cells", "stem"),
        ("norm", r"a normalisation \(group_norm\)", "pool"),
        (
            "gated",
            r"a product of numbers that the photo sets \(a gate\)",
            "norm",
        ),
        ("batch", "statistics of the photos themselves", "norm"),
        ("softmax", r"attention \(softmax\)|softmax", "batch"),
    ],
)
def test_what_is_no_sum_is_refused_with_the_reason(
    layer: str, reason: str, before: str
) -> None:
    model = small(seeded(Odd).eval())
    with pytest.raises(LayerError, match=reason) as refusal:
        model.inputs_of(X, layer, 0)
    assert f"'{before}'" in str(refusal.value)


def test_refusals_name_the_remedy() -> None:
    model = small(seeded(Gap).eval())
    with pytest.raises(InputError, match=r"not on several: ask for each"):
        model.inputs_of(X.repeat(2, 1, 1, 1), "features", 0)
    with pytest.raises(LayerError, match="there is no layer 'feature'"):
        model.inputs_of(X, "feature", 0)
    with pytest.raises(UnitError, match="there is no unit 6"):
        model.inputs_of(X, "features", 6)
    with pytest.raises(InputError, match=r"no cell \(16, 0\): .* 16×16"):
        model.inputs_of(X, "features", 0, (16, 0))
    for cell in ("max", (1,), (1, 2, 3)):
        with pytest.raises(InputError, match=r"a cell is \(row, col\) or"):
            model.inputs_of(X, "features", 0, cell)
    inputs = model.inputs_of(X, "features", 0)
    with pytest.raises(InputError, match="does not feed unit 0"):
        inputs.of("stem")
    with pytest.raises(InputError, match="whole number from 1"):
        inputs.top(0)


def test_a_write_by_another_name_is_refused() -> None:
    class Written(Gap):
        def forward(self, x: Tensor) -> Tensor:
            y = self.features[0](x)
            y[:, :, 0].add_(1.0)
            y = self.features[3](self.features[1](y))
            logits: Tensor = self.fc(y.mean((2, 3)))
            return logits

    model = small(seeded(Written).eval())
    adds_up(model.inputs_of(X, "features.0", 1))
    with pytest.raises(HeadError, match="do not add up"):
        model.inputs_of(X, "features.1", 1, (0, 0))
