"""timm's networks, for real: pixels, weights from a local hub, files, and failures."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from hub_server import COMMIT, Hub, point_to, running_hub
from local_server import running_site
from refusals import refusal
from unitscope.attribution.exact_heads import ExactHead
from unitscope.errors import (
    DownloadError,
    LabelsError,
    MissingExtraError,
    NonFiniteError,
    WeightsError,
)
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.sources import load

pytest.importorskip("torchvision", reason="torchvision is not installed")
timm = pytest.importorskip("timm", reason="timm is not installed")

SMALL = "test_resnet"
FEATURES = "timm:vit_small_patch14_dinov2"


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="scikit-learn is not installed"
    )
    return Image.fromarray(datasets.load_sample_image("china.jpg"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNITSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(tmp_path / "hub", monkeypatch) as running:
        yield running


def network(name: str = SMALL, classes: int = 1000) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: nn.Module = timm.create_model(name, num_classes=classes)
    return made.eval()


# Pixels


def assert_within_one_level(
    made: torch.Tensor, expected: torch.Tensor, std: tuple[float, ...]
) -> None:
    assert (
        float(
            ((made - expected) * torch.tensor(std).view(-1, 1, 1)).abs().max()
        )
        * 255
        < 1.001
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "shorter side to 235 (bicubic), centre crop 224×224"),
        ("test_resnet", "shorter side to 168 (bilinear), centre crop 160×160"),
        (
            "mobilenetv3_small_050",
            "shorter side to 256 (bicubic), centre crop 224×224",
        ),
        (
            "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384",
            "squash to 384×384 (bicubic), centre crop 384×384",
        ),
        (
            "vit_base_patch16_sapiens2.fb",
            "squash to 1024×768 (bilinear), centre crop 1024×768",
        ),
        (
            "deepseek_vit_412m.deepseek_v4_flash_vision_exp",
            "own callable timm_transform",
        ),
    ],
)
def test_the_pixels_are_those_of_timms_own_transform(
    name: str, said: str, photo: Image.Image
) -> None:
    from unitscope.sources.timm import translated

    configuration = timm.models.get_pretrained_cfg(name)
    if configuration is None:
        pytest.skip(f"this timm knows no {name}")
    data = timm.data.resolve_data_config(
        {}, pretrained_cfg=configuration.to_dict()
    )
    preprocessing = translated(data, "timm")
    assert preprocessing.describe().startswith(said)
    for turned in (photo, photo.transpose(Image.Transpose.ROTATE_90)):
        expected = timm.data.create_transform(**data, is_training=False)(turned)
        assert_within_one_level(preprocessing(turned), expected, data["std"])


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("share", [0.9, 1.0])
@pytest.mark.parametrize("sides", [(96, 96), (64, 96)])
def test_every_crop_mode_agrees_with_timm(
    mode: str, share: float, sides: tuple[int, int], photo: Image.Image
) -> None:
    from unitscope.sources.timm import translated

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    data = {
        "input_size": (3, *sides),
        "crop_pct": share,
        "crop_mode": mode,
        "interpolation": "bilinear",
    }
    data |= {"mean": mean, "std": std}
    preprocessing = translated(data, "timm")
    kind = (
        Preprocessing
        if mode == "squash" or (mode, *sides) == ("center", 96, 96)
        else MeasuredPreprocessing
    )
    assert isinstance(preprocessing, kind) and preprocessing.input_size == sides
    expected = timm.data.create_transform(**data, is_training=False)(photo)
    assert_within_one_level(preprocessing(photo), expected, std)


def test_borders_lie_beside_the_photo(photo: Image.Image) -> None:
    from unitscope.sources.timm import translated

    data = {
        "input_size": (3, 96, 96),
        "crop_pct": 1.0,
        "crop_mode": "border",
        "interpolation": "bicubic",
    }
    placement = translated(
        {**data, "mean": (0.5,) * 3, "std": (0.5,) * 3}, "timm"
    ).placement(photo.size)
    border = (photo.width - photo.height) / 2
    edges = (placement.left, placement.top, placement.right, placement.bottom)
    expected = (0, -border, photo.width, photo.height + border)
    assert all(
        abs(edge - where) < 5
        for edge, where in zip(edges, expected, strict=True)
    ), edges


# Random weights


def test_random_weights_are_timms_own_drawn_with_the_seed() -> None:
    state = torch.get_rng_state()
    first, second, other = (
        load(f"timm:{SMALL}"),
        load(f"timm:{SMALL}"),
        load(f"timm:{SMALL}", seed=1),
    )
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        expected = timm.create_model(SMALL).eval()(x)
        assert torch.equal(first.module(x), expected) and torch.equal(
            second.module(x), expected
        )
        assert not torch.equal(other.module(x), expected)
    assert (
        first.provenance.weights == "random initialisation, seed 0"
        and not first.module.training
    )
    assert first.provenance.notes == (
        "The weights are random: shapes, speed and identities are real, predictions "
        "and maps mean nothing.",
    )


def test_a_photo_is_explained_exactly(photo: Image.Image) -> None:
    classifier = load(
        f"timm:{SMALL}", num_classes=5, labels=list("abcde"), input_size=64
    )
    explanation = classifier.explain(photo)
    head = classifier.head
    assert isinstance(head, ExactHead)
    assert explanation.logits.shape == (1, 5) and head.error < 1e-5
    total = explanation.cams.mean(dim=(2, 3)) + head.bias
    assert torch.allclose(total, explanation.logits, atol=1e-5)
    assert {label for label, *_ in explanation.top(5)[0]} == set("abcde")


@pytest.mark.parametrize(
    "name", ["test_vit", "test_convnext", "mobilenetv3_small_050"]
)
def test_the_input_size_reaches_the_preprocessing_and_the_networks_that_depend_on_it(
    name: str,
) -> None:
    classifier = load(f"timm:{name}", input_size=96, num_classes=3)
    assert classifier.preprocessing.input_size == (96, 96)
    with torch.no_grad():
        assert classifier.module(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_a_network_without_classes_is_built_with_some() -> None:
    classifier = load(FEATURES, input_size=56)
    assert "has no classes, only features" in classifier.provenance.notes[-1]


def test_old_names_are_followed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = load("timm:tv_resnet34", num_classes=2)
    assert (
        classifier.provenance.notes[0]
        == "timm now calls tv_resnet34 resnet34.tv_in1k."
    )
    assert "resnet34.tv_in1k" in classifier.preprocessing.describe()


# A file of weights


def test_a_file_brings_its_number_of_classes(tmp_path: Path) -> None:
    trained = network(classes=7)
    state = {
        f"module.{name}": tensor
        for name, tensor in trained.state_dict().items()
    }
    torch.save({"arch": SMALL, "state_dict": state}, tmp_path / "w.pth.tar")
    classifier = load(
        f"timm:{SMALL}",
        weights=tmp_path / "w.pth.tar",
        labels=[f"c{i}" for i in range(7)],
    )
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(classifier.module(x), trained(x))
    assert (
        classifier.labels[6] == "c6"
        and len(classifier.provenance.sha256 or "") == 64
    )
    assert any(
        "assumed to be that of timm's own test_resnet.r160_in1k" in n
        for n in classifier.provenance.notes
    )
    through = load(f"checkpoint:{tmp_path / 'w.pth.tar'}", arch=f"timm:{SMALL}")
    assert (
        len(through.labels) == 7
        and through.provenance.notes[0] == f"Architecture: timm:{SMALL}."
    )
    assert refusal(f"checkpoint:{tmp_path / 'w.pth.tar'}").endswith(
        f"so arch 'timm:{SMALL}'"
    )


def test_a_file_of_a_thousand_classes_is_assumed_to_be_imagenets(
    tmp_path: Path,
) -> None:
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    classifier = load(f"timm:{SMALL}", weights=str(tmp_path / "w.safetensors"))
    assert (
        classifier.labels[0] == "tench, Tinca tinca"
        and len(classifier.labels) == 1000
    )
    assert any(
        "assumed to be those of imagenet-1k" in note
        for note in classifier.provenance.notes
    )


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save(network(classes=7).state_dict(), tmp_path / "w.pth")
    message = refusal(
        f"timm:{SMALL}", WeightsError, weights=tmp_path / "w.pth", num_classes=5
    )
    assert (
        "the file looks like one for 7 classes, so pass that as num_classes"
        in message
    )
    assert "does not fit VisionTransformer" in refusal(
        "timm:test_vit", WeightsError, weights=tmp_path / "w.pth"
    )
    message = refusal(
        f"timm:{SMALL}",
        LabelsError,
        weights=tmp_path / "w.pth",
        labels=["a", "b"],
    )
    assert "2 labels were given for 7 classes" in message
    broken = network(classes=7).state_dict()
    next(iter(broken.values())).view(-1)[0] = float("nan")
    torch.save(broken, tmp_path / "nan.pth")
    assert "NaN" in refusal(
        f"timm:{SMALL}", NonFiniteError, weights=tmp_path / "nan.pth"
    )
    assert "there is no weights file" in refusal(
        f"timm:{SMALL}", WeightsError, weights="nowhere.pth"
    )
    assert "ask for 'timm:resnet50.a1_in1k'" in refusal(
        "timm:resnet50", WeightsError, weights="a1_in1k"
    )


# timm's own weights


def test_timms_own_weights_come_from_the_hub_with_their_labels(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = network()
    (tmp_path / "published").mkdir()
    save_file(
        trained.state_dict(), tmp_path / "published" / "model.safetensors"
    )
    hub.publish("timm/test_resnet.r160_in1k", tmp_path / "published")
    classifier = load(f"timm:{SMALL}", weights="DEFAULT")
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(classifier.module(x), trained(x))
    settings = classifier.module.pretrained_cfg
    assert isinstance(settings, dict)
    assert (
        classifier.labels[1] == "goldfish, Carassius auratus"
        and "state_dict" not in settings
    )
    provenance = classifier.provenance
    assert (
        provenance.weights == "test_resnet.r160_in1k"
        and len(provenance.sha256 or "") == 64
    )
    assert provenance.notes == (
        f"Source: timm/test_resnet.r160_in1k on the Hugging Face hub, commit {COMMIT}.",
        "The labels are those of imagenet-1k, which timm tells by the number of "
        "classes, 1000.",
        "licence: apache-2.0",
    )
    assert capsys.readouterr() == ("", "")

    # What is in the cache needs no connection; a wrong number of classes or labels
    # needs no download.
    hub.refusals["timm/test_resnet.r160_in1k"] = (503, "Unavailable")
    assert load(f"timm:{SMALL}", weights="DEFAULT").provenance == provenance
    count = len(hub.requests)
    message = refusal(
        f"timm:{SMALL}", WeightsError, weights="DEFAULT", num_classes=5
    )
    assert "is for 1000 classes, not 5" in message
    assert "2 labels were given" in refusal(
        f"timm:{SMALL}", LabelsError, weights="DEFAULT", labels=["a", "b"]
    )
    assert len(hub.requests) == count


def test_timms_own_weights_reach_another_input_size(
    hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "published").mkdir()
    save_file(
        network("test_vit").state_dict(),
        tmp_path / "published" / "model.safetensors",
    )
    hub.publish("timm/test_vit.r160_in1k", tmp_path / "published")
    with torch.no_grad():
        logits = load("timm:test_vit", weights="DEFAULT", input_size=96).module(
            torch.zeros(1, 3, 96, 96)
        )
    assert logits.shape == (1, 1000)


def test_weights_that_timm_keeps_elsewhere_are_checked_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = network()
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    body = (tmp_path / "w.pth").read_bytes()
    with running_site() as site:
        address = site.serve(
            f"tiny-{hashlib.sha256(body).hexdigest()[:8]}.pth", body
        )
        registered = timm.models._registry._model_pretrained_cfgs
        elsewhere = timm.models.PretrainedCfg(
            url=address, tag="r160_in1k", num_classes=1000
        )
        monkeypatch.setitem(registered, f"{SMALL}.r160_in1k", elsewhere)
        monkeypatch.setitem(registered, SMALL, elsewhere)
        classifier = load(f"timm:{SMALL}", weights="DEFAULT", progress=False)
    assert torch.equal(
        classifier.module.state_dict()["fc.weight"],
        trained.state_dict()["fc.weight"],
    )
    assert f"Source: {address}." in classifier.provenance.notes


def test_without_a_connection_it_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:9", tmp_path / "hub", monkeypatch)
    message = refusal(f"timm:{SMALL}", DownloadError, weights="DEFAULT")
    assert message.startswith(
        "http://127.0.0.1:9/timm/test_resnet.r160_in1k cannot be fetched ("
    )
    assert message.endswith(
        "check the connection, set HF_ENDPOINT to a mirror, or give the path of a "
        "weights file"
    )


def test_networks_without_weights_of_their_own_say_so() -> None:
    message = refusal(FEATURES, WeightsError, weights="DEFAULT")
    assert (
        "timm has only features without classes for vit_small_patch14_dinov2"
        in message
    )
    message = refusal("timm:resnet50t", WeightsError, weights="DEFAULT")
    assert message.startswith("timm has no weights of its own for resnet50t")


# Names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "timm:resnet5o",
            "timm has no network 'resnet5o' (did you mean 'resnet50'",
        ),
        ("timm:ResNet50", "(did you mean 'resnet50'"),
        (
            "timm:resnet50.a1_in2k",
            "timm has no weights 'a1_in2k' for resnet50 (did you mean "
            "'resnet50.a1_in1k'",
        ),
        (
            "timm:hf-hub:timm/resnet18.a1_in1k",
            "or 'transformers:timm/resnet18.a1_in1k' for a repository",
        ),
        ("timm:", "write timm:NAME"),
        ("resnet18d", "did you mean 'timm:resnet18d'?"),
        ("ResNet-26d", "did you mean 'timm:resnet26d'?"),
        ("resnet26.bt_in1k", "did you mean 'timm:resnet26.bt_in1k'?"),
        ("resnet18", "did you mean 'torchvision:resnet18'?"),
    ],
)
def test_a_wrong_name_says_what_was_probably_meant(
    spec: str, message: str
) -> None:
    assert message in refusal(spec)


def test_without_timm_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal("timm:resnet18", MissingExtraError).endswith(
        "pip install 'unitscope[timm]'"
    )
    assert "unknown model 'resnet18d'" in refusal("resnet18d")
