"""The state dict in what a file holds: where it lies, and its tensors as float32."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitscope.errors import WeightsError, warn_user
from unitscope.sources.weights.names import AVERAGED, COUNTS, unwrapped

# The keys under which training scripts save the weights, most explicit first.
_STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_dict",
    "model",
    "net_state_dict",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "parameters",
)
_AVERAGED_KEYS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "params_ema",
    "ema",
    "averaged_model",
    "shadow",
)
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|loss|criterion|amp|rng|args|config|hparam|hyper|callback"
    r"|history",
    re.IGNORECASE,
)
_ARCHITECTURE_KEYS = ("arch", "model_arch", "architecture", "model_name")

_DEEPEST_NESTING = 4
_MOST_SHOWN_KEYS = 6
_LONGEST_SHOWN_KEY = 40


def path_to_state(loaded: Any, depth: int = 0) -> tuple[str, ...] | None:
    """The keys that lead to the weights, or None where there are no weights."""
    if not isinstance(loaded, Mapping) or depth > _DEEPEST_NESTING:
        return None

    nested = [
        key
        for key, value in loaded.items()
        if isinstance(key, str) and isinstance(value, Mapping)
    ]
    explicit = sorted((key for key in nested if key in _STATE_KEYS), key=_rank)
    path = _path_through(explicit, loaded, depth)
    if path is not None:
        return path

    names = [
        key
        for key, value in loaded.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    ]
    if names and (not nested or any("." in name for name in names)):
        return ()

    averaged = [key for key in nested if key in _AVERAGED_KEYS]
    others = [
        key
        for key in nested
        if key not in _STATE_KEYS + _AVERAGED_KEYS
        and not _NOT_WEIGHTS.search(key)
    ]
    return _path_through(averaged + others, loaded, depth)


def value_at(loaded: Any, path: Sequence[str]) -> Any:
    """The value that these keys lead to."""
    for key in path:
        loaded = loaded[key]
    return loaded


def find_state(
    loaded: Any, file: Path
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """The tensors of the state dict in a file, and notes on averaged weights.

    Raises WeightsError where the file holds no weights.
    """
    path = path_to_state(loaded)
    if path is None:
        raise WeightsError(
            f"'{file}' holds {_contents(loaded)} and no weights: save the network's "
            "state_dict()"
        )
    found = value_at(loaded, path)
    packed = [name for name in found if "_packed_params" in str(name)]
    if packed:
        raise _quantized(file, packed[0])
    state = {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor)
    }
    return state, _notes_on_averages(loaded, path, file)


def architecture_of(loaded: Any) -> str | None:
    """The name that a checkpoint gives its network; None where it gives none."""
    if not isinstance(loaded, Mapping):
        return None
    for key in _ARCHITECTURE_KEYS:
        name = loaded.get(key)
        if isinstance(name, str) and re.fullmatch(r"[\w.\-]{1,60}", name):
            return name
    return None


def as_float32(
    state: Mapping[str, Tensor], file: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Dense tensors, in float32 where they are floating-point, and notes on that.

    Raises WeightsError for quantized tensors and for tensors without values.
    """
    converted: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name, tensor in state.items():
        value = _dense(tensor.detach(), name, file)
        if value.is_floating_point() and value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            counts[kind] = counts.get(kind, 0) + 1
            value = value.to(torch.float32)
        converted[name] = value

    notes = tuple(
        f"{count} tensors of {file.name} converted from {kind} to float32"
        for kind, count in counts.items()
    )
    return converted, notes


def _rank(key: str) -> int:
    return _STATE_KEYS.index(key)


def _path_through(
    keys: Sequence[str], loaded: Mapping[Any, Any], depth: int
) -> tuple[str, ...] | None:
    """The path through the first of `keys` that leads to weights."""
    for key in keys:
        rest = path_to_state(loaded[key], depth + 1)
        if rest is not None:
            return (key, *rest)
    return None


def _notes_on_averages(
    loaded: Any, path: Sequence[str], file: Path
) -> tuple[str, ...]:
    """Notes on averaged weights; a warning where the file holds two sets of weights."""
    used = ".".join(path)
    others = [".".join(other) for other in _other_sets(loaded, path)]
    for other in others:
        warn_user(
            f"'{file.name}' holds two sets of weights: {_in_words(used)} were used, "
            f"not {_in_words(other)}; to use the others, save them alone"
        )
    if others:
        return (
            f"{file.name} also holds the weights {_in_words(others[0])}, which were not "
            "used",
        )
    if any(AVERAGED.search(key) for key in path):
        return (
            f"the averaged weights '{used}' were used: {file.name} holds no others",
        )
    return ()


def _in_words(path: str) -> str:
    words = f"'{path}'" if path else "at its top"
    return f"{words} (averages)" if AVERAGED.search(path) else words


def _other_sets(loaded: Any, path: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Where else a file holds tensors of the same names, with other numbers."""
    used = _tensors(value_at(loaded, path))
    for other, state in _mappings(loaded):
        tensors = _tensors(state)
        if other == tuple(path) or not used.keys() <= tensors.keys():
            continue
        if any(not _equal(used[name], tensors[name]) for name in used):
            yield other


def _mappings(
    loaded: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """All dictionaries in a file that may hold weights, with the keys to them."""
    if not isinstance(loaded, Mapping) or len(path) > _DEEPEST_NESTING:
        return
    yield path, loaded
    for key, value in loaded.items():
        if isinstance(key, str) and not _NOT_WEIGHTS.search(key):
            yield from _mappings(value, (*path, key))


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict by their names without wrappers' segments.

    AveragedModel's own counter is none of them.
    """
    return {
        unwrapped(name): value
        for name, value in state.items()
        if isinstance(name, str)
        and isinstance(value, Tensor)
        and name != "n_averaged"
        and not name.endswith(COUNTS)
    }


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.is_meta or other.is_meta or torch.equal(one, other)


def _dense(value: Tensor, name: str, file: Path) -> Tensor:
    if value.is_quantized:
        raise _quantized(file, name)
    if value.is_meta:
        raise WeightsError(
            f"'{file}' holds names and shapes without values ({name}): save the "
            "weights themselves"
        )
    return value if value.layout == torch.strided else value.to_dense()


def _quantized(file: Path, name: str) -> WeightsError:
    return WeightsError(
        f"'{file}' holds quantized weights ({name}): give the float weights that they "
        "were made from"
    )


def _contents(loaded: Any) -> str:
    """What a file without weights holds, for an error."""
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    if not loaded:
        return "an empty dictionary"
    keys = [repr(str(key)[:_LONGEST_SHOWN_KEY]) for key in loaded]
    more = " …" if len(keys) > _MOST_SHOWN_KEYS else ""
    return ", ".join(keys[:_MOST_SHOWN_KEYS]) + more
