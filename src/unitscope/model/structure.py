"""Structure: what one traced forward pass teaches about a network at an input shape."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.guess import Guess
from unitscope.attribution.head import Head
from unitscope.attribution.head_path import HeadPath
from unitscope.attribution.head_search import find_head
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.local_search import (
    NothingCountsError,
    Photos,
    find_local,
)
from unitscope.attribution.methods import DEFAULT_METHOD
from unitscope.errors import HeadError, LayerError, ModelError, warn_user
from unitscope.model.network import Network
from unitscope.model.scoring import Scoring
from unitscope.model.wrapping import gradient_obstacle
from unitscope.residual.head import HEADS, ResidualHead
from unitscope.residual.path import StreamPath
from unitscope.residual.search import find_stream
from unitscope.residual.unfollowed import NoAttentionError
from unitscope.tracing.cuts import Cuts
from unitscope.tracing.ending import IN_OUTPUT, Ending
from unitscope.tracing.layers import (
    Layer,
    find_map_layer,
    layers_of,
)
from unitscope.tracing.trace import Trace, unwatchable

# Photos that go through uncropped come in any number of sizes. The oldest is traced again
# when it comes back.
_MOST_SHAPES = 16

# A layer (None for the best one), and a method.
_LocalKey = tuple[str | None, str]


@dataclass
class Structure:
    """What is known of a network at one input shape.

    `head` and `path` are its exact head, and where that passes; without one, `refusal`
    says why, and `residual` and `stream` are the account of a residual stream, and where
    that passes, or `stream_refusal` says why there is none. `ending` says where the
    logits are in its passes. `local` has the local heads found so far, and
    `local_refusals` why others cannot be had; a NothingCountsError there was met on
    random inputs, and photos may do better. `starts` are the layers from which the rest of
    the network is run after a layer, by its name. `rounded` is how far bfloat16 is off,
    measured on the first photos.
    """

    layers: list[Layer]
    classes: int
    head: ExactHead | None = None
    path: HeadPath | None = None
    refusal: str = ""
    residual: ResidualHead | None = None
    stream: StreamPath | None = None
    stream_refusal: str = ""
    ending: Ending = IN_OUTPUT
    local: dict[_LocalKey, LocalHead] = field(default_factory=dict)
    local_refusals: dict[_LocalKey, HeadError] = field(default_factory=dict)
    starts: dict[str, str | None] = field(default_factory=dict)
    rounded: float | None = None

    @property
    def reason(self) -> str:
        """Why there is a local answer: why there is no exact head, and no stream."""
        reason = self.refusal or "a local answer was asked for"
        if not self.stream_refusal:
            return reason
        return (
            f"{reason}; nor can the residual stream be followed: "
            f"{self.stream_refusal}"
        )

    @property
    def instead(self) -> str:
        """Which answer that adds up there is beside a local one, in a sentence, or ""."""
        if self.head is None and self.residual is None:
            return ""
        answer = "an exact answer, whose maps add up to the logits"
        if self.residual is not None:
            answer = "an account of heads, tokens and MLPs that adds up to the logits"
        return f"The network also has {answer}: leave out --method and --layer for it."

    def without_heads(self) -> LayerError:
        """The error where attention heads are asked for, and there is no account of them."""
        why = self.stream_refusal or "the network has no attention"
        if self.head is not None:
            why = f"the answer is exact, and its units are those of '{self.head.layer}'"
        return LayerError(
            f"there are no '{HEADS}' to explain: {why}; leave out layer (--layer), or name "
            "one that model.layers() lists"
        )

    def has_head_at(self, layer: str) -> bool:
        """Whether a layer's output is the feature map of the exact head."""
        head = self.head
        return head is not None and head.layer_is_map and head.layer == layer

    def layers_of_best_local(self) -> tuple[str, ...]:
        """The layers that the best local answer reads, where no head is exact."""
        local = self.local.get((None, DEFAULT_METHOD))
        if self.head is not None or local is None:
            return ()
        if local.start in (None, local.layer):
            return (local.layer,)
        return (local.layer, local.start)


class Structures:
    """The structures of a network by input shape (channel, row, col), as they come.

    `scoring` has the labels of the classes, which must be as many as the network gives,
    and finds where the logits are.
    """

    def __init__(self, network: Network, scoring: Scoring) -> None:
        self._network, self._scoring = network, scoring
        self._known: dict[tuple[Any, ...], Structure] = {}
        # The best layers that photos showed, by method: inputs of every shape are then
        # explained at the same one.
        self._found_on_photos: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def at(self, shape: tuple[int, ...]) -> Structure:
        """The structure at an input shape, found when that shape first comes."""
        key = self._network.key(shape)
        if key not in self._known:
            structure = self._find_by_dtype(shape)
            if len(self._known) >= _MOST_SHAPES:
                del self._known[next(iter(self._known))]
            # It may have learnt that it takes pixels.
            key = self._network.key(shape)
            self._known[key] = structure
        return self._known[key]

    def of(self, network: Network) -> Structures:
        """The same structures, for the network when it is given further inputs."""
        structures = copy.copy(self)
        structures._network = network
        return structures

    def is_head_layer(self, layer: str, shape: tuple[int, ...]) -> bool:
        """Whether a layer's output is the feature map of the exact head."""
        return self.at(shape).has_head_at(layer)

    def forget(self, shape: tuple[int, ...]) -> None:
        """Find the structure anew when the shape comes again."""
        self._known.pop(self._network.key(shape), None)

    def forget_all(self) -> None:
        """Find every structure anew."""
        self._known.clear()

    def scores_at(self, shape: tuple[int, ...]) -> Guess:
        """The kind of scores, and why; found at this shape where none came before."""
        self.at(shape)
        assert self._scoring.guess is not None
        return self._scoring.guess

    def head(
        self,
        shape: tuple[int, ...],
        layer: str | None = None,
        method: str | None = None,
        photos: Photos | None = None,
    ) -> Head:
        """The exact head; or the local one, at the `layer` or by the `method` asked for.

        Where no layer counts on random inputs, `photos` are tried. What they show holds
        for all later photos, and a warning says so.

        Raises HeadError, saying why, where there is neither.
        """
        structure = self.at(shape)
        exact = structure.head
        if exact is not None and method is None:
            if layer is None or structure.has_head_at(layer):
                return exact
        residual = structure.residual
        if residual is not None and method is None and layer in (None, HEADS):
            return residual
        if layer == HEADS:
            raise structure.without_heads()
        if layer is None and exact is not None:
            layer = exact.layer
        key = (layer, method or DEFAULT_METHOD)
        try:
            return self._local(structure, shape, *key)
        except NothingCountsError:
            if photos is None:
                raise
        return self._found_on(photos, structure, shape, *key)

    def start_of(self, shape: tuple[int, ...], layer: Layer) -> str | None:
        """The last layer, this one or before it, that nothing bypasses; None without one."""
        structure, network = self.at(shape), self._network
        if unwatchable(network.module):
            return None
        if layer.name not in structure.starts:
            with network.running():
                example, trace = network.traced(shape)
                trace = self._up_to_logits(example, trace, structure.ending)
                cuts = Cuts(trace, layers_of(trace))
            start = cuts.start_for(layer)
            structure.starts[layer.name] = start.name if start else None
        return structure.starts[layer.name]

    def _find_by_dtype(self, shape: tuple[int, ...]) -> Structure:
        """The structure, found on floating-point inputs, or on pixels where those fail."""
        network = self._network
        try:
            return network.guarded(lambda: self._find(shape), shape)
        except ModelError:
            if network.pixels or not network.learn_pixels(shape):
                raise
        return network.guarded(lambda: self._find(shape), shape)

    def _find(self, shape: tuple[int, ...]) -> Structure:
        network = self._network
        with network.running():
            example, traced = network.traced(shape)
            structure = self._find_exact(example, traced)
            if structure.head is not None:
                return structure

            # The first pass may have set something up, such as a cache.
            again = network.traced(shape)[1]
            if _call_names(again) != _call_names(traced):
                traced = again
                structure = self._find_exact(example, traced)
            if structure.head is None:
                self._find_stream(structure, example, traced)
            if structure.head is None and structure.residual is None:
                # The answer, or the reason why there is none, is kept in the structure.
                with contextlib.suppress(HeadError):
                    self._local(
                        structure,
                        shape,
                        None,
                        DEFAULT_METHOD,
                        (example, traced),
                    )
        return structure

    def _find_exact(self, example: Tensor, traced: Trace) -> Structure:
        """The structure with the exact head, or the reason why there is none."""
        assert traced.logits is not None
        self._network.check_finite(traced.logits, example, "the logits")
        ending, traced = self._scoring.ending_of(example, traced)
        assert traced.logits is not None
        classes = traced.logits.shape[1]
        structure = Structure(layers_of(traced), classes, ending=ending)
        self._scoring.labels_for(classes)
        module = self._network.module
        try:
            structure.head, structure.path = self._network.guarded(
                lambda: find_head(module, example, traced, ending),
                tuple(example.shape[1:]),
            )
        except HeadError as refusal:
            # Only its text: the exception would keep the traced activations alive.
            structure.refusal = str(refusal)
        return structure

    def _find_stream(
        self, structure: Structure, example: Tensor, traced: Trace
    ) -> None:
        """Find the account of the residual stream, or the reason why there is none."""
        module = self._network.module
        if unwatchable(module):
            return
        try:
            structure.residual, structure.stream = find_stream(
                module, example, traced, structure.ending, structure.refusal
            )
        except NoAttentionError:
            pass  # There is no stream to speak of.
        except HeadError as refusal:
            structure.stream_refusal = str(refusal)

    def _local(
        self,
        structure: Structure,
        shape: tuple[int, ...],
        layer: str | None,
        method: str,
        traced: tuple[Tensor, Trace] | None = None,
    ) -> LocalHead:
        """The local head at a layer, or the best one; found once for each and method."""
        key = (layer, method)
        if key in structure.local:
            return structure.local[key]
        if key not in structure.local_refusals:
            try:
                structure.local[key] = self._find_local(
                    structure, shape, layer, method, traced
                )
                return structure.local[key]
            except HeadError as refusal:
                # A traceback would keep the traced activations alive.
                structure.local_refusals[key] = type(refusal)(str(refusal))
        known = structure.local_refusals[key]
        raise type(known)(str(known))

    def _found_on(
        self,
        photos: Photos,
        structure: Structure,
        shape: tuple[int, ...],
        layer: str | None,
        method: str,
    ) -> LocalHead:
        """The local head where no layer counts on random inputs; kept and warned of."""
        head: LocalHead | None = None
        known = self._found_on_photos.get(method)
        if layer is None and known is not None:
            with contextlib.suppress(HeadError, LayerError):
                head = self._find_local(
                    structure, shape, known, method, None, photos
                )
        if head is None:
            head = self._find_local(
                structure, shape, layer, method, None, photos
            )
            if layer is None:
                self._found_on_photos[method] = head.layer
            warn_user(
                f"no layer counts for the logits of random inputs; layer '{head.layer}' "
                f"does on {photos}, and all photos are explained there"
                if layer is None
                else f"layer '{layer}' does not count for the logits of random inputs, "
                f"but does on {photos}"
            )
        structure.local[(layer, method)] = head
        return head

    def _find_local(
        self,
        structure: Structure,
        shape: tuple[int, ...],
        layer: str | None,
        method: str,
        traced: tuple[Tensor, Trace] | None,
        photos: Photos | None = None,
    ) -> LocalHead:
        chosen = (
            None if layer is None else find_map_layer(structure.layers, layer)
        )
        reason = structure.reason
        network = self._network
        if unwatchable(network.module):
            raise HeadError(reason)
        obstacle = gradient_obstacle(network.module)
        if obstacle:
            raise HeadError(
                f"{reason}; nor can a local answer be given: {obstacle}"
            )
        with network.running():
            example, trace = traced or network.traced(shape)
            trace = self._up_to_logits(example, trace, structure.ending)

            def find() -> LocalHead:
                head = find_local(
                    network.module,
                    example,
                    trace,
                    structure.layers,
                    reason,
                    chosen,
                    method,
                    photos=photos,
                    ending=structure.ending,
                )
                return dataclasses.replace(head, instead=structure.instead)

            return network.guarded(find, shape)

    def _up_to_logits(
        self, example: Tensor, traced: Trace, ending: Ending
    ) -> Trace:
        """The trace of a pass that ends where its logits are."""
        if ending.call is None and ending.complement is None:
            return traced
        made = [
            call
            for call in traced.calls
            if (call.index, call.name) == ending.call
        ]
        output = made[0] if made else traced.output
        logits = self._network.logits(example.clone(), ending)
        return dataclasses.replace(traced, output=output, logits=logits)


def _call_names(traced: Trace) -> list[str]:
    return [call.name for call in traced.calls]
