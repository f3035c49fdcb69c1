"""The transformer in the box: its shapes, its account, and its file."""

import json
import re

import pytest
import torch
from safetensors import safe_open

import unitscope
from unitscope.errors import ModelError
from unitscope.residual.head import ResidualHead
from unitscope.scenes import TRANSFORMER_WEIGHTS, WEIGHTS
from unitscope.scenes.network import BUNDLED, SceneNetwork, Stage
from unitscope.scenes.transformer import (
    BUNDLED_TRANSFORMER,
    SceneTransformer,
    TransformerArchitecture,
    network_from,
)

SMALL = TransformerArchitecture(
    8, (Stage(1, 8, 1), Stage(1, 16, 2)), 16, 2, 2, 16, side=4, classes=3
)
needs_weights = pytest.mark.skipif(
    not TRANSFORMER_WEIGHTS.is_file(),
    reason="the transformer's weights are not in this checkout",
)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_any_size_gives_logits(size: int) -> None:
    network = SceneTransformer(SMALL).eval()
    with torch.no_grad():
        x = torch.randn(2, 3, size, size)
        logits = network(x)
        tokens = network.tokens(network.stem(x))
    assert logits.shape == (2, 3)
    assert tokens.shape == (2, 1 + (size // 8) ** 2, 16)
    torch.testing.assert_close(network.head(network.norm(tokens[:, 0])), logits)


def test_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    network = SceneTransformer(SMALL).eval()
    own = network.get_submodule("blocks.0.attn")
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    names = {
        "in_proj_weight": "qkv.weight",
        "in_proj_bias": "qkv.bias",
        "out_proj.weight": "proj.weight",
        "out_proj.bias": "proj.bias",
    }
    state = own.state_dict()
    theirs.load_state_dict({name: state[names[name]] for name in names})
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(own(x), theirs(x, x, x)[0])


def test_its_residual_stream_is_followed() -> None:
    torch.manual_seed(0)
    model = unitscope.wrap(SceneTransformer(SMALL).eval(), labels=list("abc"))
    x = torch.randn(2, 3, 32, 32)
    explanation = model.explain(x)
    assert isinstance(explanation.head, ResidualHead)
    assert explanation.head.unit_names == ("0.0", "0.1", "1.0", "1.1")
    assert explanation.cams.shape == (2, 3, 4, 4)
    total = torch.stack(list(explanation.parts.values())).sum(dim=0)
    torch.testing.assert_close(total, explanation.logits, atol=1e-5, rtol=0)


def test_architectures_survive_their_text() -> None:
    for architecture in (SMALL, BUNDLED_TRANSFORMER):
        text = architecture.to_json()
        assert TransformerArchitecture.from_json(text) == architecture
    assert isinstance(network_from(SMALL.to_json()), SceneTransformer)
    assert isinstance(network_from(BUNDLED.to_json()), SceneNetwork)
    with pytest.raises(ValueError, match="is not one of a scene transformer"):
        network_from('{"width": 8}')


def test_a_build_without_the_weights_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = TRANSFORMER_WEIGHTS.with_name("absent.safetensors")
    monkeypatch.setattr("unitscope.sources.bundled.TRANSFORMER_WEIGHTS", absent)
    words = "the bundled model miniplaces-vit is not in this build"
    with pytest.raises(ModelError, match=re.escape(words)):
        unitscope.load("miniplaces-vit")


@needs_weights
def test_the_file_is_small_half_precision_and_speaks_for_itself() -> None:
    assert TRANSFORMER_WEIGHTS.stat().st_size <= 5_000_000
    with safe_open(TRANSFORMER_WEIGHTS, "pt") as file:
        metadata = file.metadata()
        types = {file.get_tensor(name).dtype for name in file.keys()}
    with safe_open(WEIGHTS, "pt") as file:
        bundled = file.metadata()
    assert types == {torch.float16}
    for same in ("labels", "preprocessing"):
        assert metadata[same] == bundled[same]
    card = json.loads(metadata["card"])
    assert card["accuracy"]["top1"]["accuracy"] >= 0.40
    assert "teacher" in card["recipe"]


@needs_weights
def test_the_bundled_transformer_is_loaded_as_the_network_is() -> None:
    model, network = unitscope.load("miniplaces-vit"), unitscope.load()
    assert model.labels == network.labels
    assert model.preprocessing == network.preprocessing
    assert not model.module.training
    assert model.provenance.spec == "miniplaces-vit"
    assert len(model.provenance.sha256 or "") == 64
    assert any("top-1" in note for note in model.provenance.notes)
    head = model.head
    assert isinstance(head, ResidualHead)
    assert head.map_shape == (24, 8, 8)
