"""Schemes: every way to name a model, in the one list that all readers share.

`load`, the help of the command line and docs/models.md follow this list. A new scheme
is a file of this folder with a function `load(request)`, and a row here. Nothing heavy
is imported, so that the help need not wait for torch.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from unitscope.model import Classifier
    from unitscope.sources.request import Request

Loader: TypeAlias = "Callable[[Request], Classifier]"


@dataclass(frozen=True)
class Scheme:
    """One way to name a model.

    `usage` is how its specification is written, `options` are those of `load` that it
    takes besides `progress`, and `module` is the file of this folder that loads it.
    """

    usage: str
    module: str
    options: frozenset[str]

    @property
    def bundled(self) -> bool:
        """Whether the scheme alone names the model, without a colon and a name."""
        return ":" not in self.usage

    def loader(self) -> Loader:
        """Import the function that loads such a model."""
        module = importlib.import_module(f"unitscope.sources.{self.module}")
        load: Loader = module.load
        return load


# The options of a network that is built anew, with weights from a file or at random.
_NETWORK_OPTIONS = frozenset(
    {
        "weights",
        "labels",
        "num_classes",
        "input_size",
        "preprocessing",
        "output",
        "seed",
    }
)

_BUNDLED = Scheme(
    usage="miniplaces (bundled; also scenes)",
    module="bundled",
    options=frozenset({"labels", "preprocessing"}),
)

SCHEMES: Mapping[str, Scheme] = {
    "miniplaces": _BUNDLED,
    "scenes": _BUNDLED,
    "miniplaces-vit": dataclasses.replace(
        _BUNDLED, usage="miniplaces-vit (bundled)"
    ),
    "torchvision": Scheme(
        usage="torchvision:NAME",
        module="torchvision",
        options=_NETWORK_OPTIONS,
    ),
    "timm": Scheme(
        usage="timm:NAME",
        module="timm",
        options=_NETWORK_OPTIONS,
    ),
    "transformers": Scheme(
        usage="transformers:REPO",
        module="transformers",
        options=_NETWORK_OPTIONS | {"templates"},
    ),
    "places365": Scheme(
        usage="places365:NAME",
        module="places365",
        options=frozenset({"weights", "labels", "preprocessing", "base_url"}),
    ),
    "checkpoint": Scheme(
        usage="checkpoint:FILE",
        module="checkpoint",
        options=frozenset(
            {
                "arch",
                "labels",
                "num_classes",
                "input_size",
                "preprocessing",
                "output",
                "base_url",
                "templates",
            }
        ),
    ),
    "python": Scheme(
        usage="python:FILE.py:NAME",
        module="python",
        options=_NETWORK_OPTIONS,
    ),
}
"""Every scheme by its name."""


def usages() -> list[str]:
    """How specifications are written, each way once."""
    distinct = dict.fromkeys(SCHEMES.values())
    return [scheme.usage for scheme in distinct]
