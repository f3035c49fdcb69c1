"""Methods: every way to make a map of a class, with what it promises, by name.

To add one, add a line to `METHODS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution import methods as local_methods
from unitscope.errors import (
    HeadError,
    InputError,
    NonFiniteError,
    near_matches,
)
from unitscope.evaluation import fusion, pixels
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.peers import PEERS, Peer
from unitscope.geometry import PIXELS, Grid
from unitscope.model import Classifier

MapMaker: TypeAlias = Callable[[Classifier, Tensor, Sequence[int]], Maps]
"""(model, inputs (photo, channel, row, col), a class for each photo) → maps."""

UserFunction: TypeAlias = Callable[[Classifier, Tensor, int], Any]
"""(model, photo (1, channel, row, col), class) → (row, col), of any size."""

_ON_PIXELS = Grid(PIXELS, PIXELS)


@dataclass(frozen=True)
class Method:
    """A way to make maps: its name, what it promises in words, and the function."""

    name: str
    promise: str
    maps: MapMaker

    @classmethod
    def of_function(cls, name: str, function: UserFunction) -> Method:
        """A method of a function (model, photo, class) → array.

        The photo is preprocessed, (1, channel, row, col); the array (row, col) of any size
        is stretched over the network's input. Raises InputError where it is no such array.
        """

        def maps(
            model: Classifier, inputs: Tensor, classes: Sequence[int]
        ) -> Maps:
            made = [
                _as_map(function(model, photo[None], which), name)
                for photo, which in zip(inputs, classes, strict=True)
            ]
            rows, cols = inputs.shape[2:]
            return Maps.tiling(_stacked(made, name), (int(rows), int(cols)))

        return cls(name, "a function of the user's", maps)


AnyMethod: TypeAlias = str | Method | UserFunction

SomeMethods: TypeAlias = (
    AnyMethod | Sequence[AnyMethod] | Mapping[str, AnyMethod] | None
)


def _as_map(given: Any, name: str) -> Float[np.ndarray, "row col"]:
    array = given.detach().cpu() if isinstance(given, Tensor) else given
    try:
        values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"the method {name!r} gave a {type(given).__name__}: expected an array "
            "(row, col) of numbers"
        ) from None
    shape = values.shape
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or not values.size:
        raise InputError(
            f"the method {name!r} gave an array of shape {shape}: expected (row, col), the "
            "map of one photo; add up channels first"
        )
    if not np.isfinite(values).all():
        raise NonFiniteError(
            f"the method {name!r} gave a map with NaN or infinite numbers: return finite "
            "ones"
        )
    return values


def _stacked(
    made: Sequence[Float[np.ndarray, "_ _"]], name: str
) -> Float[np.ndarray, "photo row col"]:
    shapes = {values.shape for values in made}
    if len(shapes) > 1:
        raise InputError(
            f"the method {name!r} gave maps of {len(shapes)} sizes for inputs of one size: "
            "return maps of one size"
        )
    return np.stack(made)


def explained_maps(
    model: Classifier,
    inputs: Tensor,
    classes: Sequence[int],
    method: str | None,
) -> Maps:
    """The maps of `model.explain`, of one class for each photo."""
    explanation = model.explain(inputs, method=method, batch_size=len(inputs))
    distinct = sorted(set(classes))
    rows = range(len(inputs))
    places = [distinct.index(which) for which in classes]

    def chosen(of_classes: Tensor) -> np.ndarray:
        values: np.ndarray = of_classes[rows, places].double().cpu().numpy()
        return values

    cams = chosen(explanation.cams_of(distinct).detach())
    return Maps(
        cams,
        explanation.grid,
        explanation.input_size,
        accounts_for=cams.mean(axis=(1, 2)),
        contributions=chosen(explanation.contributions_of(distinct).detach()),
        layer=explanation.layer,
    )


def answer_kind(model: Classifier) -> str:
    """The kind of the best answer of a model: "exact", "residual" or "local"."""
    head = model.head
    if head.exact:
        return "exact"
    return "residual" if head.maps_are_a_part else "local"


def _best_answer(kind: str, promise: str) -> Method:
    def maps(model: Classifier, inputs: Tensor, classes: Sequence[int]) -> Maps:
        actual = answer_kind(model)
        if actual != kind:
            raise HeadError(
                f"the answers of this network are {actual}, not {kind}: ask for the method "
                f"{actual!r}"
            )
        return explained_maps(model, inputs, classes, None)

    return Method(kind, promise, maps)


def _local(name: str, title: str, summary: str) -> Method:
    def maps(model: Classifier, inputs: Tensor, classes: Sequence[int]) -> Maps:
        return explained_maps(model, inputs, classes, name)

    return Method(name, f"{title}: {summary}", maps)


_OWN = (
    _best_answer(
        "exact",
        "model.explain: cells add up to the logit, but for the bias; in logits",
    ),
    _best_answer(
        "residual",
        "model.explain: what patches give through all heads; a part of the logit",
    ),
    _best_answer(
        "local",
        "model.explain: gradient × activation; what it leaves out is measured",
    ),
    *(
        _local(method.name, method.title, method.summary)
        for method in local_methods.METHODS.values()
    ),
)


def _on_grid(
    values: Tensor, grid: Grid, inputs: Tensor, adds_up: bool = False
) -> Maps:
    """Maps of another file on their grid; those that add up account for their sum."""
    rows, cols = map(int, inputs.shape[2:])
    maps = values.detach().cpu().double().numpy()
    sums = maps.sum(axis=(1, 2)) if adds_up else None
    return Maps(maps, grid, (rows, cols), sums)


def _fullgrad(
    model: Classifier, inputs: Tensor, classes: Sequence[int]
) -> Maps:
    values = pixels.pixel_maps(model, inputs, classes)
    return _on_grid(values, _ON_PIXELS, inputs, adds_up=True)


def _fused(model: Classifier, inputs: Tensor, classes: Sequence[int]) -> Maps:
    return _on_grid(
        fusion.fused_maps(model, inputs, classes), _ON_PIXELS, inputs
    )


def _of_peer(peer: Peer) -> Method:
    def maps(model: Classifier, inputs: Tensor, classes: Sequence[int]) -> Maps:
        values = peer.maps(model, inputs, classes)
        return _on_grid(values, peer.grid(model, inputs), inputs)

    return Method(peer.name, peer.promise, maps)


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        *_OWN,
        Method("fullgrad", pixels.PROMISE, _fullgrad),
        Method("fusion", fusion.PROMISE, _fused),
        *map(_of_peer, PEERS.values()),
    )
}
"""Every method by its name."""


def chosen_methods(
    model: Classifier,
    methods: SomeMethods,
    reserved: Sequence[str],
) -> list[Method]:
    """The methods of names, functions or `Method`s; by default all that the model has.

    `reserved` are names that no method may have. Raises InputError.
    """
    if methods is None:
        methods = _default_methods(model)
    named: list[tuple[str | None, AnyMethod]] = (
        list(methods.items())
        if isinstance(methods, Mapping)
        else [(None, method) for method in _listed(methods)]
    )
    chosen = [_method(method, name) for name, method in named]
    if not chosen:
        raise InputError(
            f"there is no method to evaluate: name some of {', '.join(METHODS)}"
        )
    names = [method.name for method in chosen]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two methods are called {name!r}: give functions in a dict, "
                "methods={'name': function}"
            )
        if name in reserved:
            raise InputError(
                f"{name!r} is in every table, as a baseline: leave it out"
            )
    return chosen


def _default_methods(model: Classifier) -> list[AnyMethod]:
    """The best answer of a model, and the local methods that differ from it."""
    kind = answer_kind(model)
    if kind == "exact":
        return [kind]  # at an exact head the local methods give the same maps
    if kind == "local":
        others = [*local_methods.METHODS]
        others.remove(local_methods.DEFAULT_METHOD)
        return [kind, *others]
    return [kind, *local_methods.METHODS]


def _listed(methods: Any) -> list[AnyMethod]:
    if isinstance(methods, (str, Method)) or callable(methods):
        return [methods]
    return list(methods)


def _method(given: AnyMethod, name: str | None) -> Method:
    if isinstance(given, Method):
        return given
    if isinstance(given, str):
        if given not in METHODS:
            raise InputError(
                f"there is no method {given!r}{near_matches(given, list(METHODS))}: choose "
                f"from {', '.join(METHODS)}, or give a function (model, photo, class) → array"
            )
        return METHODS[given]
    if not callable(given):
        raise InputError(
            f"a method is a name or a function (model, photo, class) → array, not a "
            f"{type(given).__name__}"
        )
    own = getattr(given, "__name__", type(given).__name__)
    return Method.of_function(name or own, given)


def without_gradients(
    method: Method,
    model: Classifier,
    inputs: Tensor,
    classes: Sequence[int],
) -> Maps:
    """The maps of a method, whatever gradients it takes; the inputs are its own copy.

    Raises NonFiniteError for maps that hold other than finite numbers.
    """
    with torch.enable_grad():
        maps = method.maps(model, inputs.detach().clone(), classes)
    if len(maps) != len(inputs):
        raise InputError(
            f"the method {method.name!r} gave {len(maps)} maps for {len(inputs)} photos"
        )
    if not np.isfinite(maps.values).all():
        raise NonFiniteError(
            f"the method {method.name!r} gave a map with NaN or infinite numbers"
        )
    again = functools.partial(without_gradients, method)
    return dataclasses.replace(maps, again=again)
