"""Networks that match photos with texts: labels become classes, in saved folders, offline."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor
from torch.nn import functional

import text_networks
from hub_server import running_hub
from refusals import refusal
from text_networks import KINDS, SIDE, TOKENS
from unitscope.atlas.identity import fingerprint
from unitscope.atlas.scanning import scan
from unitscope.attribution.scores import Scores
from unitscope.cli import cli
from unitscope.cli.explore import _model_of
from unitscope.errors import (
    AtlasError,
    InputError,
    LabelsError,
    ModelError,
    UnitscopeWarning,
)
from unitscope.residual.explanation import ResidualExplanation
from unitscope.sources import load

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed"
)
pytest.importorskip("torchvision", reason="torchvision is not installed")

# The others are of the same making, and tested with the slow tests.
DEFAULT = ("clip", "siglip")
LABELS = ["cat", "big dog", "red car", "tree"]
TEMPLATES = ["a photo of a {}.", "a blurry {}", "{}"]


class Folders(dict[str, Path]):
    """Network, tokenizer and image processor of every kind, saved when first asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, kind: str) -> Path:
        self[kind] = self._root / kind
        text_networks.save(kind, self[kind])
        return self[kind]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return Folders(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="session")
def photos() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn((2, 3, SIDE, SIDE), generator=generator)


@pytest.fixture
def damaged(folders: Folders, tmp_path: Path) -> Iterator[Path]:
    """A copy of CLIP's folder that a test may change."""
    yield Path(shutil.copytree(folders["clip"], tmp_path / "clip"))


def own(folder: Path) -> Any:
    """The network as transformers itself loads it."""
    automatic = transformers.AutoModelForZeroShotImageClassification
    return automatic.from_pretrained(folder).eval()


def tokens(kind: str, texts: list[str]) -> Any:
    padding = "max_length" if kind == "siglip" else True
    return text_networks.tokenizer()(
        texts, padding=padding, return_tensors="pt"
    )


def vectors(network: Any, kind: str, texts: list[str]) -> Tensor:
    found = network.get_text_features(**tokens(kind, texts))
    found = getattr(found, "pooler_output", found)
    return functional.normalize(found, dim=-1)


def spec(folder: Path) -> str:
    return f"transformers:{folder}"


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((one - other).abs().max() / other.abs().max())


# The numbers


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in DEFAULT else pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_the_parts_add_up_to_the_logits_of_transformers(
    kind: str, folders: Folders, photos: Tensor
) -> None:
    model = load(spec(folders[kind]), labels=LABELS)
    texts = tokens(kind, [f"a photo of a {label}." for label in LABELS])
    with torch.no_grad():
        inputs = {"pixel_values": photos, **texts}
        expected = own(folders[kind])(**inputs).logits_per_image

    explanation = model.explain(photos)
    assert isinstance(explanation, ResidualExplanation)
    total = torch.stack(list(explanation.parts.values())).sum(dim=0)
    assert off(explanation.logits, expected) < 1e-5
    assert off(total, expected) < 1e-5
    # MLPs with quick GELU are writes as any others are.
    assert set(explanation.parts) >= {"patches", "MLPs", "bias"}
    assert not model.head.as_json()["held"]
    assert model.labels == tuple(LABELS)
    wanted = Scores.SIGMOID if kind == "siglip" else Scores.SOFTMAX
    assert model.scores is wanted


def test_templates_are_averaged_as_clips_authors_do(
    folders: Folders, photos: Tensor
) -> None:
    model = load(spec(folders["clip"]), labels=LABELS, templates=TEMPLATES)
    network = own(folders["clip"])
    with torch.no_grad():
        each = [
            vectors(network, "clip", [t.replace("{}", name) for name in LABELS])
            for t in TEMPLATES
        ]
        mean = functional.normalize(torch.stack(each).mean(dim=0), dim=-1)
        features = network.get_image_features(photos)
        features = getattr(features, "pooler_output", features)
        unit = functional.normalize(features, dim=-1)
        expected = network.logit_scale.exp() * unit @ mean.T
        assert off(model.module(photos), expected) < 1e-5


@pytest.mark.parametrize(
    ("words", "batch"), [(2, 3), pytest.param(10, 256, marks=pytest.mark.slow)]
)
def test_many_labels_are_read_in_batches(
    words: int,
    batch: int,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unitscope.sources.class_vectors._BATCH", batch)
    chosen = text_networks.WORDS[:words]
    labels = list(map(" ".join, itertools.product(chosen, repeat=4)))
    model = load(spec(folders["clip"]), labels=labels, templates="{}")
    network: Any = model.module
    assert network.class_vectors.shape == (words**4, 16)
    with torch.no_grad():
        last = vectors(own(folders["clip"]), "clip", labels[-2:])
    ours = functional.normalize(network.class_vectors[-2:], dim=-1)
    assert torch.allclose(ours, last, atol=1e-5)


# What is kept


def test_only_the_image_tower_is_kept(folders: Folders) -> None:
    for kind in ("clip", "siglip"):
        model = load(spec(folders[kind]), labels=LABELS)
        names = [name for name, _ in model.module.named_parameters()]
        assert names and not any("text" in name for name in names)
        assert not any("logit" in name for name in names)
        assert not model.module.training


def test_labels_and_templates_belong_to_the_identity(
    folders: Folders,
) -> None:
    clip = spec(folders["clip"])
    model = load(clip, labels=LABELS)
    same = load(clip, labels=LABELS, templates="a photo of a {}.")
    assert fingerprint(model) == fingerprint(same)
    assert model.provenance.reload is not None
    assert fingerprint(model.provenance.reload()) == fingerprint(model)
    others = [
        load(clip, labels=[*LABELS[:3], "bird"]),
        load(clip, labels=LABELS[::-1]),
        load(clip, labels=LABELS, templates="{}"),
    ]
    every = {fingerprint(each) for each in (model, *others)}
    assert len(every) == 4
    notes = " ".join(load(clip, labels=LABELS, templates="{}").provenance.notes)
    assert "4 labels as texts, by '{}'" in notes


def test_another_text_tower_is_another_model(damaged: Path) -> None:
    before = fingerprint(load(spec(damaged), labels=LABELS))
    network = own(damaged)
    with torch.no_grad():
        network.text_projection.weight[0, 0] += 1
    network.save_pretrained(damaged)
    assert fingerprint(load(spec(damaged), labels=LABELS)) != before


def test_a_folder_asks_nothing_of_the_hub(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_hub(tmp_path / "hub", monkeypatch) as hub:
        load(spec(folders["clip"]), labels=LABELS)
        assert hub.requests == []
        hub.publish("openai/clip-small", folders["clip"])
        model = load("transformers:openai/clip-small", labels=LABELS)
        assert model.provenance.notes[0].startswith("Source: openai/clip-small")


def test_a_folder_without_weights_is_random(damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    model = load(spec(damaged), labels=LABELS, seed=3)
    assert model.provenance.weights == "random initialisation, seed 3"


# The command line


def test_the_command_line_takes_labels_and_templates(
    folders: Folders, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    photo = tmp_path / "photo.png"
    Image.effect_noise((40, 50), 80).convert("RGB").save(photo)
    arguments = ["--model", spec(folders["siglip"]), "--labels", str(labels)]
    for template in TEMPLATES[1:]:
        arguments += ["--template", template]
    result = CliRunner().invoke(
        cli, ["ablate", str(photo), *arguments, "--unit", "0", "--json"]
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    model = load(
        spec(folders["siglip"]), labels=labels, templates=TEMPLATES[1:]
    )
    first = model.explain(photo).top(1)[0][0]
    assert f'"{first.label}"' in result.stdout
    photo_content = content["photos"][0]
    assert first.label in LABELS and photo_content["scores"] == "sigmoid"


# Refusals


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({}, LabelsError, "has no classes of its own: give labels"),
        ({"labels": []}, LabelsError, "is empty"),
        ({"labels": ["cat"]}, LabelsError, "leaves no choice: give a second"),
        (
            {"labels": ["cat", "dog", "cat"]},
            LabelsError,
            "class 0 and class 2, 'cat' and 'cat', are the same text",
        ),
        (
            {"labels": ["cat", "CAT"]},
            LabelsError,
            "'cat' and 'CAT', are the same text to the network",
        ),
        ({"labels": LABELS, "num_classes": 3}, LabelsError, "for 3 classes"),
        (
            {"labels": LABELS, "templates": ["a photo"]},
            InputError,
            "'a photo' has no {} for the label",
        ),
        ({"labels": LABELS, "templates": []}, InputError, "is empty"),
        (
            {"labels": LABELS, "templates": ["{}", "{}"]},
            InputError,
            "given twice",
        ),
    ],
)
def test_what_makes_no_classes_is_refused(
    options: dict[str, Any],
    kind: type[ModelError],
    said: str,
    folders: Folders,
) -> None:
    assert said in refusal(spec(folders["clip"]), kind, **options)


def test_one_label_is_a_yes_or_no_for_siglip(
    folders: Folders, photos: Tensor
) -> None:
    model = load(spec(folders["siglip"]), labels=["cat"])
    assert model.module(photos).shape == (2, 1)
    assert any("sigmoid" in note for note in model.provenance.notes)
    bare = load(spec(folders["clip"]), labels=["cat"], scores="none")
    assert bare.module(photos).shape == (2, 1)


def test_a_missing_or_foreign_tokenizer_is_refused(damaged: Path) -> None:
    (damaged / "tokenizer.json").rename(damaged / "aside")
    assert "holds no tokenizer" in refusal(spec(damaged), labels=LABELS)
    (damaged / "tokenizer.json").write_text("{}")
    assert "cannot be read" in refusal(spec(damaged), labels=LABELS)
    # A vocabulary larger than the text tower's.
    settings = json.loads((damaged / "aside").read_text())
    settings["model"]["vocab"]["cat"] = 900
    (damaged / "tokenizer.json").write_text(json.dumps(settings))
    assert "the text tower fails" in refusal(spec(damaged), labels=LABELS)


def test_texts_that_are_cut_are_told(folders: Folders) -> None:
    long = " ".join(["big red"] * TOKENS)
    with pytest.warns(UnitscopeWarning, match="its end is cut off"):
        load(spec(folders["clip"]), labels=["cat", long])
    # What is left after the cut must still tell the classes apart.
    with pytest.warns(UnitscopeWarning, match=r"\(and 1 more texts\)"):
        said = refusal(
            spec(folders["clip"]),
            LabelsError,
            labels=[f"{long} cat", f"{long} dog"],
        )
    assert "are the same text" in said


def test_a_doubled_article_is_told(folders: Folders) -> None:
    with pytest.warns(UnitscopeWarning, match="a photo of a a cat"):
        load(spec(folders["clip"]), labels=["a cat", "dog"])
    load(spec(folders["clip"]), labels=["a cat", "dog"], templates="photo {}")


def test_networks_with_classes_of_their_own_take_no_templates() -> None:
    said = refusal("transformers:mobilenet_v2", templates="{}")
    assert "has classes of its own" in said
    assert "takes no templates" in refusal("miniplaces", templates="{}")


def test_a_classifier_on_clip_stays_a_classifier(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(
        "clip", vision_config=text_networks.VISION, num_labels=3
    )
    automatic = transformers.AutoModelForImageClassification
    automatic.from_config(config).save_pretrained(tmp_path)
    assert len(load(spec(tmp_path)).labels) == 3


@pytest.mark.slow
def test_networks_that_match_otherwise_are_refused(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(
        "align",
        text_config=text_networks.TEXT,
        vision_config={"image_size": SIDE, "width_coefficient": 0.1},
    )
    config.architectures = ["AlignModel"]
    config.save_pretrained(tmp_path)
    text_networks.tokenizer().save_pretrained(tmp_path)
    said = refusal(spec(tmp_path), labels=LABELS)
    assert "does not match a photo with a text by the angle" in said


@pytest.mark.slow
def test_an_atlas_finds_its_labels_and_workers_load_the_same(
    folders: Folders, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for number in range(4):
        photo = Image.effect_noise((40, 40), 50 + number).convert("RGB")
        photo.save(tmp_path / f"{number}.png")
    clip = spec(folders["clip"])
    model = load(clip, labels=LABELS)
    layer = "image_tower.vision_model.encoder.layers.1"
    options: dict[str, Any] = {"out": tmp_path / "atlas", "layers": layer}
    atlas = scan(model, tmp_path, workers=2, **options)
    found = _model_of(atlas)
    assert found is not None and found.labels == tuple(LABELS)
    other = load(clip, labels=LABELS, templates="{}")
    with pytest.raises(AtlasError, match="another model"):
        scan(other, tmp_path, **options)
