"""python:FILE.py:NAME: your own network, built by a class or function of yours.

It stands in a Python file, or in a module that can be imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from unitscope.errors import ModelError, UnitscopeError, near_matches, one_line
from unitscope.model import Classifier, Provenance
from unitscope.sources.request import Request, seeded
from unitscope.sources.weights import (
    fit_weights,
    infer_class_count,
    read_weights,
)

# How many names an error lists.
_MOST_NAMES = 8


def load(request: Request) -> Classifier:
    """Load a network that the user's own code builds; see `unitscope.load`.

    The code runs, so it is to be trusted as any program is.
    """
    where, _, name = request.name.rpartition(":")
    where, name = where.strip(), name.strip()
    if not where or not name:
        raise ModelError(
            f"'{request.spec}' is not complete: write python:net.py:Net, or "
            "python:package.module:Net"
        )
    # A file may draw numbers while it is imported, which must change neither the named
    # network's nor the user's.
    with seeded(request.seed):
        module = _imported(where, request.spec)
    builder = _Builder(_attribute(module, name, where), request)

    preprocessing = request.chosen_preprocessing(None)
    labels = request.own_labels()
    notes = []
    if request.preprocessing is None:
        notes.append(
            f"The preprocessing is assumed: {preprocessing.describe()}."
        )

    file = request.weights_file()
    if file is None:
        network, classes, provenance = _random(builder, name, labels, notes)
    else:
        network, classes, provenance = _trained(builder, file, notes)

    # Where the network does not take a number of classes, the classifier compares the
    # labels with the logits.
    if labels is not None and classes is not None:
        request.check_labels(labels, classes)
    return Classifier(
        network, labels, preprocessing, provenance, request.scores
    )


def _random(
    builder: _Builder,
    name: str,
    labels: Sequence[str] | None,
    notes: Sequence[str],
) -> tuple[nn.Module, int | None, Provenance]:
    request = builder.request
    classes = request.num_classes or (len(labels) if labels else None)
    with seeded(request.seed) as seed:
        network, classes = builder.build(classes)
    how = f"as {name} made them (random initialisation, seed {seed})"
    return network, classes, request.provenance(how, None, notes)


def _trained(
    builder: _Builder, file: Path, notes: Sequence[str]
) -> tuple[nn.Module, int | None, Provenance]:
    request = builder.request
    weights = read_weights(file)
    classes = request.num_classes
    if classes is None and builder.takes_classes:
        classes = infer_class_count(builder.call, weights)

    with seeded(request.seed):
        network, classes = builder.build(classes)
    repairs = fit_weights(network, weights)
    provenance = request.provenance(
        weights.name, weights.sha256, [*weights.notes, *repairs, *notes]
    )
    return network, classes, provenance


@dataclass(frozen=True, eq=False)
class _Builder:
    """The class or function that builds the network, or the network itself."""

    make: Callable[..., Any]
    request: Request

    @property
    def name(self) -> str:
        """The name of the class or function, for errors."""
        return str(getattr(self.make, "__name__", type(self.make).__name__))

    @property
    def takes_classes(self) -> bool:
        """Whether there is an argument `num_classes`."""
        return any(
            parameter.name == "num_classes"
            and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
            for parameter in self._parameters
        )

    def build(self, classes: int | None) -> tuple[nn.Module, int | None]:
        """The network, and its number of classes where it takes that.

        `classes` is passed on where the user or the weights say it, or where the
        network needs it. Raises ModelError where they do not fit together.
        """
        request = self.request
        if request.num_classes is not None and not self.takes_classes:
            raise ModelError(
                f"'{request.spec}' takes no num_classes: give {self.name} an argument "
                "of that name, or leave the option out"
            )
        known = request.num_classes is not None or request.weights is not None
        passed = classes if self.takes_classes and known else None
        if passed is None and "num_classes" in self._required:
            passed = classes
            if passed is None:
                raise ModelError(
                    f"{self.name} needs to know how many classes there are: give "
                    "num_classes (or labels)"
                )
        return self.call(passed).eval(), passed

    def call(self, classes: int | None) -> nn.Module:
        """Build the network, for a number of classes unless that is None."""
        if isinstance(self.make, nn.Module):
            return self.make

        others = [name for name in self._required if name != "num_classes"]
        if others:
            raise ModelError(
                f"{self.name} needs arguments ({', '.join(others)}), which "
                f"'{self.request.spec}' cannot give: write a function without them "
                "that returns the network, and name that"
            )
        arguments = {} if classes is None else {"num_classes": classes}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                network = self.make(**arguments)
        except UnitscopeError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"{self.name} failed ({_kind_and_text(error)}): it must build the "
                f"network, in '{self.request.spec}'"
            ) from error
        if not isinstance(network, nn.Module):
            raise ModelError(
                f"{self.name} gave a {type(network).__name__}, not a torch.nn.Module: "
                "name what builds the network"
            )
        return network

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        if isinstance(self.make, nn.Module):
            return []
        try:
            signature = inspect.signature(self.make)
        except (TypeError, ValueError):
            return []
        return list(signature.parameters.values())

    @property
    def _required(self) -> list[str]:
        """The names of the arguments without a default."""
        variable = (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        return [
            parameter.name
            for parameter in self._parameters
            if parameter.default is inspect.Parameter.empty
            and parameter.kind not in variable
        ]


def _imported(where: str, spec: str) -> ModuleType:
    """Import a Python file, or a module by its name; raises ModelError."""
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
            return (
                _module_of_file(path)
                if is_file
                else importlib.import_module(where)
            )
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not is_file and missing and f"{where}.".startswith(f"{missing}."):
            raise ModelError(
                f"there is no module '{where}' for '{spec}': install it, run from the "
                "folder that holds it, or name the file, as in python:net.py:Net"
            ) from None
        raise ModelError(
            f"'{where}' needs the module '{missing}', which is not installed: install "
            "it and try again"
        ) from error
    except SystemExit as error:
        remedy = "put what it does as a program under if __name__ == '__main__'"
        raise _import_error(where, error, remedy) from error
    except Exception as error:
        raise _import_error(where, error, "correct it first") from error


def _import_error(where: str, error: BaseException, remedy: str) -> ModelError:
    return ModelError(
        f"'{where}' cannot be imported ({_kind_and_text(error)}): {remedy}"
    )


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
    """What has this name, perhaps with dots, in a module; raises ModelError."""
    attribute: Any = module
    for part in name.split("."):
        attribute = getattr(attribute, part, None)
    if attribute is None:
        names = _callables(module)
        raise ModelError(
            f"'{where}' has no '{name}'{near_matches(name, names)}: it has "
            f"{', '.join(names[:_MOST_NAMES]) or 'nothing to call'}"
        )
    if not callable(attribute):
        raise ModelError(
            f"'{name}' in '{where}' is a {type(attribute).__name__}: name a class or "
            "function that builds the network"
        )
    result: Callable[..., Any] = attribute
    return result


def _callables(module: ModuleType) -> list[str]:
    """Names of a module's own classes and functions; of all in it where none is own."""
    public = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    }
    own = [
        name
        for name, value in public.items()
        if getattr(value, "__module__", "") == module.__name__
    ]
    return own or list(public)


def _kind_and_text(error: BaseException) -> str:
    """The kind of an error, and its text on one line where it has one."""
    kind = type(error).__name__
    text = one_line(error)
    return kind if text == kind else f"{kind}: {text}"
