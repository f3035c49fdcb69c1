"""Maps of several layers from one pass: those that hooks see, of the network as it is
and compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from networks import (
    ChannelsLast,
    ConvNextLike,
    Dense,
    Flattened,
    Gap,
    ResNet20,
    Tokens,
    seeded,
)
from unitscope.errors import LayerError, NonFiniteError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.tracing.layers import captured, evaluating

NETWORKS = (Gap, Dense, ChannelsLast, ConvNextLike, ResNet20, Tokens, Flattened)


def model_of(kind: type[nn.Module]) -> Classifier:
    return wrap(seeded(kind), preprocessing=Preprocessing(resize=36, crop=32))


def maps_of(model: Classifier) -> list[str]:
    return [layer.name for layer in model.layers() if layer.is_map]


@pytest.mark.parametrize(
    ("kind", "compiled"),
    [
        *((kind, False) for kind in NETWORKS),
        *(
            pytest.param(kind, True, marks=pytest.mark.slow)
            for kind in (Flattened, ResNet20)
        ),
    ],
)
def test_layers_are_what_hooks_see(
    kind: type[nn.Module], compiled: bool, x: Tensor
) -> None:
    model = model_of(kind)
    names = maps_of(model)
    layers = {layer.name: layer for layer in model.layers()}
    with evaluating(model.network), captured(model.network, names) as outputs:
        logits = model.network(x.clone())
    with model.frozen(names, required=True) if compiled else model.thawed():
        found = model.activations(x, names)
    assert list(found.layers) == list(found.pooled) == names
    assert torch.allclose(
        found.logits, logits, atol=1e-5 * float(logits.abs().max())
    )
    for name in names:
        real = layers[name].units_first(outputs[name])
        assert torch.allclose(
            found.layers[name], real, atol=1e-5 * float(real.abs().max())
        ), name
        assert torch.allclose(
            found.pooled[name], found.layers[name].mean((2, 3))
        )
    if model.head.exact:
        assert found.readout is not None and found.units is not None
        assert torch.allclose(
            found.readout.logits(found.units),
            logits,
            atol=1e-5 * float(logits.abs().max()),
        )
    else:
        assert found.feature_map is None and found.readout is None


def test_what_cannot_be_had(x: Tensor) -> None:
    model = model_of(Gap)
    with pytest.raises(LayerError, match="there is no layer 'feature'"):
        model.activations(x, ["feature"])
    with pytest.raises(LayerError, match="not a feature map"):
        model.activations(x, ["fc"])
    with pytest.raises(NonFiniteError):
        model.activations(x * torch.nan, ["features"])


def test_nothing_is_left_on_the_network(x: Tensor) -> None:
    model = model_of(Flattened)
    model.activations(x, maps_of(model))
    assert not any(module._forward_hooks for module in model.module.modules())
