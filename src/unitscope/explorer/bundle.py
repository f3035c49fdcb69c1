"""Bundle: the explorer's ES modules joined into one classic script for pages from disk.

Such pages cannot load modules. The modules keep to a few rules, so that joining them is
plain concatenation: names are imported by name and never renamed, every top-level
statement begins a line, and every top-level name is used in one module only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

_IMPORT = re.compile(
    r'^import\s*\{([^}]*)\}\s*from\s*"\./([\w.-]+)";\n', re.MULTILINE
)
_EXPORT = re.compile(
    r"^export (?=(?:const|let|class|function|async function) )", re.MULTILINE
)
_EXPORTED = re.compile(
    r"^export (?:const|let|class|function|async function) ([A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
_DECLARED = re.compile(
    r"^(?:export )?(?:const|let|var|class|(?:async )?function\*?) ([A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
# const [a, b] = …; const { a, b } = …
_DESTRUCTURED = re.compile(
    r"^(?:export )?(?:const|let|var)\s*[{[]([^=]*)[}\]]\s*=", re.MULTILINE
)
# Types: tsc reads them, browsers need not load them.
_JSDOC = re.compile(
    r"^[ \t]*/\*\*(?:(?!\*/).)*\*/[ \t]*\n", re.MULTILINE | re.DOTALL
)
_UNSUPPORTED = re.compile(
    r"^(?:import|export)\b.*$|\bimport\s*\(|\bimport\.meta\b", re.MULTILINE
)


def bundle(
    read: Callable[[str], str],
    entry: str,
    name: str,
    gives: Sequence[str],
    instead: Mapping[str, str] | None = None,
) -> str:
    """The module `entry` and all that it imports, as a script that declares only `name`.

    `name` is an object of the names in `gives`. `read` returns the text of a module by
    its file name; `instead` names modules that replace others. Raises ValueError for
    modules that break the rules above.
    """
    replaced = instead or {}
    texts = _in_order(read, entry, replaced)
    _check_imports(texts, replaced)
    _check_names(texts)

    declared = set()
    for text in texts.values():
        declared.update(_names(text))

    missing = sorted(set(gives) - declared)
    if missing:
        names = ", ".join(missing)
        raise ValueError(f"no module has {names}, which the script is to give")

    lines = ['"use strict";', f"const {name} = (() => {{"]
    for module, text in texts.items():
        lines.append(f"// {module}")
        lines.append(_stripped(module, text))

    given = ", ".join(gives)
    lines.append(f"return {{ {given} }};")
    lines.append("})();")
    return "\n".join(lines) + "\n"


def _in_order(
    read: Callable[[str], str], entry: str, replaced: Mapping[str, str]
) -> dict[str, str]:
    """The texts of a module and of all that it imports, each after its own imports."""
    texts: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        module = replaced.get(module, module)
        if module in path:
            circle = " → ".join((*path, module))
            raise ValueError(f"modules import each other in a circle: {circle}")
        if module in texts:
            return
        text = read(module)
        for _, needed in _IMPORT.findall(text):
            visit(needed, (*path, module))
        texts[module] = text

    visit(entry, ())
    return texts


def _stripped(module: str, text: str) -> str:
    """A module's text without imports and JSDoc, and with its exports as ordinary names."""
    text = _JSDOC.sub("", text)
    text = _IMPORT.sub("", text)
    text = _EXPORT.sub("", text)

    unsupported = _UNSUPPORTED.search(text)
    if unsupported is not None:
        statement = unsupported[0].strip()
        raise ValueError(
            f"{module}: '{statement}' cannot be joined: import and export by name only"
        )
    return text.strip() + "\n"


def _names(text: str) -> list[str]:
    """The names that a module declares at its top level."""
    names: list[str] = _DECLARED.findall(text)

    for group in _DESTRUCTURED.findall(text):
        for part in group.split(","):
            # The last name of `key: name` and of `...name`.
            name = re.split(r"[:.]", part)[-1].strip()
            if name:
                names.append(name)
    return names


def _check_imports(
    texts: Mapping[str, str], replaced: Mapping[str, str]
) -> None:
    """Raise ValueError unless every imported name is exported under that name."""
    exported = {
        module: set(_EXPORTED.findall(text)) for module, text in texts.items()
    }

    for module, text in texts.items():
        for names, needed in _IMPORT.findall(text):
            source = replaced.get(needed, needed)
            imported = {name.strip() for name in names.split(",")}
            unknown = imported - exported[source] - {""}
            if unknown:
                raise ValueError(
                    f"{module} imports '{min(unknown)}' of {source}, which exports "
                    "nothing of that name"
                )


def _check_names(texts: Mapping[str, str]) -> None:
    """Raise ValueError unless every top-level name is used in one module only."""
    places: dict[str, list[str]] = {}
    for module, text in texts.items():
        for name in _names(text):
            places.setdefault(name, []).append(module)

    repeated = []
    for name, modules in sorted(places.items()):
        if len(modules) > 1:
            where = " and ".join(modules)
            repeated.append(f"{name} in {where}")

    if repeated:
        names = "; ".join(repeated)
        raise ValueError(
            f"names at the top level of more than one module: {names}"
        )
