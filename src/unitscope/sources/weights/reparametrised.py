"""Reparametrised weights: the plain weight that pruning and normalisations stand for.

torch's pruning, weight norm and spectral norm save a weight as the tensors from which it
is computed in every pass. The formulas are those of `torch.nn.utils`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# The first part of a weight, as the older functions and torch.nn.utils.parametrize call
# it: fc.weight_orig, fc.parametrizations.weight.original0.
_PART = re.compile(
    r"(|.*\.)(?:(?P<old>\w+)_(?:orig|g)"
    r"|parametrizations\.(?P<new>\w+)\.original0?)"
)

_State = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Way:
    """How some tensors make up a weight.

    `patterns` are their names, from the module's prefix (`{stem}`) and the weight's name.
    `compute` gives the weight, or None where the shapes are not of that kind.
    """

    what: str
    patterns: tuple[str, ...]
    compute: Callable[..., Tensor | None]


def _pruned(original: Tensor, mask: Tensor) -> Tensor | None:
    if original.shape != mask.shape:
        return None
    return original * mask


def _weight_normed(length: Tensor, direction: Tensor) -> Tensor | None:
    """Give `direction` a length, over the axes in which `length` has one entry."""
    if length.ndim == 0:
        length = length.reshape((1,) * direction.ndim)
    sides = zip(length.shape, direction.shape, strict=False)
    if length.ndim != direction.ndim or any(
        one not in (1, other) for one, other in sides
    ):
        return None
    axes = [axis for axis, side in enumerate(length.shape) if side == 1]
    norm = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    normed: Tensor = direction * (length / norm)
    return normed


def _spectral_normed(
    original: Tensor, left: Tensor, right: Tensor
) -> Tensor | None:
    """Divide by the largest singular value, of which the singular vectors are given."""
    values = []
    # A transposed convolution has its outputs on the second axis.
    for axis in (0, 1)[: original.ndim]:
        matrix = original.movedim(axis, 0).flatten(1)
        if matrix.shape == (len(left), len(right)):
            values.append(left @ matrix @ right)
    if not values:
        return None
    return original / max(values)


_WAYS = (
    _Way("pruned", ("{stem}{name}_orig", "{stem}{name}_mask"), _pruned),
    _Way(
        "weight-normalised",
        ("{stem}{name}_g", "{stem}{name}_v"),
        _weight_normed,
    ),
    _Way(
        "weight-normalised",
        (
            "{stem}parametrizations.{name}.original0",
            "{stem}parametrizations.{name}.original1",
        ),
        _weight_normed,
    ),
    _Way(
        "spectrally normalised",
        ("{stem}{name}_orig", "{stem}{name}_u", "{stem}{name}_v"),
        _spectral_normed,
    ),
    _Way(
        "spectrally normalised",
        (
            "{stem}parametrizations.{name}.original",
            "{stem}parametrizations.{name}.0._u",
            "{stem}parametrizations.{name}.0._v",
        ),
        _spectral_normed,
    ),
)


def plain_weights(
    own: Iterable[str], state: _State
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state dict with plain weights, and notes on what was computed.

    `own` are the network's names. Tensors that the network itself has under their names
    stay as they are.
    """
    wanted = set(own)
    plain = dict(state)
    counts: dict[str, int] = {}
    for stem, name in _parametrised(state):
        weight = stem + name
        if weight in state or not any(_same(weight, other) for other in wanted):
            continue
        way, parts = _way_of(state, stem, name)
        if way is None:
            continue
        value = way.compute(*(state[part] for part in parts))
        if value is None:
            continue
        for part in parts:
            del plain[part]
        plain[weight] = value
        counts[way.what] = counts.get(way.what, 0) + 1
    notes = tuple(
        f"{count} {what} weights computed from their parts"
        for what, count in counts.items()
    )
    return plain, notes


def _parametrised(names: Iterable[str]) -> list[tuple[str, str]]:
    """The weights of which some names are parts: the module's prefix, and the name."""
    found = (_PART.fullmatch(name) for name in names)
    return [
        (match[1] or "", match["old"] or match["new"])
        for match in found
        if match
    ]


def _way_of(
    state: _State, stem: str, name: str
) -> tuple[_Way | None, list[str]]:
    """How a weight is computed, and the names of its parts; None where unknown."""
    prefix = f"{stem}parametrizations.{name}."
    own = {other for other in state if other.startswith(prefix)}
    for way in _WAYS:
        parts = [p.format(stem=stem, name=name) for p in way.patterns]
        # Further tensors would belong to a parametrisation of another kind.
        if state.keys() >= set(parts) and own <= set(parts):
            return way, parts
    return None, []


def _same(name: str, other: str) -> bool:
    """Whether two names differ by a prefix at most."""
    return (
        name == other
        or name.endswith(f".{other}")
        or other.endswith(f".{name}")
    )
