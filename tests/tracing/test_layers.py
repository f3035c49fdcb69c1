"""Layers: their names, order and stages, and clear errors for all others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from networks import (
    Blocks,
    Gap,
    Mlp,
    OneRelu,
    SharedConv,
    SimpleNet,
    Tokens,
    TupleBlock,
    seeded,
)
from unitscope.errors import LayerError, NonFiniteError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.tracing.layers import captured, evaluating, find_layer

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def small(net: nn.Module, side: int = 32) -> Classifier:
    return wrap(net, preprocessing=Preprocessing(resize=side, crop=side))


def test_layers_come_in_order_of_execution_and_containers_after_what_they_contain() -> (
    None
):
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.never = nn.Conv2d(3, 3, 1)
            self.fc = nn.Linear(4, 2)
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.body(x).mean((2, 3)))
            return logits

    layers = small(Backwards()).layers()
    assert [layer.name for layer in layers] == [
        "body.0",
        "body.1",
        "body",
        "fc",
    ]
    assert [layer.kind for layer in layers] == [
        "Conv2d",
        "ReLU",
        "Sequential",
        "Linear",
    ]
    assert [layer.shape for layer in layers] == [
        (4, 32, 32),
        (4, 32, 32),
        (4, 32, 32),
        (2,),
    ]
    assert [layer.leaf for layer in layers] == [True, True, False, True]
    assert [layer.is_map for layer in layers] == [True, True, True, False]


def test_a_module_that_runs_several_times_has_one_layer_a_run() -> None:
    names = [layer.name for layer in small(seeded(OneRelu)).layers()]
    assert names == [
        "conv1",
        "relu:1",
        "conv2",
        "relu:2",
        "conv3",
        "relu:3",
        "fc",
    ]
    assert [layer.name for layer in small(seeded(SharedConv)).layers()] == [
        "stem",
        "first:1",
        "first:2",
        "fc",
    ]


def test_a_module_name_may_look_like_a_run() -> None:
    class Colons(Gap):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.ModuleDict({"conv:2": nn.Conv2d(6, 6, 1)})

        def pooled(self, x: Tensor) -> Tensor:
            pooled: Tensor = self.more["conv:2"](self.features(x)).mean((2, 3))
            return pooled

    model = small(seeded(Colons))
    assert "more.conv:2" in [layer.name for layer in model.layers()]
    assert model.units(X, "more.conv:2", [1]).maps.shape == (2, 1, 16, 16)


def test_a_typo_names_near_matches() -> None:
    layers = small(seeded(Gap)).layers()
    with pytest.raises(
        LayerError,
        match=r"there is no layer 'feature\.3' among the 8 that ran \(did you mean 'features\.3'",
    ):
        find_layer(layers, "feature.3")
    with pytest.raises(
        LayerError, match="there is no layer 'zzz' among the 8 that ran: "
    ):
        find_layer(layers, "zzz")


def test_an_ambiguous_layer_names_its_runs() -> None:
    model = small(seeded(OneRelu))
    with pytest.raises(
        LayerError,
        match="layer 'relu' runs 3 times in one forward pass: name one run, 'relu:1' to 'relu:3'",
    ):
        model.units(X, "relu", [0])
    with pytest.raises(LayerError, match="there is no layer 'relu:4'"):
        model.units(X, "relu:4", [0])


@pytest.mark.parametrize(("layer", "shape"), [("pool", "6×1×1"), ("fc", "5")])
def test_a_layer_without_a_map_is_refused(layer: str, shape: str) -> None:
    model = small(seeded(Gap))
    for verb in (model.units, model.ablate):
        with pytest.raises(LayerError) as refusal:
            verb(X, layer, [0])
        assert (
            f"gives {shape}, not a feature map (unit, row, col) with several cells"
            in str(refusal.value)
        )
        assert "choose a layer before it, such as 'features'" in str(
            refusal.value
        )


def test_tokens_are_put_back_into_rows_and_columns() -> None:
    net = seeded(Tokens)
    model = small(net)
    layer = {layer.name: layer for layer in model.layers()}["norm"]
    assert layer.shape == (6, 4, 4) and layer.is_map and layer.grid.traced
    assert layer.describe_shape() == "6 × 4 × 4 + 1 token"
    assert layer.grid.rows.start == 4 and layer.grid.cols.step == 8
    with evaluating(net), captured(net, ["norm"]) as outputs:
        net(X)
    maps = model.units(X, "norm", [2]).maps[:, 0]
    for row in range(4):
        for col in range(4):
            assert torch.equal(
                maps[:, row, col], outputs["norm"][:, 1 + 4 * row + col, 2]
            )


def test_tokens_that_make_no_grid_are_no_map() -> None:
    class Odd(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)[:, :7]
            logits: Tensor = self.head(self.norm(x)[:, 0])
            return logits

    with pytest.raises(LayerError, match="gives 7×6, not a feature map"):
        small(seeded(Odd)).units(X, "norm", [0])


def test_capturing_copies_what_an_in_place_operation_overwrites() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with evaluating(net), captured(net, ["0", "1", "no such"][:2]) as outputs:
        net(X)
    assert torch.equal(outputs["0"], net[0](X)) and (outputs["0"] < 0).any()
    assert not net[0]._forward_hooks
    assert torch.equal(
        small(net).units(X, "0", [2]).maps[:, 0], net[0](X)[:, 2].detach()
    )


@pytest.mark.parametrize(
    ("value", "where"),
    [(float("nan"), "features.3.weight"), (float("inf"), "features.0.bias")],
)
def test_weights_that_are_no_numbers_are_named(
    value: float, where: str
) -> None:
    net = seeded(Gap)
    with torch.no_grad():
        net.get_parameter(where).view(-1)[0] = value
    acts: list[Callable[[Classifier], object]] = [
        lambda model: model.head,
        lambda model: model.explain(X),
        lambda model: model.layers(),
    ]
    for act in acts:
        with pytest.raises(
            NonFiniteError,
            match=f"NaN or infinite because the weights '{where}' are: load sound weights",
        ):
            act(small(net))


def test_weights_that_break_after_the_head_was_found_are_named() -> None:
    net = seeded(Gap)
    model = small(net)
    assert model.head.error < 1e-6
    with torch.no_grad():
        net.get_parameter("features.0.weight")[0, 0, 0, 0] = float("nan")
    for act in (
        model.explain,
        lambda x: model.units(x, "features.0", [0]),
        lambda x: model.ablate(x, "features.0", [0]),
    ):
        with pytest.raises(
            NonFiniteError,
            match=r"because the weights 'features\.0\.weight' are",
        ):
            act(X)


def test_activations_that_overflow_are_named_where_they_began() -> None:
    net = seeded(Gap)
    # The root of a negative number, in a buffer.
    net.get_buffer("features.1.running_var").fill_(-1.0)
    with pytest.raises(
        NonFiniteError,
        match=r"the logits are NaN or infinite, first in the output of layer 'features\.1'",
    ):
        small(net).explain(X)

    class Dividing(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    with pytest.raises(
        NonFiniteError,
        match="first in the output of a function that belongs to no layer",
    ):
        small(seeded(Dividing)).explain(X)


def test_layers_of_a_refused_network_are_listed_all_the_same() -> None:
    assert len(small(seeded(Mlp)).layers()) == 11


def test_a_tuple_block_is_a_layer() -> None:
    layers = {
        layer.name: layer
        for layer in small(seeded(lambda: Blocks(TupleBlock()))).layers()
    }
    assert (
        layers["block"].shape == (6, 32, 32)
        and layers["block"].is_map
        and layers["block"].grid.traced
    )


def test_the_stages_of_simplenet() -> None:
    stages = small(SimpleNet(), 128).stages()
    assert [stage.shape for stage in stages] == [
        (64, 64, 64),
        (256, 32, 32),
        (512, 16, 16),
        (100,),
    ]
    assert [stage.convolutions for stage in stages] == [1, 3, 3, 0]
    assert (stages[0].first, stages[0].last) == ("features.0", "features.1")


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "resnet18",
            [
                (64, 48, 48),
                (64, 24, 24),
                (128, 12, 12),
                (256, 6, 6),
                (512, 3, 3),
                (512, 1, 1),
                (1000,),
            ],
        ),
        pytest.param(
            "densenet121",
            [
                (64, 48, 48),
                (256, 24, 24),
                (512, 12, 12),
                (1024, 6, 6),
                (1024, 3, 3),
                (1000,),
            ],
            marks=pytest.mark.slow,
        ),
        (
            "efficientnet_b0",
            [
                (16, 48, 48),
                (24, 24, 24),
                (40, 12, 12),
                (112, 6, 6),
                (1280, 3, 3),
                (1280, 1, 1),
                (1000,),
            ],
        ),
        (
            "regnet_y_400mf",
            [
                (32, 48, 48),
                (48, 24, 24),
                (104, 12, 12),
                (208, 6, 6),
                (440, 3, 3),
                (440, 1, 1),
                (1000,),
            ],
        ),
        pytest.param(
            "vit_b_16", [(768, 14, 14), (1000,)], marks=pytest.mark.slow
        ),
        (
            "swin_t",
            [
                (96, 24, 24),
                (192, 12, 12),
                (384, 6, 6),
                (768, 3, 3),
                (768, 1, 1),
                (1000,),
            ],
        ),
    ],
)
def test_the_stages_of_torchvisions_networks(
    name: str, shapes: list[tuple[int, ...]]
) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    net = seeded(lambda: models.get_model(name))
    stages = small(net, 224 if name.startswith("vit") else 96).stages()
    assert [stage.shape for stage in stages] == shapes
    assert sum(stage.convolutions for stage in stages) <= sum(
        isinstance(module, nn.Conv2d) for module in net.modules()
    )
