"""checkpoint:FILE: a weights file, whatever it is nested in, with the network that `arch` names."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from unitscope.errors import MissingExtraError, ModelError
from unitscope.model import Classifier
from unitscope.sources.request import Request
from unitscope.sources.weights import read_weights


def load_checkpoint(
    request: Request, load: Callable[[Request], Classifier]
) -> Classifier:
    """Load a checkpoint into the network named by `arch`, any other specification, through `load`."""
    if request.arch is None:
        raise ModelError(
            f"'{request.spec}' needs arch, the specification of the network that the "
            "weights belong to"
            f"{_guess(read_weights(request.name).architecture)}"
        )
    # A Path, so that a file called DEFAULT is not taken for torchvision's own weights.
    file = Path(request.name)
    return load(
        dataclasses.replace(
            request,
            spec=request.arch.strip(),
            weights=file,
            arch=None,
            origin=request.spec,
        )
    )


def _guess(said: str | None) -> str:
    """Say which arch may be meant, going by the name that the checkpoint gives its network."""
    if said is None:
        return ": e.g. arch 'torchvision:resnet50'"
    return f": the file says '{said}', so arch '{_library(said)}:{said}'"


def _library(name: str) -> str:
    """Say which library knows a network by this name, or else that it is the user's own."""
    from unitscope.sources import timm, torchvision

    for library, names in (
        ("torchvision", torchvision.network_names),
        ("timm", timm.network_names),
    ):
        with contextlib.suppress(MissingExtraError):
            if name in names():
                return library
    return "python:net.py"
