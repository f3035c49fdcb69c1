"""Units of any layer switched off or replaced, together, in regions and one at a time,
against plain forward passes with hooks of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import (
    ChannelsLast,
    Dense,
    Gap,
    Mlp,
    OneRelu,
    SharedConv,
    Tokens,
    seeded,
)
from unitscope.attribution.unit_ablations import AblationsInterrupted
from unitscope.attribution.value import UnitMeans
from unitscope.errors import InputError, UnitError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def small(net: nn.Module) -> Classifier:
    return wrap(net, preprocessing=Preprocessing(resize=32, crop=32))


@contextlib.contextmanager
def hooked(
    net: nn.Module, module: str, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Inside, a module's output is what `change` makes of a copy of it."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return change(output.clone())

    handle = net.get_submodule(module).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def plain(net: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = net.eval()(x.clone())
    return logits.detach()


def without(net: nn.Module, module: str, unit: int, axis: int = 1) -> Tensor:
    """The logits of a forward pass with one unit of a module's output at zero."""

    def off(output: Tensor) -> Tensor:
        output.select(axis, unit).zero_()
        return output

    with hooked(net, module, off):
        return plain(net, X)


class Residual(nn.Module):
    """Two convolutions beside a shortcut, then a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.conv1 = nn.Conv2d(6, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.hidden, self.fc = nn.Linear(6, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
        logits: Tensor = self.fc(torch.relu(self.hidden(x.mean((2, 3)))))
        return logits


# A network, a layer inside it, and the axis of its units.
INNER: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "everything passes through": (Gap, "features.0", 1),
    "written in place afterwards": (Gap, "features.1", 1),
    "something bypasses it": (Dense, "conv1", 1),
    "a residual block": (Residual, "conv1", 1),
    "units last": (ChannelsLast, "embed", -1),
    "hidden layers follow": (Mlp, "features", 1),
    "tokens with a class token": (Tokens, "block1", -1),
}


def inner_case(name: str) -> tuple[nn.Module, Classifier, str, int]:
    make, layer, axis = INNER[name]
    net = seeded(make)
    model = small(net)
    names = [each.name for each in model.layers() if each.is_map]
    if layer not in names:
        layer = names[0]
    return net, model, layer, axis


for_inner = pytest.mark.parametrize("name", INNER)


@for_inner
def test_each_unit_of_a_layer_is_off_in_turn(name: str) -> None:
    net, model, layer, _ = inner_case(name)
    found = next(each for each in model.layers() if each.name == layer)
    axis = 1 if found.axes is None or found.axes.order == "units first" else -1
    each = model.ablations(X, layer)
    assert each.complete and each.units == tuple(range(found.shape[0]))
    torch.testing.assert_close(each.before, plain(net, X))
    slow = [without(net, layer, unit, axis) for unit in each.units]
    torch.testing.assert_close(
        each.after, torch.stack(slow, 1), rtol=1e-5, atol=1e-5
    )
    # Units together, from another pass, agree with units alone.
    alone = model.ablate(X, layer, [1])
    torch.testing.assert_close(
        alone.after, each.after[:, 1], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("make", [Gap, Dense, OneRelu, ChannelsLast, Mlp])
def test_each_unit_of_the_explained_map_is_off_in_turn(
    make: Callable[[], nn.Module],
) -> None:
    model = small(seeded(make))
    each = model.ablations(X)
    for place, unit in enumerate(each.units):
        torch.testing.assert_close(
            each.after[:, place],
            model.forward_without(X, unit),
            rtol=1e-5,
            atol=1e-5,
        )
    assert torch.equal(model.ablate_each(X), each.after)


def test_a_layer_that_runs_twice_is_changed_in_the_run_that_is_named() -> None:
    model = small(seeded(SharedConv))
    names = [each.name for each in model.layers() if ":" in each.name]
    for name in names:
        each = model.ablate_each(X, name)
        for unit in range(each.shape[1]):
            alone = model.ablate(X, name, unit).after
            torch.testing.assert_close(
                each[:, unit], alone, rtol=1e-5, atol=1e-5
            )


REGIONS: dict[str, tuple[Any, tuple[Any, Any]]] = {
    "one cell": ((2, 3), (2, 3)),
    "rows and columns": (
        (slice(2, 5), slice(0, 3)),
        (slice(2, 5), slice(0, 3)),
    ),
    "a row": ((1, slice(None)), (1, slice(None))),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("layer", ["features.0", "features.3", None])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_region_of_units_gets_a_value(
    region: str, layer: str | None, value: float
) -> None:
    net = seeded(Gap)
    model = small(net)
    given, (rows, cols) = REGIONS[region]

    def change(output: Tensor) -> Tensor:
        output[:, [1, 3], rows, cols] = value
        return output

    with hooked(net, layer or "features.4", change):
        slow = plain(net, X)
    found = model.ablate(X, layer, [1, 3], region=given, value=value)
    torch.testing.assert_close(found.after, slow, rtol=1e-5, atol=1e-5)
    assert found.exact is (layer is None)
    each = model.ablations(X, layer, [1, 3], region=given, value=value)
    for place, unit in enumerate((1, 3)):
        alone = model.ablate(X, layer, [unit], region=given, value=value)
        torch.testing.assert_close(
            each.after[:, place], alone.after, rtol=1e-5, atol=1e-5
        )


def test_a_region_as_an_array_of_shares() -> None:
    net = seeded(Gap)
    model = small(net)
    shares = torch.rand(16, 16, generator=torch.Generator().manual_seed(3))

    def change(output: Tensor) -> Tensor:
        return output * (1 - shares)

    with hooked(net, "features.4", change):
        slow = plain(net, X)
    for region in (shares, shares.numpy(), shares.tolist()):
        found = model.ablate(X, region=region)
        torch.testing.assert_close(found.after, slow, rtol=1e-5, atol=1e-5)
        assert len(found.units) == 6


def test_a_whole_layer_is_off() -> None:
    net = seeded(Residual)
    model = small(net)
    with hooked(net, "conv2", torch.zeros_like):
        slow = plain(net, X)
    found = model.ablate(X, "conv2", None)
    torch.testing.assert_close(found.after, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", ["features.0", None])
def test_units_get_their_values_on_another_photo(layer: str | None) -> None:
    net = seeded(Gap)
    model = small(net)
    module = layer or "features.4"
    kept: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        kept.append(output.detach().clone())
        return output

    with hooked(net, module, keep):
        plain(net, OTHER)
        plain(net, X.flip(0))

    for value, there in ((OTHER, kept[0]), (X.flip(0), kept[1])):

        def patch(output: Tensor, there: Tensor = there) -> Tensor:
            output[:, [0, 2]] = there[:, [0, 2]]
            return output

        with hooked(net, module, patch):
            slow = plain(net, X)
        found = model.ablate(X, layer, [0, 2], value=value, batch_size=2)
        torch.testing.assert_close(found.after, slow, rtol=1e-5, atol=1e-5)
        each = model.ablations(X, layer, [2], value=value, batch_size=2)
        alone = model.ablate(X, layer, [2], value=value)
        torch.testing.assert_close(
            each.after[:, 0], alone.after, rtol=1e-5, atol=1e-5
        )
        # Its own values change nothing.
        own = model.ablate(X, layer, None, value=X)
        torch.testing.assert_close(own.after, own.before, rtol=1e-5, atol=1e-5)


def test_units_get_their_means() -> None:
    net = seeded(Gap)
    model = small(net)
    means = UnitMeans("features.0", torch.arange(8) / 4.0, images=7)

    def change(output: Tensor) -> Tensor:
        output[:] = means.means[None, :, None, None]
        return output

    with hooked(net, "features.0", change):
        slow = plain(net, X)
    found = model.ablate(X, "features.0", None, value=means)
    torch.testing.assert_close(found.after, slow, rtol=1e-5, atol=1e-5)
    assert found.replaced == "their means over 7 images"
    with pytest.raises(InputError, match=r"the means are those of 8 units"):
        model.ablate(X, "features.3", [0], value=means)


def test_a_silent_unit_costs_no_pass_and_changes_nothing() -> None:
    net = seeded(Gap)
    conv = net.get_submodule("features.0")
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    with torch.no_grad():
        conv.weight[2] = 0
        conv.bias[2] = 0
    each = small(net).ablations(X, "features.0")
    assert torch.equal(each.after[:, 2], each.before)
    assert not torch.equal(each.after[:, 1], each.before)


def test_what_was_measured_before_ctrl_c_is_kept() -> None:
    model = small(seeded(Mlp))
    whole = model.ablations(X, "features.0")
    calls = 0

    def stop(_count: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(AblationsInterrupted) as interrupt:
        model.ablations(X, "features.0", progress=stop)
    assert torch.is_grad_enabled()
    partial = interrupt.value.partial
    assert isinstance(interrupt.value, KeyboardInterrupt)
    assert not partial.complete and partial.done.any()
    assert torch.equal(partial.after[partial.done], whole.after[partial.done])
    assert bool(partial.after[~partial.done].isnan().all())
    assert len(partial.effects()) == int(partial.done[0].sum())


def test_progress_counts_every_unit_of_every_photo() -> None:
    model = small(seeded(Gap))
    for layer in (None, "features.0"):
        counts: list[int] = []
        each = model.ablations(X, layer, progress=counts.append)
        assert sum(counts) == each.done.numel()


def test_effects_come_with_the_largest_first() -> None:
    model = small(seeded(Gap))
    each = model.ablations(X)
    effects = each.effects(3, image=1)
    sizes = [abs(effect.change) for effect in effects]
    assert sizes == sorted(sizes, reverse=True)
    for effect in effects:
        expected = each.after[1, effect.unit, 3] - each.before[1, 3]
        assert effect.change == pytest.approx(float(expected), abs=1e-6)
    turned = each.after[1].argmax(1) != each.before[1].argmax()
    assert each.turning(1) == tuple(turned.nonzero().flatten().tolist())


def test_the_network_is_left_alone() -> None:
    net = seeded(Mlp).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    small(net).ablations(X, "features.0", region=(0, 0), value=OTHER)
    assert net.training and all(part.training for part in net.modules())
    assert not any(part._forward_hooks for part in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a unit that there is not": ({"units": [99]}, UnitError, "no unit 99"),
    "a cell that there is not": (
        {"region": (16, 0)},
        InputError,
        "there is no row 16 in a map with 16 of them",
    ),
    "an array of another size": (
        {"region": np.ones((3, 4))},
        InputError,
        "a region of this map has its 16×16 cells, not 3×4",
    ),
    "shares above 1": (
        {"region": torch.full((16, 16), 2.0)},
        InputError,
        "hold 1 .in it., 0 .not., or a share between them, not 2 to 2",
    ),
    "slices without a cell": (
        {"region": (slice(5, 5), 0)},
        InputError,
        "holds none of the map's 16×16 cells",
    ),
    "a text": ({"region": "2,3"}, InputError, "'2,3' is no region"),
    "an infinite value": (
        {"value": float("inf")},
        InputError,
        "is a finite number of float32",
    ),
    "too many photos": (
        {"value": torch.cat([X, X])},
        InputError,
        "value has 6 photos to take the values from: give one, or one for each "
        "of the 3",
    ),
    "too few photos": (
        {"value": X[:2].clone()},
        InputError,
        "value has 2 photos to take the values from: give one, or one for each "
        "of the 3",
    ),
    "photos of another size": (
        {"value": OTHER[..., :16, :16].contiguous()},
        InputError,
        "the maps of the other photo are .*8×8.* in the same size",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("layer", ["features.0", None])
def test_what_does_not_fit_is_refused(name: str, layer: str | None) -> None:
    options, kind, text = BAD[name]
    model = small(seeded(Gap))
    given = {"units": [0], **options}
    for ask in (model.ablate, model.ablations):
        with pytest.raises(kind, match=text):
            ask(X, layer, **given)


def test_maximum_pools_are_measured_at_a_layer_and_else_refused() -> None:
    class Peak(Gap):
        def pooled(self, x: Tensor) -> Tensor:
            peaks: Tensor = self.features(x).amax((2, 3))
            return peaks

    net = seeded(Peak)
    model = small(net)
    with pytest.raises(InputError, match=r"name a layer, as in model\.ablate"):
        model.ablate(X, units=[0], region=(0, 0))

    def change(output: Tensor) -> Tensor:
        output[:, 0, :8] = 0
        return output

    with hooked(net, "features.4", change):
        slow = plain(net, X)
    layer = model.head.layer
    found = model.ablate(X, layer, [0], region=(slice(0, 8), slice(None)))
    torch.testing.assert_close(found.after, slow, rtol=1e-5, atol=1e-5)


def test_figures_and_notebooks_show_what_was_done(tmp_path: Path) -> None:
    model = small(seeded(Gap))
    each = model.ablations(X[:1], "features.0", value=0.5, region=(0, 1))
    assert "set to 0.5 in 1 of 256 cells" in each._repr_html_()
    assert each.save(tmp_path / "each.png").stat().st_size > 1000
    together = model.ablate(X[:1], "features.0", [1], value=0.5)
    assert "Unit 1 of features.0 set to 0.5" in together._repr_html_()


@pytest.mark.parametrize("make", [Dense, ChannelsLast])
def test_a_flip_of_cells_is_confirmed_where_the_pools_read_the_map(
    make: Callable[[], nn.Module],
) -> None:
    model = small(seeded(make))
    flips = [
        model.flip(X[image : image + 1], of=of)
        for of in ("cells", "region")
        for image in range(3)
    ]
    for flip in flips:
        if flip.found:
            assert flip.holds
            assert flip.confirmed is not None
            torch.testing.assert_close(
                flip.confirmed, flip.after, rtol=1e-5, atol=1e-5
            )
    assert any(flip.found for flip in flips)


# Real architectures: a layer at the border of two stages, and one inside a block that
# something bypasses.
REAL = {
    "resnet18": ("layer2", "layer3.0.conv1"),
    "densenet121": (
        "features.transition2",
        "features.denseblock3.denselayer4.conv1",
    ),
    "mobilenet_v2": ("features.6", "features.8.conv.1.0"),
    "convnext_tiny": ("features.3", "features.5.2.block.0"),
    "vit_b_16": ("encoder.layers.encoder_layer_4",),
}


@pytest.mark.parametrize("name", REAL)
def test_real_architectures_agree_with_plain_passes(name: str) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    size = 224 if name == "vit_b_16" else 64
    small_vit = {"hidden_dim": 96, "mlp_dim": 192, "num_heads": 3}
    if name == "vit_b_16":
        net = seeded(
            lambda: models.VisionTransformer(
                image_size=size,
                patch_size=32,
                num_layers=6,
                num_classes=10,
                **small_vit,
            )
        )
        # Torchvision begins with a classifier of zeros.
        nn.init.normal_(net.heads.head.weight)
    else:
        net = seeded(lambda: models.get_model(name, num_classes=10))
    net.eval()
    x = torch.randn(
        1, 3, size, size, generator=torch.Generator().manual_seed(4)
    )
    model = wrap(net, preprocessing=Preprocessing(size, size))
    for layer in REAL[name]:
        found = next(each for each in model.layers() if each.name == layer)
        axis = 1
        if found.axes is not None and found.axes.order != "units first":
            axis = -1
        each = model.ablations(x, layer, range(4))
        for place, unit in enumerate(each.units):

            def off(
                output: Tensor, unit: int = unit, axis: int = axis
            ) -> Tensor:
                output.select(axis, unit).zero_()
                return output

            with hooked(net, layer, off):
                slow = plain(net, x)
            scale = float(slow.abs().max())
            torch.testing.assert_close(
                each.after[:, place], slow, rtol=0, atol=1e-5 * scale
            )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", ["stem", "conv1"])
def test_a_frozen_network_runs_compiled_from_the_layer_on(layer: str) -> None:
    compiled = pytest.importorskip(
        "unitscope.engine.compiled", reason="the engine is not installed"
    )
    if not compiled.is_installed():
        pytest.skip("the extra fast is not installed")
    net = seeded(Residual)
    model = small(net)
    plain_ones = model.ablations(X, layer)
    with model.frozen(required=True):
        frozen = model.ablations(X, layer)
        kept = model._forward.frozen
        assert kept is not None
        rests = [key for key in kept._compiled if "rest" in key]
        assert len(rests) == 1 and kept._compiled[rests[0]] is not None
    torch.testing.assert_close(
        frozen.after, plain_ones.after, rtol=1e-5, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_reads_its_input_again_behind_a_layer_is_not_compiled_from_there() -> (
    None
):
    class Bypassed(Gap):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = (
                self.fc(self.pooled(x)) + x.mean((1, 2, 3))[:, None]
            )
            return logits

    model = small(seeded(Bypassed))
    plain_ones = model.ablations(X, "features.0")
    with model.frozen():
        frozen = model.ablations(X, "features.0")
    torch.testing.assert_close(
        frozen.after, plain_ones.after, rtol=1e-5, atol=1e-5
    )
