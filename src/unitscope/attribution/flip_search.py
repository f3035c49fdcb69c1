"""Flip search: what to switch off so that another class wins, smallest where that is provable."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unitscope.attribution.arrays import in_float64
from unitscope.attribution.classes import class_index
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.explained import Explained
from unitscope.attribution.flip import FLIPPINGS, Flip, Flipping
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.rounding import LEAST_ROUNDING
from unitscope.counts import is_count
from unitscope.errors import ClassError, InputError

# Classes per chunk: their differences to A are (class, unit) in float64.
_CLASSES_AT_ONCE = 1024

# Each class of a local answer costs a backward pass, so that only the best are tried.
_LOCAL_CLASSES = 4

# Sets up to this size are tried without each of their members, one pass each.
_MOST_PRUNED = 16

# Cells from which a connected region is grown.
_SEEDS = 16


def find_flip(
    explanation: Explained,
    to: int | str | None,
    of: Flipping,
    most: int | None,
) -> Flip:
    """What flips the prediction for one photo: see `Flip`.

    Raises ClassError for a class that does not exist or is first already, and InputError
    for cells of a map that cannot be switched off alone.
    """
    if of not in FLIPPINGS:
        known = ", ".join(map(repr, FLIPPINGS))
        raise InputError(f"of is one of {known}, not {of!r}")
    _check_most(most)
    search = _Search.of(explanation, to, most)
    if of == "units":
        return search.units()
    _check_cells(explanation)
    return search.cells() if of == "cells" else search.region()


class _Choice(NamedTuple):
    """The class that needs fewest items to overtake: how many, and the items, best first.

    `size` is None where no number of them is enough. Only items that help are listed.
    """

    differences: Float[Tensor, " item"]
    margin: float
    items: list[int]
    size: int | None


@dataclass(frozen=True, eq=False)
class _Search:
    """One search: the class that wins, and the one that shall overtake it (None: any).

    Classes `others` are tried. `most` limits the size of the set.
    """

    explanation: Explained
    a: int
    to: int | None
    others: list[int]
    most: int | None

    @classmethod
    def of(
        cls, explanation: Explained, to: int | str | None, most: int | None
    ) -> _Search:
        labels = explanation.labels
        if len(labels) < 2:
            raise ClassError(
                f"nothing can overtake {labels[0]!r}, the only class: what the logit "
                "becomes without units is in explanation.ablate_each()"
            )
        logits = explanation.logits[0].cpu()
        order = torch.argsort(logits, descending=True, stable=True).tolist()
        a, *others = order
        if to is None:
            if not explanation.head.adds_up:
                others = others[:_LOCAL_CLASSES]
            return cls(explanation, a, None, others, most)
        index = class_index(labels, to)
        if index == a:
            raise ClassError(
                f"{labels[a]!r} is the first class already: name another one that shall "
                "overtake it, or none for any"
            )
        return cls(explanation, a, index, [index], most)

    @cached_property
    def allowed(self) -> float:
        """The lead that rounding may give."""
        return LEAST_ROUNDING * float(self.explanation.logits.abs().max())

    @property
    def is_sum(self) -> bool:
        """Whether logits are sums over units, so that the order of differences is proof."""
        head = self.explanation.head
        return isinstance(head, ExactHead) and head.readout.norm is None

    @property
    def limit(self) -> float:
        return torch.inf if self.most is None else self.most

    # ---- units

    def units(self) -> Flip:
        """The fewest units."""

        def given(classes: list[int]) -> Tensor:
            return self.explanation.contributions_of(classes)[0]

        choice = self._choose(given)
        if self.is_sum:
            found = self._fewest(choice)
        else:
            found = self._greedy(choice.items, self._without_units)
        if found is None:
            return self._nothing("units", proved=self.is_sum)
        after = self._without_units(found)
        return self._flip("units", after, self.is_sum, units=found)

    def _without_units(self, units: Sequence[int]) -> Float[Tensor, " class"]:
        return self.explanation.logits_without(list(units))[0]

    # ---- cells

    def cells(self) -> Flip:
        """The fewest cells, wherever they are."""
        choice = self._choose(self._maps)
        if self.is_sum:
            found = self._fewest(choice)
        else:
            found = self._greedy(choice.items, self._without_cells)
        return self._flip_of_cells("cells", found, self.is_sum)

    def region(self) -> Flip:
        """A small connected region, grown from cell to cell."""
        choice = self._choose(self._maps)
        rows, cols = self.explanation.feature_map.shape[2:]
        values = choice.differences.reshape(rows, cols)
        if not self.is_sum:
            seed = int(choice.differences.argmax())
            found = self._first(
                _grown(values, seed)[: self.most], self._without_cells
            )
            return self._flip_of_cells("region", found, proved=False)

        regions = [
            region
            for seed in choice.items[:_SEEDS]
            if (region := self._region_from(seed, choice, values)) is not None
        ]
        found = min(regions, key=len, default=None)
        size = choice.size
        # No region can be smaller than the fewest cells that need not hang together.
        proved = size is None if found is None else len(found) == size
        return self._flip_of_cells("region", found, proved)

    def _region_from(
        self, seed: int, choice: _Choice, values: Float[Tensor, "row col"]
    ) -> list[int] | None:
        """The cells that turn the margin of a sum, grown from one cell."""
        order = _grown(values, seed)
        gained = choice.differences[order].cumsum(0) - choice.margin
        turned = (gained > self.allowed).nonzero().flatten()
        if not len(turned) or int(turned[0]) + 1 > self.limit:
            return None
        return order[: int(turned[0]) + 1]

    def _maps(self, classes: list[int]) -> Tensor:
        """What every cell gives of the logits of some classes."""
        maps = self.explanation.cams_of(classes)[0].flatten(1)
        return maps / maps.shape[1]

    def _without_cells(self, cells: Sequence[int]) -> Float[Tensor, " class"]:
        units, rows, cols = self.explanation.feature_map.shape[1:]
        region = torch.zeros(rows * cols)
        region[list(cells)] = 1
        change = MapChange.of(0, region.reshape(rows, cols), (rows, cols))
        every = list(range(units))
        return self.explanation.changed(every, change).logits[0]

    def _flip_of_cells(
        self, of: Flipping, found: list[int] | None, proved: bool
    ) -> Flip:
        if found is None:
            return self._nothing(of, proved)
        return self._flip(of, self._without_cells(found), proved, cells=found)

    # ---- the search

    def _choose(self, given: Callable[[list[int]], Tensor]) -> _Choice:
        """The class that needs fewest items, by what these give of A less what of it.

        Of two that need as many it is the one that then leads by more.
        """
        logits = in_float64(self.explanation.logits[0])
        best, best_score = None, (torch.inf, torch.inf)
        for begin in range(0, len(self.others), _CLASSES_AT_ONCE):
            chunk = self.others[begin : begin + _CLASSES_AT_ONCE]
            of_a, *_ = values = in_float64(given([self.a, *chunk]))
            differences = of_a - values[1:]
            margins = logits[self.a] - logits[chunk]
            sizes, leads = _sizes(differences, margins, self.allowed)
            for place, score in enumerate(zip(sizes, leads, strict=True)):
                size, lead = score
                if (size, -lead) < best_score:
                    best_score = (size, -lead)
                    best = (differences[place], float(margins[place]))

        assert best is not None
        differences, margin = best
        order = torch.argsort(differences, descending=True, stable=True)
        helping = order[differences[order] > 0].tolist()
        size = best_score[0]
        return _Choice(
            differences,
            margin,
            helping,
            None if size == torch.inf else int(size),
        )

    def _fewest(self, choice: _Choice) -> list[int] | None:
        """The items that turn a margin which is a sum: no fewer ones do."""
        if choice.size is None or choice.size > self.limit:
            return None
        return choice.items[: choice.size]

    def _greedy(
        self,
        order: list[int],
        logits_without: Callable[[Sequence[int]], Tensor],
    ) -> list[int] | None:
        """The first items whose switching off turns the prediction, less those not needed.

        More than are allowed are tried where enough of them may turn out not to be needed.
        """
        most = None if self.most is None else max(self.most, _MOST_PRUNED)
        chosen = self._first(order[:most], logits_without)
        if chosen is None or len(chosen) > _MOST_PRUNED:
            return chosen
        for item in reversed(chosen[:-1]):
            fewer = [other for other in chosen if other != item]
            if self._turned(logits_without(fewer)):
                chosen = fewer
        return chosen if len(chosen) <= self.limit else None

    def _first(
        self,
        order: list[int],
        logits_without: Callable[[Sequence[int]], Tensor],
    ) -> list[int] | None:
        """The beginning of an order that turns the prediction, where one item less does not.

        Twice as many are tried each time, then the number between is halved: few passes.
        """
        if not order:
            return None
        few, enough = 0, 1
        while not self._turned(logits_without(order[:enough])):
            if enough == len(order):
                return None
            few, enough = enough, min(2 * enough, len(order))
        while enough - few > 1:
            middle = (few + enough) // 2
            if self._turned(logits_without(order[:middle])):
                enough = middle
            else:
                few = middle
        return order[:enough]

    def _turned(self, logits: Float[Tensor, " class"]) -> bool:
        lead = in_float64(logits)
        lead = lead - lead[self.a]
        most = lead.max() if self.to is None else lead[self.to]
        return float(most) > self.allowed

    # ---- results

    def _flip(
        self,
        of: Flipping,
        after: Float[Tensor, " class"],
        proved: bool,
        units: Sequence[int] = (),
        cells: Sequence[int] = (),
    ) -> Flip:
        cols = self.explanation.feature_map.shape[3]
        b = int(after.argmax()) if self.to is None else self.to
        return Flip(
            self.explanation,
            of,
            self.a,
            b,
            tuple(units),
            tuple(divmod(cell, cols) for cell in cells),
            # Nothing is smaller than one.
            minimal=proved or len(units) + len(cells) == 1,
            after=after,
            to=self.to,
            most=self.most,
        )

    def _nothing(self, of: Flipping, proved: bool) -> Flip:
        return Flip(
            self.explanation,
            of,
            self.a,
            None,
            (),
            (),
            minimal=proved,
            after=self.explanation.logits[0],
            to=self.to,
            most=self.most,
        )


def _check_most(most: int | None) -> None:
    if most is not None and not is_count(most, 1):
        raise InputError(
            f"most is how many may be switched off at most, 1 or more, not {most!r}"
        )


def _check_cells(explanation: Explained) -> None:
    """Raise InputError where cells of the map are no places that can be switched off."""
    head = explanation.head
    if head.maps_are_a_part:
        raise InputError(
            "the map of a residual answer shows what heads took from patches, which cannot "
            "be switched off there: ask for of='units', or explain at a layer (layer=…)"
        )
    if isinstance(head, ExactHead):
        (source, *others) = head.sources
        if others or not source.is_plain:
            raise InputError(
                f"the head reads {head.describe()}: a cell that is off changes what its "
                "pools take from the others; ask for of='units', or explain at a layer "
                "(layer=…, method='hirescam')"
            )


def _sizes(
    differences: Float[Tensor, "class item"],
    margins: Float[Tensor, " class"],
    allowed: float,
) -> tuple[list[float], list[float]]:
    """For every class how many items turn its margin, largest first, and by how much.

    The size is infinite where all are not enough, or where another class needs fewer.
    """
    items = differences.shape[1]
    helping = differences.clamp(min=0)
    size = 1
    while True:
        most = helping.topk(size, dim=1).values
        leads = most.cumsum(dim=1) - margins[:, None]
        turned: Bool[Tensor, "class size"] = leads > allowed
        if size == items or bool(turned.any()):
            break
        size = min(items, 4 * size)

    ever = turned.any(dim=1)
    first = torch.where(ever, turned.int().argmax(dim=1), size - 1)
    reached = leads.gather(1, first[:, None])[:, 0]
    sizes = torch.where(ever, (first + 1).to(reached), torch.inf)
    return sizes.tolist(), reached.tolist()


def _grown(values: Float[Tensor, "row col"], seed: int) -> list[int]:
    """All cells in the order in which a region takes the largest beside it, from a seed."""
    cols = values.shape[1]
    flat = values.flatten().tolist()
    waiting = [(-flat[seed], seed)]
    seen, order = {seed}, []
    while waiting:
        _, cell = heapq.heappop(waiting)
        order.append(cell)
        for beside in _beside(cell, len(flat), cols):
            if beside not in seen:
                seen.add(beside)
                heapq.heappush(waiting, (-flat[beside], beside))
    return order


def _beside(cell: int, cells: int, cols: int) -> Iterator[int]:
    """The cells that share a side with a cell."""
    if cell >= cols:
        yield cell - cols
    if cell + cols < cells:
        yield cell + cols
    if cell % cols:
        yield cell - 1
    if (cell + 1) % cols:
        yield cell + 1
