"""Concept counts: against a loop over pixels, as a monoid, and against chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from unitscope.atlas.intervals import ratio_interval
from unitscope.atlas.summaries.active_pixels import active_pixels
from unitscope.atlas.summaries.concepts import (
    Annotation,
    ConceptCounts,
)
from unitscope.geometry import (
    Axis,
    Grid,
    Placement,
    interpolation_weights,
    lay_on_photo,
)

UNITS, PIXELS, DRAWS = 4, 9, 2
# Concepts 0, 2 and 3 are of category 0, concepts 1 and 4 of category 1; category 2 has
# none.
CATEGORY_OF = np.array([0, 1, 0, 0, 1])
CATEGORIES = 3

Photo = tuple[np.ndarray, Annotation, list[Annotation]]


def empty(draws: int = DRAWS) -> ConceptCounts:
    return ConceptCounts.empty(UNITS, CATEGORY_OF, CATEGORIES, draws)


def annotation(random: np.random.Generator) -> Annotation:
    categories = np.flatnonzero(random.random(CATEGORIES) < 0.7)
    able = np.flatnonzero(np.isin(CATEGORY_OF, categories))
    concepts = random.permutation(able)[: random.integers(0, len(able) + 1)]
    return Annotation(
        random.random((len(concepts), PIXELS)) < 0.4, concepts, categories
    )


def photo(random: np.random.Generator) -> Photo:
    active = random.random((UNITS, PIXELS)) < random.choice(
        [0.0, 0.3, 1.0], (UNITS, 1)
    )
    return (
        active,
        annotation(random),
        [annotation(random) for _ in range(DRAWS)],
    )


def counted(photos: list[Photo]) -> ConceptCounts:
    counts = empty()
    for photo_ in photos:
        counts.update(*photo_)
    return counts


photos = st.builds(
    lambda seed, count: [
        photo(np.random.default_rng((seed, number))) for number in range(count)
    ],
    st.integers(0, 10_000),
    st.integers(0, 6),
)


def pixels(
    active: np.ndarray, annotations: Annotation, unit: int, concept: int
) -> tuple[int, int] | None:
    """(i, u) of one photo, pixel by pixel; None if it lacks the concept's category."""
    if CATEGORY_OF[concept] not in annotations.categories:
        return None
    both = either = 0
    for pixel in range(PIXELS):
        on = bool(active[unit, pixel])
        there = any(
            mask[pixel]
            for mask, index in zip(
                annotations.masks, annotations.concepts, strict=True
            )
            if index == concept
        )
        both += on and there
        either += on or there
    return both, either


@given(photos)
def test_iou_and_interval_are_those_of_a_loop_over_pixels(
    seen: list[Photo],
) -> None:
    counts = counted(seen)
    iou, null, interval = counts.iou(), counts.null_iou(), counts.interval()
    assert iou.shape == (UNITS, len(CATEGORY_OF)) and null.shape == (
        DRAWS,
        *iou.shape,
    )
    for unit in range(UNITS):
        for concept in range(len(CATEGORY_OF)):
            pairs = [
                pixels(active, own, unit, concept) for active, own, _ in seen
            ]
            i, u = (
                np.array([pair for pair in pairs if pair is not None])
                .reshape(-1, 2)
                .T
            )
            assert iou[unit, concept] == i.sum() / max(u.sum(), 1)
            assert counts.photos_of[CATEGORY_OF[concept]] == len(i)
            expected = ratio_interval(
                i.sum(),
                u.sum(),
                (i * i).sum(),
                (i * u).sum(),
                (u * u).sum(),
                len(i),
            )
            np.testing.assert_array_equal(
                [ends[unit, concept] for ends in interval], expected
            )
            for draw in range(DRAWS):
                pairs = [
                    pixels(active, others[draw], unit, concept)
                    for active, _, others in seen
                ]
                i, u = (
                    np.array([pair for pair in pairs if pair is not None])
                    .reshape(-1, 2)
                    .T
                )
                assert null[draw, unit, concept] == i.sum() / max(u.sum(), 1)
    present = [concept for _, own, _ in seen for concept in own.concepts]
    np.testing.assert_array_equal(
        counts.photos_with, np.bincount(present, minlength=len(CATEGORY_OF))
    )


@given(photos, photos, photos)
def test_counts_are_a_commutative_monoid(
    one: list[Photo], two: list[Photo], three: list[Photo]
) -> None:
    def merged(*parts: ConceptCounts) -> ConceptCounts:
        whole = empty()
        for part in parts:
            whole.merge(ConceptCounts.from_arrays(part.arrays()))
        return whole

    a, b, c = counted(one), counted(two), counted(three)
    assert merged(a) == a == merged(a, empty()) == merged(empty(), a)
    assert (
        merged(merged(a, b), c)
        == merged(a, merged(b, c))
        == merged(c, b, a)
        == counted([*three, *one, *two])
    )
    # What is merged in stays what it was.
    assert b == counted(two) and (a == b) == all(
        (b.arrays()[k] == v).all() for k, v in a.arrays().items()
    )


def test_arrays_are_copied_on_the_way_in() -> None:
    counts = counted([photo(np.random.default_rng(0))])
    copy = ConceptCounts.from_arrays(counts.arrays())
    copy.i += 1
    assert copy != counts and counts != "counts"
    arrays = counts.arrays()
    del arrays["uu"], arrays["null_l"]
    with pytest.raises(
        ValueError,
        match="concept counts lack uu, null_l: they were written by another program",
    ):
        ConceptCounts.from_arrays(arrays)


def test_a_unit_that_is_a_concept_is_found() -> None:
    random = np.random.default_rng(0)
    draws, side = 19, 64
    masks = random.random((40, 2, side)) < 0.2
    counts = ConceptCounts.empty(3, np.array([0, 0]), 1, draws)
    both, category = np.array([0, 1]), np.array([0])
    shifts = random.integers(1, 40, draws)
    for number, mask in enumerate(masks):
        # Unit 0 is concept 1, unit 1 is never active, unit 2 has nothing to do with
        # either.
        active = np.stack(
            [mask[1], np.zeros(side, dtype=bool), random.random(side) < 0.2]
        )
        others = [
            Annotation(masks[(number + shift) % 40], both, category)
            for shift in shifts
        ]
        counts.update(active, Annotation(mask, both, category), others)
    best = counts.best()
    assert (best.concept[0], best.iou[0], best.p[0]) == (
        1,
        1.0,
        1 / (draws + 1),
    )
    assert (best.iou[1], best.p[1]) == (0.0, 1.0)
    assert best.p[2] > 0.05
    value, low, high = (ends[0, 1] for ends in counts.interval())
    assert value == low == high == 1
    # 0.2² / (2 · 0.2 − 0.2²) = 0.11 by chance: at the usual threshold every unit would
    # be a detector.
    detectors = counts.detectors(significance=1)
    assert (detectors.units, detectors.units_by_chance) == (2, (2.0, 2.0, 2.0))
    assert counts.detectors().units == 1
    detectors = counts.detectors(threshold=0.3)
    assert (
        detectors.units,
        detectors.concepts,
        detectors.units_by_chance.high,
    ) == (
        1,
        1,
        0,
    )


def test_p_is_uniform_where_masks_have_nothing_to_do_with_units() -> None:
    random = np.random.default_rng(1)
    units, draws, concepts = 30, 19, np.arange(3)
    p = []
    # Units that see the same masks are not independent of each other: several data sets
    # are.
    for _ in range(20):
        counts = ConceptCounts.empty(
            units, np.zeros(3, dtype=np.int64), 1, draws
        )
        for _ in range(30):
            drawn = random.random((draws + 1, 3, 40)) < 0.2
            annotations = [
                Annotation(masks, concepts, np.array([0])) for masks in drawn
            ]
            counts.update(
                random.random((units, 40)) < 0.2,
                annotations[0],
                annotations[1:],
            )
        p.append(counts.best().p)
    p_values = np.concatenate(p)
    assert kstest(p_values - 0.5 / (draws + 1), "uniform").statistic < 0.1
    assert 0.025 < (p_values <= 1 / (draws + 1)).mean() < 0.075


def test_without_draws_chance_is_unknown() -> None:
    counts = empty(draws=0)
    active = np.ones((UNITS, PIXELS), dtype=bool)
    counts.update(
        active, Annotation(active[:1], np.array([2]), np.array([0])), []
    )
    best, detectors = counts.best(), counts.detectors(significance=1)
    assert (best.concept == 2).all() and (best.p == 1).all()
    assert counts.detectors().units == 0
    assert (detectors.units, detectors.concepts) == (UNITS, 1) and np.isnan(
        detectors.units_by_chance
    ).all()


MASK = np.ones((1, PIXELS), dtype=bool)


@pytest.mark.parametrize(
    ("own", "draws", "message"),
    [
        (
            Annotation(
                np.ones((2, PIXELS), dtype=bool),
                np.array([2, 2]),
                np.array([0]),
            ),
            0,
            "several masks of one conc",
        ),
        (
            Annotation(MASK, np.array([1]), np.array([0])),
            0,
            "concept 1 is of a category that its photo is not annotat",
        ),
        (
            Annotation(MASK, np.array([0]), np.array([0])),
            3,
            "0 other annotations for 3 draws: expected one for each",
        ),
    ],
)
def test_wrong_annotations_are_refused(
    own: Annotation, draws: int, message: str
) -> None:
    counts = empty(draws)
    with pytest.raises(ValueError, match=message):
        counts.update(np.ones((UNITS, PIXELS), dtype=bool), own, [])
    assert counts == empty(draws)


@pytest.mark.parametrize(
    "other",
    [
        (UNITS, CATEGORY_OF[::-1].copy(), 3, 2),
        (UNITS, CATEGORY_OF, 3, 1),
        (5, CATEGORY_OF, 3, 2),
    ],
)
def test_counts_of_other_concepts_do_not_add_up(other: Any) -> None:
    with pytest.raises(
        ValueError,
        match="do not add up: units, concepts with their categories, and draws must be the",
    ):
        empty().merge(ConceptCounts.empty(*other))


def test_a_missing_category_is_refused() -> None:
    with pytest.raises(
        ValueError, match="a concept is of a category outside 0 to 0"
    ):
        ConceptCounts.empty(1, np.array([0, 1]), 1, 0)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_active_pixels_are_those_of_the_map_laid_on_the_input(
    rows: int, cols: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    grid = Grid(
        Axis(random.uniform(0, 8), random.uniform(1, 8)),
        Axis(random.uniform(0, 8), random.uniform(1, 8)),
    )
    maps = random.normal(size=(3, rows, cols)).astype(np.float32)
    thresholds = random.normal(size=3).astype(np.float32)
    size, input_size = (7, 5), (20, 30)
    down, across = interpolation_weights(grid, (rows, cols), input_size, size)
    np.testing.assert_allclose(down.sum(1), 1)
    active = active_pixels(maps, thresholds, down, across).reshape(3, 5, 7)
    laid = lay_on_photo(maps, grid, Placement.whole((30, 20), input_size), size)
    away = laid - thresholds[:, None, None]
    np.testing.assert_array_equal(
        active[np.abs(away) > 1e-5], (away > 0)[np.abs(away) > 1e-5]
    )


def test_a_value_at_the_threshold_is_active() -> None:
    maps = np.array([[[1.0, 2.0]], [[1.0, 1.0]]], dtype=np.float32)
    down, across = interpolation_weights(
        Grid.tiling((4, 8), (1, 2)), (1, 2), (4, 8), (2, 1)
    )
    active = active_pixels(
        maps, np.array([2.0, 1.0], dtype=np.float32), down, across
    )
    np.testing.assert_array_equal(active, [[False, True], [True, True]])
