"""Local answers: gradient × activation where no head is exact, labelled so, with real ablations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import (
    IMPOSTORS,
    Ending,
    Fickle,
    Flattened,
    Gap,
    Mlp,
    Runs,
    Tokens,
    seeded,
)
from unitscope.accounts.account import Account
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.attribution.local_head import LocalHead
from unitscope.errors import (
    HeadError,
    InputError,
    LayerError,
    ModelError,
    UnitscopeWarning,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(module: nn.Module) -> Classifier:
    return wrap(module, preprocessing=Preprocessing(resize=32, crop=32))


X = noise(3, 3, 32, 32)


def by_autograd(
    net: nn.Module, layer: str, x: Tensor, index: int
) -> tuple[Tensor, Tensor]:
    """The layer's output and the gradient of one class's logit, by an ordinary
    backward pass of the whole network."""
    kept: dict[str, Tensor] = {}
    module = dict(net.named_modules())[layer]
    handle = module.register_forward_hook(
        lambda _m, _i, output: kept.update(a=output)
    )
    try:
        logits = net.eval()(x.clone().requires_grad_())
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, index].sum(), kept["a"])
    return kept["a"].detach(), gradient


def local(explanation: Explanation) -> LocalExplanation:
    assert isinstance(explanation, LocalExplanation)
    return explanation


@pytest.mark.parametrize(
    ("make", "layer"), [(Mlp, "features"), (Flattened, "features")]
)
def test_the_map_is_gradient_times_activation_of_an_ordinary_backward_pass(
    make: type[nn.Module], layer: str
) -> None:
    net = seeded(make)
    model = small(net)
    assert model.head.layer == layer and model.head.kind == "local"
    hires, gradcam = (
        local(model.explain(X, method=method))
        for method in ("hirescam", "gradcam")
    )
    for index in range(5):
        activation, gradient = by_autograd(net, layer, X, index)
        cells = activation.shape[2] * activation.shape[3]
        torch.testing.assert_close(
            hires.cams[:, index], (gradient * activation).sum(1) * cells
        )
        weights = gradient.sum((2, 3))
        torch.testing.assert_close(
            gradcam.cams[:, index],
            torch.einsum("bu,buyx->byx", weights, activation),
        )
        torch.testing.assert_close(
            hires.contributions[:, index], (gradient * activation).sum((2, 3))
        )
        torch.testing.assert_close(hires.weights_of(index), weights)
        left = hires.logits[:, index] - (gradient * activation).sum((1, 2, 3))
        torch.testing.assert_close(hires.left_out[:, index], left)


def test_where_the_last_linear_layer_reads_every_cell_hirescam_leaves_out_the_bias_alone() -> (
    None
):
    """Draelos & Carin's case: HiResCAM is exact for one linear layer on the flattened
    map, Grad-CAM is not."""
    net = seeded(Flattened)
    model = small(net)
    hires, gradcam = model.explain(X), model.explain(X, method="gradcam")
    torch.testing.assert_close(
        hires.left_out, net.fc.bias.detach().expand(3, -1), rtol=1e-4, atol=1e-6
    )
    assert not torch.allclose(
        gradcam.left_out, net.fc.bias.detach().expand(3, -1), atol=1e-2
    )


@pytest.mark.parametrize("method", ["hirescam", "gradcam"])
def test_both_methods_are_the_exact_map_where_the_head_is_exact(
    method: str,
) -> None:
    model = small(seeded(Gap))
    exact, asked = model.explain(X), local(model.explain(X, method=method))
    assert (
        isinstance(exact, ExactExplanation)
        and asked.layer == exact.layer == "features"
    )
    torch.testing.assert_close(asked.cams, exact.cams, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        asked.contributions, exact.contributions, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        asked.left_out, exact.left_out, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        asked.ablate_each(), exact.ablate_each(), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        asked.weights_of(1), exact.weights_of(1), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("make", [Mlp, Flattened, Tokens])
def test_ablations_are_real_forward_passes(make: type[nn.Module]) -> None:
    net = seeded(make)
    model = small(net)
    explanation = local(model.explain(X, method="hirescam"))
    layer = explanation.layer
    each = explanation.ablate_each()
    units = explanation.feature_map.shape[1]
    assert each.shape == (3, units, 5)
    for unit in range(units):
        real = model.forward_without(X, [unit], layer)
        torch.testing.assert_close(each[:, unit], real, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            explanation.ablate([unit]).logits, real, rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(
        explanation.ablate_each([2, 0], [1, 3]), each[:, [1, 3]][:, :, [2, 0]]
    )
    assert explanation.ablate_each([2, 0], []).shape == (3, 0, 2)
    told = [logits for _, logits in explanation.ablations(at_once=3)]
    assert [len(logits[0]) for logits in told[:-1]] == [3] * (len(told) - 1)
    torch.testing.assert_close(torch.cat(told, dim=1), each)
    # Switching off goes on from what is off already.
    twice = explanation.ablate([0]).ablate([2])
    torch.testing.assert_close(
        twice.logits,
        model.forward_without(X, [0, 2], layer),
        rtol=1e-5,
        atol=1e-6,
    )
    assert twice.off == (0, 2)
    maps = local(twice).cams_of(0)
    assert torch.isfinite(maps).all()


def test_after_the_last_attention_only_the_class_token_counts_so_the_layer_before_is_taken() -> (
    None
):
    model = small(seeded(Tokens))
    # Of the tokens after the attention only the first is classified; the patches still
    # matter before it.
    explanation = model.explain(X, method="hirescam")
    assert explanation.layer == "patches"
    assert explanation.feature_map.shape == (3, 6, 4, 4)
    with pytest.raises(
        HeadError,
        match="no cell of layer 'norm' counts for the logits of input 0 and 2 more: choose a "
        "layer before it",
    ):
        model.explain(X, layer="norm")


class PreNorm(Tokens):
    """As ViT: a normalisation at the beginning of the last block reads every token by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1) + 1, x], 1)
        y = self.before(x)
        logits: Tensor = self.head(
            self.norm(x + self.mix(y, y, y, need_weights=False)[0])[:, 0]
        )
        return logits


def test_where_a_normalisation_reads_every_token_its_output_is_taken() -> None:
    """Gradient · activation before it is 0 in every token: layer norm does not see
    their lengths."""
    net = seeded(PreNorm)
    model = small(net)
    explanation = local(model.explain(X, method="hirescam"))
    assert (
        explanation.layer == "before"
        and explanation.head.start == "patches"
        and not explanation.head.silent
    )
    assert explanation.cams_of(0).abs().max() > 1e-4
    real = model.forward_without(X, [1], "before")
    torch.testing.assert_close(
        explanation.ablate([1]).logits, real, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        explanation.ablate_each(units=[1])[:, 0], real, rtol=1e-5, atol=1e-6
    )
    with pytest.warns(
        UnitscopeWarning,
        match="a normalisation reads every cell of layer 'patches' by itself",
    ):
        silent = model.explain(X, layer="patches")
    averaged = local(model.explain(X, layer="patches", method="gradcam"))
    assert (
        silent.cams_of(0).abs().max() < 0.01 * averaged.cams_of(0).abs().max()
    )


def test_any_layer_can_be_asked_and_says_that_it_is_local() -> None:
    net = seeded(Gap)
    model = small(net)
    explanation = local(model.explain(X, layer="features.0"))
    assert explanation.layer == "features.0" and not explanation.exact
    assert (
        isinstance(explanation.head, LocalHead)
        and explanation.head.start == "features.0"
    )
    assert "local at 'features.0'" in repr(explanation)
    activation, gradient = by_autograd(net, "features.0", X, 1)
    cells = activation.shape[2] * activation.shape[3]
    torch.testing.assert_close(
        explanation.cams_of(1)[:, 0], (gradient * activation).sum(1) * cells
    )
    assert isinstance(model.explain(X, layer="features"), ExactExplanation)


class Bypassed(nn.Module):
    """A block with a shortcut: what passes through `inner` is not all that the logits depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        logits: Tensor = self.fc(
            torch.relu(x + self.inner(x).relu_()).mean((2, 3))
        )
        return logits


def test_a_layer_that_something_bypasses_is_run_from_the_layer_before_it() -> (
    None
):
    net = seeded(Bypassed)
    model = small(net)
    explanation = local(model.explain(X, layer="inner"))
    assert explanation.head.start == "stem"
    real = model.forward_without(X, [2], "inner")
    torch.testing.assert_close(explanation.ablate([2]).logits, real)
    torch.testing.assert_close(explanation.ablate_each()[:, 2], real)
    assert not torch.allclose(real, explanation.logits)
    leaf = explanation.feature_map.clone().requires_grad_()
    handle = net.inner.register_forward_hook(
        lambda _m, _i, _output: leaf.clone()
    )
    logits = net(X)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    torch.testing.assert_close(
        explanation.contributions_of(0)[:, 0],
        (gradient * leaf.detach()).sum((2, 3)),
    )


def test_one_run_of_a_module_that_runs_several_times() -> None:
    model = small(seeded(Runs))
    assert model.head.layer == "conv:2"
    explanation = model.explain(X, layer="conv:1")
    torch.testing.assert_close(
        explanation.ablate([1]).logits, model.forward_without(X, [1], "conv:1")
    )


def test_regions_add_up_to_the_logit() -> None:
    explanation = small(seeded(Mlp)).explain(X)
    rows, cols = explanation.feature_map.shape[2:]
    left = torch.zeros(rows, cols)
    left[:, : cols // 3] = 1
    total = explanation.evidence(left) + explanation.evidence(1 - left)
    torch.testing.assert_close(total, explanation.logits, rtol=1e-5, atol=1e-5)


def test_batches_photos_and_slices_agree() -> None:
    model = small(seeded(Tokens))
    whole, parts = (
        local(model.explain(X, method="hirescam")),
        local(model.explain(X, method="hirescam", batch_size=2)),
    )
    torch.testing.assert_close(parts.cams, whole.cams)
    torch.testing.assert_close(whole[1].cams, whole.cams[1:2])
    torch.testing.assert_close(
        local(parts)[2].ablate_each([0]), whole.ablate_each([0])[2:]
    )
    assert len(list(whole)) == 3


def test_only_the_classes_asked_for_are_differentiated() -> None:
    explanation = local(small(seeded(Mlp)).explain(X))
    explanation.cams_of([3, 1])
    assert sorted(explanation._attributions) == [1, 3]
    assert explanation.maximal_unit(3) == int(
        explanation.contributions_of(3)[:, 0].mean(0).argmax()
    )
    assert len(explanation.top_units(3, 4)) == 4
    assert len(explanation.classes_of_unit(0, 2)) == 2


def test_a_network_that_changed_since_is_told() -> None:
    net = seeded(Mlp)
    explanation = small(net).explain(X)
    with torch.no_grad():
        net.get_parameter("classifier.0.weight").mul_(2)
    for question in (
        lambda: explanation.ablate([0]),
        lambda: explanation.ablate_each(),
        lambda: explanation.cams,
    ):
        with pytest.raises(
            ModelError,
            match=r"no longer gives the logits that were explained .* explain again",
        ):
            question()


def test_a_network_that_gives_another_result_each_time_has_no_answer() -> None:
    model = small(seeded(lambda: Ending(IMPOSTORS["dropout that never stops"])))
    with (
        pytest.warns(UnitscopeWarning, match="other logits each time"),
        pytest.raises(HeadError, match="nor can a local answer be given"),
    ):
        model.explain(X)


def test_a_network_that_looks_at_its_input_is_run_whole() -> None:
    """Its forward asks for a mean of the photo, which a stand-in without numbers cannot give."""

    class Looking(Fickle):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()

    net = seeded(Looking)
    model = wrap(
        net, preprocessing=Preprocessing(resize=32, crop=32), scores="none"
    )
    explanation = local(model.explain(X))
    assert explanation.layer == "features" and explanation.head.start is None
    torch.testing.assert_close(
        explanation.ablate([1]).logits,
        model.forward_without(X, [1], "features"),
    )


def test_a_network_outside_autograd_is_told() -> None:
    class Detached(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.classifier(
                self.features(x).mean((2, 3)).detach()
            )
            return logits

    with pytest.raises(
        HeadError, match="no cell of layer 'features' counts for the logits"
    ):
        small(seeded(Detached)).explain(X)
    with pytest.raises(
        HeadError, match="have no gradient with respect to layer 'features'"
    ):
        small(seeded(Detached).requires_grad_(False)).explain(X)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"method": "nocam"},
            InputError,
            "there is no method 'nocam': choose 'hirescam' or 'gradcam'",
        ),
        ({"layer": "features.9"}, LayerError, "there is no layer 'features.9'"),
        ({"layer": "classifier.0"}, LayerError, "gives 8, not a feature map"),
    ],
)
def test_what_cannot_be_asked_is_told(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        small(seeded(Mlp)).explain(X, **options)


def contexts() -> list[Callable[[], AbstractContextManager[object]]]:
    return [torch.no_grad, torch.inference_mode, torch.enable_grad]


@pytest.mark.parametrize("context", contexts())
def test_the_users_network_and_contexts_are_left_alone(
    context: Callable[[], AbstractContextManager[object]],
) -> None:
    net = seeded(Mlp).train()
    net.features[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with context():
        was = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        explanation = small(net).explain(X)
        explanation.cams_of([0, 1])
        explanation.ablate_each()
        assert (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        ) == was
    assert net.training and all(
        parameter.grad is None for parameter in net.parameters()
    )
    assert not net.features[0].weight.requires_grad
    assert all(
        torch.equal(value, before[name])
        for name, value in net.state_dict().items()
    )
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    net = seeded(Mlp).to(dtype)
    model = small(net)
    explanation = model.explain(X)
    assert explanation.logits.dtype == explanation.cams.dtype == torch.float32
    real = model.forward_without(X, [1])
    torch.testing.assert_close(
        explanation.ablate([1]).logits, real, rtol=1e-2, atol=1e-2
    )


class Parametrised(Mlp):
    """Weights that are computed anew whenever they are read."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.features[3])
        nn.utils.parametrizations.spectral_norm(self.classifier[0])


class InADict(Mlp):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"hidden": x, "logits": super().forward(x)}


class InATuple(Mlp):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        logits = super().forward(x)
        return logits, logits.softmax(1)


def compiled() -> nn.Module:
    net = torch.compile(seeded(Mlp))
    assert isinstance(net, nn.Module)
    return net


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "in training": lambda: seeded(Mlp).train(),
    "frozen": lambda: seeded(Mlp).requires_grad_(False),
    "DataParallel": lambda: nn.DataParallel(seeded(Mlp)),
    "torch.compile": compiled,
    "channels last": lambda: seeded(Mlp).to(memory_format=torch.channels_last),
    "parametrised": lambda: seeded(Parametrised),
    "a dict": lambda: seeded(InADict),
    "a tuple": lambda: seeded(InATuple),
    "one module, several runs": lambda: seeded(Runs),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_networks_of_every_make(name: str) -> None:
    model = small(WRAPPED[name]())
    explanation = local(model.explain(X))
    assert explanation.head.start == explanation.layer
    real = model.forward_without(X, [1])
    torch.testing.assert_close(
        explanation.ablate([1]).logits, real, rtol=1e-5, atol=1e-6
    )
    total = explanation.cams_of([0, 1]).mean((2, 3)) + explanation.left_out_of(
        [0, 1]
    )
    torch.testing.assert_close(
        total, explanation.logits[:, :2], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("channels", "rows", "cols"), [(1, 32, 32), (3, 33, 47), (5, 19, 64)]
)
def test_inputs_of_other_shapes(channels: int, rows: int, cols: int) -> None:
    net = seeded(Mlp)
    net.features[0] = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
    x = noise(2, channels, rows, cols)
    model = wrap(net)
    explanation = model.explain(x)
    assert explanation.feature_map.shape[2:] == (
        (rows + 1) // 2,
        (cols + 1) // 2,
    )
    torch.testing.assert_close(
        explanation.ablate([2]).logits,
        model.forward_without(x, [2]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_an_error_of_the_network_is_told_on_one_line() -> None:
    net = seeded(Mlp)
    explanation = small(net).explain(X)
    net.classifier[0] = nn.Linear(7, 8)
    with pytest.raises(
        ModelError, match="what follows layer 'features' failed: "
    ) as told:
        explanation.cams_of(0)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "layer", "shape", "start"),
    [
        ("alexnet", "avgpool", (256, 6, 6), "avgpool"),
        pytest.param(
            "vgg11", "avgpool", (512, 7, 7), "avgpool", marks=pytest.mark.slow
        ),
        pytest.param(
            "mobilenet_v3_small",
            "features",
            (576, 3, 3),
            "features",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "vit_b_16",
            "encoder.layers.encoder_layer_11.ln_1",
            (768, 14, 14),
            "encoder.layers.encoder_layer_10",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_torchvisions_other_networks(
    name: str, layer: str, shape: tuple[int, ...], start: str
) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    side = 224 if name.startswith("vit") else 96
    net = seeded(lambda: models.get_model(name, num_classes=10))
    if name.startswith(
        "vit"
    ):  # begins with a head of zeros, for which no cell counts
        nn.init.trunc_normal_(net.heads.head.weight, std=0.02)
    model = wrap(net, preprocessing=Preprocessing(side, side))
    x = noise(1, 3, side, side)
    explanation = local(model.explain(x, method="hirescam"))
    head = explanation.head
    assert (head.layer, head.map_shape, head.start, head.silent) == (
        layer,
        shape,
        start,
        False,
    )
    real = model.forward_without(x, [5], layer)
    torch.testing.assert_close(
        explanation.ablate([5]).logits, real, rtol=1e-4, atol=1e-5
    )


def test_a_network_that_keeps_what_it_computes_is_left_with_numbers() -> None:
    class Keeping(Mlp):
        position: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.position is None or len(self.position) != len(x):
                self.position = torch.ones_like(x) * 0.1
            return super().forward(x + self.position)

    net = seeded(Keeping)
    small(net).explain(X).ablate_each(units=[0, 1])
    assert net.position is None or not net.position.is_meta
    net(noise(6, 3, 32, 32))


def test_a_network_that_mixes_its_batch_gets_one_copy_at_a_time() -> None:
    class Mixing(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            a = self.features(x)
            logits: Tensor = self.classifier((a / a.max()).mean((2, 3)))
            return logits

    explanation = local(small(seeded(Mixing)).explain(X[:1]))
    each = explanation.ablate_each()
    for unit in range(6):
        torch.testing.assert_close(
            each[:, unit],
            explanation.ablate([unit]).logits,
            rtol=1e-5,
            atol=1e-6,
        )


class Shy(nn.Module):
    """A hidden unit that noise does not reach, only a bright input.

    Noise has the mean 0, and the hidden layer sees the mean of the map alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(3, 4, 3, padding=1)
        self.features = nn.Conv2d(4, 6, 3, padding=1)
        self.hidden = nn.Linear(6, 8)
        self.fc = nn.Linear(8, 5)
        with torch.no_grad():
            for weights in (self.early, self.features, self.hidden):
                weights.weight.abs_()
            self.hidden.bias.fill_(-3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(self.early(x)).mean((2, 3))
        logits: Tensor = self.fc(self.hidden(pooled).relu())
        return logits


BRIGHT = noise(3, 3, 32, 32, seed=1) + 9


def test_a_layer_that_counts_on_the_photo_and_not_on_noise_is_answered() -> (
    None
):
    net = seeded(Shy)
    model = small(net)
    with pytest.raises(HeadError, match="are the same for any noise"):
        assert model.head
    with pytest.raises(
        HeadError,
        match="the logits are the same for noise and input 0 and 2 more",
    ):
        model.explain(X)

    with pytest.warns(
        UnitscopeWarning,
        match="no layer counts for the logits of random inputs; layer 'features' does "
        "on input 0 and 2 more, and all photos are explained there",
    ):
        explanation = local(model.explain(BRIGHT))
    assert explanation.layer == "features"
    assert explanation.head.found_on == "input 0 and 2 more"
    assert explanation.head.as_json()["found_on"] == "input 0 and 2 more"
    assert model.head.describe().endswith("found on input 0 and 2 more")
    for index in range(5):
        activation, gradient = by_autograd(net, "features", BRIGHT, index)
        cams = (gradient * activation).sum(1) * 32 * 32
        torch.testing.assert_close(explanation.cams[:, index], cams)


@pytest.mark.filterwarnings("ignore:no layer counts")
def test_a_layer_that_photos_showed_is_proved_by_real_passes() -> None:
    model = small(seeded(Shy))
    explanation = model.explain(BRIGHT)
    (check,) = Account.of(model, explanation).checks
    assert check.holds
    for layer in (None, "features"):
        torch.testing.assert_close(
            model.forward_without(BRIGHT, [0, 4], layer),
            explanation.ablate([0, 4]).logits,
        )


def test_the_photos_of_a_batch_choose_together_whatever_their_order() -> None:
    mixed = torch.cat([X[:1], BRIGHT[:1]])
    layers = []
    for batch in (mixed, mixed.flip(0)):
        model = small(seeded(Shy))
        with pytest.warns(UnitscopeWarning, match="does on input 0 and 1 more"):
            explanation = local(model.explain(batch))
        layers.append(explanation.layer)
        bright = int(batch.mean((1, 2, 3)).argmax())
        with pytest.warns(
            UnitscopeWarning,
            match=f"on input {1 - bright} no cell of layer 'features' counts",
        ):
            cams = explanation.cams
        assert cams[bright].any() and not cams[1 - bright].any()
    assert layers[0] == layers[1]


def test_the_layer_that_photos_showed_is_that_of_other_shapes_too() -> None:
    model = small(seeded(Shy))
    with pytest.warns(UnitscopeWarning, match="no layer counts"):
        model.explain(BRIGHT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.explain(BRIGHT[..., :24]).layer == "features"
        assert model.explain(X).layer == "features"


@pytest.mark.filterwarnings("ignore:no layer counts")
def test_a_named_layer_is_tried_on_the_photo_too() -> None:
    model = small(seeded(Shy))
    with pytest.raises(
        HeadError,
        match="no cell of layer 'early' counts for the logits of input 0 and 2 more: "
        "choose a layer before it",
    ):
        model.explain(X, layer="early")
    with pytest.warns(
        UnitscopeWarning,
        match="layer 'early' does not count for the logits of random inputs, but does "
        "on input 0 and 2 more",
    ):
        assert model.explain(BRIGHT, layer="early").layer == "early"


@pytest.mark.filterwarnings("ignore:no layer counts")
def test_a_frozen_network_gives_the_layer_that_a_photo_showed() -> None:
    pytest.importorskip("onnxruntime")
    net = seeded(Shy)
    model = small(net).freeze()
    assert model.engine() == "onnxruntime"
    explanation = model.explain(BRIGHT)
    expected = small(net).explain(BRIGHT)
    torch.testing.assert_close(explanation.cams, expected.cams)
