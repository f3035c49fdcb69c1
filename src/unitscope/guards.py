"""Guards: what must still be so for a network's own Python code to make the very calls it made before."""

from __future__ import annotations

import builtins
import enum
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import is_, methodcaller
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, no_type_check

import torch
from torch import Tensor, nn

# Parts of the standard library that hold nothing which changes.
_CONSTANT = frozenset(
    "abc collections contextlib dataclasses enum functools inspect itertools math operator types typing "
    "_collections_abc _functools _operator".split()
)

# Whose code reads, beside its arguments, only the modules it belongs to.
_TRUSTED = _CONSTANT | frozenset("torch torchvision timm transformers einops jaxtyping beartype unitscope".split())

_HARMLESS = frozenset(
    "abs all any bool callable dict divmod enumerate filter float format frozenset getattr hasattr int isinstance "
    "issubclass iter len list map max min next pow range repr reversed round set slice sorted str sum super tuple type "
    "zip".split()
)

_CONTAINERS = (list, tuple, dict, OrderedDict, set, frozenset, str, int, float, bool, torch.Size)

# What an attribute may be without being looked into: these do not change.
_SETTLED = (
    bool, int, float, complex, str, bytes, type(None), type(...), range, slice, enum.Enum, type, FunctionType,
    BuiltinFunctionType, torch.dtype, torch.device, torch.layout, torch.memory_format, Tensor,
)  # fmt: skip


_values_of = methodcaller("values")


class UnsteadyError(Exception):
    """The network's code depends on what is not watched, or has an effect beside its result: `str` says which."""


class Witness:
    """Sees which code runs in a forward pass that is not a library's, and what it calls.

    `why` is a reason for which the code may do something else next time without a trace in the network; else None.
    """

    def __init__(self) -> None:
        self.why: str | None = None
        self.codes: dict[CodeType, dict[str, Any]] = {}
        self._trusted: dict[CodeType, bool] = {}
        self._watchers: set[CodeType] = set()
        # What watches the pass, while it runs.
        self._ours: FrameType | None = None

    def call(self, module: nn.Module, x: Tensor) -> Any:
        """What the module gives, with this looking on; where somebody else's profiler does, it cannot."""
        if sys.getprofile() is not None:
            self._blame("a profiler is at work")
            return module(x)
        sys.setprofile(self._see)
        try:
            return module(x)
        finally:
            sys.setprofile(None)

    @no_type_check  # called for everything that happens: not to be checked each time
    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        if self._ours is not None:
            if event == "return" and frame is self._ours:
                self._ours = None
            return
        code = frame.f_code
        trusted = self._trusted.get(code)
        if trusted is None:
            name = frame.f_globals.get("__name__")
            # Checkers of annotations are written as they are needed, and belong to no file.
            trusted = self._trusted[code] = _root(name) in _TRUSTED or code.co_filename.startswith("<@beartype(")
            if name == "unitscope.trace":
                self._watchers.add(code)
        if trusted:
            if event == "call" and code in self._watchers:
                self._ours = frame
            return
        if event == "call" and code not in self.codes:
            self.codes[code] = frame.f_globals
            # What a function made in this very pass closes over is the pass's own.
            own = any(code in other.co_consts for other in self.codes)
            for name in () if own else code.co_freevars:
                value = frame.f_locals.get(name)
                if not isinstance(value, (type, FunctionType, BuiltinFunctionType)):
                    self._blame(f"{code.co_name} closes over {name}")
        elif event == "c_call" and not _is_harmless(arg):
            self._blame(f"{code.co_name} calls {getattr(arg, '__qualname__', arg)}")

    def _blame(self, why: str) -> None:
        self.why = self.why or why


class Guard:
    """What the code of a network's forward pass can read: whether all of it is still what it was.

    Watched are the attributes of all modules, in containers too, by identity; what their classes define; and the
    globals that the code names which ran. Tensors are watched as objects: their numbers may change. Not watched is the
    code of the libraries (torch and those built on it), which is taken to read nothing but its arguments and modules.

    Raises UnsteadyError where the code may depend on anything else.
    """

    def __init__(self, module: nn.Module) -> None:
        self._objects: list[Any] = []
        self._dicts: list[Any] = []
        self._lists: list[Any] = []
        self._sets: list[Any] = []
        self._globals: list[tuple[Mapping[str, Any], str, Any]] = []
        self._seen: set[int] = set()
        self._look_into(module, type(module).__name__)
        self._types = list(map(type, self._objects))
        classes = dict.fromkeys(chain.from_iterable(kind.__mro__[:-1] for kind in self._types))
        self._dicts += [kind.__dict__ for kind in classes]
        # Most are empty: of these only the length is asked.
        self._filled = [one for one in self._dicts if one]
        self._lengths = list(map(len, chain(self._dicts, self._lists)))
        self._keys = list(chain.from_iterable(self._filled))
        self._values = list(self._values_now())
        self._members = [set(one) for one in self._sets]

    def witnessed(self, witness: Witness) -> None:
        """Watch also what the code that ran names; raises UnsteadyError where that cannot be."""
        if witness.why is not None:
            raise UnsteadyError(witness.why)
        for code, named in witness.codes.items():
            self._watch_names(code, named)

    def tensors(self) -> dict[int, Tensor]:
        """The tensors that are the network's own, by identity: parameters, buffers and plain attributes."""
        return {id(one): one for one in self._values if isinstance(one, Tensor)}

    def holds(self) -> bool:
        """Whether nothing that the code can read has changed, and nobody hooks all modules."""
        everywhere = torch.nn.modules.module
        return (
            not everywhere._global_forward_hooks
            and not everywhere._global_forward_pre_hooks
            and list(map(type, self._objects)) == self._types
            and list(map(len, chain(self._dicts, self._lists))) == self._lengths
            and all(map(is_, chain.from_iterable(self._filled), self._keys))
            and all(map(is_, self._values_now(), self._values))
            and self._sets == self._members
            and all(named.get(name) is value for named, name, value in self._globals)
        )

    def _values_now(self) -> Iterator[Any]:
        return chain(chain.from_iterable(map(_values_of, self._filled)), chain.from_iterable(self._lists))

    def _look_into(self, value: Any, where: str) -> None:
        if isinstance(value, _SETTLED) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        for kind, known in ((dict, self._dicts), (list, self._lists), (set, self._sets)):
            if isinstance(value, kind):
                known.append(value)
        if hasattr(value, "__dict__"):
            self._objects.append(value)
        for name, part in _parts(value, where):
            self._look_into(part, name)

    def _watch_names(self, code: CodeType, named: dict[str, Any]) -> None:
        for name in code.co_names:
            if name not in named:
                continue
            value = named[name]
            self._globals.append((named, name, value))
            if isinstance(value, ModuleType):
                root = _root(value.__name__)
                if root in _TRUSTED:
                    continue
                if root != _root(named.get("__name__")):
                    raise UnsteadyError(f"{code.co_name} names the library {value.__name__}")
                if id(value) not in self._seen:
                    self._seen.add(id(value))
                    self._watch_names(code, vars(value))
            elif isinstance(value, Tensor) or not _is_settled(value):
                raise UnsteadyError(f"{code.co_name} reads {name}, a {type(value).__name__}")


def _parts(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """What a value holds, and where that is; raises UnsteadyError where that cannot be known."""
    held: list[Any] = []
    if isinstance(value, dict):
        yield from ((f"{where}.{name}", part) for name, part in dict.items(value))
    elif isinstance(value, (list, tuple, set, frozenset)):
        held = list(value)
    elif isinstance(value, functools.partial):
        held = [value.func, value.args, value.keywords]
    elif isinstance(value, MethodType):
        held = [value.__func__, value.__self__]
    elif not hasattr(value, "__dict__") or not all(map(_is_python, type(value).__mro__[:-1])):
        raise UnsteadyError(f"{where} is a {type(value).__name__}")
    if hasattr(value, "__dict__"):
        yield type(value).__name__, vars(value)
    yield from ((where, part) for part in held)


def _is_python(kind: type) -> bool:
    """Whether all that objects of a class hold is in their attributes: it is written in Python, without slots."""
    return bool(kind.__flags__ & _ON_THE_HEAP) and not kind.__dict__.get("__slots__")


# Of classes that a program makes, other than those that libraries in C bring along.
_ON_THE_HEAP = 1 << 9


def _is_settled(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_settled, value))
    return isinstance(value, _SETTLED)


def _is_harmless(called: Callable[..., Any]) -> bool:
    """Whether something written in C gives the same for the same, and leaves everything else as it is."""
    owner = getattr(called, "__self__", None)
    if owner is None:
        owner = getattr(called, "__objclass__", None)
    if isinstance(owner, ModuleType):
        if owner is builtins:
            return called.__name__ in _HARMLESS
        return _root(owner.__name__) in _CONSTANT | {"torch"}
    kind = owner if isinstance(owner, type) else type(owner)
    return (
        issubclass(kind, (Tensor, torch.nn.Module, *_CONTAINERS)) or _root(getattr(called, "__module__", "")) == "torch"
    )


def _root(name: str | None) -> str:
    return (name or "").partition(".")[0]
