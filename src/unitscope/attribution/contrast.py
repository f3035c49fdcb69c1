"""Contrast: why one class and not another, the difference of two logits taken apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.classes import class_index, told_apart
from unitscope.attribution.explained import Explained
from unitscope.attribution.region import Region, area_of
from unitscope.attribution.scores import Scores
from unitscope.drawable import Drawable
from unitscope.errors import ClassError
from unitscope.geometry import lay_on_photo

# Scores of which one class is right.
_EXCLUDING = (Scores.SOFTMAX, Scores.PROBABILITIES)


class UnitContrast(NamedTuple):
    """What one unit adds to a margin: `contribution` = `to_a` − `to_b`, in logits."""

    unit: int
    contribution: float
    to_a: float
    to_b: float


class TopUnits(NamedTuple):
    """The units that add most to a margin, `for_a`, and that take most from it, `for_b`."""

    for_a: list[UnitContrast]
    for_b: list[UnitContrast]


class Pair(NamedTuple):
    """The indices of the two classes of a contrast on one photo."""

    a: int
    b: int


@dataclass(frozen=True, eq=False)
class Contrast(Drawable):
    """Why class A and not class B, for a batch of photos: logit A − logit B, taken apart.

    `pairs` are the two classes of every photo. `margin` (batch) is logit A − logit B.
    `cams` (batch, row, col) and `contributions` (batch, unit) are signed: what is above 0
    speaks for A, what is below 0 for B. `of_both` (batch, 2, unit) is what units add to
    logit A and to logit B. `parts` (name → (batch)) add up to the margin, as those of an
    explanation do to the logit.

    `left_out` (batch) is what the contributions leave out: contributions + left_out =
    margin. With an exact head it is the difference of the biases; with a local answer what
    gradient × activation does not account for. With a residual one it is everything that
    no head gives (MLPs, embedding, bias …), while `beside_maps` is everything but the
    patches, which `cams` show.
    """

    explanation: Explained
    pairs: tuple[Pair, ...]
    margin: Float[Tensor, " batch"]
    cams: Float[Tensor, "batch row col"]
    contributions: Float[Tensor, "batch unit"]
    left_out: Float[Tensor, " batch"]
    of_both: Float[Tensor, "batch 2 unit"]
    parts: dict[str, Float[Tensor, " batch"]]

    @classmethod
    def of(
        cls,
        explanation: Explained,
        a: int | str | None = None,
        b: int | str | None = None,
    ) -> Contrast:
        """The contrast of two classes, each by default the best one that is not the other.

        Raises ClassError for classes that do not exist, for the same class twice, and
        where there is one class only.
        """
        pairs = _pairs(explanation, a, b)
        if len(set(pairs)) == 1:
            return cls._of_pair(explanation, pairs[0])
        each = [
            cls._of_pair(explanation[image], pair)
            for image, pair in enumerate(pairs)
        ]
        return cls(
            explanation,
            tuple(pairs),
            margin=torch.cat([one.margin for one in each]),
            cams=torch.cat([one.cams for one in each]),
            contributions=torch.cat([one.contributions for one in each]),
            left_out=torch.cat([one.left_out for one in each]),
            of_both=torch.cat([one.of_both for one in each]),
            parts={
                name: torch.cat([one.parts[name] for one in each])
                for name in each[0].parts
            },
        )

    @classmethod
    def _of_pair(cls, explanation: Explained, pair: Pair) -> Contrast:
        """The contrast of the same two classes on all photos."""
        margin = _difference(explanation.logits[:, list(pair)])
        of_both = explanation.contributions_of(pair)
        contributions = _difference(of_both)
        if explanation.head.maps_are_a_part:
            left_out = margin - contributions.sum(dim=1)
        else:
            left_out = _difference(explanation.left_out_of(pair))
        parts = explanation.parts_of(pair)
        return cls(
            explanation,
            (pair,) * len(explanation),
            margin,
            cams=_difference(explanation.cams_of(pair)),
            contributions=contributions,
            left_out=left_out,
            of_both=of_both,
            parts={name: _difference(part) for name, part in parts.items()},
        )

    def __repr__(self) -> str:
        if len(self) == 1:
            return f"<Contrast: {self.question()}, margin {float(self.margin):.2f}>"
        return f"<Contrast of two classes on each of {len(self)} photos>"

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def beside_maps(self) -> Float[Tensor, " batch"]:
        """What the maps leave out of the margin: mean(cams) + beside_maps = margin."""
        return self.margin - self.cams.mean(dim=(1, 2))

    def labels(self, image: int = 0) -> tuple[str, str]:
        """The labels of A and B on one photo."""
        a, b = self.pairs[image]
        return told_apart(self.explanation.labels, a, b)

    def question(self, image: int = 0) -> str:
        """The question in words: "why coast, not harbor".

        Where each class stands for itself, it is "why coast more than harbor".
        """
        a, b = self.labels(image)
        excludes = self.explanation.scores in _EXCLUDING
        return f"why {a}, not {b}" if excludes else f"why {a} more than {b}"

    def top_units(self, count: int = 8, image: int = 0) -> TopUnits:
        """The units that speak most for A, and those that speak most for B, on one photo.

        Largest first; fewer than `count` where fewer speak for a class at all.
        """
        values = self.contributions[image].detach().cpu()
        to_a, to_b = self.of_both[image].detach().cpu()

        def strongest(signed: Tensor) -> list[UnitContrast]:
            order = torch.argsort(signed, descending=True, stable=True)
            units = order[: max(0, count)].tolist()
            return [
                UnitContrast(
                    unit,
                    float(values[unit]),
                    float(to_a[unit]),
                    float(to_b[unit]),
                )
                for unit in units
                if signed[unit] > 0
            ]

        return TopUnits(strongest(values), strongest(-values))

    def evidence(self, region: Region) -> Float[Tensor, " batch"]:
        """What a region of the map adds to the margin, in logits.

        `region` (row, col) is as in `Explanation.evidence`: a cell gives (cams +
        beside_maps) / cells, so regions that tile the map add up to the margin.
        """
        share = area_of(region, self.cams)
        with without_autocast(self.cams):
            from_maps = torch.einsum("byx,yx->b", self.cams, share)
            return from_maps + share.sum() * self.beside_maps

    def on_photo(
        self,
        image: int = 0,
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> Float[np.ndarray, "height width"]:
        """The map of one photo laid where it belongs on it; NaN outside the crop.

        `size` is (width, height).
        """
        explanation = self.explanation
        maps = self.cams[image].detach().cpu().numpy()
        placement = explanation.subjects[image].placement(
            explanation.input_size
        )
        return lay_on_photo(
            maps, explanation.grid, placement, size, interpolation
        )

    def detach(self) -> Contrast:
        """The same contrast without gradients."""
        return dataclasses.replace(
            self,
            explanation=self.explanation.detach(),
            margin=self.margin.detach(),
            cams=self.cams.detach(),
            contributions=self.contributions.detach(),
            left_out=self.left_out.detach(),
            of_both=self.of_both.detach(),
            parts={name: part.detach() for name, part in self.parts.items()},
        )

    def _drawn(self) -> Contrast:
        return self.detach()


def _difference(values: Tensor) -> Tensor:
    """The values of class A less those of class B, which are along axis 1."""
    return values[:, 0] - values[:, 1]


def _pairs(
    explanation: Explained, a: int | str | None, b: int | str | None
) -> list[Pair]:
    """The two classes on every photo."""
    labels = explanation.labels
    if len(labels) < 2:
        raise ClassError(
            f"a contrast is between two classes, and there is one only, {labels[0]!r}: "
            "its contributions and map are in the explanation"
        )
    first = None if a is None else class_index(labels, a)
    second = None if b is None else class_index(labels, b)
    if first is not None and first == second:
        raise ClassError(
            f"both classes of the contrast are {labels[first]!r}: name two different "
            "ones, or one alone for a contrast with the best other class"
        )
    order = explanation.logits.detach().cpu()
    order = torch.argsort(order, dim=1, descending=True, stable=True)[:, :3]
    return [_pair(ranking, first, second) for ranking in order.tolist()]


def _pair(ranking: Sequence[int], a: int | None, b: int | None) -> Pair:
    """The classes asked for; the best others where none was."""
    if a is None:
        a = next(index for index in ranking if index != b)
    if b is None:
        b = next(index for index in ranking if index != a)
    return Pair(a, b)
