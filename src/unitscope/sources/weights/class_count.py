"""The number of classes that weights were trained for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from unitscope.sources.weights.file import Weights
from unitscope.sources.weights.names import match_names
from unitscope.sources.weights.reparametrised import plain_weights

_Shapes = dict[str, tuple[int, ...]]


def infer_class_count(
    build: Callable[[int], nn.Module], weights: Weights
) -> int | None:
    """The number of classes of some weights: the size of every axis that grows with it.

    `build` makes the network for a number of classes; it is called twice, if possible
    without memory for the weights. None when the network does not tell.
    """
    shapes_of_two, shapes_of_three = _shapes_for_two_and_three(build)
    state, _ = plain_weights(shapes_of_two, weights.state)
    names, _ = match_names(shapes_of_two, state)

    counts: set[int | None] = set()
    for name, shape in shapes_of_two.items():
        axis = _class_axis(shape, shapes_of_three.get(name, ()))
        if axis is None or name not in names:
            continue
        trained = state[names[name]]
        count = None
        if trained.ndim == len(shape):
            count = trained.shape[axis]
        counts.add(count)

    if len(counts) != 1:
        return None
    return counts.pop()


def _shapes_for_two_and_three(
    build: Callable[[int], nn.Module],
) -> tuple[_Shapes, _Shapes]:
    """The shapes of the network's tensors for 2 classes and for 3; empty on failure."""
    # Some networks (RegNet) read numbers off tensors while they are built, which "meta"
    # tensors do not hold.
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                of_two = _shapes(build(2))
                of_three = _shapes(build(3))
            return of_two, of_three
        except Exception:  # The builder may be anybody's.
            continue
    return {}, {}


def _class_axis(shape: tuple[int, ...], grown: tuple[int, ...]) -> int | None:
    """The first axis that has 2 entries for 2 classes and 3 for 3."""
    if len(shape) != len(grown):
        return None
    for axis, sizes in enumerate(zip(shape, grown, strict=True)):
        if sizes == (2, 3):
            return axis
    return None


def _shapes(module: nn.Module) -> _Shapes:
    state = module.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
