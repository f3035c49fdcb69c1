"""Specifications: scheme and name ("torchvision:resnet50"), and the loader of each."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterable
from pathlib import Path

from unitscope.errors import MissingExtraError, ModelError, near_matches
from unitscope.model import Classifier
from unitscope.sources import timm, torchvision
from unitscope.sources.request import Request
from unitscope.sources.schemes import SCHEMES, Scheme, usages

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
_OPTIONS = (
    "weights",
    "labels",
    "arch",
    "num_classes",
    "input_size",
    "preprocessing",
    "output",
    "seed",
    "base_url",
    "templates",
)


def load_reloadable(request: Request) -> Classifier:
    """Load a model whose provenance knows how to load it once more."""
    classifier = load_specified(request)
    reload = functools.partial(_load_again, request, Path.cwd())
    classifier.provenance = dataclasses.replace(
        classifier.provenance, reload=reload
    )
    return classifier


def _load_again(request: Request, folder: Path) -> Classifier:
    """Load a model as it was loaded before, with paths that begin in `folder`."""
    with contextlib.chdir(folder):
        return load_specified(request)


def load_specified(request: Request) -> Classifier:
    """Load the model that the request's specification names, by its scheme's loader."""
    scheme, name = _split(request.spec)
    _refuse_foreign_options(request, scheme)
    load = scheme.loader()
    model = load(dataclasses.replace(request, name=name))
    if request.output is not None:
        model.output = request.output
    return model


def _split(spec: str) -> tuple[Scheme, str]:
    """Scheme and name of a specification; ModelError suggests what is meant."""
    bundled = SCHEMES.get(spec)
    if bundled is not None and bundled.bundled:
        return bundled, spec

    prefix, colon, name = spec.partition(":")
    # One letter before a colon is a drive on Windows.
    if not colon or len(prefix) == 1:
        raise _not_a_specification(spec)
    if prefix not in SCHEMES:
        raise ModelError(
            f"unknown kind of model '{prefix}' in "
            f"'{spec}'{near_matches(prefix, SCHEMES)}: use {_ways()}"
        )

    scheme = SCHEMES[prefix]
    if scheme.bundled:
        raise ModelError(f"'{spec}' says too much: write {scheme.usage}")
    if not name.strip():
        raise ModelError(f"'{spec}' is not complete: write {scheme.usage}")
    return scheme, name.strip()


def _not_a_specification(spec: str) -> ModelError:
    path = Path(spec)
    if path.suffix.lower() in _WEIGHTS_SUFFIXES:
        return ModelError(
            f"'{spec}' is a weights file, which does not say what network it belongs "
            f"to: use 'checkpoint:{spec}' with arch, e.g. arch 'torchvision:resnet50'"
        )
    if path.suffix.lower() == ".py":
        return ModelError(
            f"'{spec}' is a Python file: use 'python:{spec}:Name' with the class or "
            "function in it"
        )
    if path.is_dir() or "/" in spec or "\\" in spec or not spec:
        return ModelError(f"'{spec}' does not name a model: use {_ways()}")

    likely = _torchvision_spec(spec) or _timm_spec(spec)
    if likely:
        return ModelError(
            f"'{spec}' does not say where the model comes from: did you mean "
            f"'{likely}'?"
        )
    names = [name for name, scheme in SCHEMES.items() if scheme.bundled]
    return ModelError(
        f"unknown model '{spec}'{near_matches(spec, names)}: use {_ways()}"
    )


def _torchvision_spec(spec: str) -> str | None:
    """The specification of torchvision's network of this name, however spelt."""
    try:
        name = _same_but_for_spelling(spec, torchvision.network_names())
    except MissingExtraError:
        plausible = re.fullmatch(r"[A-Za-z]+[\w\-]*\d[\w\-]*", spec)
        name = spec.lower() if plausible else None
    return f"torchvision:{name}" if name else None


def _timm_spec(spec: str) -> str | None:
    """The specification of timm's network of this name, with its weights' tag."""
    architecture, dot, tag = spec.partition(".")
    try:
        name = _same_but_for_spelling(architecture, timm.network_names())
    except MissingExtraError:
        return None
    return f"timm:{name}{dot}{tag}" if name else None


def _same_but_for_spelling(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs in capitals, dashes and underscores at most."""

    def letters(spelling: str) -> str:
        return re.sub(r"[-_]", "", spelling)

    by_letters = {letters(other): other for other in known}
    return by_letters.get(letters(name.lower()))


def _ways() -> str:
    """All ways to write a specification, for an error."""
    *others, last = usages()
    return ", ".join(others) + f" or {last}"


def _refuse_foreign_options(request: Request, scheme: Scheme) -> None:
    for option in _OPTIONS:
        if getattr(request, option) is None or option in scheme.options:
            continue
        takers = [
            other.usage for other in SCHEMES.values() if option in other.options
        ]
        raise ModelError(
            f"'{request.spec}' takes no {option}: it goes with "
            f"{' and '.join(dict.fromkeys(takers))}"
        )
