"""python:FILE.py:NAME: your own network, built by a class or function in a Python file or an importable module."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from unitscope.errors import ModelError, UnitscopeError, near_matches
from unitscope.labels import check_label_count
from unitscope.model import Classifier
from unitscope.sources.request import Request, seeded
from unitscope.sources.weights import fit_weights, infer_class_count, read_weights


def load(request: Request) -> Classifier:
    """Load a network that the user's own code builds; see `unitscope.load`.

    The code runs, so it is to be trusted as any program is.
    """
    where, colon, name = request.name.rpartition(":")
    if not colon or not where.strip() or not name.strip():
        raise ModelError(
            f"'{request.spec}' is not complete: write python:net.py:Net, or "
            "python:package.module:Net"
        )
    # A file may draw numbers while it is imported, which must change neither the named
    # network's nor the user's.
    with seeded(request.seed):
        module = _imported(where.strip(), request.spec)
    found = _attribute(module, name.strip(), where.strip())
    preprocessing = request.chosen_preprocessing(None)
    labels = request.own_labels()
    notes = (
        [f"The preprocessing is assumed: {preprocessing.describe()}."]
        if request.preprocessing is None
        else []
    )
    file = request.weights_file()
    if file is None:
        with seeded(request.seed) as seed:
            network, classes = _network(
                found, request, request.num_classes or (len(labels) if labels else None)
            )
        how = f"as {name.strip()} made them (random initialisation, seed {seed})"
        _check_labels(request, labels, classes)
        return Classifier(
            network, labels, preprocessing, request.provenance(how, None, notes)
        )
    weights = read_weights(file)
    classes = request.num_classes
    if classes is None and _takes_classes(found):
        classes = infer_class_count(lambda count: _call(found, request, count), weights)
    with seeded(request.seed):
        network, classes = _network(found, request, classes)
    repairs = fit_weights(network, weights)
    _check_labels(request, labels, classes)
    return Classifier(
        network,
        labels,
        preprocessing,
        request.provenance(
            weights.name, weights.sha256, [*weights.notes, *repairs, *notes]
        ),
    )


def _check_labels(
    request: Request, labels: tuple[str, ...] | None, classes: int | None
) -> None:
    # Where the network does not take a number of classes, the classifier compares the
    # labels with the logits.
    if labels is not None and classes is not None:
        check_label_count(
            labels,
            classes,
            ""
            if request.num_classes
            else f"num_classes={len(labels)} for a network of as many",
        )


def _network(
    found: Callable[..., Any], request: Request, classes: int | None
) -> tuple[nn.Module, int | None]:
    """Build the network, and say its number of classes where that was told to it."""
    if request.num_classes is not None and not _takes_classes(found):
        raise ModelError(
            f"'{request.spec}' takes no num_classes: give {_name(found)} an argument "
            "of that name, or leave the option "
            "out"
        )
    told = (
        classes
        if _takes_classes(found)
        and (request.num_classes is not None or request.weights is not None)
        else None
    )
    if told is None and _needs_classes(found):
        told = classes
        if told is None:
            raise ModelError(
                f"{_name(found)} needs to know how many classes there are: give "
                "num_classes (or labels)"
            )
    return _call(found, request, told).eval(), told


def _call(
    found: Callable[..., Any], request: Request, classes: int | None
) -> nn.Module:
    if isinstance(found, nn.Module):
        return found
    others = [name for name in _required(found) if name != "num_classes"]
    if others:
        raise ModelError(
            f"{_name(found)} needs arguments ({', '.join(others)}), which "
            f"'{request.spec}' cannot give: write a "
            "function without them that returns the network, and name that"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            network = found() if classes is None else found(num_classes=classes)
    except UnitscopeError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{_name(found)} failed ({_told(error)}): it must build the network, in "
            f"'{request.spec}'"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{_name(found)} gave a {type(network).__name__}, not a torch.nn.Module: "
            "name what builds the network"
        )
    return network


def _imported(where: str, spec: str) -> ModuleType:
    path = Path(where)
    is_file = path.suffix == ".py" or "/" in where or "\\" in where
    if is_file and not path.is_file():
        raise ModelError(
            f"there is no Python file '{where}' for '{spec}': check the path (looked "
            f"in {Path.cwd()})"
        )
    folder = path.resolve().parent if is_file else Path.cwd()
    try:
        with _importing_from(folder), contextlib.redirect_stdout(sys.stderr):
            return _module_of_file(path) if is_file else importlib.import_module(where)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if (
            not is_file
            and missing
            and (where == missing or where.startswith(missing + "."))
        ):
            raise ModelError(
                f"there is no module '{where}' for '{spec}': install it, run from the "
                "folder that holds it, or name "
                "the file, as in python:net.py:Net"
            ) from None
        raise ModelError(
            f"'{where}' needs the module '{missing}', which is not installed: install "
            "it and try again"
        ) from error
    except (Exception, SystemExit) as error:
        remedy = (
            "put what it does as a program under if __name__ == '__main__'"
            if isinstance(error, SystemExit)
            else "correct it first"
        )
        raise ModelError(
            f"'{where}' cannot be imported ({_told(error)}): {remedy}"
        ) from error


def _module_of_file(path: Path) -> ModuleType:
    path = path.resolve()
    # A name of its own, so that a net.py here and a net.py there stay two modules.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError("not a file of Python code; its name must end in .py")
    module = importlib.util.module_from_spec(specification)
    # Dataclasses and torch look a class's module up by its name.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let the user's code import its neighbours, and put `sys.path` back afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _attribute(module: ModuleType, name: str, where: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        names = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_")
        ]
        own = [
            key
            for key in names
            if getattr(vars(module)[key], "__module__", "") == module.__name__
        ] or names
        raise ModelError(
            f"'{where}' has no '{name}'{near_matches(name, own)}: it has "
            f"{', '.join(own[:8]) or 'nothing to call'}"
        )
    if not callable(found):
        raise ModelError(
            f"'{name}' in '{where}' is a {type(found).__name__}: name a class or "
            "function that builds the network"
        )
    result: Callable[..., Any] = found
    return result


def _parameters(found: Callable[..., Any]) -> list[inspect.Parameter]:
    if isinstance(found, nn.Module):
        return []
    try:
        return list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return []


def _required(found: Callable[..., Any]) -> list[str]:
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        p.name
        for p in _parameters(found)
        if p.default is inspect.Parameter.empty and p.kind not in fixed
    ]


def _takes_classes(found: Callable[..., Any]) -> bool:
    return any(
        p.name == "num_classes" and p.kind is not inspect.Parameter.POSITIONAL_ONLY
        for p in _parameters(found)
    )


def _needs_classes(found: Callable[..., Any]) -> bool:
    return "num_classes" in _required(found)


def _name(found: object) -> str:
    return str(getattr(found, "__name__", type(found).__name__))


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
