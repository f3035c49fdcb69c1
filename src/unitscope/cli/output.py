"""Output: what verbs print, and where they write files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.errors import OutputError

if TYPE_CHECKING:
    from unitscope.drawable import Drawable


def complain(error: BaseException) -> None:
    """Print an error as one line on standard error."""
    click.echo(f"unitscope: {' '.join(str(error).split())}", err=True)


def print_document(kind: str, **content: Any) -> None:
    """Print a JSON document of a kind that docs/json.md describes."""
    from unitscope.accounts import record

    print_json(record.document(kind, **content))


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    # Where standard output cannot encode all characters, JSON's escapes lose none.
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(
        value, indent=1, ensure_ascii=not is_unicode, allow_nan=False
    )
    click.echo(text)


def print_rows(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool
) -> None:
    """Print rows as JSON with all their columns, or as a table of some of them."""
    if as_json:
        print_document("rows", rows=[_without_nan(row) for row in rows])
    else:
        print_table(rows, columns)


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as a table: numbers to four digits, and a dash for missing values."""
    if not rows:
        click.echo("none")
        return

    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    lines = [list(columns), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    are_texts = [
        any(isinstance(row.get(column), str) for row in rows)
        for column in columns
    ]
    for line in lines:
        padded = [
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(
                line, widths, are_texts, strict=True
            )
        ]
        click.echo("  ".join(padded).rstrip())


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, in which a missing number is null."""
    return {
        name: None if _is_nan(value) else value for name, value in row.items()
    }


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cell(value: Any) -> str:
    if value is None or _is_nan(value):
        return "–"
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else " ".join(str(value).split())
    )


def folder_for(out: Path | None, default: str | None = None) -> Path | None:
    """The folder to write to, if any; a file of that name is refused before any work."""
    if out is None:
        out = None if default is None else Path(default)
    if out is None:
        return None

    try:
        is_file = out.exists() and not out.is_dir()
    except OSError as error:
        raise OutputError(
            f"'{out}' cannot be a folder ({error.strerror}): name another with --out"
        ) from None
    if is_file:
        raise OutputError(
            f"'{out}' is a file, not a folder: name another folder with --out"
        )
    return out


def draw(
    result: Drawable, out: Path, name: str, as_json: bool, **options: Any
) -> None:
    """Draw a result into a file, and print its path: beside JSON on standard error."""
    from unitscope.files import make_folder

    path = result.save(make_folder(out) / name, **options)
    click.echo(f"picture: {path}", err=as_json)


def file_name(text: str) -> str:
    """A text as a file name of letters, digits, dots, dashes and underscores."""
    safe = [
        character if character.isalnum() or character in "._-" else "-"
        for character in text
    ]
    return "".join(safe).strip(".") or "x"
