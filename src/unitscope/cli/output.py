"""Output: what verbs print, and where they write files."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.errors import OutputError

if TYPE_CHECKING:
    from unitscope.drawable import Drawable


# Whether standard output will be given back, and it while it is ours alone.
_is_given_back = False
_reserved: Any = None

_STDOUT = 1
_STDERR = 2


def reserve_output() -> None:
    """Keep standard output for `say`: what else prints goes to standard error.

    That is what networks and libraries print, also where they are not Python. It lasts
    until the end of `restored_output`, and outside of that nothing changes.
    """
    global _reserved
    if not _is_given_back or _reserved is not None or sys.stdout is None:
        return
    own = sys.stdout
    if _number_of(own) == _STDOUT:
        with contextlib.suppress(OSError):  # standard error may be closed
            own.flush()
            own = _second(own)
            os.dup2(_STDERR, _STDOUT)
    _reserved = own
    sys.stdout = sys.stderr


@contextlib.contextmanager
def restored_output() -> Iterator[None]:
    """Give standard output back at the end, if it was reserved meanwhile."""
    global _reserved, _is_given_back
    before = sys.stdout
    _is_given_back = True
    try:
        yield
        if _reserved is not None:
            _reserved.flush()
    finally:
        own, _reserved = _reserved, None
        _is_given_back = False
        sys.stdout = before
        if own is not None and own is not before:
            _flush_c()
            os.dup2(own.fileno(), _STDOUT)
            with contextlib.suppress(OSError):
                own.close()


def stdout() -> Any:
    """Standard output, for what the command itself prints."""
    return _reserved or sys.stdout


class StreamError(OutputError):
    """Standard output cannot be written."""

    @classmethod
    def of(cls, error: OSError) -> StreamError:
        """The error for standard output that is full, closed or broken."""
        return cls(
            f"standard output cannot be written ({error.strerror or error}): free some "
            "space, or send it elsewhere"
        )


def say(text: str) -> None:
    """Print a text on standard output."""
    try:
        click.echo(text, file=stdout())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamError.of(error) from None


def _second(stream: Any) -> io.TextIOWrapper:
    """Another stream to the same place."""
    raw = io.FileIO(os.dup(stream.fileno()), "w")
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty(),
    )


def _flush_c() -> None:
    """Write out what C code has printed."""
    with contextlib.suppress(Exception):  # not every system has such a library
        ctypes.CDLL(None).fflush(None)


def _number_of(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError):
        # Tests, and programs that call the command line, put other objects there.
        return None


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
    is_unicode = (stdout().encoding or "").lower().startswith("utf")
    text = json.dumps(
        value, indent=1, ensure_ascii=not is_unicode, allow_nan=False
    )
    say(text)


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
        say("none")
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
        say("  ".join(padded).rstrip())


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
    click.echo(f"picture: {path}", file=sys.stderr if as_json else stdout())


def file_name(text: str) -> str:
    """A text as a file name of letters, digits, dots, dashes and underscores."""
    safe = [
        character if character.isalnum() or character in "._-" else "-"
        for character in text
    ]
    return "".join(safe).strip(".") or "x"
