"""The ablation study: against a loop over masked units, by hand, and its splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unitscope.atlas.ablation.confusion import Confusion
from unitscope.atlas.ablation.pooled_features import (
    PooledFeatures,
    PooledSource,
    SplitName,
)
from unitscope.atlas.ablation.prediction_changes import LinearChanges
from unitscope.atlas.ablation.study import AblationStudy
from unitscope.atlas.ablation.unit_sets import Units, confusion_without, curve
from unitscope.attribution.readout import Normalisation, Readout
from unitscope.errors import ClassError, InputError, NonFiniteError

NORMS = {
    "none": None,
    "layer": Normalisation("layer", 1e-6),
    "root mean square": Normalisation("root mean square", 1e-3),
    "length": Normalisation("length", 1e-12),
}


def in_chunks(features: PooledFeatures, size: int) -> PooledSource:
    """The photos in chunks, as an iterator, which a second pass would find empty."""

    def chunks() -> Iterator[PooledFeatures]:
        for begin in range(0, len(features.target), size):
            yield PooledFeatures(
                *(values[begin : begin + size] for values in features)
            )

    return chunks


def masked_logits(
    readout: Readout, pooled: np.ndarray, off: Units
) -> np.ndarray:
    masked = torch.from_numpy(pooled.copy())
    masked[:, list(off)] = 0
    return readout.logits(masked).numpy()


def counted(
    logits: np.ndarray, target: np.ndarray
) -> tuple[list[int], list[int], list[int]]:
    """(tp, fp, positives) of every class, photo by photo."""
    tp, fp, positives = ([0] * logits.shape[1] for _ in range(3))
    for row, own in zip(logits, target, strict=True):
        if own < 0:
            continue
        first = max(range(len(row)), key=lambda index: (row[index], -index))
        positives[own] += 1
        tp[first] += first == own
        fp[first] += first != own
    return tp, fp, positives


def same(
    counts: Confusion, expected: tuple[list[int], list[int], list[int]]
) -> None:
    np.testing.assert_array_equal(counts.tp, expected[0])
    np.testing.assert_array_equal(counts.fp, expected[1])
    np.testing.assert_array_equal(counts.positives, expected[2])


@st.composite
def cases(
    draw: st.DrawFn, kinds: tuple[str, ...] = tuple(NORMS), whole: bool = False
) -> tuple[Readout, PooledFeatures]:
    """A readout and photos; if `whole`, small integers with exact sums and many ties."""
    norm = NORMS[draw(st.sampled_from(kinds))]
    photos, units, classes = (
        draw(st.integers(*ends)) for ends in ((1, 12), (1, 9), (1, 5))
    )
    random = np.random.default_rng(draw(st.integers(0, 100_000)))
    pooled: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    if whole:
        pooled, weight = (
            random.integers(-3, 4, (photos, units)),
            random.integers(-2, 3, (classes, units)),
        )
        bias = random.integers(-2, 3, classes)
    else:
        pooled, weight = (
            random.normal(size=(photos, units)),
            random.normal(size=(classes, units)),
        )
        pooled[:, 0] *= draw(st.sampled_from([1.0, 100.0]))
        bias = random.normal(size=classes)
    if draw(st.booleans()):
        pooled = np.maximum(pooled, 0)
    if norm is not None and norm.centred:
        weight = weight - weight.mean(axis=1, keepdims=True)
    readout = Readout(
        torch.tensor(weight, dtype=torch.float32),
        torch.tensor(bias, dtype=torch.float32),
        norm,
    )
    # Not every class need have a photo, nor every photo a class.
    target = random.integers(-1, classes, photos)
    return readout, PooledFeatures(
        pooled.astype(np.float32), target, random.random(photos) < 0.5
    )


def check_by_masking(
    readout: Readout, features: PooledFeatures, chunk: int
) -> None:
    source = in_chunks(features, chunk)
    study = AblationStudy.measure(readout, source)
    for split, inside in (
        (study.ranking, features.ranking),
        (study.reporting, ~features.ranking),
    ):
        pooled, target = features.pooled[inside], features.target[inside]
        same(split.all_on, counted(masked_logits(readout, pooled, []), target))
        before = masked_logits(readout, pooled, []).argmax(1)
        for unit in range(pooled.shape[1]):
            logits = masked_logits(readout, pooled, [unit])
            same(split.each_off[unit], counted(logits, target))
            moved = (logits.argmax(1) != before) & (target >= 0)
            for index in range(logits.shape[1]):
                taken = moved & (logits.argmax(1) == index)
                assert (
                    split.tp_gained[unit, index]
                    == (taken & (target == index)).sum()
                )
                assert (
                    split.fp_gained[unit, index]
                    == (taken & (target != index)).sum()
                )
    same(
        study.overall.all_on,
        counted(masked_logits(readout, features.pooled, []), features.target),
    )


@settings(max_examples=60)
@given(cases(("none",), whole=True), st.integers(1, 5))
def test_every_unit_off_is_a_loop_over_masked_units(
    case: tuple[Readout, PooledFeatures], chunk: int
) -> None:
    check_by_masking(*case, chunk)


@settings(max_examples=60)
@given(cases(("layer", "length", "root mean square")))
def test_every_unit_off_with_a_normalisation(
    case: tuple[Readout, PooledFeatures],
) -> None:
    readout, features = case
    # The closed form and the masked units are rounded differently: where no two classes
    # are next to equal, the same.
    for off in [[], *([unit] for unit in range(features.pooled.shape[1]))]:
        two = np.sort(masked_logits(readout, features.pooled, off), axis=1)[
            :, -2:
        ]
        assume(two.shape[1] < 2 or (two[:, 1] - two[:, 0]).min() > 1e-4)
    check_by_masking(readout, features, len(features.target))


@settings(max_examples=60)
@given(cases(), st.integers(0, 3), st.sampled_from([1, 30, 1_000_000]))
def test_every_unit_off_is_the_closed_form_bit_for_bit(
    case: tuple[Readout, PooledFeatures], near: int, numbers: int
) -> None:
    readout, features = case
    features = features._replace(
        target=np.maximum(features.target, 0),
        ranking=np.ones(len(features.target), bool),
    )
    # Classes that differ by a few units in the last place, so that rounding decides.
    weight = readout.weight.clone()
    weight[1 : 1 + near] = weight[0] * (1 + 1e-7)
    readout = Readout(weight, torch.zeros_like(readout.bias), readout.norm)
    pooled = torch.from_numpy(features.pooled)
    each = readout.logits_without_each(
        pooled, readout.logits(pooled), None
    ).numpy()
    study = AblationStudy.measure(readout, lambda: [features], numbers)
    for unit in range(each.shape[1]):
        same(
            study.ranking.each_off[unit],
            counted(each[:, unit], features.target),
        )


def test_pruning_looks_at_few_pairs_and_loses_none() -> None:
    random = np.random.default_rng(0)
    pooled = random.gamma(0.5, 1.0, (300, 64)).astype(np.float32) - np.float32(
        0.2
    )
    readout = Readout(
        torch.from_numpy(random.normal(size=(20, 64)).astype(np.float32)),
        torch.zeros(20),
    )
    logits = readout.logits(torch.from_numpy(pooled))
    target = logits.numpy().argmax(1)
    changes = LinearChanges(readout)
    may_change = changes.may_change(
        torch.from_numpy(pooled), logits, torch.from_numpy(target)
    )
    assert 0.01 < float(may_change.float().mean()) < 0.5
    features = PooledFeatures(pooled, target, np.ones(300, bool))
    study = AblationStudy.measure(readout, lambda: [features])
    first = (
        readout.logits_without_each(torch.from_numpy(pooled), logits, None)
        .numpy()
        .argmax(2)
    )
    np.testing.assert_array_equal(
        study.ranking.each_off.tp.sum(1), (first == target[:, None]).sum(0)
    )


@settings(max_examples=60)
@given(cases(whole=True), st.data())
def test_any_set_of_units_off_is_a_masked_readout(
    case: tuple[Readout, PooledFeatures], data: st.DataObject
) -> None:
    readout, features = case
    units = features.pooled.shape[1]
    sets = data.draw(st.lists(st.lists(st.integers(0, units - 1)), max_size=4))
    on: SplitName = data.draw(st.sampled_from(["ranking", "reporting", "all"]))
    # With a normalisation, rounding may depend on how many photos are scored at once.
    chunk = len(features.target) if readout.norm else 3
    result = confusion_without(
        readout, in_chunks(features, chunk), [*sets, []], on
    )
    inside = (features.target >= 0) & {
        "ranking": features.ranking,
        "reporting": ~features.ranking,
    }.get(on, True)
    pooled, target = features.pooled[inside], features.target[inside]
    for place, off in enumerate([*sets, []]):
        same(
            result[place], counted(masked_logits(readout, pooled, off), target)
        )


# Two units, two classes, four photos; without unit 0 the first two photos are taken for
# class 1.
BY_HAND = PooledFeatures(
    np.array([[2, 1], [3, 2], [0, 1], [3, 1]], dtype=np.float32),
    np.array([0, 0, 1, 1]),
    np.ones(4, dtype=bool),
)
TWO = Readout(torch.eye(2), torch.zeros(2))


def test_balanced_accuracy_and_importance_by_hand() -> None:
    study = AblationStudy.measure(TWO, lambda: [BY_HAND])
    split = study.ranking
    # All on, the predictions are 0, 0, 1, 0.
    assert (split.all_on.accuracy.value, split.all_on.photos) == (0.75, 4)
    # TPR 2/2 and 1/2, TNR 1/2 and 2/2.
    np.testing.assert_array_equal(
        split.all_on.balanced_accuracy.value, [0.75, 0.75]
    )
    # Without unit 0: 1, 1, 1, 1. Without unit 1: 0, 0, 0 (a tie), 0.
    np.testing.assert_array_equal(split.each_off.accuracy.value, [0.5, 0.5])
    np.testing.assert_array_equal(split.each_off.tp, [[0, 2], [2, 0]])
    np.testing.assert_array_equal(split.each_off.fp, [[0, 2], [2, 0]])
    np.testing.assert_array_equal(
        split.importance.value, [[0.25, 0.25], [0.25, 0.25]]
    )
    assert (split.importance.low < 0.25).all() and (
        split.importance.high > 0.25
    ).all()
    # Mean contributions: unit 0 to class 0 is (2 + 3) / 2; unit 1 to class 1 is 1. So
    # ties are broken.
    np.testing.assert_array_equal(study.contribution, [[2.5, 0], [0, 1]])
    assert study.order(0).tolist() == [0, 1] and study.order(1).tolist() == [
        1,
        0,
    ]
    assert (
        study.reporting.all_on.photos == 0
        and np.isnan(study.reporting.importance.value).all()
    )


def test_contributions_are_divided_by_the_normalisation() -> None:
    readout = Readout(
        torch.tensor([[1.0, 2.0]]),
        torch.zeros(1),
        Normalisation("length", 1e-12),
    )
    features = PooledFeatures(
        np.array([[3, 4]], dtype=np.float32), np.array([0]), np.array([True])
    )
    np.testing.assert_allclose(
        AblationStudy.measure(readout, lambda: [features]).contribution,
        [[0.6], [1.6]],
    )


@pytest.fixture(scope="module")
def features() -> PooledFeatures:
    """600 photos of four classes: units 3·c to 3·c + 2 mark class c, twelve are noise."""
    random = np.random.default_rng(0)
    target = random.integers(0, 4, 600)
    pooled = random.gamma(1.0, 1.0, (600, 24))
    for unit in range(3):
        pooled[np.arange(600), 3 * target + unit] += 1.5
    return PooledFeatures(
        pooled.astype(np.float32), target, np.arange(600) % 2 == 0
    )


@pytest.fixture(scope="module")
def readout() -> Readout:
    weight = torch.zeros(4, 24)
    for index in range(4):
        weight[index, 3 * index : 3 * index + 3] = torch.tensor([1.0, 0.8, 0.6])
    return Readout(weight, torch.zeros(4))


def test_units_are_ranked_on_one_split_and_reported_on_the_other(
    readout: Readout, features: PooledFeatures
) -> None:
    study = AblationStudy.measure(readout, in_chunks(features, 100))
    assert set(study.order(2)[:3]) == {6, 7, 8}
    # What the reporting split holds has no say in the order.
    other = features._replace(
        target=np.where(features.ranking, features.target, 0)
    )
    assert (
        AblationStudy.measure(readout, in_chunks(other, 100)).order(2)
        == study.order(2)
    ).all()
    removals = study.removals(
        readout, in_chunks(features, 100), sizes=[1, 3, 20], draws=5
    )
    assert (removals.sizes, removals.classes) == ((1, 3, 20), (0, 1, 2, 3))
    pooled, target = (
        features.pooled[~features.ranking],
        features.target[~features.ranking],
    )
    for place, size in enumerate(removals.sizes):
        for index in removals.classes:
            order = study.order(index)
            for counts, off in (
                (removals.most, order[:size]),
                (removals.least, order[24 - size :]),
            ):
                same(
                    counts[place, index],
                    counted(masked_logits(readout, pooled, off), target),
                )
    own = removals.own(removals.most).value
    assert (
        own.shape == (3, 4)
        and (own[1] < removals.own(removals.least).value[1] - 0.2).all()
    )
    assert (np.abs(own[1] - 0.5) < 0.1).all()
    # As many at random do less.
    assert (removals.random.balanced_accuracy.value[1].mean(0) > own[1]).all()


def test_the_table_of_a_class(
    readout: Readout, features: PooledFeatures
) -> None:
    source = in_chunks(features, 250)
    study = AblationStudy.measure(readout, source)
    removals = study.removals(readout, source, classes=[2], draws=3, seed=7)
    rows = removals.table(2)
    assert [(row.removed, row.units) for row in rows] == [
        ("none", 0),
        *(
            (kind, size)
            for kind in ("most important", "least important", "random")
            for size in (4, 20)
        ),
        ("chance", 24),
    ]
    assert (
        rows[0].balanced_accuracy.value
        == study.reporting.all_on.balanced_accuracy.value[2]
    )
    assert rows[0].accuracy == study.reporting.all_on.accuracy
    assert (
        rows[1].balanced_accuracy.value
        == removals.own(removals.most).value[0, 0]
    )
    for row in rows:
        for estimate in (row.balanced_accuracy, row.accuracy):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert (rows[-1].balanced_accuracy.value, rows[-1].accuracy.value) == (
        0.5,
        0.25,
    )
    again = study.removals(readout, source, classes=[2], draws=3, seed=7)
    assert (again.random.tp == removals.random.tp).all()
    with pytest.raises(
        ClassError,
        match="class 1 was not ablated: choose it among the classes of `removals`",
    ):
        removals.table(1)


def test_classes_without_photos_are_left_out_unless_named(
    readout: Readout, features: PooledFeatures
) -> None:
    # Class 3 has photos on the reporting split only.
    few = features._replace(ranking=features.ranking & (features.target != 3))
    study = AblationStudy.measure(readout, lambda: [few])
    assert study.removals(readout, lambda: [few]).classes == (0, 1, 2)
    with pytest.raises(
        ClassError,
        match=r"class 3 has 0 of \d+ photos of the ranking split: put photos of it and of ot",
    ):
        study.removals(readout, lambda: [few], classes=[3])
    with pytest.raises(
        ClassError, match="there is no class 4: expected 0 to 3"
    ):
        study.order(4)


def test_a_curve_begins_with_all_on_and_ends_with_the_bias(
    readout: Readout, features: PooledFeatures
) -> None:
    study = AblationStudy.measure(readout, lambda: [features])
    result = curve(readout, lambda: [features], study.order(1), sizes=range(25))
    assert (result.tp[0] == study.reporting.all_on.tp).all()
    # With nothing on all logits are the bias: the first class.
    assert result.tp[24].tolist() == [result.positives[0], 0, 0, 0]
    assert result.balanced_accuracy.value[24] == pytest.approx(0.5)
    assert (np.diff(result.tp[:4, 1]) < 0).all()


def test_a_table_without_draws_and_one_of_no_class(
    readout: Readout, features: PooledFeatures
) -> None:
    study = AblationStudy.measure(readout, lambda: [features])
    assert study.removals(
        readout, lambda: [features], classes=[], draws=2
    ).random.tp.shape == (2, 2, 4)
    removals = study.removals(readout, lambda: [features], classes=[1], draws=0)
    assert [row.removed for row in removals.table(1)].count("random") == 0
    for size in (25, -1):
        with pytest.raises(
            InputError, match=f"{size} units cannot be off: expected 0 to 24"
        ):
            study.removals(readout, lambda: [features], sizes=[size])
        with pytest.raises(
            InputError, match=f"{size} units cannot be off: expected 0 to 24"
        ):
            curve(readout, lambda: [features], study.order(0), [size])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"pooled": np.ones((4, 3), np.float32)},
            InputError,
            "the pooled features are of 3 units, the head reads 2",
        ),
        (
            {"target": np.array([0, 2, 1, 1])},
            InputError,
            "a photo is of class 2: expected 0 to 1, or −1 without a class",
        ),
        (
            {"target": np.array([0, -2, 1, 1])},
            InputError,
            "a photo is of class -2: expected 0 to 1",
        ),
        (
            {"pooled": np.full((4, 2), np.inf, np.float32)},
            NonFiniteError,
            "contain nan or infinite numbers: compute them",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused(
    change: dict[str, np.ndarray], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AblationStudy.measure(TWO, lambda: [BY_HAND._replace(**change)])


def test_a_unit_that_is_not_there_is_refused() -> None:
    for unit in (2, -1):
        with pytest.raises(
            InputError, match=f"there is no unit {unit}: the head reads 2"
        ):
            confusion_without(TWO, lambda: [BY_HAND], [[0, unit]])
