"""The comparison of a transformer's maps: what it measures, and what its page says."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unitscope
from unitscope.evaluation.hiding import blurred
from unitscope.model import Classifier
from unitscope.scenes.network import Stage
from unitscope.scenes.transformer import (
    SceneTransformer,
    TransformerArchitecture,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = pytest.mark.skipif(
    not SCRIPTS.is_dir(), reason="scripts/ is not part of an installed package"
)
sys.path.insert(0, str(SCRIPTS))

from maps import measures, methods, page  # noqa: E402

SIDE = 4


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    stages = (Stage(1, 8, 1), Stage(1, 16, 2))
    architecture = TransformerArchitecture(
        8, stages, 16, 1, 2, 16, side=SIDE, classes=3
    )
    network = SceneTransformer(architecture).eval()
    return unitscope.wrap(network, labels=list("abc"))


class Corner(nn.Module):
    """Two logits: one is the brightness of the upper left patch, the other nothing."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([brightness, torch.zeros_like(brightness)], dim=1)


def test_every_method_gives_a_map_a_photo(model: Classifier) -> None:
    x = torch.randn(3, 3, 32, 32)
    x[2] = x[1]
    for name, method in methods.METHODS.items():
        maps = method(model, x, [0, 2, 2])
        assert maps.shape == (3, SIDE, SIDE), name
        assert maps.isfinite().all() and maps.std() > 0, name
        torch.testing.assert_close(maps[1], maps[2], atol=1e-5, rtol=1e-4)
    assert all(each.grad is None for each in model.module.parameters())


def test_attention_maps_of_one_block_are_their_formulas(
    model: Classifier,
) -> None:
    x = torch.randn(2, 3, 32, 32)
    kept: list[Tensor] = []
    layer = model.module.get_submodule("blocks.0.attn.shares")
    hook = layer.register_forward_hook(lambda *call: kept.append(call[2]))
    logits = model.module(x)
    hook.remove()
    (slopes,) = torch.autograd.grad(logits[:, 1].sum(), kept)
    mean = kept[0].detach().mean(dim=1)[:, 0, 1:].reshape(2, SIDE, SIDE)
    torch.testing.assert_close(methods.raw_attention(model, x, [1, 1]), mean)
    torch.testing.assert_close(methods.rollout(model, x, [1, 1]), mean / 2)
    positive = (kept[0].detach() * slopes).clamp(min=0).mean(dim=1)
    torch.testing.assert_close(
        methods.gradient_attention(model, x, [1, 1]),
        positive[:, 0, 1:].reshape(2, SIDE, SIDE),
    )


def test_deletion_and_insertion_find_the_patch_that_counts() -> None:
    photo = torch.full((3, 32, 32), -3.0)
    photo[:, :8, :8] = 3.0
    right = torch.zeros(SIDE, SIDE)
    right[0, 0] = 1
    maps = torch.stack([right, -right])
    deletion, insertion = measures.deletion_and_insertion(
        Corner(), photo, 0, maps
    )
    hidden = blurred(photo[None], measures.BLUR)
    low, high = (
        float(Corner()(each).softmax(1)[0, 0]) for each in (hidden, photo[None])
    )
    # In the first of the steps all is decided, or in the last.
    early, late = 1 - 0.5 / measures.STEPS, 0.5 / measures.STEPS
    gain = high - low
    assert deletion == pytest.approx([low + late * gain, low + early * gain])
    assert insertion == pytest.approx([low + early * gain, low + late * gain])


def test_pointing_forgives_fifteen_pixels() -> None:
    mask = np.zeros((128, 128), bool)
    mask[40, 8] = True
    map_ = np.zeros((8, 8), np.float32)
    map_[1, 0] = 1  # its middle is (24, 8)
    assert not measures.points_at(map_, mask)
    mask[39, 8] = True
    assert measures.points_at(map_, mask)


def test_rank_correlation_is_of_ranks() -> None:
    map_ = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert measures.rank_correlation(map_, np.exp(map_)) == pytest.approx(1)
    assert measures.rank_correlation(map_, -map_) == pytest.approx(-1)
    assert measures.rank_correlation(map_, np.zeros_like(map_)) == 0


def test_weights_are_drawn_anew_from_the_end(model: Classifier) -> None:
    network = model.module
    assert isinstance(network, SceneTransformer)
    before = network.state_dict()
    for which, first in (
        ("head", "head.weight"),
        ("head and later half", "blocks.0.attn.qkv.weight"),
        ("all but the stem", "patch_embed.weight"),
    ):
        after = measures.reset(network, which, seed=1).state_dict()
        assert not after[first].equal(before[first])
        assert after["stem.conv1.weight"].equal(before["stem.conv1.weight"])
    kept = measures.reset(network, "head", seed=1).state_dict()
    assert kept["patch_embed.weight"].equal(before["patch_embed.weight"])


def test_the_page_says_who_wins_and_who_loses() -> None:
    random = np.random.default_rng(0)
    records = []
    for _ in range(40):
        record = {}
        for place, name in enumerate(methods.METHODS):
            noise = float(random.normal(0, 0.01))
            record[name] = {
                "deletion": 0.2 + 0.1 * place + noise,
                "insertion": 0.2 + 0.1 * place + noise,
                "points": 1.0,
                **dict.fromkeys(measures.RESETS, 0.1 * place),
            }
        records.append(record)
    about = {"network": "`n`", "seed": 0, "weights": "W.", "layer": "l"}
    text = page.page(records, about)
    others = ", ".join(list(methods.METHODS)[1:])
    assert (
        f"residual has the best mean. `residual` is better than {others}; worse"
        in text
    )
    assert (
        f"centre has the best mean. `residual` is better than none; worse than {others};"
        in text
    )
    assert f"worse than none; not to be told from {others}." in text
    assert "- **head**: least like before are the maps of residual" in text
    assert "over 40 photos" in text and "100.0 (100.0 to 100.0)" in text
    assert page.interval(np.ones(5)) == (1, 1, 1)
