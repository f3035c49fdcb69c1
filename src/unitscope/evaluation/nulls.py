"""Nulls: maps that know nothing of the photo or of the network, in every table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.methods import Method, without_gradients


@dataclass(frozen=True)
class Null:
    """A baseline: made of the batch, and of the first method with its maps.

    None where it cannot be made.
    """

    name: str
    promise: str
    maps: Callable[[Batch, Method, Maps], Maps | None]


def _random(batch: Batch, method: Method, first: Maps) -> Maps:
    """Uniform numbers, a function of the photo's id and the seed."""
    cells = first.values.shape[1:]
    values = [
        np.random.default_rng(batch.seed_of(photo)).random(cells)
        for photo in range(len(batch))
    ]
    return Maps(np.stack(values), first.grid, first.input_size)


def _centre(batch: Batch, method: Method, first: Maps) -> Maps:
    """Nearness to the middle of the input, in pixels: 0 for the farthest cell."""
    rows, cols = first.input_size
    down, across = first.centres()
    distance = np.hypot((down - rows / 2)[:, None], across - cols / 2)
    nearness = distance.max() - distance
    values = np.broadcast_to(nearness, first.values.shape)
    return Maps(values.copy(), first.grid, first.input_size)


def _other_photo(batch: Batch, method: Method, first: Maps) -> Maps | None:
    """The first method's map of the same class, on the photo after this one."""
    if len(batch) < 2:
        return None
    others = batch.inputs.roll(-1, dims=0)
    maps = without_gradients(method, batch.model, others, batch.classes)
    return Maps(maps.values, maps.grid, maps.input_size)


NULLS: Mapping[str, Null] = {
    null.name: null
    for null in (
        Null(
            "random",
            "knows nothing: random numbers on the first method's cells",
            _random,
        ),
        Null(
            "centre",
            "knows nothing: how near the middle of the photo is",
            _centre,
        ),
        Null(
            "other photo",
            "the first method's map of the same class, on another photo",
            _other_photo,
        ),
    )
}
"""The baselines that are in every table."""


def all_maps(batch: Batch, methods: list[Method]) -> dict[str, Maps | None]:
    """The maps of every method and every null, by name."""
    found: dict[str, Maps | None] = {}
    for method in methods:
        found[method.name] = without_gradients(
            method, batch.model, batch.inputs, batch.classes
        )
    first = found[methods[0].name]
    assert first is not None
    for null in NULLS.values():
        found[null.name] = null.maps(batch, methods[0], first)
    return found
