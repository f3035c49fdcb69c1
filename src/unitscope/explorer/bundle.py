"""Bundle: the explorer's ES modules joined into one classic script for pages from disk.

Such pages cannot load modules. The modules keep to a few rules, so that joining them is
plain concatenation: names are imported by name and never renamed, every top-level
statement begins a line, and every top-level name is used in one module only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"\./([\w.-]+)";\n', re.MULTILINE)
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
_JSDOC = re.compile(r"^[ \t]*/\*\*(?:(?!\*/).)*\*/[ \t]*\n", re.MULTILINE | re.DOTALL)
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

    declared = {found for text in texts.values() for found in _names(text)}
    missing = sorted(set(gives) - declared)
    if missing:
        raise ValueError(
            f"no module has {', '.join(missing)}, which the script is to give"
        )

    body = "".join(
        f"// {module}\n{_stripped(module, text)}" for module, text in texts.items()
    )
    returned = f"return {{ {', '.join(gives)} }};\n"
    return f'"use strict";\nconst {name} = (() => {{\n{body}{returned}}})();\n'


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
        raise ValueError(
            f"{module}: '{unsupported[0].strip()}' cannot be joined: import and export "
            "by name only"
        )
    return text.strip() + "\n\n"


def _names(text: str) -> list[str]:
    """The names that a module declares at its top level."""
    parts = (part for group in _DESTRUCTURED.findall(text) for part in group.split(","))
    # The last name of `key: name` and of `...name`.
    destructured = (re.split(r"[:.]", part)[-1].strip() for part in parts)
    return [*_DECLARED.findall(text), *filter(None, destructured)]


def _check_imports(texts: Mapping[str, str], replaced: Mapping[str, str]) -> None:
    """Raise ValueError unless every imported name is exported under that name."""
    exported = {module: set(_EXPORTED.findall(text)) for module, text in texts.items()}
    for module, text in texts.items():
        for names, needed in _IMPORT.findall(text):
            source = replaced.get(needed, needed)
            for name in filter(None, map(str.strip, names.split(","))):
                if name not in exported[source]:
                    raise ValueError(
                        f"{module} imports '{name}' of {source}, which exports nothing "
                        "of that name"
                    )


def _check_names(texts: Mapping[str, str]) -> None:
    """Raise ValueError unless every top-level name is used in one module only."""
    declared = {module: _names(text) for module, text in texts.items()}
    uses = Counter(name for names in declared.values() for name in names)
    repeated = sorted(name for name, count in uses.items() if count > 1)
    if not repeated:
        return

    def where(name: str) -> str:
        modules = (module for module, names in declared.items() if name in names)
        return f"{name} in {' and '.join(modules)}"

    places = "; ".join(map(where, repeated))
    raise ValueError(f"names at the top level of more than one module: {places}")
