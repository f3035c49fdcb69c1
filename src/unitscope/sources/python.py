"""python:FILE.py:NAME: your own network, built by a class or function of yours.

It stands in a Python file, or in a module that can be imported.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from torch import nn

from unitscope.errors import (
    ModelError,
    UnitscopeError,
    kind_and_text,
    near_matches,
    one_line,
)
from unitscope.model import Classifier, Provenance
from unitscope.sources.request import Request, seeded
from unitscope.sources.user_code import UserCode
from unitscope.sources.weights import (
    fit_weights,
    infer_class_count,
    read_weights,
)

# A `with` in which the user's code may run.
_Running: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]

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
        module, running = _imported(where, request.spec)
    builder = _Builder(_attribute(module, name, where), request, running)

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
        network, labels, preprocessing, provenance, scores=request.scores
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
    running: _Running

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
            with contextlib.redirect_stdout(sys.stderr), self.running():
                network = self.make(**arguments)
        except (UnitscopeError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise ModelError(
                f"{self.name} failed ({kind_and_text(error)}): it must build the "
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


def _imported(where: str, spec: str) -> tuple[ModuleType, _Running]:
    """Import a Python file, or a module by its name; and how to run what is in it.

    Raises ModelError.
    """
    path = Path(where)
    if path.suffix == ".py" or "/" in where or "\\" in where:
        return _imported_file(path, spec)
    with _failing(where), _running_from(Path.cwd()):
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not missing or not f"{where}.".startswith(f"{missing}."):
                raise
            raise ModelError(
                f"there is no module '{where}' for '{spec}': install it, run from the "
                "folder that holds it, or name the file, as in python:net.py:Net"
            ) from None
        _check_place(where, spec)
    return module, contextlib.nullcontext


def _imported_file(path: Path, spec: str) -> tuple[ModuleType, _Running]:
    if not path.is_file():
        raise ModelError(
            f"there is no Python file '{path}' for '{spec}': check the path (looked "
            f"in {Path.cwd()})"
        )
    if path.suffix != ".py":
        raise ModelError(
            f"'{path}' is not a file of Python code, whose name ends in .py: name the "
            "file that builds the network"
        )
    code = UserCode.of(path)
    with _failing(str(path), code), code.running():
        return code.module(), code.running


@contextlib.contextmanager
def _failing(where: str, code: UserCode | None = None) -> Iterator[None]:
    """Turn what goes wrong while code is imported into a ModelError."""
    shown = str if code is None else code.shown
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (UnitscopeError, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:
        missing = shown(error.name or one_line(error))
        raise ModelError(
            f"'{where}' needs the module '{missing}', which is not installed, "
            "nor beside it: install it, or add its folder to PYTHONPATH"
        ) from error
    except SystemExit as error:
        remedy = "put what it does as a program under if __name__ == '__main__'"
        text = kind_and_text(error)
        raise _import_error(where, text, remedy) from error
    except BaseException as error:
        remedy = "correct it first"
        if "relative import" in str(error):
            remedy = (
                "name it as a part of its package, as in python:package.module:Net, "
                "from the folder that holds the package"
            )
        text = shown(kind_and_text(error))
        raise _import_error(where, text, remedy) from error


def _import_error(where: str, reason: str, remedy: str) -> ModelError:
    return ModelError(f"'{where}' cannot be imported ({reason}): {remedy}")


@contextlib.contextmanager
def _running_from(folder: Path) -> Iterator[None]:
    """Let modules be imported from a folder, and put `sys.path` back afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _check_place(where: str, spec: str) -> None:
    """Raise ModelError where a module of that name from another folder came first."""
    top = where.partition(".")[0]
    here = PathFinder.find_spec(top, [str(Path.cwd())])
    loaded = getattr(sys.modules[top], "__spec__", None)
    if here is None or loaded is None or not here.has_location:
        return
    if loaded.has_location and here.origin != loaded.origin:
        raise ModelError(
            f"'{spec}' is '{here.origin}' from here, but this program has imported "
            f"'{loaded.origin}' under that name: name the file, as in python:net.py:Net"
        )


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
