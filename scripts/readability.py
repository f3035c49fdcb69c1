"""Measure how dense the code is: syntax nodes a line, and the lengths of functions, classes and files.

    python scripts/readability.py [--worst 15] [FOLDER ...]

A line counts where it holds code: blank lines, comments and docstrings do not. A syntax node is one node of Python's
`ast`, without load/store markers and without docstrings.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from dataclasses import dataclass
from pathlib import Path

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class File:
    """The measurements of one file: lines of text, lines of code, syntax nodes, and the length of each definition."""

    path: Path
    lines: int
    code: int
    nodes: int
    functions: dict[str, int]
    classes: dict[str, int]


def measure(path: Path) -> File:
    """Measure one file."""
    text = path.read_text()
    tree = ast.parse(text)
    documented: set[int] = set()
    skipped: set[int] = set()
    functions: dict[str, int] = {}
    classes: dict[str, int] = {}

    for node in ast.walk(tree):
        if isinstance(node, (*_DEFINITIONS, ast.Module)) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            documented.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
            skipped.update(id(part) for part in ast.walk(docstring))
        if isinstance(node, _DEFINITIONS):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            kind = functions if isinstance(node, _FUNCTIONS) else classes
            kind[f"{path}:{node.lineno} {node.name}"] = length

    nodes = sum(
        id(node) not in skipped and not isinstance(node, (ast.expr_context, ast.Module)) for node in ast.walk(tree)
    )
    code = sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), start=1)
    )
    return File(path, len(text.splitlines()), code, nodes, functions, classes)


def _listing(title: str, lengths: dict[str, int], worst: int) -> None:
    print(f"\n{title}: median {statistics.median(lengths.values()):.0f}, longest {max(lengths.values())}")
    for name, length in sorted(lengths.items(), key=lambda item: -item[1])[:worst]:
        print(f"  {length:5} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("src")])
    parser.add_argument("--worst", type=int, default=15)
    arguments = parser.parse_args()
    files = [measure(path) for folder in arguments.folders for path in sorted(folder.rglob("*.py"))]

    nodes, code = sum(file.nodes for file in files), sum(file.code for file in files)
    print(f"{len(files)} files, {code} lines of code, {nodes / code:.2f} syntax nodes a line")
    print("\nDensest files:")
    for file in sorted(files, key=lambda file: -file.nodes / max(1, file.code))[: arguments.worst]:
        print(f"  {file.nodes / max(1, file.code):5.1f} {file.path}")
    _listing("Files", {str(file.path): file.lines for file in files}, arguments.worst)
    _listing("Functions", {name: size for file in files for name, size in file.functions.items()}, arguments.worst)
    _listing("Classes", {name: size for file in files for name, size in file.classes.items()}, arguments.worst)


if __name__ == "__main__":
    main()
