"""Guards: what must still be so for a network's own Python code to make the very calls it made before."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from operator import is_
from types import CodeType, FrameType, MethodType
from typing import Any, no_type_check

import torch
from torch import Tensor, nn

# Whose code, in a forward pass, reads nothing that changes but its arguments and the modules it belongs to; the parts
# of the standard library among them hold nothing that does.
_TRUSTED = frozenset(
    "torch torchvision timm transformers einops unitscope abc collections contextlib dataclasses enum functools "
    "inspect itertools math operator types typing _collections_abc".split()
)

# A network that holds more than this in its attributes takes longer to be watched than to be run.
_MOST_VALUES = 50_000


class UnsteadyError(Exception):
    """The network's code is not only that of libraries, or reads what cannot be watched: `str` says which."""


class Witness:
    """Sees which code runs in a forward pass.

    `why` says whose code ran that may do something else next time without a trace in the network; None for a library's.
    """

    def __init__(self) -> None:
        self.why: str | None = None
        self._trusted: set[CodeType] = set()
        self._watchers: set[CodeType] = set()
        # What watches the pass, while it runs.
        self._ours: FrameType | None = None

    def call(self, module: nn.Module, x: Tensor) -> Any:
        """What the module gives, with this looking on; where somebody else's profiler does, it cannot."""
        if sys.getprofile() is not None:
            self.why = "a profiler is at work"
            return module(x)
        sys.setprofile(self._see)
        try:
            return module(x)
        finally:
            sys.setprofile(None)

    @no_type_check  # called for everything that happens: not to be checked each time
    def _see(self, frame: FrameType, event: str, _arg: Any) -> None:
        if self._ours is not None:
            if event == "return" and frame is self._ours:
                self._ours = None
            return
        if event != "call":
            return
        code = frame.f_code
        if code not in self._trusted:
            name = frame.f_globals.get("__name__") or ""
            if name.partition(".")[0] not in _TRUSTED:
                self.why = self.why or f"{code.co_name} of {name} ran"
                return
            self._trusted.add(code)
            if name == "unitscope.trace":
                self._watchers.add(code)
        if code in self._watchers:
            self._ours = frame


class Guard:
    """What the libraries' code in a network's forward pass can read: whether all of it is still what it was.

    Watched are the attributes of all modules and of the objects that they hold, in containers too, by identity, and
    what their classes define. Tensors are watched as objects, with their shapes and kinds: their numbers may change.
    Not watched are the libraries' own globals.

    Raises UnsteadyError where an attribute is of a kind that cannot be looked into.
    """

    def __init__(self, module: nn.Module) -> None:
        self._objects: list[Any] = []
        self._dicts: list[dict[Any, Any]] = []
        self._lists: list[list[Any]] = []
        self._sets: list[set[Any]] = []
        self._seen: dict[int, Any] = {}
        self._look_into(module, type(module).__name__)
        self._attributes = [vars(one) for one in self._objects]
        self._types = list(map(type, self._objects))
        self._classes = list(dict.fromkeys(chain.from_iterable(kind.__mro__[:-1] for kind in self._types)))
        # Most are empty: of these only the length is asked.
        self._filled = [one for one in self._dicts if one]
        self._lengths = self._lengths_now()
        self._keys, self._values = list(chain.from_iterable(self._filled)), list(self._values_now())
        if len(self._values) > _MOST_VALUES:
            raise UnsteadyError(f"{type(module).__name__} holds {len(self._values)} values")
        self._members = [frozenset(map(id, one)) for one in self._sets]
        self._tensors = [one for one in self._seen.values() if isinstance(one, Tensor)]
        self._facts = self._facts_now()

    def tensors(self) -> dict[int, Tensor]:
        """The tensors that are the network's own, by identity: parameters, buffers and plain attributes."""
        return {id(one): one for one in self._tensors}

    def holds(self) -> bool:
        """Whether nothing that the code can read has changed, and nobody hooks all modules."""
        everywhere = torch.nn.modules.module
        return (
            not everywhere._global_forward_hooks
            and not everywhere._global_forward_pre_hooks
            and list(map(type, self._objects)) == self._types
            and all(map(is_, map(vars, self._objects), self._attributes))
            and self._lengths_now() == self._lengths
            and all(map(is_, chain.from_iterable(self._filled), self._keys))
            and all(map(is_, self._values_now(), self._values))
            and [frozenset(map(id, one)) for one in self._sets] == self._members
            and self._facts_now() == self._facts
        )

    def _lengths_now(self) -> list[int]:
        return list(map(len, chain(self._dicts, self._lists, (kind.__dict__ for kind in self._classes))))

    def _values_now(self) -> Iterator[Any]:
        defined = chain.from_iterable(kind.__dict__.values() for kind in self._classes)
        return chain(chain.from_iterable(map(dict.values, self._filled)), chain.from_iterable(self._lists), defined)

    def _facts_now(self) -> list[tuple[torch.Size, torch.dtype]]:
        return [(one.shape, one.dtype) for one in self._tensors]

    def _look_into(self, value: Any, where: str) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        written_in_c = not type(value).__flags__ & _ON_THE_HEAP and type(value) not in _HOLDERS
        if isinstance(value, Tensor) or written_in_c:
            return  # what is written in C is known by what it is, or holds what no library's forward pass reads
        if isinstance(value, dict):
            self._dicts.append(value)
        elif isinstance(value, list):
            self._lists.append(value)
        elif isinstance(value, set):
            self._sets.append(value)
        if not isinstance(value, type) and hasattr(value, "__dict__") and type(value) not in _HOLDERS:
            self._objects.append(value)
        for name, part in _parts(value, where):
            self._look_into(part, name)


# Containers and bound functions, which are looked into.
_HOLDERS = (dict, OrderedDict, list, tuple, set, frozenset, functools.partial, MethodType)

# Of classes that a program makes, other than those that libraries in C bring along.
_ON_THE_HEAP = 1 << 9


def _parts(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """What a value holds, and where that is; raises UnsteadyError where that cannot be known."""
    if isinstance(value, type):
        return
    held: list[Any] = []
    if isinstance(value, dict):
        yield from ((f"{where}.{name}", part) for name, part in dict.items(value))
    elif isinstance(value, (list, tuple, set, frozenset)):
        held = list(value)
    elif isinstance(value, functools.partial):
        held = [value.func, value.args, value.keywords]
    elif isinstance(value, MethodType):
        held = [value.__func__, value.__self__]
    elif not hasattr(value, "__dict__") or any(kind.__dict__.get("__slots__") for kind in type(value).__mro__):
        raise UnsteadyError(f"{where} is a {type(value).__name__}")
    if hasattr(value, "__dict__") and type(value) not in _HOLDERS:
        yield type(value).__name__, vars(value)
    yield from ((where, part) for part in held)
