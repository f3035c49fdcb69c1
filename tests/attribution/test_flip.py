"""Flips: the smallest sets, against an exhaustive search over all subsets, and real passes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import (
    ConvNextLike,
    ConvThenPool,
    Gap,
    MaximumBesideAverage,
    Mlp,
    seeded,
)
from tiny_vit import TinyVit
from unitscope.attribution.exact_explanation import ExactExplanation
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.flip import Flip, Flipping
from unitscope.attribution.local_explanation import LocalExplanation
from unitscope.attribution.rounding import LEAST_ROUNDING
from unitscope.errors import ClassError, InputError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

SMALL = Preprocessing(resize=36, crop=32)
LABELS = ["coast", "harbor", "alley", "attic", "barn"]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def head_of(net: Any, seed: int, spread: float) -> None:
    """Weights of a head as a trained one has them: signed, of one scale, with biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        net.weight.normal_(generator=generator)
        net.bias.normal_(std=spread, generator=generator)


def mlp() -> nn.Module:
    """A network of which every unit counts, and no bias."""
    net = seeded(Mlp).eval()
    for place in (0, 3):
        head_of(net.classifier[place], place, 0.0)
    return net


def overtakes(logits: Tensor, a: int, to: int | None, before: Tensor) -> bool:
    """Whether another class leads by more than rounding: the definition, once more."""
    lead = logits.double() - logits[a].double()
    most = lead.max() if to is None else lead[to]
    return float(most) > LEAST_ROUNDING * float(before.abs().max())


def subsets(items: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All subsets, smallest first."""
    for size in range(1, len(items) + 1):
        yield from itertools.combinations(items, size)


def smallest_by_trying_all(
    explanation: Explanation, to: int | None, cells: bool = False
) -> int | None:
    """The size of the smallest set that turns the prediction, all being tried."""
    before = explanation.logits[0]
    a = int(before.argmax())
    maps = explanation.feature_map
    count = maps[0, 0].numel() if cells else maps.shape[1]
    for off in subsets(range(count)):
        changed = maps.clone()
        if cells:
            changed.flatten(2)[:, :, list(off)] = 0
        else:
            changed[:, list(off)] = 0
        if overtakes(logits_of(explanation, changed), a, to, before):
            return len(off)
    return None


def logits_of(explanation: Explanation, changed: Tensor) -> Tensor:
    """The logits of a changed map, by the head's own formula or a real pass of the rest."""
    if isinstance(explanation, ExactExplanation):
        return explanation.head.logits(changed.mean((2, 3)))[0]
    assert isinstance(explanation, LocalExplanation)
    return explanation.suffix.logits(changed)[0]


def exact(
    seed: int, units: int, classes: int, spread: float, side: int = 8
) -> tuple[Classifier, Tensor, Explanation]:
    net = seeded(lambda: Gap(units, classes), seed).eval()
    head_of(net.fc, seed, spread)
    x = noise(1, 3, side, side, seed=seed)
    model = wrap(net, preprocessing=SMALL, scores="softmax")
    return model, x, model.explain(x)


@given(
    seed=st.integers(0, 10_000),
    units=st.integers(1, 8),
    classes=st.integers(2, 6),
    spread=st.sampled_from([0.0, 0.1, 1.0]),
    asks=st.booleans(),
)
@example(seed=1038, units=1, classes=2, spread=0.0, asks=False)
@settings(max_examples=60)
@pytest.mark.filterwarnings(
    "ignore:on input 0 every unit of the feature map is 0"
)
def test_no_smaller_set_of_units_flips_an_exact_head(
    seed: int, units: int, classes: int, spread: float, asks: bool
) -> None:
    model, x, explanation = exact(seed, units, classes, spread)
    a = int(explanation.logits[0].argmax())
    to = (a + 1) % classes if asks else None
    flip = explanation.flip(to)
    size = smallest_by_trying_all(explanation, to)
    assert flip.minimal and flip.found == (size is not None)
    assert len(flip) == (size or 0)
    assert flip.a == a and flip.cells == ()
    if flip.found:
        assert flip.b == (to if asks else int(flip.after.argmax()))
        real = model.forward_without(x, list(flip.units))[0]
        torch.testing.assert_close(flip.after, real, atol=1e-5, rtol=1e-5)
        assert overtakes(real, a, to, explanation.logits[0])
        # A smaller limit is a limit.
        limited = explanation.flip(to, most=len(flip))
        assert limited.units == flip.units
        if len(flip) > 1:
            none = explanation.flip(to, most=len(flip) - 1)
            assert not none.found and none.minimal
            assert f"of at most {len(flip) - 1}" in none.sentence()


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 5),
    spread=st.sampled_from([0.0, 0.3]),
    asks=st.booleans(),
)
@settings(max_examples=25)
def test_no_smaller_set_of_cells_flips_an_exact_head(
    seed: int, classes: int, spread: float, asks: bool
) -> None:
    _, _, explanation = exact(seed, 5, classes, spread, side=6)
    assert explanation.feature_map.shape[2:] == (3, 3)
    a = int(explanation.logits[0].argmax())
    to = (a + 1) % classes if asks else None
    flip = explanation.flip(to, of="cells")
    size = smallest_by_trying_all(explanation, to, cells=True)
    assert flip.minimal and flip.units == ()
    assert (len(flip) or None) == size

    region = explanation.flip(to, of="region")
    if size is None:
        assert not region.found and region.minimal
    elif region.found:
        assert hangs_together(region.cells) and len(region) >= size
        assert region.minimal == (len(region) == size)
        assert turned(explanation, region)


def turned(explanation: Explanation, flip: Flip) -> bool:
    """Whether the set does what it says, by the definition."""
    changed = explanation.feature_map.clone()
    for row, col in flip.cells:
        changed[:, :, row, col] = 0
    after = logits_of(explanation, changed)
    return overtakes(after, flip.a, flip.to, explanation.logits[0])


def hangs_together(cells: Sequence[tuple[int, int]]) -> bool:
    reached, waiting = set(), [cells[0]]
    while waiting:
        row, col = waiting.pop()
        reached.add((row, col))
        beside = (
            (row + 1, col),
            (row - 1, col),
            (row, col + 1),
            (row, col - 1),
        )
        waiting += [each for each in beside if each in set(cells) - reached]
    return reached == set(cells)


def test_a_region_is_a_real_pass_with_a_hook_that_sets_its_cells_to_zero() -> (
    None
):
    found = 0
    for seed in range(8):
        model, x, explanation = exact(seed, 6, 5, 0.1, side=16)
        for of in ("cells", "region"):
            flip = explanation.flip(of=of)
            if not flip.found:
                continue
            found += 1
            keep = 1 - flip.region
            assert int(flip.region.sum()) == len(flip)

            def off(
                _: Any, __: Any, output: Tensor, keep: Any = keep
            ) -> Tensor:
                off: Tensor = output * keep
                return off

            net: Any = model.module
            handle = net.features.register_forward_hook(off)
            with torch.no_grad():
                real = net(x)[0]
            handle.remove()
            torch.testing.assert_close(flip.after, real, atol=1e-5, rtol=1e-5)
            assert float(real[flip.b] - real[flip.a]) > 0
    assert found >= 4


def test_nothing_flips_what_the_bias_alone_decides() -> None:
    net = seeded(Gap).eval()
    with torch.no_grad():
        net.fc.bias[2] = 100.0
    explanation = wrap(net, LABELS, SMALL).explain(noise(1, 3, 8, 8))
    nouns: dict[Flipping, str] = {"units": "units", "cells": "cells"}
    for of, noun in nouns.items():
        flip = explanation.flip(of=of)
        assert not flip.found and flip.minimal and len(flip) == 0
        assert flip.sentence() == (
            f"no set of {noun} lets any other class overtake alley: its bias alone "
            "keeps it ahead"
        )
        assert flip.margins[0] == flip.margins[1] > 90
        assert torch.equal(flip.after, explanation.logits[0])
    to = explanation.flip("coast")
    assert "lets coast overtake alley" in to.sentence()
    assert not explanation.flip(of="region").found


@pytest.mark.parametrize("kind", ["norm", "residual", "local", "gradcam"])
def test_other_answers_are_greedy_and_real(kind: str) -> None:
    """What is found turns a real pass, and is proved only where it is one unit."""
    method = None
    if kind == "norm":
        net: Any = seeded(ConvNextLike).eval()
    elif kind == "residual":
        net = TinyVit().eval()
    elif kind == "local":
        net = mlp()
    else:
        net, method = seeded(Gap).eval(), "gradcam"
        head_of(net.fc, 3, 0.1)
    model = wrap(net, preprocessing=SMALL)
    found = 0
    for seed in range(6):
        x = noise(1, 3, 32, 32, seed=seed)
        flip = model.flip(x, method=method)
        explanation = model.explain(x, method=method)
        assert flip.units == explanation.flip().units
        assert flip.minimal == (len(flip) == 1)
        if not flip.found:
            assert "the search is greedy" in flip.sentence()
            assert flip.confirmed is None and flip.holds is None
            continue
        found += 1
        if len(flip) <= 16:
            assert explanation.flip(most=len(flip)).units == flip.units
        assert flip.holds and flip.confirmed is not None
        torch.testing.assert_close(
            flip.after, flip.confirmed, atol=1e-5, rtol=1e-4
        )
        assert overtakes(flip.confirmed, flip.a, None, explanation.logits[0])
        if len(flip) > 1:
            assert "found greedily: a smaller set may exist" in flip.sentence()
            for unit in flip.units[:-1]:
                fewer = [each for each in flip.units if each != unit]
                after = explanation.logits_without(fewer)[0]
                assert not overtakes(after, flip.a, None, explanation.logits[0])
    assert found, f"no {kind} case was tried"


@pytest.mark.parametrize("kind", ["norm", "local"])
def test_cells_of_other_answers_are_greedy(kind: str) -> None:
    net = seeded(ConvNextLike).eval() if kind == "norm" else mlp()
    model = wrap(net, preprocessing=SMALL)
    found = 0
    for seed in range(6):
        explanation = model.explain(noise(1, 3, 32, 32, seed=seed))
        cells = explanation.flip(of="cells")
        region = explanation.flip(of="region")
        for flip in (cells, region):
            if flip.found:
                found += 1
                assert turned(explanation, flip)
                assert flip.minimal == (len(flip) == 1)
                assert flip.minimal or "a smaller set may exist" in repr(flip)
        assert not region.found or hangs_together(region.cells)
    assert found


def test_units_of_several_pools_flip_exactly_and_their_cells_are_refused() -> (
    None
):
    net: Any = seeded(MaximumBesideAverage).eval()
    head_of(net.fc, 1, 0.1)
    model = wrap(net, preprocessing=SMALL)
    x = noise(1, 3, 16, 16, seed=2)
    flip = model.flip(x)
    assert flip.minimal and flip.found and flip.holds
    size = smallest_by_trying_all(model.explain(x), None)
    assert len(flip) == size
    with pytest.raises(InputError, match="ask for of='units', or explain"):
        model.flip(x, of="cells")


def test_classes_that_are_units() -> None:
    net = seeded(lambda: ConvThenPool(relu=True)).eval()
    model = wrap(net, preprocessing=SMALL)
    explanation = model.explain(noise(1, 3, 16, 16, seed=1))
    flip = explanation.flip()
    assert flip.minimal and flip.units == (flip.a,)
    assert flip.proof() == "one unit is enough"


def test_cells_of_a_residual_answer_are_refused(vit: Classifier) -> None:
    explanation = vit.explain(noise(1, 3, 32, 32))
    for of in ("cells", "region"):
        with pytest.raises(InputError, match="cannot be switched off there"):
            explanation.flip(of=of)


def test_it_is_told_in_words() -> None:
    _, _, explanation = exact(4, 8, 5, 0.1)
    explanation = dataclasses.replace(explanation, labels=tuple(LABELS))
    flip = explanation.flip()
    a, b = (LABELS[index] for index in (flip.a, flip.b or 0))
    sentence = flip.sentence()
    assert f"{b} overtakes {a}" in sentence and sentence.startswith("without ")
    assert repr(flip) == f"<Flip: {sentence}>"
    one = dataclasses.replace(flip, units=(3,))
    assert one.what() == "unit 3" and "one unit is enough" in one.sentence()
    two = dataclasses.replace(flip, units=(3, 5))
    assert two.what() == "units 3 and 5"
    many = dataclasses.replace(flip, units=tuple(range(12)))
    assert many.what() == "12 units (0, 1, 2, 3, 4, 5, 6, 7 …)"
    before, after = flip.margins
    assert before > 0 > after


def test_a_batch_is_asked_photo_by_photo(gap: Classifier, x: Tensor) -> None:
    explanation = gap.explain(x)
    for image in range(3):
        alone = gap.explain(x[image : image + 1]).flip()
        assert explanation.flip(image=image).units == alone.units
    with pytest.raises(InputError, match="a flip is of one photo, not of 3"):
        gap.flip(x)
    with pytest.raises(IndexError, match="no photo 3"):
        explanation.flip(image=3)


def test_units_that_are_off_already_stay_off(
    gap: Classifier, x: Tensor
) -> None:
    ablated = gap.explain(x[:1]).ablate([0])
    flip = gap.confirmed(ablated.flip())
    assert 0 not in flip.units
    if flip.found:
        assert flip.confirmed is not None
        torch.testing.assert_close(flip.after, flip.confirmed)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": "habor"}, ClassError, "no class 'habor'.*'harbor'"),
        ({"to": 5}, ClassError, "there is no class 5"),
        ({"of": "unit"}, InputError, "of is one of 'units', 'cells', 'region'"),
        ({"most": 0}, InputError, "most is how many .* 1 or more, not 0"),
        ({"most": True}, InputError, "not True"),
        ({"most": 2.5}, InputError, "not 2.5"),
    ],
)
def test_bad_questions_are_refused(
    unchecked: None, options: dict[str, Any], error: Any, message: str
) -> None:
    explanation = wrap(seeded(Gap), LABELS, SMALL).explain(noise(1, 3, 8, 8))
    with pytest.raises(error, match=message):
        explanation.flip(**options)
    first = explanation.top(1)[0][0].label
    with pytest.raises(ClassError, match=f"'{first}' is the first class"):
        explanation.flip(first)


def test_one_class_alone_has_no_flip(unchecked: None) -> None:
    model = wrap(seeded(lambda: Gap(classes=1)), ["cat"], SMALL)
    with pytest.raises(ClassError, match="nothing can overtake 'cat'"):
        model.explain(noise(1, 3, 32, 32)).flip()
