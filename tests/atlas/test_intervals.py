"""Intervals: coverage by simulation, known values, and invariants."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from unitscope.atlas.intervals import (
    Z95,
    Estimate,
    balanced_accuracy_drop,
    balanced_accuracy_interval,
    chosen_interval,
    mean_interval,
    proportion,
    ratio_and_error,
    ratio_interval,
    selectivity,
    wilson,
)

RUNS = 4000


def coverage(estimate: Estimate, truth: float) -> float:
    return float(((estimate.low <= truth) & (truth <= estimate.high)).mean())


@st.composite
def parts(draw: st.DrawFn) -> tuple[int, int]:
    count = draw(st.integers(1, 3000))
    return draw(st.integers(0, count)), count


def test_z_is_that_of_95_percent() -> None:
    assert norm.ppf(0.975) == pytest.approx(Z95, abs=1e-12)


@given(parts())
def test_wilson_agrees_with_scipy_and_is_vectorised(
    part: tuple[int, int],
) -> None:
    hits, count = part
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    low, high = wilson(np.array([hits, 0]), np.array([count, 0]))
    assert (low[0], high[0]) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )
    assert np.isnan([low[1], high[1]]).all()
    assert 0 <= low[0] <= hits / count <= high[0] <= 1
    assert wilson(hits, count) == pytest.approx((low[0], high[0]))


@given(parts())
def test_more_hits_move_the_interval_up_and_more_photos_narrow_it(
    part: tuple[int, int],
) -> None:
    hits, count = part
    low, high = wilson(np.array([hits, hits + 1]), count + 1)
    assert low[0] < low[1] and high[0] < high[1]
    once, tenfold = wilson(hits, count), wilson(10 * hits, 10 * count)
    assert tenfold.high - tenfold.low < once.high - once.low


@pytest.mark.parametrize(("hits", "count"), [(3, 2), (-1, 2), (1, 0)])
def test_what_is_no_proportion_is_refused(hits: int, count: int) -> None:
    with pytest.raises(
        ValueError,
        match=rf"{hits} of {count} is no proportion: expected 0 <= hits <= count",
    ):
        wilson(np.array([0, hits]), count)


def test_balanced_accuracy_is_newcombes_interval_of_a_difference() -> None:
    # Newcombe (1998), table II, method 10: 56/70 − 48/80 = 0.2 from 0.0524 to 0.3339.
    value, low, high = balanced_accuracy_interval(56, 70, 48, 80)
    assert (2 * value - 1, 2 * low - 1, 2 * high - 1) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=5e-5
    )


@given(parts(), parts())
def test_balanced_accuracy_is_half_of_the_sum_and_inside(
    right: tuple[int, int], wrong: tuple[int, int]
) -> None:
    value, low, high = balanced_accuracy_interval(*right, *wrong)
    assert value == pytest.approx(
        (right[0] / right[1] + 1 - wrong[0] / wrong[1]) / 2
    )
    assert 0 <= low <= value <= high <= 1
    perfect = balanced_accuracy_interval(right[1], right[1], 0, wrong[1])
    assert perfect.value == perfect.high == 1 and perfect.low < 1
    assert np.isnan(balanced_accuracy_interval(0, 0, *wrong)).all()


@pytest.mark.parametrize(
    ("tpr", "fpr", "positives"),
    [(0.6, 0.01, 50), (0.95, 0.002, 100), (0.1, 0.2, 20)],
)
def test_balanced_accuracy_covers(
    tpr: float, fpr: float, positives: int
) -> None:
    random = np.random.default_rng(0)
    tp, fp = (
        random.binomial(positives, tpr, RUNS),
        random.binomial(1000, fpr, RUNS),
    )
    estimate = balanced_accuracy_interval(tp, positives, fp, 1000)
    assert 0.93 < coverage(estimate, (tpr + 1 - fpr) / 2) < 0.98


@pytest.mark.parametrize(
    ("lost", "gained"), [(0.1, 0.02), (0.02, 0.02), (0.5, 0.1)]
)
def test_a_drop_of_balanced_accuracy_covers(lost: float, gained: float) -> None:
    random = np.random.default_rng(4)
    positive = random.multinomial(50, [lost, gained, 1 - lost - gained], RUNS).T
    negative = random.multinomial(500, [0.01, 0.004, 0.986], RUNS).T
    estimate = balanced_accuracy_drop(
        positive[0], positive[1], 50, negative[0], negative[1], 500
    )
    # Of one or two changed photos it is wider than it need be.
    assert (
        0.93
        < coverage(estimate, (lost - gained + 0.01 - 0.004) / 2)
        < (0.99 if lost > 0.05 else 1)
    )
    # To take the two for independent would cost power: the photos are the same.
    before = balanced_accuracy_interval(40, 50, 5, 500)
    assert (
        lost + gained > 0.2
        or (estimate.high - estimate.low).mean() < before.high - before.low
    )


@given(parts(), parts())
def test_a_drop_is_that_of_the_two_balanced_accuracies(
    right: tuple[int, int], wrong: tuple[int, int]
) -> None:
    (lost, positives), (more, negatives) = right, wrong
    value, low, high = balanced_accuracy_drop(
        lost, 0, positives, more, 0, negatives
    )
    before = balanced_accuracy_interval(lost, positives, 0, negatives).value
    after = balanced_accuracy_interval(0, positives, more, negatives).value
    assert value == pytest.approx(before - after)
    assert -1 <= low <= value <= high <= 1
    back = balanced_accuracy_drop(0, lost, positives, 0, more, negatives)
    assert back == pytest.approx((-value, -high, -low))
    assert (
        balanced_accuracy_drop(
            lost + 1, 0, positives + 1, more, 0, negatives
        ).value
        >= value
    )
    assert np.isnan(balanced_accuracy_drop(0, 0, 0, 0, 0, negatives)).all()


def test_the_interval_of_a_mean_covers_and_comes_from_sums() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, (RUNS, 80))
    estimate = mean_interval(values.sum(1), (values**2).sum(1), 80)
    np.testing.assert_allclose(
        estimate.high - estimate.value,
        Z95 * values.std(1, ddof=1) / np.sqrt(80),
        rtol=1e-9,
    )
    assert 0.92 < coverage(estimate, 6.0) < 0.97
    few = mean_interval(
        np.array([0.0, 4.0]), np.array([0.0, 16.0]), np.array([0, 1])
    )
    np.testing.assert_array_equal(
        few, [[np.nan, 4.0], [np.nan] * 2, [np.nan] * 2]
    )
    # Of equal values rounding leaves no width, and never the root of a negative number.
    assert mean_interval(0.3, 0.09, 3).low <= 0.1


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 6))
def test_selectivity_is_a_loop(seed: int, classes: int, units: int) -> None:
    random = np.random.default_rng(seed)
    means, variances = (
        random.gamma(1, 1, (classes, units)),
        random.gamma(1, 1, (classes, units)),
    )
    counts = random.integers(2, 9, classes)
    estimate = selectivity(means, counts, variances)
    for unit in range(units):
        top = int(means[:, unit].argmax())
        rest = np.delete(means[:, unit], top).mean()
        assert estimate.value[unit] == pytest.approx(
            (means[top, unit] - rest) / (means[top, unit] + rest)
        )
        assert (
            0
            <= estimate.low[unit]
            <= estimate.value[unit]
            <= estimate.high[unit]
            <= 1
        )
    # A class without photos changes nothing, whatever stands there.
    more = (np.insert(table, 1, -9.0, axis=0) for table in (means, variances))
    with_empty = selectivity(next(more), np.insert(counts, 1, 0), next(more))
    np.testing.assert_allclose(with_empty, estimate)


def test_selectivity_by_hand_and_where_it_is_undefined() -> None:
    means = np.array(
        [[3.0, 0.0, 1.0, 2.0], [1.0, 0.0, -1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]
    )
    counts, variances = np.array([4, 4, 4]), np.full((3, 4), 0.16)
    value, low, high = selectivity(means, counts, variances)
    np.testing.assert_array_equal(value, [0.5, np.nan, np.nan, 1.0])
    # Variances of the means 0.04 and 2 · 0.04 / 4; derivatives 2 · 1 / 16 and −2 · 3 /
    # 16.
    error = Z95 * np.sqrt((2 / 16) ** 2 * 0.04 + (6 / 16) ** 2 * 0.02)
    assert (low[0], high[0]) == pytest.approx((0.5 - error, 0.5 + error))
    assert np.isnan(low[1:3]).all() and high[3] == 1
    one_photo = selectivity(means, np.array([4, 1, 4]), variances)
    assert one_photo.value[0] == 0.5 and np.isnan(one_photo.low[0])
    assert np.isnan(selectivity(means, np.array([4, 0, 0]), variances)).all()


def test_selectivity_covers() -> None:
    random = np.random.default_rng(2)
    shapes, photos = np.array([6.0, 2.0, 1.0, 1.0])[:, None, None], 100
    values = random.gamma(shapes, 1.0, (4, photos, RUNS))
    estimate = selectivity(
        values.mean(1), np.full(4, photos), values.var(1, ddof=1)
    )
    assert 0.93 < coverage(estimate, (6 - 4 / 3) / (6 + 4 / 3)) < 0.97


def test_a_ratio_covers_where_photos_differ_in_size() -> None:
    random = np.random.default_rng(3)
    union = random.integers(1, 400, (RUNS, 200))
    common = random.binomial(union, random.beta(1, 5, union.shape))
    found = ratio_interval(
        common.sum(1),
        union.sum(1),
        (common**2).sum(1),
        (common * union).sum(1),
        (union**2).sum(1),
        200,
    )
    assert 0.93 < coverage(found, 1 / 6) < 0.97
    # Pixels of one photo go together: an interval over pixels would be far too narrow.
    naive = proportion(common.sum(1), union.sum(1))
    assert coverage(naive, 1 / 6) < 0.5


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 20)),
        min_size=2,
        max_size=12,
    )
)
def test_a_ratio_is_inside_and_of_its_sums(
    photos: list[tuple[int, int]],
) -> None:
    i, u = np.array([(both, both + rest) for both, rest in photos]).T
    value, low, high = ratio_interval(
        i.sum(), u.sum(), (i * i).sum(), (i * u).sum(), (u * u).sum(), len(i)
    )
    if u.sum() == 0:
        assert np.isnan([value, low, high]).all()
        return
    assert value == pytest.approx(i.sum() / u.sum())
    assert 0 <= low <= value <= high <= 1
    spread = (
        np.sqrt(((i - value * u) ** 2).sum() * len(i) / (len(i) - 1)) / u.sum()
    )
    assert high == pytest.approx(min(1.0, value + Z95 * spread), abs=1e-6)
    assert np.isnan(ratio_interval(1, 2, 1, 2, 4, 1).low)


def photos_of_candidates(
    random: np.random.Generator, items: int, shares: np.ndarray, photos: int
) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union (photo, item, candidate); a photo's pixels go together."""
    shape = (photos, items, len(shares))
    union = random.integers(20, 60, shape)
    of_photo = random.beta(2 * shares, 2 * (1 - shares), shape)
    return random.binomial(union, of_photo), union


def sums_of(i: np.ndarray, u: np.ndarray) -> tuple[Any, ...]:
    terms = (i, u, i * i, i * u, u * u)
    return *(term.sum(axis=0) for term in terms), len(i)


@pytest.mark.parametrize("rival", [0.3, 0.01])
def test_the_best_of_many_lies_in_its_interval(rival: float) -> None:
    """Chosen and measured on the same photos, and compared with the truth."""
    random = np.random.default_rng(0)
    shares = np.array([0.3, *[rival] * 39])
    holds: list[np.ndarray] = []
    naive_holds: list[np.ndarray] = []
    ordinary: list[np.ndarray] = []
    for _ in range(8):
        i, u = photos_of_candidates(random, 40, shares, photos=50)
        sums = sums_of(i, u)
        values, errors = ratio_and_error(*sums)
        best = values.argmax(axis=1)[:, None]
        interval = chosen_interval(values, errors, best)
        naive = Estimate(
            *(
                np.take_along_axis(ends, best, axis=1)
                for ends in ratio_interval(*sums)
            )
        )

        truth = shares[best]
        for estimate, into in ((interval, holds), (naive, naive_holds)):
            inside = (estimate.low <= truth) & (truth <= estimate.high)
            into.append(np.asarray(inside))
        same = np.isclose(interval.low, naive.low)
        ordinary.append(np.asarray(same))
    assert 0.92 < np.mean(holds)
    if rival == 0.3:
        assert np.mean(naive_holds) < 0.7 and not np.mean(ordinary)
    else:
        # Nothing comes near: the ordinary interval.
        assert np.mean(holds) < 0.99 and np.mean(ordinary) > 0.9


def test_contenders_are_counted_one_by_one() -> None:
    random = np.random.default_rng(1)
    values = random.random((6, 9)) * (random.random((6, 9)) < 0.8)
    values[0, 0] = np.nan
    errors = random.random((6, 9)) / 10
    chosen = np.argsort(-np.nan_to_num(values), axis=1)[:, :3]
    interval = chosen_interval(values, errors, chosen)
    normal = NormalDist()

    def quantile(count: int) -> float:
        return -normal.inv_cdf(0.025 / count)

    for item, candidates in enumerate(chosen):
        known = [index for index in range(9) if values[item, index] > 0]
        z = quantile(len(known))
        for rank, index in enumerate(candidates):
            value, error = values[item, index], errors[item, index]
            contenders = sum(
                values[item, other] + z * errors[item, other]
                >= value - z * error
                for other in known
            )
            low = max(0, value - quantile(contenders) * error)
            high = min(1, value + quantile(1) * error)
            np.testing.assert_allclose(
                [ends[item, rank] for ends in interval],
                [value, low, high],
                rtol=1e-6,
            )
