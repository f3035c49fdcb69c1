"""Local search: find the layer at which a local answer is best given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.methods import DEFAULT_METHOD
from unitscope.attribution.places import lie_in_place
from unitscope.attribution.probes import probes
from unitscope.attribution.suffix import Suffix, suffix_after
from unitscope.errors import HeadError, ModelError
from unitscope.tracing.calling import Calling
from unitscope.tracing.cuts import Cuts
from unitscope.tracing.ending import IN_OUTPUT, Ending
from unitscope.tracing.layers import Layer, captured
from unitscope.tracing.trace import Trace

# A share of |gradient|·|activation| below this is rounding and nothing else.
_SILENT = 1e-3


class NothingCountsError(HeadError):
    """At most one cell of a layer counts for the logits, on the inputs that were tried."""


class Photos(NamedTuple):
    """A user's own inputs (batch, channel, row, col), and their names.

    `calling` says what the network is given beside them.
    """

    batch: Tensor
    names: tuple[str, ...]
    calling: Calling = Calling()

    def __str__(self) -> str:
        others = len(self.names) - 1
        return self.names[0] + (f" and {others} more" if others else "")


def find_local(
    module: nn.Module,
    example: Tensor,
    traced: Trace,
    layers: Sequence[Layer],
    reason: str,
    layer: Layer | None = None,
    method: str = DEFAULT_METHOD,
    photos: Photos | None = None,
    ending: Ending = IN_OUTPUT,
) -> LocalHead:
    """Find where a local answer is best given, or try the `layer` that is named.

    The best layer is the last one with several cells that everything passes through (else
    any), and of whose cells more than one counts: after the last attention block of a ViT
    only the class token counts, so there it is the block before. Where a normalisation
    then reads every cell by itself (in a ViT's next block), it is that normalisation's
    output. `reason` says why no head is exact.

    Everything is measured on three random inputs, on each of which the layer must count;
    or else on `photos`, on one of which it must.

    Raises HeadError where there is no such layer; it is NothingCountsError where other
    inputs may find one.
    """
    search = _Search(
        module, example, traced, layers, reason, method, ending, photos
    )
    if layer is not None:
        return search.measured(layer)

    first_refusal: HeadError | ModelError | None = None
    may_count = False
    for candidate in search.candidates():
        try:
            head = search.measured(candidate)
        except (HeadError, ModelError) as error:
            if first_refusal is None and search.is_constant():
                raise _constant(reason, photos) from None
            first_refusal = first_refusal or error
            may_count = may_count or isinstance(error, NothingCountsError)
            continue
        if head.silent:
            return search.after_normalisation(candidate) or head
        return head
    kind = NothingCountsError if may_count else HeadError
    raise kind(reason + _why_none(traced, first_refusal)) from None


def _constant(reason: str, photos: Photos | None) -> NothingCountsError:
    """The refusal of a network whose logits are the same on all inputs tried."""
    where = "for any noise" if photos is None else f"for noise and {photos}"
    return NothingCountsError(
        f"{reason}; nor can a local answer be given: the logits are the same {where} "
        "(a last layer of zeros, or a network that was not trained): load its weights"
    )


def _why_none(traced: Trace, first_refusal: Exception | None) -> str:
    """Why no layer can be used; the reason of the last layer, which was tried first."""
    if first_refusal:
        return f"; nor can a local answer be given: {first_refusal}"
    if any(len(run.shape) == 4 and run.shape[0] > 1 for run in traced.runs):
        return (
            ", and its layers work on several inputs for one photo (crops, flips or "
            "windows put in one batch)"
        )
    return ", and there is no layer with several cells"


class _Measurement(NamedTuple):
    """What one input shows: the gap of the map, and how silent gradient · activation is."""

    gap: float
    silence: float


class _Search:
    """Looks, in a traced network, for the layer at which a local answer is best given."""

    def __init__(
        self,
        module: nn.Module,
        example: Tensor,
        traced: Trace,
        layers: Sequence[Layer],
        reason: str,
        method: str,
        ending: Ending,
        photos: Photos | None,
    ) -> None:
        self._module, self._reason, self._method = module, reason, method
        self._ending, self._photos = ending, photos
        self._inputs = (
            probes(example) if photos is None else list(photos.batch[:, None])
        )
        self._traced = traced
        self._layers, self._cuts = layers, Cuts(traced, layers)

    def is_constant(self) -> bool:
        """Whether the logits are those of the traced noise on every input tried."""
        traced = self._traced.logits
        if traced is None:
            return False
        for number, x in enumerate(self._inputs):
            with self._called(number):
                if not torch.equal(self._logits(x), traced):
                    return False
        return True

    def _suffix(
        self,
        layer: Layer,
        outputs: Mapping[str, Tensor],
        x: Tensor,
        start: Layer | None,
    ) -> tuple[Tensor, Suffix]:
        return suffix_after(
            self._module, layer, outputs, x, start, self._ending, self._layers
        )

    def candidates(self) -> Iterator[Layer]:
        """Layers with a map, the last first; those that something bypasses come after."""
        bypassed = []
        for layer in reversed(self._cuts.maps):
            if self._cuts.is_cut(layer):
                yield layer
            else:
                bypassed.append(layer)
        yield from bypassed

    def after_normalisation(self, layer: Layer) -> LocalHead | None:
        """The first later layer with as many cells whose gradient · activation is not 0."""
        maps = self._cuts.maps
        later = maps[maps.index(layer) + 1 :]
        for candidate in later:
            if candidate.shape[1:] != layer.shape[1:]:
                continue
            with contextlib.suppress(HeadError, ModelError):
                head = self.measured(candidate)
                if not head.silent:
                    return head
        return None

    def measured(self, layer: Layer) -> LocalHead:
        """The local answer at a layer; raises HeadError where its map does not count."""
        start = self._cuts.start_for(layer)
        measurements = []
        nothing_counts: NothingCountsError | None = None
        for number, x in enumerate(self._inputs):
            try:
                with self._called(number):
                    measurement, start = self._measure(layer, start, x)
            except NothingCountsError as refusal:
                if self._photos is None:
                    raise
                nothing_counts = nothing_counts or refusal
                continue
            measurements.append(measurement)
        if nothing_counts is not None and not measurements:
            raise nothing_counts

        silence = max(each.silence for each in measurements)
        if not layer.grid.traced:
            self._check_places(layer)
        return LocalHead(
            layer=layer.name,
            method=self._method,
            reason=self._reason,
            error=max(each.gap for each in measurements),
            probes=len(measurements),
            grid=layer.grid,
            map_shape=(layer.shape[0], layer.shape[1], layer.shape[2]),
            start=start.name if start else None,
            silent=0 < silence < _SILENT,
            found_on="" if self._photos is None else str(self._photos),
        )

    def _called(self, number: int) -> contextlib.AbstractContextManager[None]:
        """Inside, the network is given what belongs to one of the photos."""
        if self._photos is None:
            return contextlib.nullcontext()
        calling = self._photos.calling.rows([number])
        return calling.installed(self._module)

    def _logits(self, x: Tensor) -> Tensor:
        # A copy, since some networks normalise their input in place.
        fresh = x.clone()
        return self._ending.logits(lambda: self._module(fresh), len(x))

    def _check_places(self, layer: Layer) -> None:
        """Raise HeadError where a layer's cells do not lie as they are assumed to lie."""

        def map_of(x: Tensor) -> Tensor:
            with captured(self._module, [layer.name]) as outputs:
                self._module(x.clone())
            return layer.units_first(outputs[layer.name]).to(torch.float32)

        if not lie_in_place(map_of, self._inputs[-1], slack=1):
            raise HeadError(
                f"the cells of layer '{layer.name}' could not be followed back to "
                "places on the photo: choose a layer before it"
            )

    def _measure(
        self, layer: Layer, start: Layer | None, x: Tensor
    ) -> tuple[_Measurement, Layer | None]:
        """Measure one input; gives the start as well, which is None if it cannot be used."""
        names = [layer.name, *([start.name] if start else [])]
        with captured(self._module, names) as outputs:
            logits = self._logits(x)
        if any(name not in outputs for name in names):
            raise HeadError(
                f"layer '{layer.name}' does not run on every input: choose a layer that "
                "always runs"
            )

        feature_map, suffix = self._suffix(layer, outputs, x, start)
        if start is not None and not suffix.runs_alone(feature_map, logits):
            start = None
            feature_map, suffix = self._suffix(layer, outputs, x, None)

        first = int(logits[0].argmax())
        gradients: dict[int, Tensor] = {}
        suffix.gradients(feature_map, logits, [first], gradients.__setitem__)
        gradient = gradients[first]
        reached = int((gradient != 0).any(dim=1).sum())
        if reached <= 1:
            which = "only one cell" if reached else "no cell"
            where = "" if self._photos is None else f" of {self._photos}"
            raise NothingCountsError(
                f"{which} of layer '{layer.name}' counts for the logits{where}: "
                "choose a layer before it"
            )

        product = (gradient * feature_map).sum(dim=1)
        gap = (logits[0, first] - product.sum()).abs() / logits.abs().max()
        lengths = gradient.norm(dim=1) * feature_map.norm(dim=1)
        tiny = torch.finfo(torch.float32).tiny
        silence = product.abs().sum() / lengths.sum().clamp(min=tiny)
        return _Measurement(float(gap), float(silence)), start
