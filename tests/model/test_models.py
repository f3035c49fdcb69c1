"""Classifiers as people bring them: real weights, other dtypes, wrappers, photos of
all sizes, and junk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from narrowed import exact_head, exactly
from networks import Dense, Gap, ResNet20, SimpleNet, seeded
from unitscope.accounts.account import Account
from unitscope.accounts.record import of_account
from unitscope.errors import (
    HeadError,
    InputError,
    LabelsError,
    LayerError,
    ModelError,
    NonFiniteError,
    PhotoError,
    UnitscopeWarning,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.model.reading import Input
from unitscope.model.wrapping import check_module
from unitscope.tracing.layers import evaluating

SMALL = Preprocessing(resize=36, crop=32)
X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def identities_hold(model: Classifier, x: Input, allowed: float = 1e-5) -> None:
    """Maps, contributions and ablation against the network's own logits, relative to
    the largest."""
    e = exactly(model.explain(x))
    scale = float(e.logits.abs().max())
    assert (
        float((e.cams.mean((2, 3)) + e.head.bias - e.logits).abs().max())
        <= allowed * scale
    )
    assert (
        float((e.contributions.sum(2) + e.head.bias - e.logits).abs().max())
        <= allowed * scale
    )
    units = [e.maximal_unit(e.top(1)[0][0].index)]
    assert (
        float(
            (e.ablate(units).logits - model.forward_without(x, units))
            .abs()
            .max()
        )
        <= allowed * scale
    )


# --- real weights -------------------------------------------------------------


@pytest.fixture(scope="module")
def simplenet(data: Path) -> Classifier:
    net = SimpleNet()
    net.load_state_dict(
        torch.load(
            data / "weights" / "miniplaces-simplenet.pth", weights_only=True
        )
    )
    labels = [
        line.split()[0][3:]
        for line in (data / "miniplaces" / "categories.txt")
        .read_text()
        .splitlines()
    ]
    return wrap(net, labels, Preprocessing(resize=144, crop=128))


def test_simplenet_knows_its_places_and_explains_them_exactly(
    simplenet: Classifier, data: Path
) -> None:
    photos = [
        data / "photos" / f"{name}.jpg"
        for name in ("rio", "city", "aquarium", "coffee")
    ]
    identities_hold(simplenet, photos)
    tops = simplenet.explain(photos).top(3)
    assert tops[2][0].label == "aquarium"
    assert (
        simplenet.head.kind == "gap-linear"
        and simplenet.head.layer == "features"
        and simplenet.head.error < 1e-6
    )
    one = simplenet.explain(photos[0])
    assert one.cams_on_photo(0, [0, 1]).shape == (2, 600, 800)
    # A centre crop of a wide photo leaves the sides out, and keeps top and bottom but
    # for a sixteenth.
    laid = one.cams_on_photo(0, 0)[0]
    assert (
        np.isnan(laid[:, :100]).all()
        and np.isfinite(laid[300, 400])
        and np.isnan(laid[:20]).all()
    )


def test_squeezenet_in_half_precision_made_float(data: Path) -> None:
    models = pytest.importorskip(
        "torchvision.models", reason="torchvision is not installed"
    )
    net = models.squeezenet1_1()
    net.load_state_dict(
        torch.load(
            data / "weights" / "squeezenet1_1-imagenet-fp16.pth",
            weights_only=True,
        )
    )
    model = wrap(net.float(), None, Preprocessing())
    assert model.head.kind == "gap" and torch.equal(
        exact_head(model.head).weight, torch.eye(1000)
    )
    identities_hold(
        model, [data / "photos" / "dog.jpg", data / "photos" / "rio.jpg"]
    )
    labels = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    top = (
        wrap(net, labels, Preprocessing())
        .explain(data / "photos" / "coffee.jpg")
        .top(5)[0]
    )
    assert {"cup", "espresso", "coffee mug"} & {
        prediction.label for prediction in top
    }


def test_resnet20_of_cifar_with_parameter_free_shortcuts(data: Path) -> None:
    saved = torch.load(
        data / "weights" / "resnet20-12fca82f.th",
        map_location="cpu",
        weights_only=True,
    )["state_dict"]
    net = ResNet20()
    net.load_state_dict(
        {name.removeprefix("module."): value for name, value in saved.items()}
    )
    model = wrap(net, preprocessing=Preprocessing(resize=32, crop=32))
    assert (
        model.head.layer == "layer3"
        and exact_head(model.head).weight.shape == (10, 64)
        and model.head.grid.traced
    )
    identities_hold(
        model, [data / "photos" / "dog.jpg", data / "photos" / "bakery.jpg"]
    )


# --- dtypes, wrappers, memory formats -----------------------------------------


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float64, 1e-5), (torch.float16, 0.01), (torch.bfloat16, 0.06)],
)
@pytest.mark.parametrize("make", [Gap, Dense])
def test_networks_of_other_dtypes(
    make: type[nn.Module], dtype: torch.dtype, allowed: float
) -> None:
    net = seeded(make).to(dtype)
    model = wrap(net, preprocessing=SMALL)
    identities_hold(model, X, allowed)
    explanation = model.explain(X)
    assert explanation.logits.dtype == explanation.cams.dtype == torch.float32
    assert next(net.parameters()).dtype == dtype
    assert (
        model.ablate(X, model.layers()[0].name, [1]).after.dtype
        == torch.float32
    )


def test_channels_last_memory_is_only_a_memory_format() -> None:
    net = seeded(Gap)
    expected = wrap(net, preprocessing=SMALL).explain(X)
    found = wrap(
        net.to(memory_format=torch.channels_last), preprocessing=SMALL
    ).explain(X.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found.cams, expected.cams)
    assert found.feature_map.is_contiguous()
    identities_hold(wrap(net, preprocessing=SMALL), X)


def test_data_parallel_is_looked_through() -> None:
    net = seeded(Gap)
    model = wrap(nn.DataParallel(net), preprocessing=SMALL)
    assert model.network is net and model.head.layer == "features"
    assert torch.equal(
        model.explain(X).logits,
        wrap(net, preprocessing=SMALL).explain(X).logits,
    )
    identities_hold(model, X)


def test_compiled_networks_are_explained_without_being_compiled() -> None:
    net = seeded(Gap)
    expected = wrap(net, preprocessing=SMALL).explain(X)
    compiled_net = torch.compile(net)
    assert isinstance(compiled_net, nn.Module)
    wrapped = wrap(compiled_net, preprocessing=SMALL)
    assert wrapped.network is net and torch.equal(
        wrapped.explain(X).logits, expected.logits
    )
    in_place = seeded(Gap)
    in_place.compile()
    part = seeded(Gap)
    part.features = torch.compile(part.features)  # type: ignore[assignment]
    for compiled in (in_place, part):
        model = wrap(compiled, preprocessing=SMALL)
        assert torch.equal(model.explain(X).cams, expected.cams)
        assert "features.0" in [
            layer.name.replace("_orig_mod.", "") for layer in model.layers()
        ]
    assert in_place._compiled_call_impl is not None and hasattr(
        part.features, "_orig_mod"
    )


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
)
def test_a_scripted_network_is_refused_with_the_reason() -> None:
    net = seeded(Gap).eval()
    scripted = torch.jit.trace(net, X)  # type: ignore[no-untyped-call]
    model = wrap(scripted, preprocessing=SMALL)
    with pytest.raises(HeadError, match="TorchScript"):
        model.explain(X)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
)
def test_a_scripted_part_is_refused_by_name() -> None:
    net = seeded(Gap).eval()
    net.features = torch.jit.trace(net.features, X)  # type: ignore[no-untyped-call]
    with pytest.raises(
        ModelError, match="the network's part 'features' is TorchScript"
    ):
        wrap(net, preprocessing=SMALL).explain(X)


class Changed(nn.Module):
    """A network with a forward of its own."""

    def __init__(self, forward: Callable[[Gap, Tensor], object]) -> None:
        super().__init__()
        self.net, self.function = seeded(Gap), forward

    def forward(self, x: Tensor) -> object:
        return self.function(self.net, x)


def test_a_dict_of_several_tensors_says_which_are_the_logits() -> None:
    with pytest.raises(
        ModelError,
        match=r"gives 2 outputs, 'features' \(batch, 6, 16, 16\), 'out' \(batch, 5\): "
        'which .* not clear; choose one with output="out"',
    ):
        wrap(
            Changed(
                lambda net, x: {"features": net.features(x), "out": net(x)}
            ),
            preprocessing=SMALL,
        ).explain(X)
    model = wrap(
        Changed(lambda net, x: {"features": net.features(x), "logits": net(x)}),
        preprocessing=SMALL,
    )
    identities_hold(model, X)
    identities_hold(
        wrap(Changed(lambda net, x: {"out": net(x)}), preprocessing=SMALL), X
    )


def test_a_network_that_works_on_a_batch_of_its_own_is_refused_with_the_reason() -> (
    None
):
    def doubled(net: Gap, x: Tensor) -> Tensor:
        both: Tensor = net(torch.cat([x, x.flip(3)]))
        return both[: len(x)].softmax(1) + both[len(x) :].softmax(1)

    with pytest.raises(HeadError, match="several inputs for one photo"):
        wrap(Changed(doubled), preprocessing=SMALL).explain(X)


def test_random_numbers_that_a_network_draws_leave_the_callers_generator_alone() -> (
    None
):
    model = wrap(
        Changed(lambda net, x: net(x) + 0 * torch.rand(1)), preprocessing=SMALL
    )
    before = torch.get_rng_state()
    model.explain(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_whose_last_layer_is_zero_is_refused_at_once() -> None:
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
        )
    )
    net(X)
    nn.init.zeros_(net.get_parameter("3.weight"))
    with pytest.raises(
        HeadError, match="the logits are the same for noise and input 0"
    ):
        wrap(net, preprocessing=SMALL).explain(X)


def test_an_empty_layers_name_is_no_layer() -> None:
    with pytest.raises(LayerError):
        wrap(seeded(Gap), preprocessing=SMALL).explain(X, layer="")


def test_frozen_networks_are_explained() -> None:
    net = seeded(Gap).requires_grad_(False)
    identities_hold(wrap(net, preprocessing=SMALL), X)
    assert not any(parameter.requires_grad for parameter in net.parameters())


# --- inputs -------------------------------------------------------------------


def save(folder: Path, name: str, width: int, height: int) -> Path:
    pixels = np.random.default_rng(width).integers(
        0, 255, (height, width, 3), dtype=np.uint8
    )
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_photos_of_different_sizes_share_a_batch_where_a_crop_makes_them_alike(
    gap: Classifier, tmp_path: Path
) -> None:
    paths = [
        save(tmp_path, "wide.png", 90, 40),
        save(tmp_path, "tall.png", 33, 70),
        save(tmp_path, "tiny.png", 5, 4),
    ]
    explanation = gap.explain(
        [str(paths[0]), paths[1], Image.open(paths[2]).copy()], batch_size=2
    )
    assert [subject.size for subject in explanation.subjects] == [
        (90, 40),
        (33, 70),
        (5, 4),
    ]
    assert [one.cams_on_photo(0, 0).shape[1:] for one in explanation] == [
        (40, 90),
        (70, 33),
        (4, 5),
    ]
    assert gap.explain(paths).logits.shape == (3, 5) and gap.explain(
        tuple(paths)
    ).logits.shape == (3, 5)
    assert gap.explain(path for path in paths).logits.shape == (3, 5)
    identities_hold(gap, paths)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_photos_that_cannot_share_a_batch_are_refused(
    tmp_path: Path, batch_size: int
) -> None:
    model = wrap(seeded(Gap), preprocessing=Preprocessing(resize=32, crop=None))
    paths = [
        save(tmp_path, "wide.png", 90, 40),
        save(tmp_path, "tall.png", 33, 70),
    ]
    with pytest.raises(
        InputError,
        match=r"inputs of different sizes \(32×72, 67×32\), which cannot share a batch",
    ):
        model.explain(paths, batch_size=batch_size)
    if batch_size == 1:
        for verb in (model.units, model.ablate):
            with pytest.raises(InputError, match="inputs of different sizes"):
                verb(paths, "features.0", [0], batch_size=1)
    assert [model.explain(path).feature_map.shape[2:] for path in paths] == [
        (16, 36),
        (34, 16),
    ]
    assert model.input_shape == (3, 224, 224) and model.head.map_shape == (
        6,
        112,
        112,
    )


def test_progress_counts_the_photos(gap: Classifier) -> None:
    done: list[int] = []
    gap.explain(torch.cat([X, X]), batch_size=4, progress=done.append)
    assert done == [4, 2]


def test_the_same_numbers_whatever_the_batch_size(gap: Classifier) -> None:
    whole = gap.explain(X)
    torch.testing.assert_close(gap.explain(X, batch_size=1).cams, whole.cams)
    with pytest.raises(
        InputError, match="batch_size must be at least 1, not 0"
    ):
        gap.explain(X, batch_size=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            [],
            InputError,
            "there is nothing to explain: the list of photos is empty",
        ),
        (
            X[0],
            InputError,
            "(batch, channel, row, col), not (3, 32, 32): add a batch axis with "
            "x[None]",
        ),
        (X[:0], InputError, "there is nothing to explain: the batch is empty"),
        (
            (X * 50).to(torch.uint8),
            InputError,
            "holds preprocessed floating-point numbers, not torch.uint8, which the "
            "network does not take: scale and normalise it as in training",
        ),
        (X.long(), InputError, "not torch.int64"),
        (X.to(torch.complex64), InputError, "not torch.complex64"),
        (
            X.masked_fill(torch.arange(3)[:, None, None, None] == 1, torch.nan),
            NonFiniteError,
            "input 1 of the batch holds NaN",
        ),
        (
            X / 0,
            NonFiniteError,
            "input 0 of the batch holds NaN or infinite numbers: check what made it",
        ),
        (
            X[:, :1],
            ModelError,
            "the network failed on an input of 1×32×32 (channel × row × col)",
        ),
        (3, InputError, "a int cannot be explained: give a path, a PIL image"),
        (None, InputError, "a NoneType cannot be explained"),
        ([3], PhotoError, "open in binary mode, not int"),
        (
            np.zeros((40, 40, 3)),
            InputError,
            "not (40, 40, 3): put the channels first, x.permute(2, 0, 1)[None]",
        ),
        (b"photo.jpg", PhotoError, "'photo' is not a picture that Pillow"),
        ({"photo": "a.jpg"}, InputError, "a dict cannot be explained"),
        (
            [X[0]],
            InputError,
            "a list of tensors cannot be explained: stack them, torch.stack(x)",
        ),
        ("no such.jpg", PhotoError, "there is no photo 'no such.jpg'"),
    ],
)
def test_junk_is_refused_in_one_line(
    gap: Classifier, x: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as refusal:
        gap.explain(x)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_input_that_the_network_cannot_take_is_told_with_its_shape() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 9),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    with pytest.raises(
        ModelError,
        match=r"the network failed on an input of 3×5×5 \(channel × row × col\): .*Kernel size",
    ):
        wrap(net, preprocessing=Preprocessing(5, 5)).explain(
            torch.zeros(1, 3, 5, 5)
        )


def test_a_huge_but_finite_input_is_no_nan() -> None:
    with pytest.raises(
        NonFiniteError,
        match="the logits are NaN or infinite, first in the output of layer",
    ):
        wrap(seeded(Gap), preprocessing=SMALL).explain(X.clamp(-3, 3) * 1e38)


# --- labels and construction --------------------------------------------------


def test_labels_must_be_as_many_as_the_classes() -> None:
    model = wrap(seeded(Gap), ["a", "b"], SMALL)
    for act in (
        lambda: model.explain(X),
        lambda: model.ablate(X, "features.0", [0]),
    ):
        with pytest.raises(
            LabelsError,
            match="2 labels were given for 5 classes: give one label for each class",
        ):
            act()


def test_labels_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\nhen\npig\n")
    model = wrap(seeded(Gap), tmp_path / "labels.txt", SMALL)
    assert (
        model.labels == ("cat", "dog", "cow", "hen", "pig")
        and model.explain(X).labels == model.labels
    )


def test_a_classifier_says_what_it_is() -> None:
    model = wrap(seeded(Gap), preprocessing=SMALL)
    assert repr(model).startswith(
        "<Classifier wrapped: Gap, shorter side to 36"
    )
    assert (
        model.provenance.spec == "wrapped" and model.provenance.sha256 is None
    )
    assert model.labels == tuple(f"class {index}" for index in range(5))


def exported() -> Any:
    return torch.export.export(seeded(Gap), (torch.zeros(2, 3, 32, 32),))


class Learner:
    """Holds a network, as trainers do."""

    def __init__(self) -> None:
        self.model = nn.Linear(2, 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: "resnet50", "not from str: use unitscope.load"),
        (
            lambda: Gap,
            r"not from the class Gap: wrap an object of it, Gap\(…\)",
        ),
        (
            lambda: Gap().state_dict(),
            r"not from OrderedDict: load .*load_state_dict",
        ),
        (Learner, r"not from Learner: wrap its \.model"),
        (lambda: sum, "wrap a module whose forward calls it"),
        (
            lambda: None,
            "not from NoneType: wrap the network that gives the logits",
        ),
    ],
)
def test_what_is_no_module_is_refused_with_the_remedy(
    given: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(given())


def test_an_exported_program_says_what_to_wrap_instead() -> None:
    message = (
        "exported program, which cannot be watched: wrap the Python module"
    )
    with pytest.raises(ModelError, match="wrap the Python module that it was"):
        check_module(exported())
    module = exported().module()
    for rows in (32, 48):
        with pytest.raises((HeadError, ModelError), match=message) as caught:
            wrap(module).explain(torch.zeros(2, 3, rows, rows))
        assert "preprocessing" not in str(caught.value)


def hidden() -> nn.Module:
    """A network whose head is not exact, so that the answer needs gradients."""
    layers = (nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(5, 2)).eval()


def test_weights_made_in_inference_mode_are_named_where_gradients_are_needed() -> (
    None
):
    with torch.inference_mode():
        network, exact = hidden(), seeded(Gap)
    x = torch.ones(1, 3, 8, 8)
    with pytest.raises(
        HeadError, match=r"inference_mode.*: wrap copy\.deepcopy"
    ):
        wrap(network).explain(x)
    assert wrap(copy.deepcopy(network)).explain(x).logits.shape == (1, 2)
    assert wrap(exact).explain(torch.ones(1, 3, 32, 32)).head.exact


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_network_is_named_where_gradients_are_needed() -> None:
    from torch.ao.quantization import quantize_dynamic

    network = quantize_dynamic(hidden(), {nn.Linear})  # type: ignore[no-untyped-call]
    with pytest.raises(
        HeadError, match=r"quantized, and gradients .*: wrap the float network"
    ):
        wrap(network).explain(torch.ones(1, 3, 8, 8))


def test_own_preprocessing_callables_are_measured(tmp_path: Path) -> None:
    transforms = pytest.importorskip(
        "torchvision.transforms", reason="torchvision is not installed"
    )
    pipeline = transforms.Compose(
        [
            transforms.Resize(36),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
        ]
    )
    path = save(tmp_path, "wide.png", 90, 40)
    own, same = (
        wrap(seeded(Gap), None, pipeline),
        wrap(seeded(Gap), None, Preprocessing(36, 32, (0.0,) * 3, (1.0,) * 3)),
    )
    found, expected = own.explain(path), same.explain(path)
    # Their pixels may be a level apart.
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0.01)
    assert own.input_shape == (3, 32, 32)
    difference = np.nanmax(
        np.abs(found.cams_on_photo(0, 1) - expected.cams_on_photo(0, 1))
    )
    assert difference <= 0.1 * float(expected.cams[0, 1].abs().max())
    assert found.subjects[0].picture().size == (90, 40)


def test_a_network_without_parameters_can_be_explained() -> None:
    class Colours(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    model = wrap(Colours(), ["red", "green", "blue"], SMALL)
    assert model.head.kind == "gap" and model.head.layer == "input"
    identities_hold(model, X)


def test_tensors_are_drawn_as_the_pictures_they_were() -> None:
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    )
    model = wrap(seeded(Gap), preprocessing=Preprocessing(None, None))
    explanation = model.explain(model.preprocessing(image)[None])
    assert explanation.subjects[0].picture().tobytes() == image.tobytes()
    assert not explanation.subjects[0].is_photo and explanation.subjects[
        0
    ].size == (
        32,
        32,
    )


def test_logits_are_those_of_evaluation_mode_without_gradients() -> None:
    net = seeded(Gap).train()
    found = wrap(net, preprocessing=SMALL).explain(X).logits
    with evaluating(net):
        assert torch.equal(found, net(X))


def test_without_a_preprocessing_the_tensors_say_what_shape_is_usual() -> None:
    class Fixed(nn.Module):
        """A network for 32×32 only, as CIFAR's are: its pool has a fixed window."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, padding=1)
            self.fc = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.fc(
                nn.functional.avg_pool2d(self.conv(x).relu(), 32).flatten(1)
            )
            return logits

    model = wrap(Fixed())
    x = torch.randn(2, 3, 32, 32)
    assert model.ablate(x, layer="conv", units=[1]).after.shape == (2, 4)
    assert model.explain(x).feature_map.shape == (2, 6, 32, 32)
    assert model.head.map_shape == (6, 32, 32)
    assert model.layers()[0].shape == (6, 32, 32)


def test_how_photos_were_read_is_told_once_and_kept(
    small: Preprocessing, tmp_path: Path
) -> None:
    for number in range(3):
        samples = np.linspace(0, 4095, 900).astype(np.uint16).reshape(30, 30)
        Image.fromarray(samples).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.iterdir())
    model = wrap(seeded(Gap), preprocessing=small)
    with pytest.warns(UnitscopeWarning) as caught:
        explanation = model.explain(paths, batch_size=2)
    told = [str(each.message) for each in caught]
    assert len(told) == 1
    assert told[0].startswith("photos: samples of 16 bits that fit 12 bits")
    for subject in explanation.subjects:
        assert f"photos: {subject.notes[0]}" == told[0]

    with pytest.warns(UnitscopeWarning):
        account = Account.of(model, explanation)
    assert of_account(account)["photo"]["notes"] == list(
        explanation.subjects[0].notes
    )
    # Whoever says what is white is told nothing.
    said = wrap(seeded(Gap), preprocessing=replace(small, white=4095))
    assert said.explain(paths).subjects[0].notes == ()


def test_weights_without_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'features\.0\.weight' .* 'meta'"):
        wrap(seeded(Gap).to("meta"))
