"""Summaries are monoids, to the last bit, and agree with all activations at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitscope.atlas.summaries.base import Observed, ObservedHeads, Summary
from unitscope.atlas.summaries.class_sums import ClassSums
from unitscope.atlas.summaries.exact_sums import ExactSums
from unitscope.atlas.summaries.head_sums import HeadShape, HeadSums
from unitscope.atlas.summaries.histogram import Histogram
from unitscope.atlas.summaries.layer import LayerShape, LayerSummary
from unitscope.atlas.summaries.sample import Sample
from unitscope.atlas.summaries.top_images import TopImages
from unitscope.errors import NonFiniteError

UNITS, CELLS, CLASSES = 3, (2, 3), 4
# Two blocks, of two heads and of one.
HEADS = HeadShape(((2, 3, 2), (1, 3, 4)), 0.5, 0.25)

EMPTY: dict[str, Callable[[], Summary]] = {
    "histogram": lambda: Histogram(UNITS),
    "top by maximum": lambda: TopImages(UNITS, 4, CELLS, "maximum"),
    "top by mean": lambda: TopImages(UNITS, 4, CELLS, "mean"),
    "sample": lambda: Sample(UNITS, 5, CELLS),
    "classes": lambda: ClassSums(UNITS, CLASSES, 0.5),
    "heads": lambda: HeadSums(HEADS),
    "layer": lambda: LayerSummary(
        LayerShape(UNITS, CELLS, CLASSES, 4, 5, 0.5, HEADS)
    ),
}
empty = pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY)


def seen_as(maps: np.ndarray, *others: Any) -> Observed:
    # What heads give is as uneven as the maps.
    given = maps.mean((2, 3))
    outputs = tuple(
        np.resize(maps, (len(maps), *sizes)) for sizes in HEADS.outputs
    )
    heads = ObservedHeads(given, outputs)
    return replace(Observed(maps, given, *others), heads=heads)


def observed(
    count: int, seed: int, first: int = 0, kind: str = "mixed"
) -> Observed:
    """Images with typical activations: zeros, ties, all magnitudes, and both signs."""
    random = np.random.default_rng((seed, first))
    maps = random.normal(size=(count, UNITS, *CELLS)) * 10.0 ** random.integers(
        -6, 4, (count, UNITS, 1, 1)
    )
    maps = np.where(random.random(maps.shape) < 0.3, 0, maps)
    maps = np.where(
        random.random((count, 1, 1, 1)) < 0.2, 1.5, maps
    )  # ties between images
    if kind == "rectified":
        maps = maps.clip(min=0)
    return seen_as(
        maps.astype(np.float32),
        np.arange(first, first + count, dtype=np.int64),
        random.integers(0, 2**64, count, dtype=np.uint64),
        random.integers(-1, CLASSES, count),
    )


def parts_of(seen: Observed, cuts: list[int]) -> list[Observed]:
    bounds = [0, *sorted(cuts), len(seen.images)]
    return [
        Observed(
            seen.maps[a:b],
            seen.mean[a:b],
            seen.images[a:b],
            seen.hash_keys[a:b],
            seen.classes[a:b],
            seen.heads
            and ObservedHeads(
                seen.heads.contributions[a:b],
                tuple(each[a:b] for each in seen.heads.outputs),
            ),
        )
        for a, b in itertools.pairwise(bounds)
        if b > a
    ]


def of(empty: Callable[[], Summary], *parts: Observed) -> Summary:
    summary = empty()
    for part in parts:
        summary.update(part)
    return summary


def same(one: Summary, other: Summary) -> bool:
    first, second = one.arrays(), other.arrays()
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and np.array_equal(first[name], second[name])
        for name in first
    )


def merged(empty: Callable[[], Summary], *summaries: Summary) -> Summary:
    total = empty()
    for summary in summaries:
        total.merge(summary)
    return total


@empty
@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 30), min_size=2, max_size=4),
    order=st.randoms(),
)
def test_any_parts_in_any_order_are_the_whole(
    empty: Callable[[], Summary],
    seed: int,
    cuts: list[int],
    order: st.DataObject,
) -> None:
    seen = observed(30, seed)
    whole = of(empty, seen)
    parts = [of(empty, part) for part in parts_of(seen, cuts)]
    order.shuffle(parts)  # type: ignore[attr-defined]
    assert same(merged(empty, *parts), whole)


@empty
@given(seed=st.integers(0, 10**6))
def test_identity_and_associativity(
    empty: Callable[[], Summary], seed: int
) -> None:
    a, b, c = (of(empty, observed(7, seed, first)) for first in (0, 7, 14))
    assert same(merged(empty, a, empty()), a) and same(
        merged(empty, empty(), a), a
    )
    assert same(
        merged(empty, merged(empty, a, b), c),
        merged(empty, a, merged(empty, b, c)),
    )


@empty
@given(seed=st.integers(0, 10**6))
def test_what_follows_may_leave_out_only_what_cannot_matter(
    empty: Callable[[], Summary], seed: int
) -> None:
    first, second, third = (observed(12, seed, begin) for begin in (0, 12, 24))
    one = of(empty, first)
    two = one.following()
    two.update(second)
    three = two.following()
    three.update(third)
    assert same(merged(empty, three, one, two), of(empty, first, second, third))


@empty
def test_arrays_and_back(empty: Callable[[], Summary]) -> None:
    summary, again = of(empty, observed(20, 1)), empty()
    again.restore(summary.arrays())
    assert same(again, summary)
    # It goes on as the other does.
    more = observed(20, 1, 20)
    summary.update(more)
    again.update(more)
    assert same(again, summary)


# --- results ------------------------------------------------------------------


def test_top_images_are_those_of_a_full_sort_with_ties_by_place() -> None:
    seen = observed(40, 3)
    for criterion, score in (
        ("maximum", seen.maps.max((2, 3))),
        ("mean", seen.mean),
    ):
        top = TopImages(UNITS, 6, CELLS, criterion)
        for part in parts_of(seen, [5, 11, 30]):
            top.update(part)
        for unit in range(UNITS):
            expected = sorted(
                range(40), key=lambda image: (-score[image, unit], image)
            )[:6]
            assert top.images[unit].tolist() == expected
            stored, real = top.maps()[unit], seen.maps[expected, unit]
            peaks = np.abs(real).max((1, 2), keepdims=True)
            assert (np.abs(stored - real) <= 5e-4 * peaks).all()


def test_fewer_images_than_places() -> None:
    top = of(EMPTY["top by maximum"], observed(2, 0))
    assert isinstance(top, TopImages)
    assert (
        (top.images[:, 2:] == -1).all()
        and np.isneginf(top.scores[:, 2:]).all()
        and (top.images[:, :2] >= 0).all()
    )


def test_the_sample_is_uniform_and_the_same_for_all_units() -> None:
    seen = observed(40, 4)
    sample = of(EMPTY["sample"], seen)
    assert isinstance(sample, Sample)
    assert sample.images.tolist() == np.argsort(seen.hash_keys)[:5].tolist()
    assert np.array_equal(sample.maxima, seen.maps[sample.images].max((2, 3)))


@given(
    st.lists(
        st.floats(-(2.0**30), 2.0**30, width=32).filter(
            lambda value: value == 0 or abs(value) > 1e-30
        ),
        min_size=1,
        max_size=60,
    )
)
def test_exact_sums_are_right_to_a_digit_and_do_not_depend_on_the_order(
    numbers: list[float],
) -> None:
    def total(values: list[float]) -> float:
        sums = ExactSums(1, 1, 1.0)
        for value in values:
            sums.add(np.zeros(1, np.int64), np.array([[value]], np.float32))
        return float(sums.values[0, 0])

    exact = (
        sum(
            map(
                int,
                (value * 2**44 for value in numbers if abs(value) >= 2**-20),
            )
        )
        / 2**44
    )
    assert total(numbers) == total(numbers[::-1]) == total(sorted(numbers))
    small = sum(value for value in numbers if abs(value) < 2**-20)
    assert total(numbers) == pytest.approx(
        exact + small, rel=1e-12, abs=60 * 2**-44
    )


def test_sums_of_absurd_numbers_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="cannot be summed"):
        ExactSums(1, 1, 1.0).add(np.zeros(1, np.int64), np.array([[1e12]]))


def test_class_sums() -> None:
    seen = observed(50, 5, kind="rectified")
    sums = of(EMPTY["classes"], *parts_of(seen, [10, 20]))
    assert isinstance(sums, ClassSums)
    for index in range(CLASSES):
        of_class = seen.mean[seen.classes == index].astype(np.float64)
        assert sums.counts[index] == len(of_class)
        assert sums.sums[index] == pytest.approx(of_class.sum(0), abs=1e-10)
        assert sums.squares[index] == pytest.approx(
            (of_class**2).sum(0), abs=1e-9
        )
    assert sums.overall_mean == pytest.approx(
        seen.mean.astype(np.float64).mean(0), abs=1e-10
    )


@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.5, 0.1, 0.02]))
def test_thresholds_are_exact_about_what_lies_above_them(
    seed: int, share: float
) -> None:
    seen = observed(60, seed)
    histogram = of(EMPTY["histogram"], seen)
    assert isinstance(histogram, Histogram)
    thresholds, reached = histogram.thresholds(share)
    for unit in range(UNITS):
        values = seen.maps[:, unit].ravel().astype(np.float64)
        above = (values >= thresholds[unit]).mean()
        assert above == reached[unit] <= share
        # No lower edge of a bucket would do: the next value below lies in a bucket that
        # is too large.
        rest = values[values < thresholds[unit]]
        if len(rest):
            nearest = rest.max()
            bucket = values[
                (values > nearest - abs(nearest) / 32)
                & (values < thresholds[unit])
            ]
            assert (
                above + len(bucket) / len(values) > share
                or above + (values == nearest).mean() > share
            )


@given(seed=st.integers(0, 10**6))
def test_quantiles_are_right_to_a_bucket(seed: int) -> None:
    seen = observed(60, seed)
    histogram = of(EMPTY["histogram"], seen)
    assert isinstance(histogram, Histogram)
    shares = (0.05, 0.5, 0.9, 0.995)
    quantiles = histogram.quantiles(shares)
    for unit in range(UNITS):
        expected = np.quantile(
            seen.maps[:, unit].ravel(), shares, method="inverted_cdf"
        )
        assert quantiles[unit] == pytest.approx(expected, rel=1 / 64, abs=1e-37)


def test_a_dead_unit_and_a_constant_one() -> None:
    maps = np.zeros((4, UNITS, *CELLS), np.float32)
    maps[:, 1] = 2.0
    maps[0, 2, 0, 0] = 5.0
    seen = seen_as(
        maps, np.arange(4), np.arange(4, dtype=np.uint64), np.zeros(4, np.int64)
    )
    histogram = of(EMPTY["histogram"], seen)
    assert isinstance(histogram, Histogram)
    thresholds, reached = histogram.thresholds(0.005)
    assert (
        thresholds[0] > 0
        and thresholds[1] > 2
        and reached.tolist() == [0, 0, 0]
    )
    assert (histogram.total == 24).all()
    thresholds, reached = histogram.thresholds(0.05)
    assert thresholds[2] == 5.0 and reached[2] == pytest.approx(1 / 24)


def test_no_activation_is_lost_whatever_its_size() -> None:
    values = np.array(
        [
            0.0,
            -0.0,
            1e-44,
            -1e-44,
            1e-38,
            3e38,
            -3e38,
            1.0,
            -1.0,
            1e-20,
            65504.0,
            2.0,
        ],
        np.float32,
    )
    maps = np.broadcast_to(
        values.reshape(2, 1, *CELLS), (2, UNITS, *CELLS)
    ).copy()
    histogram = of(
        EMPTY["histogram"],
        seen_as(
            maps,
            np.arange(2),
            np.arange(2, dtype=np.uint64),
            np.zeros(2, np.int64),
        ),
    )
    assert isinstance(histogram, Histogram)
    assert (histogram.total == len(values)).all()
    lower, upper, counts = histogram.buckets()
    assert (
        (np.diff(lower) > 0).all()
        and (upper >= lower).all()
        and (counts.sum(1) == len(values)).all()
    )
    for value in values[np.abs(values) > 1e-37]:
        inside = (
            (lower <= value) & (value < upper)
            if value > 0
            else (lower < value) & (value <= upper)
        )
        assert counts[:, inside].sum(1).min() >= 1
