"""Finding the head: every spelling of it, clear refusals of everything else, and never
a wrong map."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from narrowed import exact_head, exactly
from networks import (
    HEADED,
    IMPOSTORS,
    Ending,
    Fickle,
    Flattened,
    Gap,
    Mlp,
    Tokens,
    seeded,
)
from unitscope.accounts.account import Account
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.head_search import find_head
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.map_change import OFF
from unitscope.errors import HeadError, ModelError, UnitscopeWarning
from unitscope.geometry import Placement, lay_on_photo
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.residual.head import ResidualHead
from unitscope.tracing.layers import changing_output, evaluating, find_layer

Making: TypeAlias = Callable[[], nn.Module]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(module: nn.Module, channels: int = 3) -> Classifier:
    mean = (0.5,) * channels
    return wrap(
        module,
        preprocessing=Preprocessing(resize=32, crop=32, mean=mean, std=mean),
    )


@pytest.mark.parametrize("name", HEADED)
def test_the_head_of_every_spelling_is_found(name: str) -> None:
    make, kind, layer, layer_is_map = HEADED[name]
    channels = 1 if name == "one channel" else 3
    model = small(seeded(make), channels)
    head = model.head
    assert (head.kind, head.layer, head.layer_is_map) == (
        kind,
        layer,
        layer_is_map,
    )
    # A normalisation takes the mean of the units away, and digits with it.
    allowed = 5e-6 if kind == "gap-norm-linear" else 1e-6
    assert head.error <= allowed and head.probes >= 3
    explanation = model.explain(noise(4, channels, 32, 32))
    assert explanation.completeness_error.max() <= allowed
    assert (
        explanation.logits.shape == (4, 5)
        and explanation.feature_map.shape[1:] == head.map_shape
    )
    check_ablations(model, explanation, noise(4, channels, 32, 32))


def check_ablations(
    model: Classifier, explanation: Explanation, x: Tensor
) -> None:
    """Every unit off in turn, by algebra, is a real forward pass with its map set to zero."""
    each = explanation.ablate_each()
    largest = explanation.logits.abs().max()
    for unit in range(explanation.feature_map.shape[1]):
        real = model.forward_without(x, [unit])
        scale = torch.maximum(largest, real.abs().max())
        assert float((each[:, unit] - real).abs().max() / scale) <= 1e-5
        assert (
            float(
                (explanation.ablate([unit]).logits - real).abs().max() / scale
            )
            <= 1e-5
        )
    two = explanation.ablate([0, 1])
    assert (
        float(
            (two.logits - model.forward_without(x, [0, 1])).abs().max()
            / largest
        )
        <= 1e-5
    )
    # The maps of what is left add up to what is left.
    assert two.completeness_error.max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "kind", "layer", "layer_is_map", "units"),
    [
        ("resnet18", "gap-linear", "layer4", True, 512),
        ("densenet121", "gap-linear", "features", False, 1024),
        ("mobilenet_v2", "gap-linear", "features", True, 1280),
        ("squeezenet1_1", "gap", "classifier.2", True, 10),
        pytest.param(
            "efficientnet_b0",
            "gap-linear",
            "features",
            True,
            1280,
            marks=pytest.mark.slow,
        ),
        ("googlenet", "gap-linear", "inception5b", True, 1024),
        ("shufflenet_v2_x0_5", "gap-linear", "conv5", True, 1024),
        pytest.param(
            "swin_t",
            "gap-linear",
            "permute",
            True,
            768,
            marks=pytest.mark.slow,
        ),
        ("convnext_tiny", "gap-norm-linear", "features", True, 768),
    ],
)
def test_the_heads_of_torchvision(
    name: str, kind: str, layer: str, layer_is_map: bool, units: int
) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    extra = {"init_weights": False} if name == "googlenet" else {}
    module = seeded(lambda: models.get_model(name, num_classes=10, **extra))
    model = wrap(module, preprocessing=Preprocessing(resize=96, crop=96))
    assert (model.head.kind, model.head.layer, model.head.layer_is_map) == (
        kind,
        layer,
        layer_is_map,
    )
    assert exact_head(model.head).weight.shape == (10, units)
    assert model.head.error <= 1e-5
    assert model.head.layer in [found.name for found in model.layers()]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Mlp, "before the last linear layer stands a hidden layer"),
        (
            Flattened,
            "reads a flattened 4×3×3 map, cell by cell, not a pooled one",
        ),
        (lambda: Ending(IMPOSTORS["bypass"]), "the network ends in a sum"),
        (
            lambda: Ending(IMPOSTORS["bypass before the linear layer"]),
            "before the last linear layer stands a sum",
        ),
    ],
)
def test_a_network_without_such_a_head_gets_a_local_answer_with_the_reason(
    module: Making, reason: str
) -> None:
    model = small(seeded(module))
    head, refusal = model.head_or_refusal()
    assert head is model.head and not head.exact and head.kind == "local"
    assert reason in refusal and "\n" not in refusal
    assert refusal.endswith(
        "exact maps need a feature map, a global average pool and one linear layer at "
        "the end"
    )
    assert isinstance(head, LocalHead) and head.reason == refusal
    assert not model.explain(noise(1, 3, 32, 32)).exact


def test_a_network_that_reads_a_token_gets_an_account_of_its_stream() -> None:
    head, refusal = small(seeded(Tokens)).head_or_refusal()
    assert isinstance(head, ResidualHead) and head.reason == refusal
    assert "before the last linear layer stands a token (as in ViT)" in refusal


EXACT_AFTER_ALL = (
    "temperature",
    "normalised units",
    "two heads summed",
    "two pools",
    "max pool",
)
LAST_FUNCTIONS = ("softmax", "log-softmax", "sigmoid")


@pytest.mark.filterwarnings("ignore:the network gives other logits each time")
@pytest.mark.parametrize("name", IMPOSTORS)
def test_an_impostor_is_refused_or_handled_exactly_but_never_explained_wrongly(
    name: str,
) -> None:
    net = seeded(lambda: Ending(IMPOSTORS[name]))
    x = noise(2, 3, 32, 32)
    with evaluating(net):
        logits = net(x)
    try:
        model = small(net)
        explanation = model.explain(x)
    except HeadError:
        assert name == "dropout that never stops"
        return
    if name in LAST_FUNCTIONS:  # it is looked through
        with evaluating(net):
            logits = net.fc(net.pooled(x))
    torch.testing.assert_close(explanation.logits, logits)
    without = model.forward_without(x, [1, 3])
    torch.testing.assert_close(
        explanation.ablate([1, 3]).logits, without, rtol=1e-5, atol=1e-5
    )
    exact = (*EXACT_AFTER_ALL, *LAST_FUNCTIONS)
    assert explanation.exact == (name in exact)
    if isinstance(explanation.head, ExactHead):
        bias = explanation.head.bias
        torch.testing.assert_close(
            explanation.cams.mean((2, 3)) + bias, logits, rtol=1e-5, atol=1e-5
        )


def test_the_numbers_of_the_head_are_its_own() -> None:
    net = seeded(Gap)
    head = exact_head(small(net).head)
    assert torch.equal(head.weight, net.fc.weight) and torch.equal(
        head.bias, net.fc.bias
    )
    assert (
        head.weight.data_ptr() != net.fc.weight.data_ptr()
        and not head.weight.requires_grad
    )
    assert head.map_shape == (6, 16, 16)
    assert (
        "feature map 6×16×16 → global average pool → linear layer of 5 classes"
        in head.describe()
    )


def test_a_zero_initialised_head_is_still_exact() -> None:
    net = seeded(Gap)
    nn.init.zeros_(net.fc.weight)
    nn.init.zeros_(net.fc.bias)
    with pytest.warns(
        UnitscopeWarning,
        match="on input 0 all 5 classes have the logit 0: check the weights",
    ):
        explanation = small(net).explain(noise(1, 3, 32, 32))
    assert explanation.completeness_error.max() == 0


@pytest.mark.parametrize("make", [Gap, Mlp])
def test_a_photo_on_which_nothing_fires_is_told_with_where_it_began(
    make: type[nn.Module],
) -> None:
    net = seeded(make)
    weight, bias = (
        net.get_parameter(f"features.3.{name}") for name in ("weight", "bias")
    )
    nn.init.zeros_(weight)
    nn.init.constant_(bias, -1)
    model = wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
    if make is Mlp:  # there is nothing for gradient × activation to be taken of
        with torch.no_grad():
            bias[0] = 1.0
        _ = model.head
        nn.init.constant_(bias, -1)
    with pytest.warns(
        UnitscopeWarning,
        match=r"first in the output of layer 'features\.4': its maps show nothing",
    ):
        explanation = model.explain(noise(1, 3, 32, 32))
    assert not explanation.cams_of(0).any()


@pytest.mark.parametrize("seed", range(5))
def test_a_photo_on_the_boundary_between_two_classes_is_not_taken_for_an_impostor(
    seed: int,
) -> None:
    net = seeded(lambda: Gap(units=128, classes=1), seed)
    x = noise(1, 3, 32, 32, seed=seed)
    with evaluating(net):
        net.fc.bias.sub_(net(x)[0])
        assert net(x).abs().max() < 1e-6  # no logit is left, only its rounding
    explanation = exactly(small(net).explain(x))
    difference = (
        (
            explanation.contributions.sum(2)
            + explanation.head.bias
            - explanation.logits
        )
        .abs()
        .max()
    )
    assert difference < 1e-6 * explanation.contributions.abs().sum()
    told = Account.of(small(net), explanation)
    assert all(check.holds for check in told.checks)


def test_a_small_term_that_comes_in_through_a_view_is_found_by_the_numbers() -> (
    None
):
    def cheat(when: Callable[[Tensor], Tensor]) -> Ending:
        def end(net: Ending, x: Tensor) -> Tensor:
            logits: Tensor = net.fc(net.pooled(x))
            logits[:, 0].add_(1e-4 * when(x.mean((1, 2, 3))))
            return logits

        return seeded(lambda: Ending(end))

    head, refusal = small(cheat(torch.exp)).head_or_refusal()
    assert head is not None and not head.exact
    assert re.search(
        "its logits differ from that algebra by .* something else contributes",
        refusal,
    )
    model = small(
        cheat(lambda mean: mean > 5)
    )  # silent on the inputs on which the head is verified
    assert model.explain(noise(2, 3, 32, 32)).completeness_error.max() < 1e-6
    with pytest.raises(
        HeadError, match="the maps do not add up to the logits on this input"
    ):
        model.explain(noise(2, 3, 32, 32) + 6)


def test_weights_changed_between_two_explanations_are_seen() -> None:
    net, x = seeded(Gap), noise(2, 3, 32, 32)
    model = small(net)
    before = exactly(model.explain(x))
    with torch.no_grad():
        net.fc.weight.mul_(3)
        net.get_parameter("features.3.bias").add_(1)
        net.fc.bias.sub_(5)
    after = exactly(model.explain(x))
    with evaluating(net):
        torch.testing.assert_close(after.logits, net(x))
    assert after.completeness_error.max() < 1e-5 and not torch.equal(
        before.logits, after.logits
    )
    assert torch.equal(after.head.weight, net.fc.weight)
    assert not torch.equal(
        before.head.weight, net.fc.weight
    )  # the earlier explanation is left as it was


def test_a_network_whose_path_changes_with_the_input_is_explained_exactly_or_refused() -> (
    None
):
    net = seeded(Fickle)
    model = small(net)
    x = noise(2, 3, 32, 32)
    assert model.explain(x).completeness_error.max() < 1e-6
    with pytest.raises(HeadError, match="another path on this input"):
        model.explain(x + 100)
    with pytest.raises(HeadError, match="another path on this input"):
        model.forward_without(x + 100, [1])
    with pytest.raises(HeadError, match="another path on this input"):
        model.explain(x - 100)


def test_a_replaced_classifier_is_seen() -> None:
    net = seeded(Gap)
    model = small(net)
    assert model.explain(noise(1, 3, 32, 32)).logits.shape == (1, 5)
    net.fc = seeded(lambda: nn.Linear(6, 9))
    explanation = model.explain(noise(1, 3, 32, 32))
    assert explanation.logits.shape == (1, 9) and len(explanation.labels) == 9


def test_a_segmentation_network_is_not_a_classifier() -> None:
    with pytest.raises(
        ModelError,
        match=r"tensor of shape \(2, 4, 32, 32\) for a batch of 2, not logits "
        r"\(batch, class\): it has numbers for each cell or pixel, as a segmenter",
    ):
        _ = small(nn.Conv2d(3, 4, 1)).head


def test_a_network_that_gives_no_tensor_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "dog"

    with pytest.raises(
        ModelError, match="gave a str, and no tensor by name or number, not"
    ):
        _ = small(Silent()).labels


def test_a_network_that_mixes_up_its_batch_is_refused() -> None:
    class Mixed(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flatten()[: 5 if len(x) == 1 else 7]

    model = small(seeded(Mixed))
    with pytest.raises(ModelError, match=r"shape \(7,\) for a batch of 2"):
        model.explain(noise(2, 3, 32, 32))


@pytest.mark.parametrize("module", [Gap, Mlp])
def test_no_activation_is_kept_alive(module: type[nn.Module]) -> None:
    net = seeded(module)
    born: list[weakref.ref[Tensor]] = []
    for submodule in net.modules():
        submodule.register_forward_hook(
            lambda _module, _inputs, output: born.append(weakref.ref(output))
        )
    model = small(net)
    assert model.head.exact == (module is Gap)
    assert len(model.layers()) > 5
    gc.collect()
    assert born and all(reference() is None for reference in born)


def test_memory_does_not_grow_with_the_sizes_of_the_photos() -> None:
    model = small(seeded(Gap))
    for side in range(20, 40):
        model.explain(noise(1, 3, side, side))
    assert len(model._structures) <= 16


def test_it_can_be_found_without_a_classifier() -> None:
    net = seeded(Gap)
    with evaluating(net):
        head, _path = find_head(net, noise(1, 3, 32, 32))
    assert head.error < 1e-6


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64]
)
def test_an_impostor_in_low_precision_is_not_mistaken_for_rounding(
    dtype: torch.dtype,
) -> None:
    honest = seeded(lambda: Gap(units=32)).to(dtype)
    assert exact_head(small(honest).head).weight.dtype == torch.float32
    cheat = seeded(
        lambda: Ending(
            lambda net, x: net.fc(net.pooled(x)).add_(
                0.1 * x.mean((1, 2, 3))[:, None].exp()
            )
        )
    ).to(dtype)
    assert not small(cheat).head.exact


def test_the_users_default_dtype_does_not_matter() -> None:
    net = seeded(lambda: HEADED["conv, relu, pool"][0]())
    model = small(net)
    torch.set_default_dtype(torch.float64)
    try:
        explanation = model.explain(noise(2, 3, 32, 32))
        assert explanation.cams.dtype == torch.float32
        assert model.preprocessing.channels == 3
    finally:
        torch.set_default_dtype(torch.float32)


# Each gives its own readout to every pass, and yet depends on the units in a way that
# the readout does not know.
UNSEEN: dict[str, Callable[[Ending, Tensor], Tensor]] = {
    "a divisor as a number": lambda net, x: (
        net.fc(net.pooled(x)) / net.pooled(x).norm().item()
    ),
    "weights by the photo": lambda net, x: nn.functional.linear(
        net.pooled(x), net.fc.weight * net.pooled(x).mean().exp()
    ),
    "a bias by the photo": lambda net, x: torch.addmm(
        net.other(net.pooled(x).square()), net.pooled(x), net.fc.weight.T
    ),
}


class OnePool(Gap):
    """Calls `end` with a network whose `pooled` is computed once."""

    def __init__(self, end: Callable[[Ending, Tensor], Tensor]) -> None:
        super().__init__()
        self.other, self.end = nn.Linear(6, 5), end

    def forward(self, x: Tensor) -> Tensor:
        once = Gap.pooled(self, x)
        self.pooled = lambda x: once  # type: ignore[method-assign]
        return self.end(self, x)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the network's logits for a photo depend")
@pytest.mark.parametrize("name", UNSEEN)
def test_what_depends_on_the_units_unseen_is_not_called_exact(
    name: str,
) -> None:
    model = small(seeded(lambda: OnePool(UNSEEN[name])))
    head, refusal = model.head_or_refusal()
    assert head is None or not head.exact
    assert "depend on" in refusal


def test_a_network_that_normalises_its_input_in_place_is_given_copies() -> None:
    net = seeded(
        lambda: Ending(lambda net, x: net.fc(net.pooled(x.sub_(0.5).div_(0.3))))
    )
    model, x = small(net), noise(2, 3, 32, 32)
    before = x.clone()
    explanation = model.explain(x)
    assert torch.equal(x, before)
    check_ablations(model, explanation, x)
    after = model.ablate(x, "features.0", [0]).after
    with (
        evaluating(net),
        changing_output(
            net,
            find_layer(model.layers(), "features.0"),
            lambda map_: OFF.of_map(map_, [0]),
        ),
    ):
        torch.testing.assert_close(after, net(before.clone()))


class Reordered(nn.Module):
    """Tokens in an order of its own, with a residual block, a mean and a linear layer."""

    def __init__(self, order: Tensor, back: Tensor | None = None) -> None:
        super().__init__()
        self.patches, self.mix, self.fc = (
            nn.Conv2d(3, 8, 8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 5),
        )
        self.order, self.back = order, back

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)[:, self.order]
        x = x + self.mix(x).relu()
        logits: Tensor = self.fc(
            (x if self.back is None else x[:, self.back]).mean(1)
        )
        return logits


def test_tokens_whose_places_cannot_be_followed_are_measured() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    model = small(seeded(lambda: Reordered(order, order.argsort())))
    assert isinstance(model.head, ExactHead) and model.head.kind == "gap-linear"
    assert model.head.map_shape == (8, 4, 4) and not model.head.grid.traced
    x = torch.zeros(1, 3, 32, 32)
    x[:, :, 8:16, 24:32] = 3
    changed = model.explain(x).feature_map - model.explain(0 * x).feature_map
    assert changed[0].abs().sum(0).nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize(
    "order",
    [
        torch.arange(16).flip(0),
        torch.arange(16).reshape(4, 4).T.flatten(),
        torch.arange(16).reshape(4, 4).flip(1).flatten(),
        torch.arange(16).reshape(2, 2, 2, 2).transpose(1, 2).flatten(),
    ],
)
def test_tokens_in_another_order_are_no_map(order: Tensor) -> None:
    model = small(seeded(lambda: Reordered(order)))
    assert isinstance(model.head, LocalHead)
    assert not model.head.exact and model.head.layer == "patches"
    assert (
        "16 tokens and a linear layer, but its tokens could not be followed"
        in model.head.reason
    )


@pytest.mark.parametrize(
    "moved",
    [
        lambda x: x.roll(9, 3),
        lambda x: x[:, :, :, torch.arange(31, -1, -1)],
        lambda x: x.transpose(2, 3),
    ],
)
def test_a_map_whose_places_are_lost_is_never_drawn_elsewhere(
    moved: Callable[[Tensor], Tensor],
) -> None:
    class Moved(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(moved(x))

    model = small(seeded(Moved))
    with pytest.raises(
        HeadError, match=r"256 cells and a linear layer, but its cells could"
    ):
        model.explain(noise(1, 3, 32, 32))


def test_a_mirrored_photo_is_explained_where_it_was_mirrored() -> None:
    class Mirrored(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, [2, 1, 0]].flip(3))

    plain, mirrored = small(seeded(Gap)), small(seeded(Mirrored))
    x = noise(1, 3, 32, 32)
    seen = x[:, [2, 1, 0]].flip(3)
    placement = Placement.whole((32, 32), (32, 32))
    expected = plain.explain(seen)
    maps = lay_on_photo(expected.cams[0].numpy(), expected.grid, placement)
    explained = mirrored.explain(x)
    assert explained.exact and explained.grid.cols.step < 0
    laid = lay_on_photo(explained.cams[0].numpy(), explained.grid, placement)
    np.testing.assert_allclose(laid, maps[..., ::-1], atol=1e-5)


class SetsUpFirst(Gap):
    """Fills a cache in its first pass, which then makes other calls than all later ones."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = torch.ones(1, 3, 1, 1) * 1.0
        return super().forward(x * self.cache)


def test_a_first_pass_that_sets_something_up_does_not_cost_the_exact_head() -> (
    None
):
    model = wrap(seeded(SetsUpFirst).eval())
    assert model.head.kind == "gap-linear" and not model.head_or_refusal()[1]
