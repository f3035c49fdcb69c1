"""Ask an image classifier what it has learned, and why it said that.

Filters, units, the units that carry a prediction, and where in the photo the evidence for every class lies: exactly, on
your own network and photos. Names are imported when they are first used, so that `import unitscope` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Ablation": "ablation",
    "Account": "account",
    "Atlas": "atlas",
    "Classifier": "model",
    "Explanation": "explanation",
    "Filters": "kernels",
    "Head": "head",
    "Layer": "layers",
    "Prediction": "classes",
    "Preprocessing": "preprocessing",
    "UnitMaps": "unit_maps",
    "UnitscopeError": "errors",
    "explore": "explorer.server",
    "filters": "kernels",
    "load": "sources",
    "report": "reporting",
    "merge": "merging",
    "open_dataset": "datasets",
    "reproduce": "write_up",
    "scan": "scanning",
    "wrap": "model",
}

__all__ = [
    "Ablation",
    "Account",
    "Atlas",
    "Classifier",
    "Explanation",
    "Filters",
    "Head",
    "Layer",
    "Prediction",
    "Preprocessing",
    "UnitMaps",
    "UnitscopeError",
    "__version__",
    "explore",
    "filters",
    "load",
    "merge",
    "open_dataset",
    "report",
    "reproduce",
    "scan",
    "wrap",
]

if TYPE_CHECKING:
    from unitscope.ablation import Ablation
    from unitscope.account import Account
    from unitscope.atlas import Atlas
    from unitscope.classes import Prediction
    from unitscope.datasets import open_dataset
    from unitscope.errors import UnitscopeError
    from unitscope.explanation import Explanation
    from unitscope.explorer.server import explore
    from unitscope.head import Head
    from unitscope.kernels import Filters, filters
    from unitscope.layers import Layer
    from unitscope.merging import merge
    from unitscope.model import Classifier, wrap
    from unitscope.preprocessing import Preprocessing
    from unitscope.reporting import report
    from unitscope.scanning import scan
    from unitscope.sources import load
    from unitscope.unit_maps import UnitMaps
    from unitscope.write_up import reproduce


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unitscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unitscope.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
