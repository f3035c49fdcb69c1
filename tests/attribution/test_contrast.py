"""Contrasts: what adds up to the difference of two logits, for every kind of answer."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import HEADED, Gap, MaximumBesideAverage, Mlp, seeded
from tiny_vit import TinyVit
from unitscope.attribution.contrast import Contrast, Pair
from unitscope.attribution.explanation import Explanation
from unitscope.errors import ClassError, InputError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

SMALL = Preprocessing(resize=36, crop=32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Ensemble(nn.Module):
    """The mean of the logits of two networks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Gap(), Gap(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (self.one(x) + self.other(x)) / 2
        return logits


@functools.cache
def explained(name: str) -> tuple[Explanation, Tensor]:
    """An explanation of every kind, and what the network itself gives."""
    x = noise(3, 3, 32, 32)
    if name == "residual":
        net: Any = TinyVit().eval()
        return wrap(net, preprocessing=SMALL).explain(x), net(x).detach()
    if name == "local":
        net = seeded(Mlp).eval()
        return wrap(net, preprocessing=SMALL).explain(x), net(x).detach()
    if name == "gradcam":
        net = seeded(Gap).eval()
        model = wrap(net, preprocessing=SMALL)
        return model.explain(x, method="gradcam"), net(x).detach()
    if name == "pools-linear":
        net = seeded(MaximumBesideAverage).eval()
    elif name == "ensemble":
        net = seeded(Ensemble).eval()
    else:
        net = seeded(HEADED[name][0]).eval()
    return wrap(net, preprocessing=SMALL).explain(x), net(x).detach()


KINDS = (
    "gap",
    "conv classifier",
    "conv, pool",
    "conv, relu, pool",
    "layer norm after the pool",
    "pools-linear",
    "ensemble",
    "residual",
    "local",
    "gradcam",
)


@pytest.mark.parametrize("name", KINDS)
def test_everything_adds_up_to_the_margin(name: str) -> None:
    explanation, logits = explained(name)
    allowed = 1e-5 * float(logits.abs().max())
    pairs: list[tuple[Any, Any]] = [(None, None), (1, 3), (None, 2), (4, None)]
    for a, b in pairs:
        contrast = explanation.contrast(a, b)
        of_a = torch.tensor([pair.a for pair in contrast.pairs])
        of_b = torch.tensor([pair.b for pair in contrast.pairs])
        rows = torch.arange(len(logits))
        margin = logits[rows, of_a] - logits[rows, of_b]
        rebuilt = (
            contrast.margin,
            contrast.contributions.sum(dim=1) + contrast.left_out,
            contrast.cams.mean(dim=(1, 2)) + contrast.beside_maps,
            torch.stack(list(contrast.parts.values())).sum(dim=0),
        )
        for total in rebuilt:
            torch.testing.assert_close(total, margin, rtol=0, atol=allowed)

        # The slow twin: the numbers of both classes, for every photo on its own.
        for image, (one, other) in enumerate(contrast.pairs):
            photo = explanation[image]
            maps = photo.cams_of([one, other])[0]
            torch.testing.assert_close(
                contrast.cams[image], maps[0] - maps[1], rtol=0, atol=allowed
            )
            given_ = photo.contributions_of([one, other])[0]
            torch.testing.assert_close(
                contrast.contributions[image],
                given_[0] - given_[1],
                rtol=0,
                atol=allowed,
            )


@pytest.mark.parametrize("name", ["gap", "layer norm after the pool", "local"])
def test_what_is_left_out_is_what_the_explanation_leaves_out(name: str) -> None:
    explanation, _ = explained(name)
    contrast = explanation.contrast(1, 3)
    left_out = explanation.left_out_of([1, 3])
    torch.testing.assert_close(
        contrast.left_out, left_out[:, 0] - left_out[:, 1], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        contrast.left_out, contrast.beside_maps, atol=1e-6, rtol=0
    )


def test_heads_leave_out_what_no_head_gives() -> None:
    explanation, _ = explained("residual")
    contrast = explanation.contrast(1, 3)
    through_heads = ("patches", "class token", "other tokens")
    others = [
        part
        for name, part in contrast.parts.items()
        if name not in through_heads
    ]
    assert {"MLPs", "embedding", "bias"} <= set(contrast.parts)
    torch.testing.assert_close(
        contrast.left_out, torch.stack(others).sum(dim=0), atol=1e-5, rtol=0
    )
    # The maps show the patches alone.
    torch.testing.assert_close(
        contrast.beside_maps,
        contrast.margin - contrast.parts["patches"],
        atol=1e-5,
        rtol=0,
    )


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 4),
    classes=st.integers(2, 7),
)
def test_by_default_it_is_the_best_class_against_the_next(
    seed: int, batch: int, classes: int
) -> None:
    net = seeded(lambda: Gap(classes=classes), seed).eval()
    explanation = wrap(net, preprocessing=SMALL).explain(
        noise(batch, 3, 12, 12, seed=seed)
    )
    best = explanation.logits.argsort(dim=1, descending=True, stable=True)
    contrast = explanation.contrast()
    assert contrast.pairs == tuple(Pair(*row) for row in best[:, :2].tolist())
    assert bool((contrast.margin >= 0).all())
    last = int(best[0, -1])
    against = explanation.contrast(b=last)
    for (a, b), row in zip(against.pairs, best.tolist(), strict=True):
        assert b == last and a == next(each for each in row if each != last)
    reverse = explanation.contrast(0, 1), explanation.contrast(1, 0)
    assert torch.equal(reverse[0].cams, -reverse[1].cams)
    assert torch.equal(reverse[0].margin, -reverse[1].margin)


@given(seed=st.integers(0, 1000), tiles=st.integers(1, 5))
def test_regions_that_tile_the_map_add_up_to_the_margin(
    seed: int, tiles: int
) -> None:
    explanation, _ = explained("gap" if seed % 2 else "residual")
    contrast = explanation.contrast()
    shape = contrast.cams.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    tile = torch.randint(tiles, tuple(shape), generator=generator)
    total = sum(contrast.evidence(tile == each) for each in range(tiles))
    torch.testing.assert_close(total, contrast.margin, atol=1e-5, rtol=0)
    with pytest.raises(
        InputError, match=r"a region of this map has its .* cells"
    ):
        contrast.evidence(torch.ones(1, 1, 1)[0])


def test_units_are_signed_and_largest_first() -> None:
    explanation, _ = explained("gap")
    contrast = explanation.contrast(2, 0)
    for image in range(3):
        top = contrast.top_units(10, image)
        assert len(top.for_a) + len(top.for_b) <= 6
        signed = [each.contribution for each in top.for_a]
        assert signed == sorted(signed, reverse=True) and min(signed) > 0
        against = [each.contribution for each in top.for_b]
        assert against == sorted(against) and max(against, default=-1) < 0
        for each in (*top.for_a, *top.for_b):
            assert each.contribution == pytest.approx(each.to_a - each.to_b)
            photo = explanation[image]
            assert each.to_a == pytest.approx(
                float(photo.contributions_of(2)[0, 0, each.unit])
            )
        total = sum(each.contribution for each in (*top.for_a, *top.for_b))
        assert total == pytest.approx(
            float(contrast.contributions[image].sum()), abs=1e-5
        )
    assert len(contrast.top_units(1).for_a) == 1
    assert contrast.top_units(0).for_a == []


def test_it_is_asked_in_words() -> None:
    labels = ["coast", "harbor", "alley", "attic", "barn"]
    model = wrap(seeded(Gap), labels, SMALL)
    explanation = model.explain(noise(1, 3, 32, 32))
    contrast = explanation.contrast("coast", "harbor")
    assert contrast.question() == "why coast, not harbor"
    assert contrast.labels() == ("coast", "harbor")
    margin = float(explanation.logits[0, 0] - explanation.logits[0, 1])
    assert repr(contrast) == (
        f"<Contrast: why coast, not harbor, margin {margin:.2f}>"
    )
    assert "each of 2 photos" in repr(
        model.explain(noise(2, 3, 32, 32)).contrast()
    )


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("coast", "coast", "both classes of the contrast are 'coast'"),
        ("coast", 0, "both classes of the contrast are 'coast': name two"),
        ("cost", None, "there is no class 'cost'.*'coast'"),
        (None, 9, "there is no class 9"),
        (["coast"], None, "a class is a label or an index"),
        (True, None, "a class is a label or an index, not True"),
    ],
)
def test_bad_classes_are_refused(
    unchecked: None, a: Any, b: Any, message: str
) -> None:
    labels = ["coast", "harbor", "alley", "attic", "barn"]
    explanation = wrap(seeded(Gap), labels, SMALL).explain(noise(1, 3, 32, 32))
    with pytest.raises(ClassError, match=message):
        explanation.contrast(a, b)


def test_one_class_alone_is_refused(unchecked: None) -> None:
    model = wrap(seeded(lambda: Gap(classes=1)), ["cat"], SMALL)
    explanation = model.explain(noise(1, 3, 32, 32))
    with pytest.raises(ClassError, match="and there is one only, 'cat'"):
        explanation.contrast()


def test_it_carries_gradients_where_the_explanation_does(
    gap: Classifier, x: Tensor
) -> None:
    x = x.requires_grad_()
    with torch.no_grad():
        contrast = gap.explain(x, differentiable=True).contrast()
    for values in (
        contrast.margin,
        contrast.cams,
        contrast.contributions,
        contrast.left_out,
        *contrast.parts.values(),
    ):
        assert values.requires_grad
    (gradient,) = torch.autograd.grad(contrast.cams.square().sum(), x)
    assert bool(gradient.any())
    assert not contrast.detach().cams.requires_grad
    assert not contrast.detach().explanation.logits.requires_grad
    assert not gap.explain(x.detach()).contrast().cams.requires_grad


def test_units_that_are_off_stay_off(gap: Classifier, x: Tensor) -> None:
    contrast = gap.explain(x).ablate([0, 3]).contrast(1, 2)
    assert not contrast.contributions[:, [0, 3]].any()
    real = gap.forward_without(x, [0, 3])
    torch.testing.assert_close(contrast.margin, real[:, 1] - real[:, 2])


def test_it_lies_where_the_maps_of_its_classes_lie(gap: Classifier) -> None:
    from PIL import Image

    photo = Image.effect_noise((60, 40), 60).convert("RGB")
    explanation = gap.explain(photo)
    contrast = explanation.contrast(1, 2)
    laid = explanation.cams_on_photo(0, [1, 2], interpolation="nearest")
    on_photo = contrast.on_photo(interpolation="nearest")
    difference = torch.from_numpy(laid[0] - laid[1])
    torch.testing.assert_close(
        torch.from_numpy(on_photo), difference, equal_nan=True
    )
    assert re.search("nan", str(on_photo[0, 0])) and isinstance(
        contrast, Contrast
    )
