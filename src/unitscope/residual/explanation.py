"""ResidualExplanation: the logits of a transformer as a sum of heads, tokens and MLPs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import (
    Classes,
    class_indices,
    largest_first,
)
from unitscope.attribution.effects import Effect, check_effect
from unitscope.attribution.explanation import Explanation, Units
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.rounding import relative_difference
from unitscope.errors import InputError, LayerError, near_matches
from unitscope.residual.head import ResidualHead
from unitscope.residual.replacement import HeadMeans, Replacement
from unitscope.residual.stream import Stream

# Heads per chunk of real passes; each chunk begins with a check of the network.
_HEADS_AT_ONCE = 64


@dataclass(frozen=True, eq=False, repr=False)
class ResidualExplanation(Explanation):
    """Why a classifier gave its logits, where these are read from a token's stream.

    A logit is the sum of its `parts`: what the token took from the patches and from other
    tokens through attention, what MLPs wrote for it, what it began with, and the bias.
    Maps are what the patches gave; so their mean is not the logit, and `left_out` is all
    the rest. Units are the heads of all blocks (`head.unit_names`), and their feature maps
    the attention that they pay to the patches: 1 everywhere where a head attends to all
    patches alike and to nothing else. The contribution of a head is what it gives through
    all tokens. The divisors of normalisations are held at what they were.

    Heads can be switched off in two ways. Directly, only what they write to the logits is
    gone: `direct_logits`, `direct_logits_each`, algebra. In total, later blocks react:
    `ablate`, `ablate_each`, `total_logits`, real forward passes.

    Sources: Elhage et al., A Mathematical Framework for Transformer Circuits, 2021;
    Gandelsman, Efros and Steinhardt, ICLR 2024.
    """

    head: ResidualHead
    stream: Stream = dataclasses.field(kw_only=True)

    def cams_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class row col"]:
        """What every patch gives, through all heads: signed maps, in logits."""
        return self._of(self.stream.account.maps, classes)

    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What every head gives, through all tokens."""
        return self._of(self.stream.account.contributions, classes)

    def left_out_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class"]:
        """What the maps leave out: all parts but that of the patches."""
        maps = self.cams_of(classes)
        return self._of(self.logits, classes) - maps.mean(dim=(2, 3))

    def parts_of(
        self, classes: Classes | None
    ) -> dict[str, Float[Tensor, "batch class"]]:
        """See Explanation: "patches", other tokens, "MLPs", "embedding" and "bias"."""
        parts = self.stream.account.parts
        return {name: self._of(part, classes) for name, part in parts.items()}

    def weights_of(self, which: int | str) -> Float[Tensor, "batch unit"]:
        """What a head gives for every 1 of its mean attention to the patches; 0 without any."""
        given = self.contributions_of(which)[:, 0]
        attention = self.pooled
        return torch.where(attention > 0, given / attention, 0.0)

    def head_maps(
        self, units: Units, classes: Classes | None = None
    ) -> Float[Tensor, "batch unit class row col"]:
        """What every patch gives through single heads: signed maps, in logits.

        The maps of all heads add up to `cams`. One more forward pass. Raises UnitError for
        a head that does not exist, and ModelError where the network has changed since.
        """
        chosen = self._chosen_units(units)
        return self.stream.head_maps(chosen, self._classes_or_all(classes))

    @property
    def writes(self) -> dict[str, Float[Tensor, "batch class"]]:
        """What every MLP writes to the logits, by layer; they add up to parts["MLPs"].

        An MLP that writes several times is told as `layer`, `layer:2` and so on.
        """
        return dict(zip(self._mlps(), self.stream.account.written, strict=True))

    def neurons(
        self, block: int | str, classes: Classes | None = None
    ) -> Float[Tensor, "batch neuron class"]:
        """What every neuron of an MLP writes to the logits, by its number or layer.

        With what its bias writes they add up to `writes` of that layer. One more forward
        pass. Raises LayerError where there is no such MLP, and ModelError where the
        network has changed since.
        """
        return self.stream.neurons(
            self._mlp(block), self._classes_or_all(classes)
        )

    def _mlps(self) -> list[str]:
        """The names of all MLPs."""
        names: list[str] = []
        for name in self.head.mlps:
            times = 1 + sum(each.split(":")[0] == name for each in names)
            names.append(name if times == 1 else f"{name}:{times}")
        return names

    def _mlp(self, block: int | str) -> int:
        """The number of an MLP."""
        names = self._mlps()
        if isinstance(block, str):
            if block in names:
                return names.index(block)
            near = near_matches(block, names)
            raise LayerError(
                f"there is no MLP '{block}' among the {len(names)} that write to the "
                f"logits{near}: explanation.writes names them"
            )
        is_number = hasattr(block, "__index__") and not isinstance(block, bool)
        if not is_number or not 0 <= block < len(names):
            raise LayerError(
                f"there is no MLP {block!r}: {len(names)} write to the logits, numbered "
                "from 0; explanation.writes names them"
            )
        return block

    def changed(
        self, units: list[int], change: MapChange
    ) -> ResidualExplanation:
        """The explanation with heads off, by a real forward pass: later blocks react.

        All tokens take nothing from these heads. Raises InputError for a region, and for a
        value: heads are replaced by those of other photos.
        """
        self.check_whole(change)
        stream = self.stream.without(units)
        off, altered = change.marks(self.off, self.altered, units)
        return dataclasses.replace(
            self,
            logits=stream.logits,
            feature_map=stream.account.attention,
            stream=stream,
            off=off,
            altered=altered,
        )

    def each_changed(
        self, units: list[int], change: MapChange
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """See Explanation: total effects."""
        self.check_whole(change)
        return self.each_replaced(units, None, "total")

    def each_replaced(
        self,
        units: list[int],
        by: ResidualExplanation | HeadMeans | None,
        effect: Effect,
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """Of one photo, the logits with each head off or replaced in turn, some at a time."""
        for start in range(0, len(units), _HEADS_AT_ONCE):
            few = units[start : start + _HEADS_AT_ONCE]
            if effect == "direct":
                yield few, self.direct_logits_each(None, few, by)[0]
            else:
                yield few, self.ablate_each(None, few, by)[0]

    def check_whole(self, change: MapChange) -> None:
        """Raise InputError for a change of attention maps that is not switching heads off."""
        if not change.is_plain:
            raise InputError(
                "heads of attention are switched off as a whole, or replaced by what they "
                "did on another photo (value=photo) or over a data set "
                "(value=Atlas.head_means(model)): for a region or a number, name a layer"
            )

    def logits_without(
        self, units: Units, effect: Effect = "total"
    ) -> Float[Tensor, "batch class"]:
        """See Explanation: `total_logits` or `direct_logits`."""
        check_effect(effect, self.head)
        return self.logits_replaced(units, None, effect)

    def logits_replaced(
        self,
        units: Units,
        by: ResidualExplanation | HeadMeans | None,
        effect: Effect,
    ) -> Float[Tensor, "batch class"]:
        """`total_logits` or `direct_logits`."""
        if effect == "direct":
            return self.direct_logits(units, by)
        return self.total_logits(units, by)

    def ablate_each(
        self,
        classes: Classes | None = None,
        units: Units | None = None,
        by: ResidualExplanation | HeadMeans | None = None,
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with each head off in turn: total effects, by real forward passes.

        With `by` a head is not silent, but all tokens take from it what those of other
        photos did, on average: with one photo that is patching. `Atlas.head_means` has the
        mean over a data set.
        """
        chosen = self._units_or_all(units)
        logits = self.stream.total_logits_each(chosen, _replacement(by))
        return logits[:, :, self._classes_or_all(classes)]

    def total_logits(
        self, units: Units, by: ResidualExplanation | HeadMeans | None = None
    ) -> Float[Tensor, "batch class"]:
        """The logits of a real forward pass with heads off, or replaced: see `ablate_each`."""
        chosen = self._chosen_units(units)
        return self.stream.total_logits(chosen, _replacement(by))

    def direct_logits(
        self, units: Units, by: ResidualExplanation | HeadMeans | None = None
    ) -> Float[Tensor, "batch class"]:
        """The logits without what heads write to them, all else held: a direct effect.

        The divisors of normalisations follow. With `by`, the heads write what they did for
        other photos, on average. No forward pass but one to check those.
        """
        keep = torch.ones((1, self.feature_map.shape[1]))
        keep[:, self._chosen_units(units)] = 0
        return self.stream.direct_logits(keep, _replacement(by))[:, 0]

    def direct_logits_each(
        self,
        classes: Classes | None = None,
        units: Units | None = None,
        by: ResidualExplanation | HeadMeans | None = None,
    ) -> Float[Tensor, "batch unit class"]:
        """The same for each head, or each of `units`, in turn."""
        chosen = self._units_or_all(units)
        keep = torch.ones((len(chosen), self.feature_map.shape[1]))
        keep[range(len(chosen)), chosen] = 0
        logits = self.stream.direct_logits(keep, _replacement(by))
        return logits[:, :, self._classes_or_all(classes)]

    def maximal_unit(self, which: int | str) -> int:
        """The head that gives most to a class, on average over the photos."""
        return int(self.contributions_of(which)[:, 0].mean(dim=0).argmax())

    def classes_of_unit(
        self, unit: int | str, count: int = 3
    ) -> list[tuple[str, float]]:
        """The classes to which a head gives most on average, and what it gives."""
        chosen = self._chosen_units(unit)[0]
        gains = self.contributions_of(None)[:, :, chosen].mean(dim=0)
        return largest_first(gains, self.labels, count)

    def block_contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class block"]:
        """What the heads of every block give together, through all tokens."""
        given = self.contributions_of(classes)
        units = range(given.shape[2])
        return self._by_block(
            given, [self.head.block_of(unit) for unit in units]
        )

    def block_writes_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class block"]:
        """What the MLPs of every block write: those between its attention and the next."""
        written = [
            self._of(each, classes) for each in self.stream.account.written
        ]
        empty = self._of(self.logits, classes)[..., None][..., :0]
        given = torch.stack(written, dim=-1) if written else empty
        return self._by_block(given, self.stream.path.blocks_of_mlps)

    def _by_block(
        self, given: Float[Tensor, "batch class each"], blocks: Sequence[int]
    ) -> Float[Tensor, "batch class block"]:
        sums = given.new_zeros((*given.shape[:2], len(self.head.blocks)))
        where = torch.tensor(blocks, dtype=torch.long, device=given.device)
        return sums.index_add(2, where, given)

    def parts_error(self) -> float:
        """How far the sum of all parts is from the logits, relative to the largest one."""
        total = self.stream.account.total()
        return float(relative_difference(total, self.logits).max())

    def rounding_error(self, dtype: torch.dtype) -> float:
        """What rounding may do to the sum of all parts, relative to the largest logit."""
        return float(self.stream.account.rounding(self.logits, dtype).max())

    def joined(self, others: Sequence[Explanation]) -> ResidualExplanation:
        """One explanation of these photos and, behind them, those of others."""
        same = [
            each for each in others if isinstance(each, ResidualExplanation)
        ]
        joined = super().joined(same)
        assert isinstance(joined, ResidualExplanation)
        stream = self.stream.joined([each.stream for each in same])
        return dataclasses.replace(joined, stream=stream)

    def _chosen_units(self, units: Units) -> list[int]:
        return self.head.chosen(units)

    def _of(self, values: Tensor, classes: Classes | None) -> Tensor:
        """The values of some classes, which are along axis 1."""
        if classes is None:
            return values
        return values[:, class_indices(self.labels, classes)]

    def _bias(self) -> Float[Tensor, "batch class"]:
        parts = self.stream.account.parts
        return self.stream.account.total() - parts["patches"]

    def _cut(self, image: int) -> ResidualExplanation:
        cut = super()._cut(image)
        assert isinstance(cut, ResidualExplanation)
        return dataclasses.replace(cut, stream=self.stream[image])


def _replacement(
    by: ResidualExplanation | HeadMeans | None,
) -> Replacement | None:
    if by is None or isinstance(by, HeadMeans):
        return by
    if isinstance(by, ResidualExplanation):
        return by.stream
    raise InputError(
        f"by is a residual explanation of other photos, or Atlas.head_means(model), not "
        f"{type(by).__name__}"
    )
