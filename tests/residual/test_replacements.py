"""What replaces heads, and what is asked of none of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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


class TwoHeads(SmallVit):
    """The mean of two heads, as of distilled networks; or one whose logits are scaled."""

    def __init__(self, scale: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.other = nn.Linear(5 if shared else 12, 5)
        self.scale, self.shared = scale, shared

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        token = self.norm(tokens)[:, 0]
        first = self.head(token)
        if self.scale:
            scaled: Tensor = first * torch.arange(1.0, 6)
            return scaled
        both: Tensor = (first + self.other(first if self.shared else token)) / 2
        return both


HEADED: dict[str, Callable[[], nn.Module]] = {
    "one layer": SmallVit,
    "two layers": TwoHeads,
    "scaled": lambda: TwoHeads(scale=True),
    "one layer behind the other": lambda: TwoHeads(shared=True),
}


@pytest.mark.parametrize("make", HEADED.values(), ids=HEADED)
def test_some_classes_are_a_part_of_all(make: Callable[[], nn.Module]) -> None:
    explanation = explained(unitscope.wrap(made(make)), photos(2))
    chosen = [3, 0]
    neurons, maps = explanation.neurons(1), explanation.head_maps([1, 5])
    assert_close(explanation.neurons(1, chosen), neurons[:, :, chosen])
    assert_close(explanation.head_maps([1, 5], chosen), maps[:, :, chosen])


def test_only_the_classes_asked_for_are_computed() -> None:
    network = made(SmallVit)
    network.head = nn.Linear(12, 2000)
    explanation = explained(unitscope.wrap(network), photos(1))

    def cost(ask: Callable[..., Tensor], classes: list[int] | None) -> float:
        with FlopCounterMode(display=False) as counter:
            ask(classes)
        return float(counter.get_total_flops())

    def maps(classes: list[int] | None) -> Tensor:
        return explanation.head_maps([1, 5], classes)

    def neurons(classes: list[int] | None) -> Tensor:
        return explanation.neurons(1, classes)

    for ask in (maps, neurons):
        assert cost(ask, [3]) < cost(ask, None) / 3
