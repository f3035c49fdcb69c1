"""LocalExplanation: gradient × activation at a layer of any network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import (
    Classes,
    class_indices,
    largest_first,
)
from unitscope.attribution.explanation import Explanation, Units
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.map_change import OFF, MapChange
from unitscope.attribution.methods import Attribution
from unitscope.attribution.rounding import rounding_allowance
from unitscope.attribution.suffix import Suffix
from unitscope.errors import warn_user


@dataclass(frozen=True, eq=False, repr=False)
class LocalExplanation(Explanation):
    """Gradient × activation at a layer of any network, and the measured gap it leaves.

    How the gradients become maps is the method's matter (see `methods`). Maps are signed,
    and equal the exact ones where the head is exact. The gradients are of the rest of the
    network only (`suffix`); ablations are real forward passes of it.
    """

    head: LocalHead
    suffix: Suffix = dataclasses.field(kw_only=True)

    def cams_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class row col"]:
        """Signed maps of gradient × activation, in logits."""
        cams = [each.cam for each in self._of(classes)]
        return torch.stack(cams, dim=1)

    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every unit adds to the mean of the maps."""
        contributions = [each.contributions for each in self._of(classes)]
        return torch.stack(contributions, dim=1)

    def left_out_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class"]:
        """The measured gap: logit − mean of the map."""
        chosen = self._classes_or_all(classes)
        accounted_for = self.cams_of(chosen).mean(dim=(2, 3))
        return self.logits[:, chosen] - accounted_for

    def parts_of(
        self, classes: Classes | None
    ) -> dict[str, Float[Tensor, "batch class"]]:
        """See Explanation: the means of the maps, and what these leave out."""
        chosen = self._classes_or_all(classes)
        means = self.cams_of(chosen).mean(dim=(2, 3))
        return {
            self.layer: means,
            "left out": self.logits[:, chosen] - means,
        }

    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """The gradient of the logit for every unit, summed over the cells."""
        return self._of(which)[0].weights

    def changed(self, units: list[int], change: MapChange) -> LocalExplanation:
        """See Explanation: by a real pass of the rest of the network."""
        self.suffix.check_unchanged(self.feature_map, self.logits)
        feature_map = change.of_map(self.feature_map, units)
        suffix = self.suffix.changed(change, units)
        off, altered = change.marks(self.off, self.altered, units)
        return dataclasses.replace(
            self,
            logits=suffix.logits(feature_map),
            feature_map=feature_map,
            suffix=suffix,
            off=off,
            altered=altered,
        )

    def each_changed(
        self, units: list[int], change: MapChange
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """See Explanation: by real passes of the rest of the network."""
        self.suffix.check_unchanged(self.feature_map, self.logits)
        return self.suffix.logits_of_each(
            self.feature_map[0], self.logits[0], units, change
        )

    def ablate_each(
        self, classes: Classes | None = None, units: Units | None = None
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with each unit off in turn: one real pass of the rest for each."""
        chosen = self._units_or_all(units)
        places = {unit: place for place, unit in enumerate(chosen)}
        shape = (len(self), len(chosen), self.logits.shape[1])
        logits = self.logits.new_empty(shape)
        for image, photo in enumerate(self):
            for few, values in photo.each_changed(chosen, OFF):
                logits[image, [places[unit] for unit in few]] = values
        if classes is None:
            return logits
        return logits[:, :, class_indices(self.labels, classes)]

    def maximal_unit(self, which: int | str) -> int:
        """The unit that adds most to a class, on average over the photos."""
        contributions = self.contributions_of(which)[:, 0]
        on_average = contributions.mean(dim=0)
        return int(on_average.argmax())

    def classes_of_unit(
        self, unit: int, count: int = 3
    ) -> list[tuple[str, float]]:
        """The classes that gain most from a unit on average, and the gain (its weight).

        One backward pass of the rest of the network for every class.
        """
        chosen = self._chosen_units(unit)[0]
        gains = [each.weights[:, chosen].mean() for each in self._of(None)]
        return largest_first(torch.stack(gains), self.labels, count)

    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding in a network of this dtype may do, relative to the largest logit."""
        largest = self.logits.abs().amax(dim=1)
        allowed = rounding_allowance(16 * largest, self.logits, dtype)
        return float(allowed.detach().max())

    def joined(self, others: Sequence[Explanation]) -> LocalExplanation:
        """One explanation of these photos and, behind them, of those of others."""
        local = [
            other for other in others if isinstance(other, LocalExplanation)
        ]
        suffix = self.suffix.joined([other.suffix for other in local])
        joined = super().joined(local)
        assert isinstance(joined, LocalExplanation)
        return dataclasses.replace(joined, suffix=suffix)

    def detach(self) -> LocalExplanation:
        """The same explanation without gradients."""
        detached = super().detach()
        assert isinstance(detached, LocalExplanation)
        return dataclasses.replace(detached, suffix=self.suffix.detach())

    @cached_property
    def _attributions(self) -> dict[int, Attribution]:
        """The attributions of the classes that were asked for so far, by index."""
        return {}

    def _of(self, classes: Classes | None) -> list[Attribution]:
        """The attributions of some classes, computed where they are missing."""
        chosen = self._classes_or_all(classes)
        known, method = self._attributions, self.head.attributes_by
        missing = [
            index for index in dict.fromkeys(chosen) if index not in known
        ]
        if missing:

            def take(index: int, gradient: Tensor) -> None:
                known[index] = method.attribute(
                    gradient, self.feature_map, self.pooled
                )
                self._warn_of_no_gradient(index, gradient)

            self.suffix.gradients(self.feature_map, self.logits, missing, take)
        return [known[index] for index in chosen]

    def _warn_of_no_gradient(self, index: int, gradient: Tensor) -> None:
        """Warn of photos whose first class depends on no cell of the map."""
        if self.off or self.altered:
            return
        is_first = self.logits.argmax(dim=1) == index
        counts = gradient.flatten(1).any(dim=1)
        for image in (is_first & ~counts).nonzero().flatten().tolist():
            warn_user(
                f"on {self.subjects[image].name} no cell of layer '{self.layer}' counts "
                f"for the first class, '{self.labels[index]}': its map is 0 everywhere; "
                "a layer before it may count"
            )

    def _bias(self) -> float:
        return 0.0

    def _cut(self, image: int) -> LocalExplanation:
        cut = super()._cut(image)
        assert isinstance(cut, LocalExplanation)
        cut = dataclasses.replace(cut, suffix=self.suffix[image])
        photo = slice(image, image + 1)
        for index, attribution in self._attributions.items():
            parts = (values[photo] for values in attribution)
            cut._attributions[index] = Attribution(*parts)
        return cut
