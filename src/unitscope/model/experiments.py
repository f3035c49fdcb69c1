"""Experiments: what is done to a network's units to see what becomes of a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.classes import Classes
from unitscope.attribution.effects import Effect
from unitscope.attribution.explanation import Units
from unitscope.attribution.flip import Flip, Flipping
from unitscope.attribution.full_gradient import FullGradient
from unitscope.attribution.region import Region
from unitscope.attribution.screening import Screening
from unitscope.attribution.unit_ablations import UnitAblations
from unitscope.attribution.unit_inputs import UnitInputs
from unitscope.attribution.value import UnitMeans, as_float, is_number
from unitscope.errors import InputError
from unitscope.model.ablating import ablation, ablations
from unitscope.model.explaining import Asked, explained
from unitscope.model.fullgrad import full_gradient
from unitscope.model.intervention import Intervention, Put
from unitscope.model.one_layer_back import inputs_of
from unitscope.model.question import Question
from unitscope.model.reading import Input
from unitscope.model.real_passes import logits_without
from unitscope.model.screening import screening
from unitscope.residual.replacement import HeadMeans

Values: TypeAlias = "float | UnitMeans | HeadMeans | Input"
"""What is put in place of units: a number, means over a data set, or photos."""


class Experiments(ABC):
    """The questions of a classifier that change something in its network and run it again."""

    @abstractmethod
    def _batches(
        self, x: Input, batch_size: int, also: Mapping[str, Any] | None
    ) -> Iterator[Asked]:
        """What is asked about, in batches, each with the explainer for it."""

    def ablate(
        self,
        x: Input,
        layer: str | None = None,
        units: Units | None = (),
        *,
        region: Region | None = None,
        value: Values = 0.0,
        effect: Effect = "total",
        also: Mapping[str, Any] | None = None,
        batch_size: int = 16,
    ) -> Ablation:
        """Switch units of a layer off and classify again: logits `.before` and `.after`.

        `units` None are all of the layer: a whole block. With a `region` (see `Region`: a
        cell, rows and columns, or an array) only these cells of the maps change. A region
        or a value without units is for all of them. Their `value` becomes 0, another
        number, the mean over a data set (`Atlas.unit_means(model, layer)`), or what the
        units did on other photos: one photo, or one for each, which get what is in `also`
        too.

        On the head's feature map (`layer` None, or the head's layer) the algebra gives the
        answer from one forward pass. At any other layer a second forward pass runs with
        the maps changed.

        Where units are attention heads, later blocks react in the "total" `effect`: a
        real forward pass. The "direct" one takes only what the heads write to the logits.
        Raises InputError for a direct effect at a layer that has none, and for a region or
        a value that does not fit.
        """
        put = self._put(value, batch_size, also)
        is_given = region is not None or not (is_number(value) and not value)
        if is_given and isinstance(units, tuple) and not units:
            units = None
        wanted = Intervention(layer, units, region, put, effect)
        return ablation(self._batches(x, batch_size, also), wanted)

    def ablations(
        self,
        x: Input,
        layer: str | None = None,
        units: Units | None = None,
        *,
        region: Region | None = None,
        value: Values = 0.0,
        effect: Effect = "total",
        also: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> UnitAblations:
        """Switch every unit of a layer off, or each of `units`, one at a time.

        The arguments are those of `ablate`. On the head's feature map it is algebra. At
        any other layer the network runs once; copies of the layer's maps then run through
        what follows it, some at a time. `progress` is called with the number of units done.

        Raises AblationsInterrupted, whose `partial` has what was done, on Ctrl-C.
        """
        put = self._put(value, batch_size, also)
        wanted = Intervention(layer, units, region, put, effect)
        batches = self._batches(x, batch_size, also)
        return ablations(batches, wanted, progress)

    def ablate_each(
        self,
        x: Input,
        layer: str | None = None,
        units: Units | None = None,
        **options: Any,
    ) -> Float[Tensor, "batch unit class"]:
        """The logits with every unit of a layer off in turn: see `ablations`."""
        return self.ablations(x, layer, units, **options).after

    def forward_without(
        self,
        x: Input,
        units: Units,
        layer: str | None = None,
        *,
        region: Region | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Logits (batch, class) of a real forward pass with units at zero.

        What `explain(x).ablate(units).logits` must equal: the slow way proves the fast one.
        """
        parts = [
            logits_without(asked, units, layer, region)
            for asked in self._batches(x, 16, also)
        ]
        return torch.cat(parts)

    def screen(
        self,
        x: Input,
        which: int | str | None = None,
        layers: str | Sequence[str] | None = None,
        verify: int = 0,
        *,
        also: Mapping[str, Any] | None = None,
        batch_size: int = 4,
    ) -> Screening:
        """Estimate what switching off each unit of each layer does to a class's logit.

        One forward and one backward pass, as the network is, give the estimates to first
        order: −Σ gradient · activation. `which` is a class by label or index (default:
        each photo's top class), `layers` are names (default: every layer with a map; of
        several with one output the outermost). `verify` units with the largest
        |estimates|, and as many drawn at random, are then switched off by real passes.

        Raises HeadError where no gradient can be had, LayerError for a layer that does not
        exist or gives no map, ClassError.
        """
        batches = self._batches(x, batch_size, also)
        return screening(batches, which, layers, verify)

    def fullgrad(
        self,
        x: Input,
        classes: Classes | None = None,
        *,
        also: Mapping[str, Any] | None = None,
        batch_size: int = 4,
    ) -> FullGradient:
        """Logits as sums over the pixels of the input and the biases of all layers.

        FullGrad (Srinivas & Fleuret 2019): an identity for networks that are piecewise
        linear. Elsewhere the gap is measured, `.left_out`. One forward pass, and one
        backward pass for each of the `classes`, given by label or index (default: each
        photo's first class).

        Raises HeadError where no gradient can be had, ClassError.
        """
        return full_gradient(self._batches(x, batch_size, also), classes)

    def inputs_of(
        self,
        x: Input,
        layer: str,
        unit: int,
        cell: Sequence[int] | str | None = None,
        *,
        also: Mapping[str, Any] | None = None,
    ) -> UnitInputs:
        """What a unit of a layer is made of on one photo: a sum over earlier units.

        The pre-activation at a `cell` (row, col) is the bias and what every earlier unit
        and cell of its convolution, linear layer or sum of branches gives. The default is
        the cell with the largest one; "mean" is the mean over the map. `.follow()` goes
        further back.

        Raises LayerError for a layer that does not exist or is no sum (a normalisation,
        attention, a maximum), UnitError, InputError for several photos.
        """
        asked = next(self._batches(x, 2, also))
        return inputs_of(asked, layer, unit, cell)

    def flip(
        self,
        x: Input,
        to: int | str | None = None,
        *,
        of: Flipping = "units",
        most: int | None = None,
        layer: str | None = None,
        method: str | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> Flip:
        """What flips the prediction for one photo, confirmed by a real forward pass.

        The options are those of `explain` and of `Explanation.flip`. Raises InputError for
        several photos, and what those two raise.
        """
        batches = self._batches(x, 1, also)
        with torch.no_grad():
            explanation = explained(batches, Question(layer, method))
        if len(explanation) != 1:
            raise InputError(
                f"a flip is of one photo, not of {len(explanation)}: ask for each in turn, "
                "or explain them all and call explanation.flip(image=…)"
            )
        return self.confirmed(explanation.flip(to, of=of, most=most))

    def confirmed(self, flip: Flip) -> Flip:
        """A flip with the logits of a real forward pass without its units or cells.

        Cells that are off beside units, and what is off beside other values, are returned
        as they are: no one pass does both.
        """
        explained = flip.explanation
        if not flip.found or explained.altered:
            return flip
        if flip.cells and explained.off:
            return flip
        layer = None if explained.head.adds_up else explained.head.layer
        units = [*explained.off, *flip.units]
        region = None
        if flip.cells:
            units = list(range(explained.feature_map.shape[1]))
            region = flip.region
        logits = self.forward_without(
            explained.inputs(), units, layer, region=region, also=explained.also
        )
        return flip.confirmed_by(logits[0])

    def _put(
        self, value: Values, batch_size: int, also: Mapping[str, Any] | None
    ) -> Put:
        """What is put in place of units: photos are read. Raises InputError."""
        if isinstance(value, (UnitMeans, HeadMeans)):
            return value
        if is_number(value):
            return as_float(value)
        if value is None or isinstance(value, (bool, complex)):
            raise InputError(
                "what is put in place of units is a number, photos, or the means of an atlas "
                f"(Atlas.unit_means), not {value!r}"
            )
        return list(self._batches(cast(Input, value), batch_size, also))
