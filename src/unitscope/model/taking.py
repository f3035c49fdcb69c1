"""Taking: what users bring, as photos and the further inputs that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unitscope.errors import InputError
from unitscope.model.network import Network
from unitscope.model.reading import Input, photos_of
from unitscope.model.tensors import check_tensor, tensor_in
from unitscope.tracing.calling import parameters_of

# What a loader's batch calls the answers. They are no inputs, though some forwards take
# them, to compute a loss.
_ANSWERS = ("label", "labels", "target", "targets")


def taken(
    x: Input, also: Mapping[str, Any] | None, network: Network
) -> tuple[Tensor | list[Any], dict[str, Any]]:
    """The photos, as a checked tensor or a list, and the further inputs by name.

    The entries of a loader's dict that the network's forward takes are further inputs.
    Raises InputError and NonFiniteError for what cannot be explained.
    """
    if also is not None and not isinstance(also, Mapping):
        raise InputError(
            "also holds further inputs by name, as in also={'meta': …}, not a "
            f"{type(also).__name__}"
        )
    parameters = parameters_of(network.module)
    given = {**network.fixed.values, **(also or {})}
    names = [name for name in parameters if name not in given]

    channels = network.channels
    found = tensor_in(x, channels, names)
    if found is None:
        return photos_of(x), dict(also or {})
    photos, key = found
    check_tensor(photos, channels)
    entries = {}
    if isinstance(x, Mapping):
        used = (key, *_ANSWERS)
        entries = {name: x[name] for name in names if name in x}
        entries = {name: entries[name] for name in entries if name not in used}
    return photos, {**entries, **(also or {})}
