"""Concept counts: how well units' active pixels agree with concepts' masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from unitscope.atlas.intervals import (
    Estimate,
    chosen_interval,
    ratio_and_error,
    ratio_interval,
)

# A unit detects a concept where their IoU is above this (Bau et al. 2017) …
DETECTOR_THRESHOLD = 0.04
# … and where its p-value is at most this.
SIGNIFICANCE = 0.05

_Sum: TypeAlias = Int64[np.ndarray, "concept _"]


class Annotation(NamedTuple):
    """The masks of one photo on the network's input, res × res pixels, row by row.

    `masks` (present, pixel) belong to the `concepts` that are present, each listed
    once. A pixel may carry several concepts, or none. `categories` are those for which
    the photo was annotated, also those without a concept in it.
    """

    masks: Bool[np.ndarray, "present pixel"]
    concepts: Int64[np.ndarray, " present"]
    categories: Int64[np.ndarray, " annotated"]


class Best(NamedTuple):
    """For every unit the concept of the largest IoU, that IoU, and its p-value.

    Of equal IoUs the first concept counts. The null hypothesis is that the unit's
    activation has nothing to do with the content of the photo; `p` is (1 + draws in
    which any concept reaches that IoU) / (draws + 1).
    """

    concept: Int64[np.ndarray, " unit"]
    iou: Float[np.ndarray, " unit"]
    p: Float[np.ndarray, " unit"]


class Detectors(NamedTuple):
    """The numbers of units that detect a concept and of concepts that they detect.

    Beside them the numbers by chance: the mean over the draws from the null, with the
    lowest and the highest; nan without draws.
    """

    units: int
    concepts: int
    units_by_chance: Estimate
    concepts_by_chance: Estimate


@dataclass(eq=False)
class ConceptCounts:
    """Sums over photos that give the IoU of every unit and concept (Bau et al. 2017).

    A photo counts for a concept if it is annotated for the concept's category
    (`category_of`, one for every concept). In such a photo a is the number of the
    unit's active pixels, l that of the concept's, i that of the pixels in common, and
    u = a + l − i. The sums are integers, so they merge in any order:

    `i`, `ii` and `iu` (concept, unit) sum i, i² and i·u; `l` and `ll` (concept) sum l
    and l²; `a` and `aa` (category, unit) sum a and a²; `uu` (concept, unit) sums
    u² − a² − l², which is 0 where a or l is 0. `photos_with` (concept) and `photos_of`
    (category) count photos. The null pairs a photo's activation with the masks of
    another photo, once for each draw: `null_i` (draw, concept, unit), `null_l` (draw,
    concept), `null_a` (draw, category, unit).
    """

    category_of: Int64[np.ndarray, " concept"]
    photos_with: Int64[np.ndarray, " concept"]
    photos_of: Int64[np.ndarray, " category"]
    i: Int64[np.ndarray, "concept unit"]
    ii: Int64[np.ndarray, "concept unit"]
    iu: Int64[np.ndarray, "concept unit"]
    uu: Int64[np.ndarray, "concept unit"]
    l: Int64[np.ndarray, " concept"]  # noqa: E741  the letter of the formula
    ll: Int64[np.ndarray, " concept"]
    a: Int64[np.ndarray, "category unit"]
    aa: Int64[np.ndarray, "category unit"]
    null_i: Int64[np.ndarray, "draw concept unit"]
    null_l: Int64[np.ndarray, "draw concept"]
    null_a: Int64[np.ndarray, "draw category unit"]

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(
        cls,
        units: int,
        category_of: Int64[np.ndarray, " concept"],
        categories: int,
        null_draws: int,
    ) -> ConceptCounts:
        """The counts of no photos.

        `category_of` (concept) holds categories from 0 to `categories` − 1; raises
        ValueError for others.
        """
        outside = (category_of < 0) | (category_of >= categories)
        if outside.any():
            raise ValueError(
                f"a concept is of a category outside 0 to {categories - 1}"
            )

        def zeros(*shape: int) -> np.ndarray:
            return np.zeros(shape, dtype=np.int64)

        concepts = len(category_of)
        return cls(
            category_of=category_of.copy(),
            photos_with=zeros(concepts),
            photos_of=zeros(categories),
            i=zeros(concepts, units),
            ii=zeros(concepts, units),
            iu=zeros(concepts, units),
            uu=zeros(concepts, units),
            l=zeros(concepts),
            ll=zeros(concepts),
            a=zeros(categories, units),
            aa=zeros(categories, units),
            null_i=zeros(null_draws, concepts, units),
            null_l=zeros(null_draws, concepts),
            null_a=zeros(null_draws, categories, units),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ConceptCounts:
        """A copy of the counts that `arrays` returned.

        Raises ValueError if an array is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(
                f"concept counts lack {', '.join(missing)}: they were written by "
                "another program"
            )
        copies = (np.array(arrays[name], dtype=np.int64) for name in names)
        return cls(*copies)

    def arrays(self) -> dict[str, np.ndarray]:
        """All sums by name, not copied."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConceptCounts):
            return NotImplemented
        others = other.arrays()
        return all(
            np.array_equal(own, others[name])
            for name, own in self.arrays().items()
        )

    def merge(self, other: ConceptCounts) -> None:
        """Add the counts of other photos in place.

        Raises ValueError where units, concepts or draws differ.
        """
        own_shape = self.null_i.shape
        other_shape = other.null_i.shape
        same_concepts = np.array_equal(self.category_of, other.category_of)
        if own_shape != other_shape or not same_concepts:
            raise ValueError(
                f"counts of (draw, concept, unit) {own_shape} and {other_shape} "
                "do not add up: units, concepts with their categories, and draws must "
                "be the same"
            )

        others = other.arrays()
        for name, own in self.arrays().items():
            if name != "category_of":
                own += others[name]

    def update(
        self,
        active: Bool[np.ndarray, "unit pixel"],
        own: Annotation,
        others: Sequence[Annotation],
    ) -> None:
        """Count one photo.

        `active` are its units' active pixels, `own` is its annotation, and `others` are
        annotations of other photos, one for every draw. Raises ValueError where an
        annotation lists a concept twice or a concept of a category that it does not
        list, or where the number of others is not that of the draws.
        """
        if len(others) != len(self.null_i):
            raise ValueError(
                f"{len(others)} other annotations for {len(self.null_i)} draws: "
                "expected one for each"
            )
        for annotation in (own, *others):
            self._check(annotation)
        self._count_masks(own, others)
        # Most units are active nowhere in most photos.
        firing = np.flatnonzero(active.any(axis=1))
        if len(firing):
            self._count_activation(active[firing], firing, own, others)

    def _check(self, annotation: Annotation) -> None:
        masks, concepts, categories = annotation
        if len(np.unique(concepts)) != len(concepts):
            raise ValueError(
                f"an annotation has several masks of one concept: {concepts.tolist()}"
            )
        if len(concepts) != len(masks):
            raise ValueError(
                f"{len(masks)} masks are of {len(concepts)} concepts"
            )
        outside = ~np.isin(self.category_of[concepts], categories)
        if outside.any():
            raise ValueError(
                f"concept {concepts[outside][0]} is of a category that its "
                "photo is not annotated for"
            )

    def _count_masks(
        self, own: Annotation, others: Sequence[Annotation]
    ) -> None:
        self.photos_with[own.concepts] += 1
        self.photos_of[np.unique(own.categories)] += 1
        area = own.masks.sum(axis=1)
        self.l[own.concepts] += area
        self.ll[own.concepts] += area * area
        for draw, other in enumerate(others):
            area = other.masks.sum(axis=1)
            self.null_l[draw, other.concepts] += area

    def _count_activation(
        self,
        active: Bool[np.ndarray, "firing pixel"],
        firing: Int64[np.ndarray, " firing"],
        own: Annotation,
        others: Sequence[Annotation],
    ) -> None:
        # One matrix product counts the pixels in common with every mask. The first
        # mask is everywhere, which gives the number of active pixels.
        everywhere = np.ones((1, active.shape[1]), dtype=bool)
        other_masks = (other.masks for other in others)
        masks = np.concatenate([everywhere, own.masks, *other_masks])
        counts = _common_pixels(masks, active)
        area = counts[0]

        end = 1 + len(own.concepts)
        self._count_own(own, firing, area, counts[1:end])
        for draw, other in enumerate(others):
            begin, end = end, end + len(other.concepts)
            pairs = np.ix_(other.concepts, firing)
            self.null_i[draw][pairs] += counts[begin:end]
            pairs = np.ix_(np.unique(other.categories), firing)
            self.null_a[draw][pairs] += area

    def _count_own(
        self,
        own: Annotation,
        firing: Int64[np.ndarray, " firing"],
        area: Int64[np.ndarray, " firing"],
        common: Int64[np.ndarray, "present firing"],
    ) -> None:
        mask_area = own.masks.sum(axis=1)[:, None]
        union = area + mask_area - common

        pairs = np.ix_(own.concepts, firing)
        self.i[pairs] += common
        self.ii[pairs] += common * common
        self.iu[pairs] += common * union
        areas = area * area + mask_area * mask_area
        self.uu[pairs] += union * union - areas

        pairs = np.ix_(np.unique(own.categories), firing)
        self.a[pairs] += area
        self.aa[pairs] += area * area

    def iou(self) -> Float[np.ndarray, "unit concept"]:
        """IoU over the data set, 0 to 1; 0 where neither has any pixel."""
        unit_areas = self.a[self.category_of]
        mask_areas = self.l[:, None]
        return _iou(self.i, unit_areas + mask_areas)

    def interval(self) -> Estimate:
        """The IoU with its 95 % interval over photos, arrays (unit, concept).

        It is nan where neither has any pixel. It is that of a concept that was named
        beforehand: see `chosen_interval` for the best of several.
        """
        estimate = ratio_interval(*self._sums())
        return Estimate(*(array.T for array in estimate))

    def chosen_interval(
        self, chosen: Int64[np.ndarray, "unit rank"]
    ) -> Estimate:
        """The IoU of concepts chosen because it is large, arrays (unit, rank).

        The 95 % interval allows for the choice among all concepts on these very photos.
        """
        values, errors = ratio_and_error(*self._sums())
        return chosen_interval(values.T, errors.T, chosen)

    def _sums(self) -> tuple[_Sum, _Sum, _Sum, _Sum, _Sum, _Sum]:
        """The sums i, u, ii, iu and uu of which an IoU is made, and the photos."""
        unit_areas = self.a[self.category_of]
        squares = self.aa[self.category_of] + self.ll[:, None]
        union = unit_areas + self.l[:, None] - self.i
        photos = self.photos_of[self.category_of][:, None]
        return self.i, union, self.ii, self.iu, self.uu + squares, photos

    def null_iou(self) -> Float[np.ndarray, "draw unit concept"]:
        """The IoU under the null, of every draw."""
        draws = range(len(self.null_i))
        return np.stack([self._null_iou(draw) for draw in draws])

    def chance(
        self,
    ) -> tuple[
        Float[np.ndarray, "unit concept"], Float[np.ndarray, "unit concept"]
    ]:
        """The mean and largest IoU over the draws from the null; nan without draws."""
        draws = len(self.null_i)
        total = np.zeros(self.i.T.shape)
        largest = np.full(self.i.T.shape, np.nan)
        if not draws:
            return largest, largest

        for draw in range(draws):
            iou = self._null_iou(draw)
            total += iou
            largest = np.fmax(largest, iou)
        return total / draws, largest

    def _null_iou(self, draw: int) -> Float[np.ndarray, "unit concept"]:
        unit_areas = self.null_a[draw][self.category_of]
        mask_areas = self.null_l[draw][:, None]
        return _iou(self.null_i[draw], unit_areas + mask_areas)

    def best(self) -> Best:
        """The concept of each unit's largest IoU, with its p-value.

        On other photos it is smaller: `chosen_interval` says by how much. The p-value is
        corrected for the choice among concepts.
        """
        iou = self.iou()
        ranks = self._ranks()
        return Best(
            concept=iou.argmax(axis=1),
            iou=iou.max(axis=1),
            p=ranks[0] / len(ranks),
        )

    def detectors(
        self,
        threshold: float = DETECTOR_THRESHOLD,
        significance: float = SIGNIFICANCE,
    ) -> Detectors:
        """The units whose best IoU is above a threshold and significant.

        Every draw from the null is treated like the observation: it is compared with
        all others. With fewer than 1 / `significance` − 1 draws nothing can be
        significant.
        """
        p_values = self._ranks() / (len(self.null_i) + 1)
        significant = p_values <= significance
        observed = _detectors(self.iou(), threshold, significant[0])
        by_chance = [
            _detectors(self._null_iou(draw), threshold, significant[draw + 1])
            for draw in range(len(self.null_i))
        ]

        table = np.array(by_chance, dtype=np.float64)
        if not by_chance:
            table = np.full((1, 2), np.nan)
        return Detectors(
            units=observed[0],
            concepts=observed[1],
            units_by_chance=_mean_and_range(table[:, 0]),
            concepts_by_chance=_mean_and_range(table[:, 1]),
        )

    def _ranks(self) -> Int64[np.ndarray, "row unit"]:
        """How many of all best IoUs of a unit reach each of them.

        The first row is the observation, the others are the draws from the null.
        """
        rows = [self.iou().max(axis=1)]
        for draw in range(len(self.null_i)):
            null_iou = self._null_iou(draw)
            rows.append(null_iou.max(axis=1))
        best = np.stack(rows)
        reached = best[None] >= best[:, None]
        ranks: np.ndarray = reached.sum(axis=1)
        return ranks


def _common_pixels(
    masks: Bool[np.ndarray, "mask pixel"],
    active: Bool[np.ndarray, "unit pixel"],
) -> Int64[np.ndarray, "mask unit"]:
    # Counts of pixels are exact in float32, and a float product is fast.
    mask_values = torch.from_numpy(masks).float()
    active_values = torch.from_numpy(active).float()
    product = mask_values @ active_values.T
    return product.to(torch.int64).numpy()


def _iou(
    common: Int64[np.ndarray, "concept unit"],
    areas: Int64[np.ndarray, "concept unit"],
) -> Float[np.ndarray, "unit concept"]:
    """Pixels in common / pixels of either; `areas` are the sums of the two areas."""
    union = np.maximum(areas - common, 1)
    quotient: np.ndarray = common / union
    return quotient.T


def _detectors(
    iou: Float[np.ndarray, "unit concept"],
    threshold: float,
    significant: Bool[np.ndarray, " unit"],
) -> tuple[int, int]:
    """The numbers of detecting units and of the concepts that they detect."""
    detecting = (iou.max(axis=1) > threshold) & significant
    concepts = np.unique(iou[detecting].argmax(axis=1))
    return int(detecting.sum()), len(concepts)


def _mean_and_range(draws: Float[np.ndarray, " draw"]) -> Estimate:
    return Estimate(draws.mean(), draws.min(), draws.max())
