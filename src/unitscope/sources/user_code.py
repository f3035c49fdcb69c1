"""User code: a Python file and its neighbours, under module names of their own.

Python knows one module a name, and the first one that is imported wins. Two networks
from different folders may both `import layers`, though, and so may the user's program.
So the file and whatever it imports from its own folder become parts of a package whose
name nobody else uses: `net_1a2b3c4d.net` and `net_1a2b3c4d.layers`.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    BuiltinImporter,
    FrozenImporter,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_DIGITS = 8


@dataclass(eq=False)
class UserCode:
    """A Python file of the user's, and the modules that it imports from its folders.

    `package` is the name under which they are in `sys.modules`. `path` is the program's
    `sys.path`; `folders` are the file's own folder, and those that it puts before that
    path (`late` behind it). `sources` are the bytes of every file that ran, so that
    another process can run the same ones.
    """

    package: str
    file: Path
    path: tuple[str, ...]
    folders: list[str]
    late: list[str] = field(default_factory=list)
    sources: dict[str, bytes] = field(default_factory=dict)
    _is_running: bool = field(default=False, init=False)

    @classmethod
    def of(cls, file: Path) -> UserCode:
        """The code of a file that is to be imported anew, whatever ran before."""
        file = file.resolve()
        digest = hashlib.sha256(str(file).encode()).hexdigest()[:_DIGITS]
        first = package = f"{_identifier(file.stem)}_{digest}"
        count = 1
        while package in _CODE or package in sys.modules:
            count += 1
            package = f"{first}_{count}"
        folder = file.parent
        # A file in a package may import that by its name.
        outside = next(
            parent
            for parent in file.parents
            if not (parent / "__init__.py").is_file()
        )
        late = [] if outside == folder else [str(outside)]
        return cls(package, file, tuple(sys.path), [str(folder)], late)

    def __post_init__(self) -> None:
        if _FINDER not in sys.meta_path:
            # Before Python's own finder, which would find the neighbours too.
            sys.meta_path.insert(0, _FINDER)
        _CODE[self.package] = self

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process has to be registered there.
        facts = (
            self.package,
            self.file,
            self.path,
            self.folders,
            self.late,
            self.sources,
        )
        return UserCode, facts

    @property
    def name(self) -> str:
        """The name of the file's own module."""
        return f"{self.package}.{_identifier(self.file.stem)}"

    def module(self) -> ModuleType:
        """The file's own module, imported when it is first asked for."""
        return importlib.import_module(self.name)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Follow what the code adds to `sys.path`, and put that back afterwards."""
        before = list(sys.path)
        importlib.invalidate_caches()
        self._is_running = True
        try:
            yield
        finally:
            self._follow_path()
            self._is_running = False
            sys.path[:] = before

    def shown(self, text: str) -> str:
        """A text with the names of modules as the user's code writes them."""
        return text.replace(f"{self.package}.", "")

    def namespace(self) -> Mapping[str, Any]:
        """The built-in functions of the code's modules, with an `import` of its own."""
        return {**vars(builtins), "__import__": self._import}

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The `__import__` of the code's modules."""
        if level == 0 and self._is_own(name):
            own = f"{self.package}.{name}"
            module = builtins.__import__(own, globals, locals, fromlist, 0)
            if fromlist:
                return module
            return sys.modules[f"{self.package}.{_top(name)}"]

        module = builtins.__import__(name, globals, locals, fromlist, level)
        # import_module would not know whose code asks.
        return _Importlib(self) if module is importlib else module

    def _import_module(
        self, name: str, package: str | None = None
    ) -> ModuleType:
        """The `importlib.import_module` of the code's modules."""
        if not name.startswith(".") and self._is_own(name):
            name = f"{self.package}.{name}"
        return importlib.import_module(name, package)

    def _is_own(self, name: str) -> bool:
        """Whether an absolute import means a module of the code's own folders."""
        top = _top(name)
        if f"{self.package}.{top}" in sys.modules:
            return True
        if any(
            finder.find_spec(top)
            for finder in (BuiltinImporter, FrozenImporter)
        ):
            return False

        self._follow_path()
        known = _known(top, self.path)
        own = PathFinder.find_spec(top, self.folders)
        if known is None:
            late = PathFinder.find_spec(top, self.late)
            return own is not None or late is not None
        if own is None:
            return False
        # A folder of that name without __init__.py gives way to a real module. A module
        # that the user's program has, or would get, is the same one here.
        if _is_namespace(own) and not _is_namespace(known):
            return False
        return _places(own).isdisjoint(_places(known))

    def _follow_path(self) -> None:
        """Keep the folders that the running code has added to `sys.path`."""
        if not self._is_running:
            return
        earlier = set(self.path)
        for folder in reversed(sys.path):
            if folder in self.path:
                earlier.discard(folder)
            elif folder not in (*self.folders, *self.late):
                is_behind = len(earlier) == len(set(self.path))
                (self.late if is_behind else self.folders).append(folder)


class _Importlib(ModuleType):
    """importlib, whose `import_module` finds the modules of some code first."""

    def __init__(self, code: UserCode) -> None:
        super().__init__("importlib", importlib.__doc__)
        self.import_module = code._import_module
        self.__import__ = code._import

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


class _Loader(SourceFileLoader):
    """Runs a file of some code, always from its source and with its own `import`."""

    def __init__(self, name: str, path: str, code: UserCode) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source; bytecode of another time is neither read nor written."""
        sources = self._code.sources
        if self.path not in sources:
            sources[self.path] = self.get_data(self.path)
        code: CodeType = self.source_to_code(sources[self.path], self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the file in a module."""
        vars(module)["__builtins__"] = self._code.namespace()
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the packages of user code, and the modules in them."""

    def find_spec(
        self,
        fullname: str,
        path: Any,  # a list, or a namespace package's own kind of one
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The file of a module of user code; None for any other module."""
        code = _CODE.get(_top(fullname))
        if code is None:
            return None
        if fullname == code.package:
            package = ModuleSpec(fullname, None, is_package=True)
            package.submodule_search_locations = [*code.folders, *code.late]
            return package
        if fullname == code.name:
            loader = _Loader(fullname, str(code.file), code)
            return spec_from_file_location(fullname, code.file, loader=loader)

        if fullname.count(".") == 1:
            # The code may have added folders since its package was made.
            path = [*code.folders, *code.late]
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, str(spec.loader.path), code)
        return spec


_CODE: dict[str, UserCode] = {}
_FINDER = _Finder()


def loaded_code() -> list[UserCode]:
    """All user code of this process.

    Another process that unpickles it can unpickle its networks.
    """
    return list(_CODE.values())


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _known(name: str, path: Sequence[str]) -> ModuleSpec | None:
    """What a top-level name means in the user's program."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    return PathFinder.find_spec(name, path)


def _is_namespace(spec: ModuleSpec) -> bool:
    return not spec.has_location and spec.submodule_search_locations is not None


def _places(spec: ModuleSpec) -> set[str]:
    """The file of a module, or the folders of a package without one."""
    found = [spec.origin] if spec.has_location else []
    if _is_namespace(spec):
        found = list(spec.submodule_search_locations or ())
    return {str(Path(place).resolve()) for place in found if place}
