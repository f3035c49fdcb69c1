"""Heads with one divisor a photo behind a projection: cosine similarities, as of ArcFace
and CLIP, against real forward passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import normalize

from networks import features, seeded
from unitscope.attribution.exact_heads import ExactHead
from unitscope.model import wrap

UNITS, NUMBERS, CLASSES = 6, 4, 5


class Cosine(nn.Module):
    """Pooled units, then the head under test, which may use these parts."""

    def __init__(self, head: Callable[[Cosine, Tensor], Tensor]) -> None:
        super().__init__()
        self.features = features(UNITS)
        self.project = nn.Linear(UNITS, NUMBERS)
        self.without_bias = nn.Linear(UNITS, NUMBERS, bias=False)
        self.of_units = nn.LayerNorm(UNITS)
        self.of_numbers = nn.LayerNorm(NUMBERS)
        self.neck = nn.BatchNorm1d(NUMBERS)
        nn.init.normal_(self.neck.running_mean)  # type: ignore[arg-type]
        self.classes = nn.Parameter(torch.randn(CLASSES, NUMBERS))
        self.bias = nn.Parameter(torch.randn(CLASSES))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, self.features(x).mean((2, 3)))


def unit(x: Tensor) -> Tensor:
    """A vector of length one, spelled as CLIP spells it."""
    divided: Tensor = x / x.norm(dim=-1, keepdim=True)
    return divided


def unit_with_guard(x: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    divided: Tensor = x / length.clamp(min=1e-12).expand_as(x)
    return divided


def unit_in_place(x: Tensor) -> Tensor:
    x /= x.norm(dim=1, keepdim=True) + 1e-8
    return x


HEADS: dict[str, Callable[[Cosine, Tensor], Tensor]] = {
    "ArcFace": lambda net, p: (
        F.linear(normalize(net.project(p)), normalize(net.classes)) * 64
    ),
    "zero-shot": lambda net, p: (
        14 * unit(net.without_bias(p)) @ unit(net.classes).t() + net.bias
    ),
    "a batch normalisation between": lambda net, p: F.linear(
        unit(net.neck(net.project(p))), net.classes
    ),
    "a normalisation before the projection": lambda net, p: (
        unit(net.project(net.of_units(p))) @ unit(net.classes).T / 0.07
    ),
    "a layer normalisation of the projection": lambda net, p: F.linear(
        net.of_numbers(net.project(p)), net.classes, net.bias
    ),
    "guarded": lambda net, p: unit_with_guard(net.project(p)) @ net.classes.T,
    "in place": lambda net, p: unit_in_place(net.project(p)) @ net.classes.T,
    "cosine_similarity": lambda net, p: F.cosine_similarity(
        net.project(p)[:, None], net.classes[None], dim=-1
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_projected_units_over_their_length_are_read_exactly(name: str) -> None:
    net = seeded(lambda: Cosine(HEADS[name])).eval()
    model = wrap(net)
    assert isinstance(model.head, ExactHead), model.head
    assert model.head.kind == "gap-norm-linear"
    assert "projection to 4" in model.head.describe()

    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    explanation = model.explain(x)
    logits = net(x).detach()
    allowed = 1e-5 * float(logits.abs().max())
    torch.testing.assert_close(explanation.logits, logits)

    for given in (
        explanation.cams.mean(dim=(2, 3)),
        explanation.contributions.sum(dim=2),
    ):
        rebuilt = given + explanation.left_out
        torch.testing.assert_close(rebuilt, logits, rtol=0, atol=allowed)

    each = explanation.ablate_each()
    for off in range(UNITS):
        real = model.forward_without(x, [off])
        torch.testing.assert_close(each[:, off], real, rtol=0, atol=allowed)
    several = explanation.ablate([0, 2, 5])
    real = model.forward_without(x, [0, 2, 5])
    torch.testing.assert_close(several.logits, real, rtol=0, atol=allowed)
    rebuilt = several.cams.mean(dim=(2, 3)) + several.left_out
    torch.testing.assert_close(rebuilt, real, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    "head",
    [
        lambda net, p: normalize(net.project(p).relu()) @ net.classes.T,
        lambda net, p: normalize(net.project(p), p=1.0) @ net.classes.T,
        lambda net, p: (
            (net.project(p) / net.project(p).norm(p=3, dim=1, keepdim=True))
            @ net.classes.T
        ),
        lambda net, p: (
            (net.project(p) / p.norm(dim=1, keepdim=True)) @ net.classes.T
        ),
        lambda net, p: -torch.cdist(net.project(p), net.classes),
    ],
)
def test_what_is_no_cosine_similarity_gets_a_local_answer(
    head: Callable[[Cosine, Tensor], Tensor],
) -> None:
    net = seeded(lambda: Cosine(head)).eval()
    # Distances look like logits of classes that were trained each for itself.
    assert not wrap(net, scores="softmax").head.exact


def test_a_unit_that_is_almost_all_of_a_photo_is_switched_off_exactly() -> None:
    net = seeded(lambda: Cosine(HEADS["ArcFace"])).eval()
    with torch.no_grad():
        net.project.bias.zero_()
        last = net.features[3]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight[0] *= 1e4
        last.bias[0] = 1e4
    model = wrap(net)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    without = model.explain(x).ablate_each()[:, 0]
    torch.testing.assert_close(
        without, model.forward_without(x, [0]), rtol=1e-4, atol=1e-4
    )
