"""Patterns: the paths that braces and stars in a source stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from unitscope.datasets.base import EXPECTED
from unitscope.errors import DatasetError, one_line

_BRACES = re.compile(
    r"\{(?:(?P<first>\d{1,9})\.\.(?P<last>\d{1,9})|(?P<choices>[^{}]*,[^{}]*))\}"
)
_MOST_SHARDS = 100_000


def expanded(source: str) -> list[Path]:
    """A path, or the paths that its braces and stars stand for, in sorted order."""
    path = Path(source).expanduser()
    if not source:
        raise DatasetError(f"the path is empty: expected {EXPECTED}")
    if "\0" in source:
        raise DatasetError(
            f"{source!r} is no path, since it holds a NUL character: check the path"
        )
    if _is_plain(path, source):
        return [path]

    paths: list[Path] = []
    for pattern in _braces(str(path)):
        paths += _matches(pattern, path.anchor)
    return paths


def _is_plain(path: Path, source: str) -> bool:
    """Whether the path is there as it is written, or holds no pattern."""
    try:
        return path.exists() or not re.search(r"[*?\[{]", source)
    except OSError as error:
        raise DatasetError(
            f"'{source[:80]}' cannot be looked for ({one_line(error)}): check the path"
        ) from None


def _matches(pattern: str, anchor: str) -> list[Path]:
    """The paths that the stars of a pattern stand for; raises DatasetError for none."""
    if not re.search(r"[*?\[]", pattern):
        return [Path(pattern)]
    relative = Path(pattern).relative_to(anchor)
    matches = sorted(Path(anchor).glob(str(relative)))
    if not matches:
        raise DatasetError(
            f"no file is named like '{pattern}': check the pattern (looked in "
            f"{Path.cwd()})"
        )
    return matches


def _braces(pattern: str) -> Iterator[str]:
    """The texts that the braces of a pattern stand for.

    `a-{08..10}.tar` → a-08.tar, a-09.tar, a-10.tar; `{train,val}.tar` → train.tar,
    val.tar.
    """
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    before, after = pattern[: match.start()], pattern[match.end() :]
    for part in _parts(match, pattern):
        yield from _braces(before + part + after)


def _parts(match: re.Match[str], pattern: str) -> list[str]:
    """The choices or numbers in one pair of braces."""
    if match["choices"] is not None:
        return match["choices"].split(",")

    first, last = int(match["first"]), int(match["last"])
    if not 0 <= last - first < _MOST_SHARDS:
        raise DatasetError(
            f"'{match[0]}' in '{pattern}' is no range of shards: expected e.g. "
            "{000..012}"
        )
    width = len(match["first"])
    return [str(number).zfill(width) for number in range(first, last + 1)]
