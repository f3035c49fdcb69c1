"""Repeating the write-up on a network of the same make, with other weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torchvision = pytest.importorskip(
    "torchvision", reason="torchvision builds the write-up's ResNet-50"
)

from unitscope import write_up  # noqa: E402
from unitscope.cli import main  # noqa: E402
from unitscope.errors import ModelError  # noqa: E402
from unitscope.model import Classifier, wrap  # noqa: E402


def _labels() -> list[str]:
    labels = [f"scene {index}" for index in range(365)]
    for label, index in write_up._CLASS_IDS.items():
        labels[index] = label
    return labels


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module: torch.nn.Module = torchvision.models.resnet50(num_classes=365)
    # The published ranges of the kernels, put where they were read.
    with torch.no_grad():
        for (layer, number), (low, high) in write_up._KERNELS.items():
            kernel = module.get_parameter(f"{layer}.weight")[number, 0]
            span = kernel.max() - kernel.min()
            kernel.copy_(low + (kernel - kernel.min()) / span * (high - low))
    return module


@pytest.fixture(scope="module")
def model(network: torch.nn.Module) -> Classifier:
    return wrap(network, _labels(), write_up.PREPROCESSING)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(1).integers(
        0, 255, (60, 80, 3), dtype=np.uint8
    )
    Image.fromarray(pixels).resize((320, 240)).save(path)
    yield path


@pytest.fixture(scope="module")
def result(model: Classifier, photo: Path) -> write_up.Reproduction:
    return write_up.reproduce(model, photo)


def test_every_published_number_is_compared_and_disagreement_shows(
    result: write_up.Reproduction,
) -> None:
    rows = {row.quantity: row for row in result.comparisons}
    assert (
        rows["chopped network gives (unit × row × col)"].obtained
        == "2048 × 8 × 8"
    )
    assert rows["chopped network gives (unit × row × col)"].agrees is True
    assert rows["class id of village"].agrees is True
    assert (
        rows["conv1 filter 2, channel 0: range"].obtained == "-0.4255 … 0.4087"
    )
    assert all(
        row.agrees for row in result.comparisons if row.where == "figures 2–8"
    )
    assert (
        rows["every cell through the linear layer = the maps + bias"].agrees
        is True
    )
    # Random weights cannot give the published logits.
    assert rows["before, rank 1"].published == "village 8.458"
    assert rows["before, rank 1"].agrees is False
    agreeing, compared = result.agreeing
    assert 0 < agreeing < compared


def test_the_maximal_unit_is_the_one_with_the_largest_weight_for_the_first_class(
    model: Classifier, photo: Path, result: write_up.Reproduction
) -> None:
    first = model.explain(photo).top(1)[0][0].index
    weights = model.module.get_parameter("fc.weight")[first]
    row = next(row for row in result.comparisons if row.where == "figure 18")
    assert row.obtained == str(int(weights.argmax()))


def test_labels_without_the_write_ups_classes_are_refused(
    network: torch.nn.Module, photo: Path
) -> None:
    other = wrap(network, None, write_up.PREPROCESSING)
    with pytest.raises(ModelError, match="lack village"):
        write_up.reproduce(other, photo)


@pytest.mark.slow
def test_the_command_reads_a_checkpoint_of_the_authors_make_and_draws_the_figures(
    network: torch.nn.Module,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = {
        f"module.{key}": value
        for key, value in network.state_dict().items()
        if "num_batches" not in key
    }
    weights = tmp_path / "resnet50_places365.pth.tar"
    torch.save(
        {"state_dict": state},
        weights,
        _use_new_zipfile_serialization=False,
        pickle_protocol=2,
    )
    labels = tmp_path / "categories_places365.txt"
    labels.write_text(
        "".join(
            f"/{label[0]}/{label} {index}\n"
            for index, label in enumerate(_labels())
        )
    )
    out = tmp_path / "pictures"
    arguments = [
        "reproduce",
        "write-up",
        str(photo),
        "--weights",
        str(weights),
        "--labels",
        str(labels),
    ]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "published numbers agree" in printed
    assert "village 8.458" in printed
    # 2 pages of filters, 7 units, the maximal unit, 5 class activation maps.
    assert len(list(out.glob("*.png"))) == 15
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "reproduction"
    assert len(document["comparisons"]) == document["compared"] + sum(
        c["agrees"] is None for c in document["comparisons"]
    )
