"""Small configurations of the transformers library, whose logits are read from tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from residual.small_vits import cases, made
from residual.test_spellings import (
    assert_close,
    check_algebra,
    explained,
    total_of,
)

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
KINDS = {
    "ViT": {},
    "DeiT": {},
    "Dinov2": {},
    "Dinov2WithRegisters": {},
    "ViTMSN": {},
    "Beit": {"use_mean_pooling": False},
}


@pytest.mark.parametrize("kind", cases(KINDS))
def test_transformers(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**SMALL, **KINDS[kind])
    make = getattr(transformers, f"{kind}ForImageClassification")
    network = made(lambda: make(config))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    explanation = explained(network, x)
    with torch.no_grad():
        assert_close(explanation.logits, network(x).logits)
    if kind.startswith("Dinov2"):
        # The mean of patches, which is read beside the class token, is from no head.
        assert_close(total_of(explanation.parts.values()), explanation.logits)
    else:
        check_algebra(explanation)
    assert explanation.head.unit_names == ("0.0", "0.1", "1.0", "1.1")
    assert len(explanation.writes) == 2
    assert_close(
        total_of(explanation.writes.values()), explanation.parts["MLPs"]
    )
