"""What users bring beside plain tensors, each against a plain forward pass."""

from __future__ import annotations

import warnings
from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import unitscope
from networks import Gap, features, seeded
from unitscope.attribution.explanation import Explanation
from unitscope.errors import InputError, ModelError, UnitscopeWarning
from unitscope.model.network import Network

X = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
META = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
UNITS = [0, 3]
PIXELS = (X * 50 + 128).clamp(0, 255).to(torch.uint8)


class Gated(nn.Module):
    """Metadata gates the units before the pool: an exact head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()
        self.gate, self.fc = nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        gate = self.gate(meta).sigmoid()[:, :, None, None]
        logits: Tensor = self.fc((self.features(x) * gate).mean((2, 3)))
        return logits


class Added(Gated):
    """Metadata adds to the logits: an exact head for each photo alone."""

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        logits: Tensor = self.fc(
            self.features(x).mean((2, 3)) + self.gate(meta)
        )
        return logits


class Hidden(Gated):
    """Metadata beside the pooled units before a hidden layer: a local answer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, 6)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        both = torch.cat([self.features(x).mean((2, 3)), meta], 1)
        logits: Tensor = self.fc(self.hidden(both).relu())
        return logits


class Keyword(nn.Module):
    """Takes everything by name, the photo last."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = Gated()

    def forward(self, *, meta: Tensor, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.gated(pixel_values, meta)
        return logits


def slow(net: nn.Module, meta: Tensor, x: Tensor = X) -> Tensor:
    name = "pixel_values" if isinstance(net, Keyword) else "x"
    with torch.no_grad():
        logits: Tensor = net(**{name: x}, meta=meta)
    return logits


def agree(e: Explanation, model: unitscope.Classifier) -> None:
    """Everything that an explanation says equals plain and ablated forward passes."""
    summed = e.contributions.sum(2) + e.left_out
    torch.testing.assert_close(summed, e.logits, rtol=1e-4, atol=1e-5)
    layer = None if e.exact else e.layer
    real = model.forward_without(e.inputs(), UNITS, layer, also=e.also)
    torch.testing.assert_close(
        e.ablate(UNITS).logits, real, rtol=1e-4, atol=1e-5
    )
    last = len(e) - 1
    alone = e[last].ablate(UNITS).logits
    torch.testing.assert_close(alone, real[last:], rtol=1e-4, atol=1e-5)
    each = e.ablate_each(units=[1])[:, 0]
    real = model.forward_without(e.inputs(), [1], layer, also=e.also)
    torch.testing.assert_close(each, real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [16, 2, 1])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Gated, "gap-linear"),
        (Keyword, "gap-linear"),
        (Added, "local"),
        (Hidden, "local"),
    ],
)
def test_each_photo_is_explained_with_its_own_further_inputs(
    make: type[nn.Module], kind: str, batch_size: int
) -> None:
    net = seeded(make).eval()
    model = unitscope.wrap(net)
    e = model.explain(X, also={"meta": META}, batch_size=batch_size)
    torch.testing.assert_close(e.logits, slow(net, META))
    assert e.head.kind == kind
    agree(e, model)
    assert not any(part._forward_pre_hooks for part in net.modules())

    again = model.explain(e.inputs(), also=e.also)
    torch.testing.assert_close(again.logits, e.logits)


def test_a_head_that_differs_from_photo_to_photo_says_so() -> None:
    model = unitscope.wrap(seeded(Added).eval())
    e = model.explain(X, also={"meta": META})
    assert (
        "the head depends on 'meta', and differs" in e.head.as_json()["reason"]
    )
    same = model.explain(X, also={"meta": META[:1]})
    assert same.exact
    torch.testing.assert_close(same.logits, slow(model.module, META[:1]))
    assert model.explain(X[:1], also={"meta": META[:1]}).exact


def test_inner_layers_are_given_further_inputs_too() -> None:
    net = seeded(Gated).eval()
    model, also = unitscope.wrap(net), {"meta": META}
    ablation = model.ablate(X, "features.0", [1], also=also, batch_size=2)
    torch.testing.assert_close(ablation.before, slow(net, META))
    real = model.forward_without(X, [1], "features.0", also=also)
    torch.testing.assert_close(ablation.after, real)
    of_head = model.ablate(X, None, UNITS, also=also)
    assert of_head.exact

    maps = model.units(X, "features.0", [1], also=also, batch_size=2).maps
    seen = model.activations(X, ["features.0"], also=also)
    torch.testing.assert_close(maps, seen.layers["features.0"][:, [1]])
    torch.testing.assert_close(seen.logits, slow(net, META))


def test_activations_without_a_common_head() -> None:
    net = seeded(Added).eval()
    seen = unitscope.wrap(net).activations(X, also={"meta": META})
    assert seen.readout is None
    torch.testing.assert_close(seen.logits, slow(net, META))


def test_a_fixed_input_serves_everything_that_the_classifier_does() -> None:
    net = seeded(Gated).eval()
    model = unitscope.wrap(net, also={"meta": META[:1].double().numpy()})
    assert model.head.kind == "gap-linear" and len(model.labels) == 5
    assert model.provenance.notes == (
        "every photo is given the same 'meta', of shape (1, 4)",
    )
    e = model.explain(X, batch_size=2)
    torch.testing.assert_close(e.logits, slow(net, META[:1]))
    agree(e, model)


@pytest.mark.slow
def test_a_fixed_input_is_compiled_and_a_further_one_is_not() -> None:
    pytest.importorskip("onnxruntime")
    net = seeded(Gated).eval()
    fixed = unitscope.wrap(net, also={"meta": META[:1]})
    with fixed.frozen(required=True):
        torch.testing.assert_close(
            fixed.explain(X).logits, slow(net, META[:1]), rtol=1e-4, atol=1e-5
        )
    model = unitscope.wrap(net)
    with (
        model.frozen(),
        pytest.warns(
            UnitscopeWarning, match="it is given 'meta' with every call"
        ),
    ):
        e = model.explain(X, also={"meta": META})
    torch.testing.assert_close(e.logits, slow(net, META))


@pytest.mark.parametrize(
    ("also", "error", "message"),
    [
        ({}, ModelError, "the network's forward also needs 'meta'"),
        ({"mta": META}, InputError, "takes no 'mta' (did you mean 'meta'?)"),
        ({"meta": META[:2]}, InputError, "with 2 rows for 5 photos"),
        ({"meta": META[:, :3]}, ModelError, "check 'meta', or give its own"),
    ],
)
def test_missing_and_wrong_further_inputs_are_named(
    also: dict[str, Any], error: type[Exception], message: str
) -> None:
    net = seeded(Gated)
    with pytest.raises(error) as refusal:
        unitscope.wrap(net).explain(X, also=also)
    assert message in str(refusal.value)
    assert not net._forward_pre_hooks


BATCHES: list[Any] = [
    (X, torch.arange(5)),
    [X, torch.arange(5)],
    next(iter(DataLoader(TensorDataset(X), batch_size=5))),
    {"image": X, "label": torch.arange(5), "path": ["a"] * 5},
    {"image": X, "mask": X[:, :1]},
    UserDict(pixel_values=X, labels=torch.arange(5)),
    X.numpy(),
    X.double().numpy(),
    X.numpy()[:, :, ::-1][:, :, ::-1],
    X.requires_grad_(False).to(memory_format=torch.channels_last),
    X.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    X.clone().requires_grad_(),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("batch", BATCHES, ids=range(len(BATCHES)))
def test_batches_as_loaders_give_them(batch: Any) -> None:
    net = seeded(Gap).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            unitscope.wrap(net).explain(batch).logits, net(X)
        )


@pytest.mark.usefixtures("unchecked")
def test_a_loaders_dict_holds_further_inputs_by_name() -> None:
    net = seeded(Gated).eval()
    batch = {"x": X, "meta": META, "label": torch.arange(5)}
    e = unitscope.wrap(net).explain(batch, batch_size=2)
    torch.testing.assert_close(e.logits, slow(net, META))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            {"a": X, "b": X},
            "2 tensors that can be the photos, x['a'] (5, 3, 32, 32)",
        ),
        ([X, X], "give one of them, x[0]; join several batches, torch.cat(x)"),
        ((X[0], 3), "one picture without a batch axis: give x[0][None]"),
        ({"label": torch.arange(5)}, "without a floating-point tensor"),
        (
            DataLoader(TensorDataset(X)),
            "explain one of them, next(iter(loader))",
        ),
        ([[X, 1]], "a list of lists cannot be explained: give one batch of it"),
        (X.permute(0, 2, 3, 1), "put them first, x.permute(0, 3, 1, 2)"),
        (X[0].permute(1, 2, 0), "first, x.permute(2, 0, 1)[None]"),
        (PIXELS[0].permute(1, 2, 0).numpy(), "a PIL image, Image.fromarray(x)"),
        (
            [PIXELS[0].permute(1, 2, 0).numpy()] * 2,
            "[Image.fromarray(each) for",
        ),
        (X[0, 0], "add axes for the batch and the channel, x[None, None]"),
        (X[:, None], "one by one, x.flatten(0, 1)"),
        (X[:, :, None], "one by one, x.transpose(1, 2).flatten(0, 1)"),
        (X[:, :, :0], "it has no pixels"),
        (X.to("meta"), "not those of a meta tensor"),
        (X.to_sparse(), "not those of a sparse_coo tensor"),
        (PIXELS, "not torch.uint8, which the network does not take"),
    ],
)
def test_other_forms_are_refused_with_the_remedy_that_fits(
    x: Any, message: str
) -> None:
    with pytest.raises(InputError) as refusal:
        unitscope.wrap(seeded(Gap)).explain(x)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_batch_of_grey_pictures_without_their_channel() -> None:
    model = unitscope.wrap(Gap(channels=1))
    with pytest.raises(InputError, match="one channel, x\\[:, None\\]"):
        model.explain(X[:, 0])


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_the_usual_input_has_the_channels_of_the_first_convolution(
    channels: int,
) -> None:
    model = unitscope.wrap(Gap(channels=channels))
    assert model.input_shape == (channels, 224, 224)
    assert model.head.kind == "gap-linear"


def test_a_network_that_makes_its_own_channels_is_run_on_three() -> None:
    class Grey(Gap):
        def forward(self, x: Tensor) -> Tensor:
            grey = x[:, 0:1] + x[:, 1:2] + x[:, 2:3]
            return super().forward(grey)

    assert unitscope.wrap(Grey(channels=1)).input_shape == (3, 224, 224)


@pytest.mark.usefixtures("unchecked")
def test_photos_for_a_network_of_thirteen_bands() -> None:
    model = unitscope.wrap(Gap(channels=13))
    with pytest.raises(ModelError, match="convolution takes 13 channels: give"):
        model.explain(X)


class Scaling(Gap):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() / 255)


class Aware(Gap):
    def forward(self, x: Tensor) -> Tensor:
        is_pixels = x.dtype is torch.uint8
        return super().forward(x.float() / 255 if is_pixels else x)


class Strict(Scaling):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype is torch.uint8, "wants uint8"
        return super().forward(x)


class Unscaled(Gap):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.45) / 0.25)


def test_whether_a_network_runs_is_asked_by_one_pass() -> None:
    class Counting(Strict):
        def forward(self, x: Tensor) -> Tensor:
            passes.append(x.dtype)
            return super().forward(x)

    passes: list[torch.dtype] = []
    network = Network(seeded(Counting))
    assert not network.runs(X)
    assert passes == [torch.float32]


@pytest.mark.parametrize("make", [Scaling, Aware, Strict])
def test_pixels_are_given_to_networks_that_take_them(make: type[Gap]) -> None:
    net = seeded(make).eval()
    model = unitscope.wrap(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        e = model.explain(PIXELS)
    with torch.no_grad():
        torch.testing.assert_close(e.logits, net(PIXELS))
    assert e.exact and model.head.exact
    agree(e, model)
    drawn = np.asarray(e.subjects[1].picture())
    assert np.array_equal(drawn, PIXELS[1].permute(1, 2, 0).numpy())


def test_a_network_of_pixels_alone_refuses_other_numbers() -> None:
    model = unitscope.wrap(seeded(Strict))
    assert model.head.exact
    with pytest.raises(
        InputError, match="takes uint8 pixels, and the input is not"
    ):
        model.explain(X)


@pytest.mark.parametrize(
    ("make", "pixels"), [(Unscaled, PIXELS), (Gap, PIXELS.float())]
)
def test_pixels_that_nothing_scales_are_told(
    make: type[Gap], pixels: Tensor
) -> None:
    model = unitscope.wrap(seeded(make))
    with pytest.warns(UnitscopeWarning, match="whole numbers from 0 to 255"):
        model.explain(pixels)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16]
)
def test_further_inputs_follow_the_networks_dtype(dtype: torch.dtype) -> None:
    net = seeded(Gated).eval().to(dtype)
    e = unitscope.wrap(net).explain(X, also={"meta": META.double()})
    with torch.no_grad():
        real = net(X.to(dtype), META.to(dtype))
    torch.testing.assert_close(e.logits, real.float())


def test_expanded_inputs() -> None:
    net = seeded(Gap).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            unitscope.wrap(net).explain(X[:1].expand(3, -1, -1, -1)).logits,
            net(X[:1]).expand(3, -1),
        )


def test_torchscript_cannot_be_given_further_inputs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(seeded(Gated).eval())
    with pytest.raises(ModelError, match="called with the photos alone"):
        _ = unitscope.wrap(scripted, also={"meta": META[:1]}).head
