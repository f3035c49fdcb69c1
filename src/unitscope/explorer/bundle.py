"""Bundle: the explorer's ES modules joined into one classic script, as pages from disk may load no modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

# What the modules keep to: names are imported as they are called, and what stands at
# the top of a module begins a line.
_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"\./([\w.-]+)";\n', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?=(?:const|let|class|function|async function) )", re.MULTILINE
)
_TOP = re.compile(
    r"^(?:export )?(?:const|let|var|class|(?:async )?function\*?) ([A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
_EXPORTED = re.compile(
    r"^export (?:const|let|class|function|async function) ([A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
# Types of the modules' names. tsc reads them; a browser need not load them.
_JSDOC = re.compile(r"^[ \t]*/\*\*(?:(?!\*/).)*\*/[ \t]*\n", re.MULTILINE | re.DOTALL)
_LEFT = re.compile(
    r"^(?:import|export)\b.*$|\bimport\s*\(|\bimport\.meta\b", re.MULTILINE
)
_PARTS = re.compile(
    r"^(?:export )?(?:const|let|var)\s*[{[]([^=]*)[}\]]\s*=", re.MULTILINE
)


def bundle(
    read: Callable[[str], str],
    entry: str,
    name: str,
    gives: Sequence[str],
    instead: Mapping[str, str] | None = None,
) -> str:
    """The modules that `entry` needs as one script, which declares nothing but `name`: an object of what it `gives`.

    `read` gives the text of a module by its file name; some are taken `instead` of
    others. The modules stand in one scope, those that are needed before those that need
    them, so that each top-level name may be used once. Raises ValueError for modules
    that cannot be joined so, as the pages' modules must.
    """
    instead = instead or {}
    texts: dict[str, str] = {}
    order: list[str] = []

    def visit(module: str, path: tuple[str, ...]) -> None:
        module = instead.get(module, module)
        if module in path:
            raise ValueError(
                f"modules import each other in a circle: {' → '.join((*path, module))}"
            )
        if module in order:
            return
        texts[module] = read(module)
        for _, needed in _IMPORT.findall(texts[module]):
            visit(needed, (*path, module))
        order.append(module)

    visit(entry, ())
    _check(texts, instead)
    parts = [f"// {module}\n{_stripped(module, texts[module])}" for module in order]
    missing = set(gives) - {one for text in texts.values() for one in _names(text)}
    if missing:
        raise ValueError(
            f"no module has {', '.join(sorted(missing))}, which the script is to give"
        )
    given = ", ".join(gives)
    return f'"use strict";\nconst {name} = (() => {{\n{"".join(parts)}return {{ {given} }};\n}})();\n'


def _stripped(module: str, text: str) -> str:
    """A module's text without imports and JSDoc, and with its exports as ordinary names."""
    text = _EXPORT.sub("", _IMPORT.sub("", _JSDOC.sub("", text)))
    left = _LEFT.search(text)
    if left is not None:
        raise ValueError(
            f"{module}: '{left[0].strip()}' cannot be joined: import and export by "
            "name only"
        )
    return text.strip() + "\n\n"


def _names(text: str) -> list[str]:
    """The names that a module declares at its top level, one by one or as parts of a value."""
    parts = [
        re.split(r"[:.]", one)[-1].strip()
        for group in _PARTS.findall(text)
        for one in group.split(",")
    ]
    return [*_TOP.findall(text), *filter(None, parts)]


def _check(texts: Mapping[str, str], instead: Mapping[str, str]) -> None:
    """Whether every import is there under its own name, and every top-level name is used once."""
    exported = {module: set(_EXPORTED.findall(text)) for module, text in texts.items()}
    for module, text in texts.items():
        for names, needed in _IMPORT.findall(text):
            asked = [one.strip() for one in names.split(",") if one.strip()]
            found = instead.get(needed, needed)
            for one in asked:
                if " as " in one or one not in exported[found]:
                    raise ValueError(
                        f"{module} imports '{one}' of {found}, which exports nothing "
                        "of that name"
                    )
    uses = Counter(one for text in texts.values() for one in _names(text))
    twice = sorted(one for one, count in uses.items() if count > 1)
    if twice:
        where = {
            one: [module for module, text in texts.items() if one in _names(text)]
            for one in twice
        }
        told = "; ".join(
            f"{one} in {' and '.join(modules)}" for one, modules in where.items()
        )
        raise ValueError(f"names at the top level of more than one module: {told}")
