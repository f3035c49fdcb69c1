"""Measure how dense the code is: syntax nodes a line, and the lengths of functions and files.

    python scripts/readability.py [--worst 15] [FOLDER ...]

Counted are the bodies of functions, without their docstrings: all nodes of Python's `ast`
in them, divided by their lines that hold code (no blank line, no line of comment).
"""

from __future__ import annotations

import argparse
import ast
import statistics
from dataclasses import dataclass
from pathlib import Path

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class File:
    """The measurements of one file; `functions` and `classes` are lengths in lines by name."""

    path: Path
    lines: int
    code: int
    nodes: int
    functions: dict[str, int]
    classes: dict[str, int]

    @property
    def density(self) -> float:
        """Syntax nodes a line of code in the bodies of functions."""
        return self.nodes / max(1, self.code)


def measure(path: Path) -> File:
    """Measure one file."""
    text = path.read_text()
    lines = text.splitlines()
    functions: dict[str, int] = {}
    classes: dict[str, int] = {}
    code = nodes = 0

    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, _DEFINITIONS):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        kind = classes if isinstance(node, ast.ClassDef) else functions
        kind[f"{path}:{node.lineno} {node.name}"] = length

        documented = ast.get_docstring(node, clean=False) is not None
        body = node.body[1:] if documented else node.body
        if isinstance(node, ast.ClassDef) or not body:
            continue
        nodes += sum(1 for statement in body for _ in ast.walk(statement))
        inside = lines[body[0].lineno - 1 : body[-1].end_lineno]
        code += sum(_holds_code(line) for line in inside)
    return File(path, len(lines), code, nodes, functions, classes)


def _holds_code(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("#")


def _listing(title: str, lengths: dict[str, int], worst: int) -> None:
    print(
        f"\n{title}: median {statistics.median(lengths.values()):.0f}, longest "
        f"{max(lengths.values())}"
    )
    for name, length in sorted(lengths.items(), key=lambda item: -item[1])[
        :worst
    ]:
        print(f"  {length:5} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("src")])
    parser.add_argument("--worst", type=int, default=15)
    arguments = parser.parse_args()
    files = [
        measure(path)
        for folder in arguments.folders
        for path in sorted(folder.rglob("*.py"))
    ]

    code = sum(file.code for file in files)
    nodes = sum(file.nodes for file in files)
    print(f"{len(files)} files, {nodes / code:.2f} syntax nodes a line")
    print("\nDensest files:")
    for file in sorted(files, key=lambda file: -file.density)[
        : arguments.worst
    ]:
        print(f"  {file.density:5.1f} {file.path}")
    _listing(
        "Files", {str(file.path): file.lines for file in files}, arguments.worst
    )
    _listing(
        "Functions",
        {name: size for file in files for name, size in file.functions.items()},
        arguments.worst,
    )
    _listing(
        "Classes",
        {name: size for file in files for name, size in file.classes.items()},
        arguments.worst,
    )


if __name__ == "__main__":
    main()
