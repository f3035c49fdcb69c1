"""ExactExplanation: the algebra of an exact head on one forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import cell_means
from unitscope.attribution.classes import (
    Classes,
    class_indices,
    largest_first,
)
from unitscope.attribution.exact_heads import ClassIndices, ExactHead
from unitscope.attribution.explanation import Explanation, Units
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.rounding import rounding_error
from unitscope.errors import InputError
from unitscope.tracing.layers import checked_count

# Units per chunk where each gets another value.
_FEW = 64


@dataclass(frozen=True, eq=False, repr=False)
class ExactExplanation(Explanation):
    """Why a classifier with an exact head gave its logits.

    Everything is algebra on the numbers of one forward pass, and each kind of head brings
    its own (see `exact_heads`): class activation maps, contributions of units, and the
    logits with any units switched off. `logits` are the network's own while no unit is
    off, and the algebra's otherwise.
    """

    head: ExactHead

    def cams_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class row col"]:
        """Signed class activation maps, in logits."""
        chosen = self._indices(classes)
        return self.head.cams(self.feature_map, self.pooled, chosen)

    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the logits."""
        return self.head.contributions(self.pooled, self._indices(classes))

    def left_out_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class"]:
        """The head's bias, and the constants of a projection over the photo's divisor."""
        return self.head.left_out(self.pooled, self._indices(classes))

    def parts_of(
        self, classes: Classes | None
    ) -> dict[str, Float[Tensor, "batch class"]]:
        """See Explanation: a part for every pool of a feature map, and the bias."""
        parts = self.head.parts(self.pooled)
        chosen = self._indices(classes)
        if chosen is None:
            return parts
        return {name: part[:, chosen] for name, part in parts.items()}

    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """The head's weights of a class, over the normalisation's divisor."""
        return self.head.weights_of_class(self.pooled, self.class_index(which))

    def changed(self, units: list[int], change: MapChange) -> ExactExplanation:
        """See Explanation: algebra, equal to a real forward pass.

        Raises InputError for a region or a value where pools do not take the mean of the
        maps: what they would take is not known.
        """
        self._check_algebra(units, change)
        feature_map = change.of_map(self.feature_map, units)
        off, altered = change.marks(self.off, self.altered, units)
        return dataclasses.replace(
            self,
            logits=self.head.logits(cell_means(feature_map)),
            feature_map=feature_map,
            off=off,
            altered=altered,
        )

    def each_changed(
        self, units: list[int], change: MapChange
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """See Explanation: algebra."""
        self._check_algebra(units, change)
        if change.is_plain:
            for few, logits in self.ablations(None, units):
                yield few, logits[0]
            return
        every = list(range(self.feature_map.shape[1]))
        pooled = cell_means(change.of_map(self.feature_map, every))[0]
        for start in range(0, len(units), _FEW):
            few = units[start : start + _FEW]
            variants = self.pooled.repeat(len(few), 1)
            variants[range(len(few)), few] = pooled[few]
            yield few, self.head.logits(variants)

    def _check_algebra(self, units: list[int], change: MapChange) -> None:
        if not change.is_plain and not self.head.gives_activations(units):
            raise InputError(
                "the cells of these maps hold shares of what pools take, so that a region or "
                f"a value of them is no algebra: name a layer, as in "
                f"model.ablate(x, layer={self.layer!r}, …), and real passes measure it"
            )

    def ablate_each(
        self, classes: Classes | None = None, units: Units | None = None
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit, or each of `units`, off in turn, in closed form.

        Without a normalisation they are logit[c] − contribution[c,u].
        """
        chosen = self._indices(classes)
        if units is None:
            return self.head.logits_without_each(
                self.pooled, self.logits, chosen
            )
        chunks = [logits for _, logits in self.ablations(classes, units)]
        if chunks:
            return torch.cat(chunks, dim=1)
        count = len(self.labels) if chosen is None else len(chosen)
        return self.logits.new_empty((len(self), 0, count))

    def ablations(
        self,
        classes: Classes | None = None,
        units: Units | None = None,
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "batch few class"]]]:
        """See Explanation."""
        return self.head.logits_without_few(
            self.pooled,
            self.logits,
            self._indices(classes),
            self._units_or_all(units),
            checked_count(at_once),
        )

    def maximal_unit(self, which: int | str) -> int:
        """The unit of the largest weight, argmax_u W[class, u]: the same for every photo."""
        index = self.class_index(which)
        return int(self.head.weight[index].argmax())

    def classes_of_unit(
        self, unit: int, count: int = 3
    ) -> list[tuple[str, float]]:
        """The classes with the unit's largest weights, and those weights."""
        chosen = self._chosen_units(unit)[0]
        weights = self.head.weight[:, chosen]
        return largest_first(weights, self.labels, count)

    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding may do to sums of contributions, relative to the largest logit."""
        readout = self.head.readout
        error = rounding_error(self.logits, self.feature_map, readout, dtype)
        return float(error.detach().max())

    def detach(self) -> ExactExplanation:
        """The same explanation without gradients."""
        detached = super().detach()
        assert isinstance(detached, ExactExplanation)
        readout = self.head.readout.detach()
        head = dataclasses.replace(self.head, readout=readout)
        return dataclasses.replace(detached, head=head)

    def _bias(self) -> Float[Tensor, "batch class"]:
        return self.left_out

    def _indices(self, classes: Classes | None) -> ClassIndices:
        return None if classes is None else class_indices(self.labels, classes)
