"""Concepts: how well every unit's active pixels agree with the masks of every concept, over a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from unitscope.atlas.intervals import Estimate, ratio_interval

# A unit detects a concept where their IoU is above this (Bau et al. 2017).
DETECTOR_THRESHOLD = 0.04
# And if chance reaches that IoU no more often than this.
SIGNIFICANCE = 0.05


class Annotation(NamedTuple):
    """What is annotated in one photo: masks on the network's input, cut into res × res pixels, row by row.

    `masks` of the concepts that are present, whose indices are `concepts`, each once;
    pixels may carry several, or none. `categories` are those that the photo was
    annotated for, those without a concept that is present too.
    """

    masks: Bool[np.ndarray, "present pixel"]
    concepts: Int64[np.ndarray, " present"]
    categories: Int64[np.ndarray, " annotated"]


class Best(NamedTuple):
    """The concept of the largest IoU of every unit, the first of several, that IoU, and how often chance does as well.

    `p` is (1 + draws in which any concept reaches that IoU) / (draws + 1), of the null
    hypothesis that the unit's activation has nothing to do with what is in the photo.
    """

    concept: Int64[np.ndarray, " unit"]
    iou: Float[np.ndarray, " unit"]
    p: Float[np.ndarray, " unit"]


class Detectors(NamedTuple):
    """How many units detect a concept, how many different concepts they detect, and as many by chance.

    By chance: the mean over the draws of the null, with the lowest and the highest of
    them; nan without draws.
    """

    units: int
    concepts: int
    units_by_chance: Estimate
    concepts_by_chance: Estimate


@dataclass(eq=False)
class ConceptCounts:
    """Sums over photos from which the IoU of every unit and concept follows (NetDissect, Bau et al. 2017).

    A photo counts for a concept if it is annotated for the concept's category
    (`category_of`, one for every concept). In such a photo a is the unit's active
    pixels, l the concept's, i those in common and u = a + l − i. The sums are integers,
    so that they do not depend on the order of photos, and parts add up:

    `i`, `ii` and `iu` (concept, unit) of i, i² and i·u; `l` and `ll` (concept) of l and
    l²; `a` and `aa` (category, unit) of a and a²; `uu` (concept, unit) of u² − a² − l²,
    which is 0 where either is nowhere; `photos_with` (concept) and `photos_of`
    (category) count photos. The null pairs a photo's activation with the masks of
    another, once for each draw: `null_i` (draw, concept, unit), `null_l` (draw,
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
        """The counts of no photos, of concepts that belong to the categories 0 to `categories` − 1."""
        if category_of.size and not (
            0 <= category_of.min() and category_of.max() < categories
        ):
            raise ValueError(
                f"a concept is of a category outside 0 to {categories - 1}"
            )
        pair, own = (len(category_of), units), (categories, units)
        shapes = [
            pair[:1],
            own[:1],
            pair,
            pair,
            pair,
            pair,
            pair[:1],
            pair[:1],
            own,
            own,
        ]
        null = [(null_draws, *shape) for shape in (pair, pair[:1], own)]
        return cls(
            category_of.copy(),
            *(np.zeros(shape, dtype=np.int64) for shape in [*shapes, *null]),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ConceptCounts:
        """The counts that `arrays` gave; copies them. Raises ValueError where one is missing."""
        missing = [field.name for field in fields(cls) if field.name not in arrays]
        if missing:
            raise ValueError(
                f"concept counts lack {', '.join(missing)}: they were written by "
                "something else"
            )
        return cls(
            *(np.array(arrays[field.name], dtype=np.int64) for field in fields(cls))
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All sums by name, not copied."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConceptCounts):
            return NotImplemented
        return all(
            np.array_equal(mine, other.arrays()[name])
            for name, mine in self.arrays().items()
        )

    def merge(self, other: ConceptCounts) -> None:
        """Add the counts of other photos, in place; raises ValueError where units, concepts or draws differ."""
        if self.null_i.shape != other.null_i.shape or not np.array_equal(
            self.category_of, other.category_of
        ):
            raise ValueError(
                f"counts of (draw, concept, unit) {self.null_i.shape} and "
                f"{other.null_i.shape} do not add up: "
                "units, concepts with their categories, and draws must be the same"
            )
        for name, mine in self.arrays().items():
            if name != "category_of":
                mine += other.arrays()[name]

    def update(
        self,
        active: Bool[np.ndarray, "unit pixel"],
        own: Annotation,
        others: Sequence[Annotation],
    ) -> None:
        """Count one photo: its units' active pixels, its own annotation, and one of another photo for every draw.

        Raises ValueError where an annotation names a concept twice or one of a category
        that it does not name, or where there are not as many others as draws.
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
        if len(np.unique(annotation.concepts)) != len(annotation.concepts):
            raise ValueError(
                "an annotation has several masks of one concept: "
                f"{annotation.concepts.tolist()}"
            )
        if len(annotation.concepts) != len(annotation.masks):
            raise ValueError(
                f"{len(annotation.masks)} masks are of {len(annotation.concepts)} "
                "concepts"
            )
        outside = ~np.isin(self.category_of[annotation.concepts], annotation.categories)
        if outside.any():
            raise ValueError(
                f"concept {annotation.concepts[outside][0]} is of a category that its "
                "photo is not annotated for"
            )

    def _count_masks(self, own: Annotation, others: Sequence[Annotation]) -> None:
        self.photos_with[own.concepts] += 1
        self.photos_of[np.unique(own.categories)] += 1
        area = own.masks.sum(axis=1)
        self.l[own.concepts] += area
        self.ll[own.concepts] += area * area
        for draw, other in enumerate(others):
            self.null_l[draw, other.concepts] += other.masks.sum(axis=1)

    def _count_activation(
        self,
        active: Bool[np.ndarray, "firing pixel"],
        firing: Int64[np.ndarray, " firing"],
        own: Annotation,
        others: Sequence[Annotation],
    ) -> None:
        everywhere = np.ones((1, active.shape[1]), dtype=bool)
        masks = np.concatenate(
            [everywhere, own.masks, *(other.masks for other in others)]
        )
        # Counts of pixels are exact in float32.
        product = torch.from_numpy(masks).float() @ torch.from_numpy(active).float().T
        counts = product.to(torch.int64).numpy()
        area, common = counts[0], counts[1 : 1 + len(own.concepts)]
        mask_area = own.masks.sum(axis=1)[:, None]
        union = area + mask_area - common
        here = np.ix_(own.concepts, firing)
        self.i[here] += common
        self.ii[here] += common * common
        self.iu[here] += common * union
        self.uu[here] += union * union - area * area - mask_area * mask_area
        category = np.ix_(np.unique(own.categories), firing)
        self.a[category] += area
        self.aa[category] += area * area
        begin = 1 + len(own.concepts)
        for draw, other in enumerate(others):
            end = begin + len(other.concepts)
            self.null_i[draw][np.ix_(other.concepts, firing)] += counts[begin:end]
            self.null_a[draw][np.ix_(np.unique(other.categories), firing)] += area
            begin = end

    def iou(self) -> Float[np.ndarray, "unit concept"]:
        """Pixels in common / pixels of either, over the data set, 0 to 1; 0 where neither has any."""
        return _iou(self.i, self.a[self.category_of] + self.l[:, None])

    def interval(self) -> Estimate:
        """The IoU with its 95 % interval over photos, arrays (unit, concept); nan where neither has any pixel."""
        u = self.a[self.category_of] + self.l[:, None] - self.i
        uu = self.uu + self.aa[self.category_of] + self.ll[:, None]
        count = self.photos_of[self.category_of][:, None]
        return Estimate(
            *(ends.T for ends in ratio_interval(self.i, u, self.ii, self.iu, uu, count))
        )

    def null_iou(self) -> Float[np.ndarray, "draw unit concept"]:
        """The IoU under the null, of every draw."""
        return np.stack([self._null_iou(draw) for draw in range(len(self.null_i))])

    def chance(
        self,
    ) -> tuple[Float[np.ndarray, "unit concept"], Float[np.ndarray, "unit concept"]]:
        """The mean and the largest IoU under the null, over the draws; nan without draws."""
        total, largest = np.zeros(self.i.T.shape), np.full(self.i.T.shape, np.nan)
        for draw in range(len(self.null_i)):
            found = self._null_iou(draw)
            total += found
            largest = np.fmax(largest, found)
        return total / len(self.null_i) if len(self.null_i) else largest, largest

    def _null_iou(self, draw: int) -> Float[np.ndarray, "unit concept"]:
        both = self.null_a[draw][self.category_of] + self.null_l[draw][:, None]
        return _iou(self.null_i[draw], both)

    def best(self) -> Best:
        """The concept that each unit agrees with best, and its p-value, corrected for the choice among concepts."""
        iou, ranks = self.iou(), self._ranks()
        return Best(iou.argmax(axis=1), iou.max(axis=1), ranks[0] / len(ranks))

    def detectors(
        self, threshold: float = DETECTOR_THRESHOLD, significance: float = SIGNIFICANCE
    ) -> Detectors:
        """The units whose best IoU is above a threshold and significant, beside those that chance makes.

        Every draw of the null is looked at as what was observed is: against all others.
        With fewer than 1 / significance draws nothing can be significant.
        """
        significant = self._ranks() / (len(self.null_i) + 1) <= significance
        found = np.array(
            [
                _detectors(
                    self.iou() if row == 0 else self._null_iou(row - 1),
                    threshold,
                    those,
                )
                for row, those in enumerate(significant)
            ]
        )
        draws = found[1:] if len(found) > 1 else np.full((1, 2), np.nan)
        units, concepts = (
            Estimate(column.mean(), column.min(), column.max()) for column in draws.T
        )
        return Detectors(int(found[0, 0]), int(found[0, 1]), units, concepts)

    def _ranks(self) -> Int64[np.ndarray, "row unit"]:
        """Of the observed best IoU of each unit and of that of every draw, in how many of all of them it is reached."""
        draws = (self._null_iou(draw).max(axis=1) for draw in range(len(self.null_i)))
        best = np.stack([self.iou().max(axis=1), *draws])
        ranks: np.ndarray = (best[None] >= best[:, None]).sum(axis=1)
        return ranks


def _iou(
    common: Int64[np.ndarray, "concept unit"], both: Int64[np.ndarray, "concept unit"]
) -> Float[np.ndarray, "unit concept"]:
    """Pixels in common / pixels of either, from the sum of the two areas."""
    quotient: np.ndarray = common / np.maximum(both - common, 1)
    return quotient.T


def _detectors(
    iou: Float[np.ndarray, "unit concept"],
    threshold: float,
    significant: Bool[np.ndarray, " unit"],
) -> tuple[int, int]:
    detecting = (iou.max(axis=1) > threshold) & significant
    return int(detecting.sum()), len(np.unique(iou[detecting].argmax(axis=1)))


def active_pixels(
    maps: Float32[np.ndarray, "unit row col"],
    thresholds: Float32[np.ndarray, " unit"],
    down: Float[np.ndarray, "height row"],
    across: Float[np.ndarray, "width col"],
) -> Bool[np.ndarray, "unit pixel"]:
    """Where each unit is active on the network's input: its map, interpolated, reaches its threshold.

    `down` and `across` say how much every cell gives to every pixel
    (`geometry.interpolation_weights`); pixels are in the order of rows. A value equal
    to the threshold is active, as thresholds are lower edges of a histogram's buckets.
    """
    weights = [torch.from_numpy(weight.astype(np.float32)) for weight in (down, across)]
    laid = (weights[0] @ (torch.from_numpy(maps) @ weights[1].T)).flatten(1)
    active: np.ndarray = laid.ge(torch.from_numpy(thresholds)[:, None]).numpy()
    return active
