"""What replaces heads, and what is asked of none of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import unitscope
from residual.small_vits import SmallVit, made, photos
from residual.test_spellings import assert_close, total_of
from unitscope.errors import InputError, ModelError
from unitscope.residual.explanation import ResidualExplanation


def explained(model: unitscope.Classifier, x: Tensor) -> ResidualExplanation:
    explanation = model.explain(x)
    assert isinstance(explanation, ResidualExplanation)
    return explanation


def test_heads_are_replaced_by_those_of_the_same_network_alone() -> None:
    network = made(SmallVit)
    model = unitscope.wrap(network)
    own, other = explained(model, photos(1)), explained(model, photos(2))
    assert not torch.equal(own.direct_logits([1], by=other), own.logits)

    foreign = explained(unitscope.wrap(made(SmallVit, seed=1)), photos(1))
    for ask in (own.direct_logits, own.total_logits):
        with pytest.raises(InputError, match="another network"):
            ask([1], by=foreign)

    with torch.no_grad():
        network.head.weight.mul_(2)
    with pytest.raises(ModelError, match="explain again"):
        own.direct_logits([1], by=other)


def test_no_heads_have_no_maps() -> None:
    explanation = explained(unitscope.wrap(made(SmallVit)), photos(2))
    assert explanation.head_maps([], [0, 1]).shape == (2, 0, 2, 3, 4)


def test_patches_that_are_read_directly_are_no_part_of_the_heads() -> None:
    network = made(
        lambda: SmallVit(
            read=lambda x: torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1),
            width=24,
        )
    )
    explanation = explained(unitscope.wrap(network), photos(2))
    parts = explanation.parts
    assert_close(total_of(parts.values()), explanation.logits)
    assert_close(explanation.cams.mean(dim=(2, 3)), parts["patches"])
    assert_close(
        explanation.contributions.sum(dim=2),
        parts["patches"] + parts["class token"],
    )
    heads = range(explanation.feature_map.shape[1])
    assert_close(explanation.head_maps(heads).sum(dim=1), explanation.cams)

    with torch.no_grad():
        tokens = network.tokens(photos(2))
        for block in network.blocks:
            tokens = block(tokens)
        mean = network.norm(tokens)[:, 1:].mean(dim=1)
        real = mean @ network.head.weight[:, 12:].T
    assert_close(parts["patches read directly"], real)
