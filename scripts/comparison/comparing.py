"""Comparison: two records side by side, file by file, and every difference between them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from comparison.differences import (
    Differences,
    compare_documents,
    compare_numbers,
    compare_text,
)

# They say when a scan ran and how long it took, or hold its lock.
_IGNORED = re.compile(r"(^|/)(runs\.jsonl$|\.scan/)")

# The explorer's pages hold their documents as scripts.
_DOCUMENT = re.compile(r"\.json$|^pages/data/.*\.js$")

# Text for people, the pages' own code, and pictures that carry text.
_WORDED = re.compile(r"\.(txt|html|js|css|svg)$|^reports/.*\.png$")

_MISSING = ("missing after", "missing before")
_TEXT_SUFFIXES = (".json", ".txt", ".html", ".js")


@dataclass(frozen=True)
class Comparison:
    """The differences of every file of two records, by path."""

    files: dict[str, Differences]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, before: Path, after: Path) -> Comparison:
        """Compare two records."""
        paths = sorted(_files_of(before) | _files_of(after))
        ignored = tuple(path for path in paths if _IGNORED.search(path))
        files = {
            path: _compare_file(before, after, path)
            for path in paths
            if path not in ignored
        }
        return cls(files, ignored)

    @property
    def same(self) -> bool:
        """Whether nothing but words differs, and something was compared at all."""
        changed = any(
            differences.numbers for differences in self.files.values()
        )
        return bool(self.files) and not changed

    def text(self, most: int) -> str:
        """The table of what was compared, and the differences, `most` of each file."""
        words = {path: found.words for path, found in self.files.items()}
        numbers = {path: found.numbers for path, found in self.files.items()}
        verdict = "no number differs" if self.same else "the records DIFFER"
        return "\n".join(
            [
                *self._table(),
                "",
                *_listing("words", words, most),
                "",
                *_listing("DIFFERENCES", numbers, most),
                "",
                f"{len(self.files)} files compared: {verdict}",
            ]
        )

    def _table(self) -> list[str]:
        groups: dict[str, Counter[str]] = defaultdict(Counter)
        for path, differences in self.files.items():
            group = path.split("/")[0]
            groups[group][_state(differences)] += 1

        lines = [
            f"{'group':<16}{'files':>8}{'same':>8}{'worded':>8}{'differ':>8}"
        ]
        for group, states in sorted(groups.items()):
            line = f"{group:<16}{states.total():>8}"
            line += (
                f"{states['same']:>8}{states['worded']:>8}{states['differ']:>8}"
            )
            lines.append(line)
        lines.append(f"{'(not compared)':<16}{len(self.ignored):>8}")
        return lines


def _state(differences: Differences) -> str:
    if differences.numbers:
        return "differ"
    if differences.words:
        return "worded"
    return "same"


def _listing(title: str, changes: dict[str, list[str]], most: int) -> list[str]:
    lines = [f"{title}:"]
    missing: Counter[str] = Counter()
    for path, entries in changes.items():
        if entries and entries[0] in _MISSING:
            folder = path.rpartition("/")[0]
            missing[f"{folder}: {entries[0]}"] += 1
            continue
        lines += [f"  {path}: {entry}" for entry in entries[:most]]
        left_out = len(entries) - most
        if left_out > 0:
            lines.append(f"  {path}: … and {left_out} more")

    lines += [f"  {place} ({count} files)" for place, count in missing.items()]
    if len(lines) == 1:
        lines.append("  none")
    return lines


def _files_of(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}


def _compare_file(before: Path, after: Path, path: str) -> Differences:
    is_document = _DOCUMENT.search(path) is not None
    is_worded = not is_document and _WORDED.search(path) is not None
    old = before / path
    new = after / path

    if not old.exists() or not new.exists():
        missing = [_MISSING[0] if old.exists() else _MISSING[1]]
        return Differences(words=missing) if is_worded else Differences(missing)

    old_bytes = _content(old, before)
    new_bytes = _content(new, after)
    if old_bytes == new_bytes:
        return Differences()
    if is_document:
        return compare_documents(old_bytes, new_bytes)
    if not is_worded:
        return compare_numbers(old, new)
    if path.endswith(".png"):
        return Differences(words=["another picture"])
    return compare_text(old_bytes, new_bytes)


def _content(path: Path, record: Path) -> bytes:
    """The bytes of a file; where text names the record's own folder, it says FOLDER."""
    content = path.read_bytes()
    if path.suffix not in _TEXT_SUFFIXES:
        return content
    return content.replace(str(record.resolve()).encode(), b"FOLDER")
