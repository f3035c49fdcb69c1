"""Ask an image classifier what it has learned, and why it said that.

Filters, units, the units that carry a prediction, and where in the photo the evidence
for every class lies: exactly, on your own network and photos. Names are imported when
they are first used, so that `import unitscope` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Ablation": "attribution.ablation",
    "Account": "accounts.account",
    "Atlas": "atlas.atlas",
    "Classifier": "model",
    "Contrast": "attribution.contrast",
    "Evaluation": "evaluation.evaluation",
    "Explanation": "attribution.explanation",
    "Filters": "kernels",
    "Flip": "attribution.flip",
    "Head": "attribution.head",
    "Layer": "tracing.layers",
    "Prediction": "attribution.classes",
    "Preprocessing": "inputs.preprocessing",
    "RawPictures": "inputs.raw",
    "UnitAblations": "attribution.unit_ablations",
    "UnitMaps": "attribution.unit_maps",
    "UnitscopeError": "errors",
    "evaluate": "evaluation.evaluating",
    "explore": "explorer.server",
    "filters": "kernels",
    "load": "sources",
    "report": "render.reporting",
    "merge": "atlas.merging",
    "open_dataset": "datasets",
    "reproduce": "write_up",
    "scan": "atlas.scanning",
    "wrap": "model",
}

__all__ = [
    "Ablation",
    "Account",
    "Atlas",
    "Classifier",
    "Contrast",
    "Evaluation",
    "Explanation",
    "Filters",
    "Flip",
    "Head",
    "Layer",
    "Prediction",
    "Preprocessing",
    "RawPictures",
    "UnitAblations",
    "UnitMaps",
    "UnitscopeError",
    "__version__",
    "evaluate",
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
    from unitscope.accounts.account import Account
    from unitscope.atlas.atlas import Atlas
    from unitscope.atlas.merging import merge
    from unitscope.atlas.scanning import scan
    from unitscope.attribution.ablation import Ablation
    from unitscope.attribution.classes import Prediction
    from unitscope.attribution.contrast import Contrast
    from unitscope.attribution.explanation import Explanation
    from unitscope.attribution.flip import Flip
    from unitscope.attribution.head import Head
    from unitscope.attribution.unit_ablations import UnitAblations
    from unitscope.attribution.unit_maps import UnitMaps
    from unitscope.datasets import open_dataset
    from unitscope.errors import UnitscopeError
    from unitscope.evaluation.evaluating import evaluate
    from unitscope.evaluation.evaluation import Evaluation
    from unitscope.explorer.server import explore
    from unitscope.inputs.preprocessing import Preprocessing
    from unitscope.inputs.raw import RawPictures
    from unitscope.kernels import Filters, filters
    from unitscope.model import Classifier, wrap
    from unitscope.render.reporting import report
    from unitscope.sources import load
    from unitscope.tracing.layers import Layer
    from unitscope.write_up import reproduce


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unitscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unitscope.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
