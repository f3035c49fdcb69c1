"""Sources: `load` turns a specification such as "torchvision:resnet50" into a classifier; a loader for each scheme."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from unitscope.errors import ModelError, near_matches
from unitscope.labels import LabelsSource
from unitscope.model import Classifier
from unitscope.sources.request import (
    InputSize,
    PreprocessingSource,
    Request,
    WeightsSource,
)

__all__ = ["DEFAULT_SPEC", "SCHEMES", "load"]

DEFAULT_SPEC = "miniplaces"
"""What `load()` loads: the bundled scene network."""

Loader: TypeAlias = Callable[[Request], Classifier]

_WEIGHTS_SUFFIXES = (
    ".pth",
    ".pt",
    ".tar",
    ".th",
    ".ckpt",
    ".bin",
    ".safetensors",
    ".pkl",
)


@dataclass(frozen=True)
class Scheme:
    """One way to name a model: how the specification is written, which options it takes, and what loads it."""

    usage: str
    options: frozenset[str]
    load: Loader


def load(
    spec: str | None = None,
    *,
    weights: WeightsSource | None = None,
    labels: LabelsSource | None = None,
    arch: str | None = None,
    num_classes: int | None = None,
    input_size: InputSize | None = None,
    preprocessing: PreprocessingSource | None = None,
    progress: bool | None = None,
    seed: int | None = None,
    base_url: str | None = None,
) -> Classifier:
    """Load a classifier by its specification: scheme and name, e.g. "torchvision:resnet50"; the bundled one by default.

    `weights` is a weights file, or the name of torchvision's or timm's own ("DEFAULT");
    without it torchvision's, timm's and your own networks, and transformers' bare
    types, keep their random weights, drawn with `seed` (0). `labels` is a list or a
    file; `arch` is the specification of the network that a checkpoint belongs to;
    `num_classes` is read off the weights where it is not given; `input_size` is a side,
    or (rows, cols), in pixels; `preprocessing` is a `Preprocessing`, any callable from
    PIL image to tensor, or the name of one of Places365's; `base_url` is a mirror of
    the Places365 files. `progress` False shows no bar while downloading.

    Raises ModelError, or its WeightsError, LabelsError and DownloadError,
    MissingExtraError, or NonFiniteError.
    """
    if spec is not None and not isinstance(spec, str):
        raise ModelError(
            "a model is named by a string such as 'torchvision:resnet50', not "
            f"{type(spec).__name__}: for a network "
            "that you have built, use unitscope.wrap"
        )
    spec = DEFAULT_SPEC if spec is None else spec.strip()
    request = Request(
        spec,
        "",
        weights,
        labels,
        arch,
        num_classes,
        input_size,
        preprocessing,
        progress,
        seed,
        base_url,
    )
    request.check_numbers()
    return _load(request)


def _load(request: Request) -> Classifier:
    scheme, name = _split(request.spec)
    _refuse_foreign_options(request, SCHEMES[scheme])
    return SCHEMES[scheme].load(dataclasses.replace(request, name=name))


def _split(spec: str) -> tuple[str, str]:
    """Scheme and name of a specification, or ModelError with what was probably meant."""
    if spec in SCHEMES and spec in _BUNDLED:
        return spec, spec
    scheme, colon, name = spec.partition(":")
    # One letter before a colon is a drive on Windows.
    if not colon or len(scheme) == 1:
        raise _not_a_specification(spec)
    if scheme not in SCHEMES:
        raise ModelError(
            f"unknown kind of model '{scheme}' in "
            f"'{spec}'{near_matches(scheme, SCHEMES)}: use {_usages()}"
        )
    if scheme in _BUNDLED or not name.strip():
        raise ModelError(
            f"'{spec}' is not complete or says too much: write {SCHEMES[scheme].usage}"
        )
    return scheme, name.strip()


def _not_a_specification(spec: str) -> ModelError:
    path = Path(spec)
    if path.suffix.lower() in _WEIGHTS_SUFFIXES:
        return ModelError(
            f"'{spec}' is a weights file, which does not say what network it belongs "
            f"to: use 'checkpoint:{spec}' with "
            "arch, e.g. arch 'torchvision:resnet50'"
        )
    if path.suffix.lower() == ".py":
        return ModelError(
            f"'{spec}' is a Python file: use 'python:{spec}:Name' with the class or "
            "function in it"
        )
    if path.is_dir() or "/" in spec or "\\" in spec or not spec:
        return ModelError(f"'{spec}' does not name a model: use {_usages()}")
    meant = _torchvision_name(spec) or _timm_name(spec)
    if meant:
        return ModelError(
            f"'{spec}' does not say where the model comes from: did you mean '{meant}'?"
        )
    return ModelError(
        f"unknown model '{spec}'{near_matches(spec, _BUNDLED)}: use {_usages()}"
    )


def _torchvision_name(spec: str) -> str | None:
    """Find the torchvision network of this name, up to capitals, dashes and underscores."""
    from unitscope.errors import MissingExtraError
    from unitscope.sources.torchvision import network_names

    try:
        found = _alike(spec, network_names())
    except MissingExtraError:
        found = (
            spec.lower() if re.fullmatch(r"[A-Za-z]+[\w\-]*\d[\w\-]*", spec) else None
        )
    return f"torchvision:{found}" if found else None


def _timm_name(spec: str) -> str | None:
    """Find the timm network of this name, with the tag of its weights if that is given."""
    from unitscope.errors import MissingExtraError
    from unitscope.sources.timm import network_names

    architecture, dot, tag = spec.partition(".")
    try:
        found = _alike(architecture, network_names())
    except MissingExtraError:
        return None
    return f"timm:{found}{dot}{tag}" if found else None


def _alike(name: str, known: Iterable[str]) -> str | None:
    return {re.sub(r"[-_]", "", other): other for other in known}.get(
        re.sub(r"[-_]", "", name.lower())
    )


def _usages() -> str:
    seen = dict.fromkeys(scheme.usage for scheme in SCHEMES.values())
    *most, last = seen
    return f"{', '.join(most)} or {last}"


def _refuse_foreign_options(request: Request, scheme: Scheme) -> None:
    for option in _OPTIONS:
        if getattr(request, option) is not None and option not in scheme.options:
            takers = dict.fromkeys(
                other.usage for other in SCHEMES.values() if option in other.options
            )
            raise ModelError(
                f"'{request.spec}' takes no {option}: it goes with "
                f"{' and '.join(takers)}"
            )


def _load_torchvision(request: Request) -> Classifier:
    from unitscope.sources.torchvision import load_torchvision

    return load_torchvision(request)


def _load_timm(request: Request) -> Classifier:
    from unitscope.sources.timm import load_timm

    return load_timm(request)


def _load_transformers(request: Request) -> Classifier:
    from unitscope.sources.transformers import load_transformers

    return load_transformers(request)


def _load_places365(request: Request) -> Classifier:
    from unitscope.sources.places365 import load_places365

    return load_places365(request)


def _load_checkpoint(request: Request) -> Classifier:
    from unitscope.sources.checkpoint import load_checkpoint

    return load_checkpoint(request, _load)


def _load_python(request: Request) -> Classifier:
    from unitscope.sources.python import load_python

    return load_python(request)


def _load_bundled(request: Request) -> Classifier:
    from unitscope.sources.bundled import load_bundled

    return load_bundled(request)


_OPTIONS = (
    "weights",
    "labels",
    "arch",
    "num_classes",
    "input_size",
    "preprocessing",
    "seed",
    "base_url",
)
_BUNDLED = ("miniplaces", "scenes")
# What goes with a network that is made anew, its weights given or drawn.
_OF_NETWORKS = frozenset(
    {"weights", "labels", "num_classes", "input_size", "preprocessing", "seed"}
)
_BUNDLED_SCHEME = Scheme(
    "miniplaces (bundled; also scenes)",
    frozenset({"labels", "preprocessing"}),
    _load_bundled,
)

SCHEMES: dict[str, Scheme] = {
    "miniplaces": _BUNDLED_SCHEME,
    "scenes": _BUNDLED_SCHEME,
    "torchvision": Scheme(
        "torchvision:NAME",
        _OF_NETWORKS,
        _load_torchvision,
    ),
    "timm": Scheme(
        "timm:NAME",
        _OF_NETWORKS,
        _load_timm,
    ),
    "transformers": Scheme(
        "transformers:REPO",
        _OF_NETWORKS,
        _load_transformers,
    ),
    "places365": Scheme(
        "places365:NAME", frozenset({"weights", "labels", "preprocessing", "base_url"}), _load_places365
    ),
    "checkpoint": Scheme(
        "checkpoint:FILE",
        frozenset({"arch", "labels", "num_classes", "input_size", "preprocessing", "base_url"}),
        _load_checkpoint,
    ),
    "python": Scheme(
        "python:FILE.py:NAME",
        _OF_NETWORKS,
        _load_python,
    ),
}  # fmt: skip
"""Every scheme by its name; `progress` goes with all of them."""
