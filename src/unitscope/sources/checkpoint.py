"""checkpoint:FILE: a weights file, with the network that `arch` names."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from unitscope.errors import MissingExtraError, ModelError
from unitscope.model import Classifier
from unitscope.sources import timm, torchvision
from unitscope.sources.request import Request
from unitscope.sources.specification import load_specified
from unitscope.sources.weights import read_weights


def load(request: Request) -> Classifier:
    """Load a checkpoint into the network of the specification `arch`."""
    if request.arch is None:
        architecture = read_weights(request.name).architecture
        raise ModelError(
            f"'{request.spec}' needs arch, the specification of the network that the "
            f"weights belong to{_suggestion(architecture)}"
        )
    network = dataclasses.replace(
        request,
        spec=request.arch.strip(),
        # A Path, so that a file called DEFAULT is not taken for torchvision's own
        # weights.
        weights=Path(request.name),
        arch=None,
        origin=request.spec,
    )
    return load_specified(network)


def _suggestion(architecture: str | None) -> str:
    """Suggest an arch by the name that the checkpoint gives its network."""
    if architecture is None:
        return ": e.g. arch 'torchvision:resnet50'"
    return (
        f": the file says '{architecture}', so arch "
        f"'{_scheme_of(architecture)}:{architecture}'"
    )


def _scheme_of(name: str) -> str:
    """The library that knows a network by this name, or else the user's own file."""
    libraries = {
        "torchvision": torchvision.network_names,
        "timm": timm.network_names,
    }
    for library, network_names in libraries.items():
        with contextlib.suppress(MissingExtraError):
            if name in network_names():
                return library
    return "python:net.py"
