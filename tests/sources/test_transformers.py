"""transformers' classifiers, for real: folders, types, a local hub, pixels, misfits."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from hub_server import COMMIT, Hub, point_to, running_hub
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

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed"
)
pytest.importorskip("torchvision", reason="torchvision is not installed")

CONVOLUTIONS = {
    "embedding_size": 4,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
    "layer_type": "basic",
}
TRANSFORMER = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "resnet": CONVOLUTIONS,
    "regnet": {
        "embedding_size": 4,
        "hidden_sizes": [4, 8],
        "depths": [1, 1],
        "groups_width": 4,
    },
    "convnext": {
        "hidden_sizes": [4, 8],
        "depths": [1, 1],
        "num_stages": 2,
        "image_size": 32,
    },
    "vit": {**TRANSFORMER, "image_size": 32, "patch_size": 8},
    "swin": {
        "image_size": 32,
        "embed_dim": 4,
        "depths": [1],
        "num_heads": [2],
        "window_size": 4,
    },
    "mobilenet_v2": {"depth_multiplier": 0.35, "image_size": 32},
}
NAMES = ["tench", "goldfish", "shark"]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="scikit-learn is not installed"
    )
    return Image.fromarray(datasets.load_sample_image("china.jpg"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    yield
    transformers.utils.logging.set_verbosity(level)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(tmp_path / "hub", monkeypatch) as running:
        yield running


def network(kind: str, names: list[str] = NAMES) -> Any:
    """A PreTrainedModel with random weights."""
    config = transformers.AutoConfig.for_model(kind, **SETTINGS[kind])
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return transformers.AutoModelForImageClassification.from_config(
            config
        ).eval()


def saved(
    kind: str, folder: Path, processor: dict[str, Any] | None = None
) -> Any:
    """A network as save_pretrained leaves it, with a processor if it has settings."""
    trained = network(kind)
    trained.save_pretrained(folder)
    if processor is not None:
        processor_of(kind, **processor).save_pretrained(folder)
    return trained


def processor_of(kind: str, **settings: Any) -> Any:
    name = {
        "resnet": "ConvNext",
        "regnet": "ConvNext",
        "convnext": "ConvNext",
        "vit": "ViT",
        "swin": "ViT",
    }
    return getattr(
        transformers, f"{name.get(kind, 'MobileNetV2')}ImageProcessor"
    )(**settings)


def agree(one: nn.Module, other: nn.Module, side: int = 32) -> bool:
    x = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side)
    with torch.no_grad():
        return torch.equal(one(x).logits, other(x).logits)


# Folders


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_folder_brings_its_weights_and_labels(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = saved(kind, tmp_path / "saved")
    state = torch.get_rng_state()
    capsys.readouterr()
    classifier = load(f"transformers:{tmp_path / 'saved'}")
    assert capsys.readouterr() == ("", "") and torch.equal(
        torch.get_rng_state(), state
    )
    assert agree(classifier.module, trained) and not classifier.module.training
    assert type(classifier.module) is type(trained)
    assert classifier.labels == ("tench", "goldfish", "shark")
    assert (
        classifier.provenance.weights == "model.safetensors"
        and len(classifier.provenance.sha256 or "") == 64
    )
    assert any(
        "The preprocessing is assumed" in note
        for note in classifier.provenance.notes
    )


def test_a_photo_is_explained_exactly(
    tmp_path: Path, photo: Image.Image
) -> None:
    saved("resnet", tmp_path, {"size": {"shortest_edge": 64}})
    classifier = load(f"transformers:{tmp_path}")
    explanation = classifier.explain(photo)
    head = classifier.head
    assert isinstance(head, ExactHead)
    assert explanation.logits.shape == (1, 3) and head.error < 1e-5
    total = explanation.cams.mean(dim=(2, 3)) + head.bias
    assert torch.allclose(total, explanation.logits, atol=1e-5)


def test_names_of_weights_that_transformers_has_changed_are_renewed(
    tmp_path: Path,
) -> None:
    trained = saved("vit", tmp_path)
    renamed = set(load_file(tmp_path / "model.safetensors")) - set(
        trained.state_dict()
    )
    classifier = load(f"transformers:{tmp_path}")
    assert agree(classifier.module, trained)
    said = (
        "the names in model.safetensors renewed by transformers"
        in classifier.provenance.notes
    )
    assert said == bool(renamed)


def test_numbered_labels_of_the_configuration_are_no_labels(
    tmp_path: Path,
) -> None:
    network("resnet", ["LABEL_0", "LABEL_1"]).save_pretrained(tmp_path)
    assert load(f"transformers:{tmp_path}").labels == ("class 0", "class 1")
    assert load(f"transformers:{tmp_path}", labels=["cat", "dog"]).labels == (
        "cat",
        "dog",
    )


def test_a_folder_without_weights_gets_random_ones(tmp_path: Path) -> None:
    saved("resnet", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    classifier, other = (
        load(f"transformers:{tmp_path}"),
        load(f"transformers:{tmp_path}", seed=1),
    )
    assert (
        classifier.provenance.weights == "random initialisation, seed 0"
        and classifier.labels[0] == "tench"
    )
    assert (
        classifier.provenance.notes[0]
        == f"'{tmp_path}' holds no model.safetensors or pytorch_model.bin."
    )
    assert not agree(classifier.module, other.module)


def test_pickled_and_sharded_weights_are_read_safely(tmp_path: Path) -> None:
    trained = saved("resnet", tmp_path)
    state = trained.state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    classifier = load(f"transformers:{tmp_path}")
    assert (
        agree(classifier.module, trained)
        and classifier.provenance.weights == "pytorch_model.bin"
    )
    torch.save({"model": trained}, tmp_path / "pytorch_model.bin")
    assert "only read with weights_only=True" in refusal(
        f"transformers:{tmp_path}", WeightsError
    )

    halves = {
        "model-1-of-2.safetensors": list(state)[::2],
        "model-2-of-2.safetensors": list(state)[1::2],
    }
    for file, names in halves.items():
        save_file({name: state[name] for name in names}, tmp_path / file)
    index = {
        "weight_map": {
            name: file for file, names in halves.items() for name in names
        }
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    classifier = load(f"transformers:{tmp_path}")
    assert (
        agree(classifier.module, trained)
        and classifier.provenance.sha256 is None
    )
    assert classifier.provenance.notes[0].startswith(
        "model-1-of-2.safetensors: SHA-256 "
    )
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../model.safetensors"}}'
    )
    assert "names files outside its folder" in refusal(
        f"transformers:{tmp_path}", WeightsError
    )
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert "does not list the files of the weights" in refusal(
        f"transformers:{tmp_path}", WeightsError
    )


def test_a_folder_of_timms_is_loaded(
    tmp_path: Path, photo: Image.Image
) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    trained = timm.create_model("test_resnet", num_classes=3).eval()
    timm.models.save_for_hf(
        trained,
        tmp_path,
        model_config={"label_names": NAMES},
        safe_serialization=True,
    )
    classifier = load(f"transformers:{tmp_path}")
    data = timm.data.resolve_model_data_config(trained)
    apart = classifier.preprocessing(photo) - timm.data.create_transform(
        **data, is_training=False
    )(photo)
    assert (
        float((apart * torch.tensor(data["std"]).view(-1, 1, 1)).abs().max())
        * 255
        < 1.001
    )  # one level
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(
            classifier.module(x).logits, trained(x), atol=1e-6
        )
    assert classifier.labels == tuple(NAMES)


# Types


def test_a_type_is_its_default_configuration_with_random_weights() -> None:
    state = torch.get_rng_state()
    classifier = load("transformers:mobilenet_v2")
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model("mobilenet_v2")
        expected = transformers.AutoModelForImageClassification.from_config(
            config
        ).eval()
    assert agree(classifier.module, expected)
    assert classifier.provenance.weights == "random initialisation, seed 0"
    assert classifier.preprocessing.describe().startswith(
        "shorter side to 256 (bilinear), centre crop 224×224"
    )
    other = load(
        "transformers:mobilenet_v2",
        num_classes=4,
        labels=list("abcd"),
        input_size=32,
    )
    assert other.labels == ("a", "b", "c", "d")
    assert other.preprocessing.describe().startswith(
        "shorter side to 37 (bilinear), centre crop 32×32"
    )


def test_the_size_of_the_input_is_the_networks_own(tmp_path: Path) -> None:
    network("vit").config.save_pretrained(tmp_path)
    assert load(f"transformers:{tmp_path}").preprocessing.input_size == (32, 32)
    larger = load(f"transformers:{tmp_path}", input_size=48)
    with torch.no_grad():
        assert larger.module(torch.zeros(1, 3, 48, 48)).logits.shape == (1, 3)
    assert larger.preprocessing.input_size == (48, 48)


def test_a_configuration_in_half_precision_is_built_in_full(
    tmp_path: Path,
) -> None:
    network("resnet").to(torch.float16).save_pretrained(tmp_path)
    assert load(f"transformers:{tmp_path}").like.dtype == torch.float32


# The pixels of the processor


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("resnet", {"resample": 3}, "squash to 384×384 (bicubic)"),
        (
            "resnet",
            {"size": {"shortest_edge": 224}, "resample": 3},
            "shorter side to 256 (bicubic), centre crop 224×",
        ),
        ("convnext", {}, "squash to 384×384"),
        (
            "convnext",
            {"size": {"shortest_edge": 288}, "crop_pct": 0.95},
            "shorter side to 303 (",
        ),
        (
            "regnet",
            {"size": {"shortest_edge": 224}, "resample": 2},
            "shorter side to 256 (bilinear)",
        ),
        ("vit", {}, "squash to 224×224 (bilinear)"),
        (
            "vit",
            {"size": {"height": 96, "width": 64}, "resample": 3},
            "squash to 96×64 (bicubic)",
        ),
        (
            "vit",
            {"do_normalize": False},
            "squash to 224×224 (bilinear), mean 0/0/0, std 1/1/1",
        ),
        (
            "swin",
            {
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            },
            "squash to 224×224",
        ),
        (
            "mobilenet_v2",
            {},
            "shorter side to 256 (bilinear), centre crop 224×224",
        ),
        (
            "mobilenet_v2",
            {"size": {"shortest_edge": 160}},
            "shorter side to 160 (bilinear), centre crop 224×224",
        ),
    ],
)
def test_the_pixels_are_those_of_the_processor(
    kind: str,
    settings: dict[str, Any],
    said: str,
    tmp_path: Path,
    photo: Image.Image,
) -> None:
    network(kind).config.save_pretrained(tmp_path)
    processor = processor_of(kind, **settings)
    processor.save_pretrained(tmp_path)
    preprocessing = load(f"transformers:{tmp_path}").preprocessing
    assert isinstance(
        preprocessing, Preprocessing
    ) and preprocessing.describe().startswith(said)
    # The widths are such that half a pixel is rounded in both ways.
    for width in range(635, 641):
        turned = photo.crop((0, 0, width, 427))
        expected = processor(turned, return_tensors="pt")["pixel_values"][0]
        levels = (
            (preprocessing(turned) - expected).abs()
            * torch.tensor(preprocessing.std).view(-1, 1, 1)
            * 255
        )
        # Pillow and torchvision differ by one level in few pixels, and by two in hardly
        # any.
        assert (
            float(levels.max()) < 2.01
            and float((levels > 1.01).float().mean()) < 1e-4
        )


def test_a_processor_whose_settings_do_not_say_it_is_used_itself(
    tmp_path: Path, photo: Image.Image
) -> None:
    network("resnet").config.save_pretrained(tmp_path)
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}
    )
    processor.save_pretrained(tmp_path)
    preprocessing = load(f"transformers:{tmp_path}").preprocessing
    # It swaps red and blue.
    assert isinstance(preprocessing, MeasuredPreprocessing)
    assert "own callable MobileViTImageProcessor" in preprocessing.describe()
    assert torch.equal(
        preprocessing(photo),
        processor(photo, return_tensors="pt")["pixel_values"][0],
    )
    assert (
        abs(
            preprocessing.placement(photo.size).left - (640 - 427 * 64 / 80) / 2
        )
        < 5
    )
    assert "cannot be taken to input_size 32" in refusal(
        f"transformers:{tmp_path}", input_size=32
    )
    own = Preprocessing(resize=36, crop=32)
    assert (
        load(f"transformers:{tmp_path}", preprocessing=own).preprocessing is own
    )


def test_a_processor_that_gives_no_picture_is_refused() -> None:
    assert (
        "the network takes no photo as a (channel, row, col) tensor"
        in refusal("transformers:imagegpt")
    )


# A file of weights


def test_a_file_brings_its_number_of_classes(tmp_path: Path) -> None:
    trained = saved("resnet", tmp_path / "saved")
    other = network("resnet", [f"c{i}" for i in range(7)])
    state = {
        f"module.{name}": tensor for name, tensor in other.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    classifier = load(
        f"transformers:{tmp_path / 'saved'}", weights=tmp_path / "w.pth"
    )
    assert agree(classifier.module, other) and classifier.labels[6] == "class 6"
    through = load(
        f"checkpoint:{tmp_path / 'w.pth'}",
        arch=f"transformers:{tmp_path / 'saved'}",
        labels=list("abcdefg"),
    )
    assert (
        agree(through.module, other)
        and through.labels[6] == "g"
        and not agree(through.module, trained)
    )
    assert (
        through.provenance.spec.startswith("checkpoint:")
        and through.provenance.weights == "w.pth"
    )


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    saved("resnet", tmp_path / "resnet")
    saved("swin", tmp_path / "swin")
    spec, file = (
        f"transformers:{tmp_path / 'swin'}",
        tmp_path / "resnet" / "model.safetensors",
    )
    assert "does not fit SwinForImageClassification" in refusal(
        spec, WeightsError, weights=file
    )
    own = tmp_path / "swin" / "model.safetensors"
    message = refusal(spec, WeightsError, weights=own, num_classes=5)
    assert (
        "the file looks like one for 3 classes, so pass that as num_classes"
        in message
    )
    assert "are for 3 classes, not 5" in refusal(
        spec, WeightsError, num_classes=5
    )
    assert "2 labels were given for 3 classes" in refusal(
        spec, LabelsError, labels=["a", "b"]
    )
    assert "there is no weights file" in refusal(
        spec, WeightsError, weights="nowhere.pth"
    )

    state = load_file(own)
    save_file(
        {
            name: tensor
            for name, tensor in state.items()
            if "classifier" not in name
        },
        own,
    )
    # transformers itself would draw the classifier at random, and warn.
    assert (
        "2 missing from the file (classifier.weight, classifier.bias)"
        in refusal(spec, WeightsError)
    )
    save_file({**state, "classifier.bias": torch.full((3,), float("nan"))}, own)
    assert "NaN" in refusal(spec, NonFiniteError)
    own.write_bytes(own.read_bytes()[:-100])
    assert "is not a whole safetensors file" in refusal(spec, WeightsError)


# What is not a model


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    spec, config = f"transformers:{tmp_path}", tmp_path / "config.json"
    assert (
        "holds no config.json: name a folder that save_pretrained wrote"
        in refusal(spec)
    )
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "config.json").write_text("{}")
    assert f"e.g. {tmp_path.name}/checkpoint-500" in refusal(spec)
    for text, message in (
        ("{'model_type': 'resnet'", "cannot be read as JSON"),
        ("[1, 2]", "holds a list, not a network's configuration"),
        ("{}", "cannot read '"),
        ('{"model_type": "of another world"}', "cannot read '"),
        (
            '{"model_type": "resnet", "layer_type": "none such"}',
            "cannot read '",
        ),
        (
            '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}',
            "code would have to be run",
        ),
        (
            '{"model_type": "bert"}',
            "is a network of type 'bert', of which transformers has no image "
            "classifier",
        ),
    ):
        config.write_text(text)
        assert message in refusal(spec), text
    saved("resnet", tmp_path, {})
    (tmp_path / "preprocessor_config.json").write_text("{")
    assert (
        "preprocessor_config.json' cannot be read as an image processor"
        in refusal(spec)
    )


def test_code_beside_a_network_is_never_run(tmp_path: Path) -> None:
    trained = saved("resnet", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["auto_map"] = {
        "AutoConfig": "mine.C",
        "AutoModelForImageClassification": "mine.M",
    }
    settings["attn_implementation"] = settings["_attn_implementation"] = (
        "somebody/kernel"
    )
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    # transformers knows the type by itself; its own attention serves as well as a
    # kernel from the hub.
    classifier = load(f"transformers:{tmp_path}")
    assert agree(classifier.module, trained) and not (tmp_path / "ran").exists()
    config: Any = classifier.module.config
    assert config._attn_implementation in (None, "eager", "sdpa")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnett",
            "no image classifier of type 'resnett' (did you mean 'resnet'",
        ),
        ("./nowhere", "there is no folder './nowhere'"),
        ("a/b/c", "there is no folder 'a/b/c'"),
        ("", "write transformers:REPO"),
        ("pyproject.toml", "is a file: name the folder with config.json"),
    ],
)
def test_a_wrong_name_says_what_was_probably_meant(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert message in refusal(f"transformers:{name}")


def test_a_folder_of_another_thing_does_not_hide_a_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mobilenet_v2").mkdir()
    assert (
        load("transformers:mobilenet_v2").provenance.weights
        == "random initialisation, seed 0"
    )


def test_without_transformers_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refusal("transformers:resnet", MissingExtraError).endswith(
        "pip install 'unitscope[transformers]'"
    )


# The hub


def test_a_repository_is_fetched_once(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = saved(
        "resnet", tmp_path / "made", {"size": {"shortest_edge": 64}}
    )
    (tmp_path / "made" / "tf_model.h5").write_bytes(b"not wanted")
    hub.publish("somebody/a-resnet", tmp_path / "made")
    other = tmp_path / "made" / "model.safetensors"
    assert agree(
        load("transformers:somebody/a-resnet", weights=other).module, trained
    )
    assert not any("model.safetensors" in request for request in hub.requests)
    classifier = load("transformers:somebody/a-resnet")
    assert agree(classifier.module, trained) and classifier.labels == tuple(
        NAMES
    )
    assert classifier.preprocessing.describe().startswith(
        "shorter side to 73 ("
    )
    assert (
        classifier.provenance.notes[0]
        == f"Source: somebody/a-resnet on the Hugging Face hub, commit {COMMIT}."
    )
    assert not any("tf_model" in request for request in hub.requests)
    assert (
        load(f"transformers:somebody/a-resnet@{COMMIT}").provenance.sha256
        == classifier.provenance.sha256
    )
    assert "has no revision 'v2'" in refusal(
        "transformers:somebody/a-resnet@v2", DownloadError
    )
    hub.refusals["somebody/a-resnet"] = (503, "Unavailable")
    assert agree(load("transformers:somebody/a-resnet").module, trained)
    assert capsys.readouterr().out == ""


def test_a_repository_with_pickled_weights_only(
    hub: Hub, tmp_path: Path
) -> None:
    trained = saved("resnet", tmp_path / "made")
    (tmp_path / "made" / "model.safetensors").unlink()
    hub.publish("somebody/empty", tmp_path / "made")
    assert "holds no model.safetensors or pytorch_model.bin" in refusal(
        "transformers:somebody/empty", WeightsError
    )
    torch.save(trained.state_dict(), tmp_path / "made" / "pytorch_model.bin")
    hub.publish("somebody/older", tmp_path / "made")
    assert agree(load("transformers:somebody/older").module, trained)


def test_the_hubs_refusals_are_one_line_with_a_way_out(
    hub: Hub, tmp_path: Path
) -> None:
    message = refusal("transformers:nobody/nothing", DownloadError)
    assert message.startswith(
        f"{hub.url}/nobody/nothing does not exist, or is private: check the name"
    )
    hub.publish("somebody/gated", tmp_path)
    hub.refusals["somebody/gated"] = (403, "GatedRepo")
    assert "is only for those who accept its terms" in refusal(
        "transformers:somebody/gated", DownloadError
    )


def test_without_a_connection_it_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:9", tmp_path / "hub", monkeypatch)
    begin = time.monotonic()
    message = refusal("transformers:microsoft/resnet-18", DownloadError)
    assert time.monotonic() - begin < 10
    assert message.startswith(
        "http://127.0.0.1:9/microsoft/resnet-18 cannot be fetched ("
    )
    assert (
        "set HF_ENDPOINT to a mirror, or name a folder that holds it (there is none "
        "called" in message
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids to fetch it" in refusal(
        "transformers:microsoft/resnet-18", DownloadError
    )


def test_a_server_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("unitscope.sources.hub._SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_to(
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            tmp_path / "hub",
            monkeypatch,
        )
        begin = time.monotonic()
        assert "cannot be fetched" in refusal(
            "transformers:microsoft/resnet-18", DownloadError
        )
        assert time.monotonic() - begin < 10
