"""Differences between two versions of one file: documents, text, arrays and tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import Any

import numpy as np

_SCRIPT = re.compile(r'unitscope\.add\("[^"]*",(.*)\);\s*', re.DOTALL)
_EMBEDDED_PICTURE = re.compile(r"data:[^\"')]{80,}")
_FIGURES = re.compile(r"\d+(?:\.\d+)?")
_TIMES = ("seconds", "forward_seconds")
_TIME_LINE = re.compile(r"^time +.*$", re.MULTILINE)
_DIFF_HEADER = ("---", "+++", "@@")
_WIDTH = 160

Arrays = dict[str, Any]


@dataclass
class Differences:
    """What differs, and what is only worded differently."""

    numbers: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def compare_documents(old: bytes, new: bytes) -> Differences:
    """Compare JSON documents: sentences are words, everything else must be equal."""
    differences = Differences()
    _compare_values(differences, "", _parsed(old), _parsed(new))
    return differences


def _parsed(content: bytes) -> Any:
    text = content.decode()
    script = _SCRIPT.fullmatch(text)
    return json.loads(script[1] if script else text)


def _compare_values(
    differences: Differences, place: str, old: Any, new: Any
) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        _compare_keys(differences, place, old, new)
        return

    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            differences.numbers.append(
                f"{place}: {len(old)} → {len(new)} entries"
            )
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            _compare_values(differences, f"{place}[{index}]", before, after)
        return

    if type(old) is type(new) and old == new:
        return

    change = f"{place}: {_shortened(old)} → {_shortened(new)}"
    if not _is_sentence(old) or not _is_sentence(new):
        differences.numbers.append(change)
        return
    same_figures = _figures_in(old) == _figures_in(new)
    differences.words.append(
        change if same_figures else f"{change} [OTHER FIGURES]"
    )


def _compare_keys(
    differences: Differences,
    place: str,
    old: dict[str, Any],
    new: dict[str, Any],
) -> None:
    for key in sorted(old.keys() | new.keys()):
        where = f"{place}.{key}"
        if key in _TIMES:
            continue
        if key not in new:
            differences.numbers.append(f"{where} is missing after")
        elif key not in old:
            differences.numbers.append(f"{where} is missing before")
        else:
            _compare_values(differences, where, old[key], new[key])


def _is_sentence(value: Any) -> bool:
    """Names, labels and hashes have no space in them."""
    return isinstance(value, str) and " " in value


def _figures_in(text: str) -> list[str]:
    return sorted(_FIGURES.findall(text))


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= _WIDTH:
        return text
    return f"{text[:_WIDTH]}…"


def compare_text(old: bytes, new: bytes) -> Differences:
    """Compare text for people line by line, without the pictures embedded in it."""
    before = _lines(old)
    after = _lines(new)
    if before == after:
        return Differences()

    lines = unified_diff(before, after, lineterm="", n=0)
    changes = [
        _shortened(line) for line in lines if not line.startswith(_DIFF_HEADER)
    ]
    return Differences(words=changes)


def _lines(content: bytes) -> list[str]:
    text = content.decode()
    text = _EMBEDDED_PICTURE.sub(_digest, text)
    text = _TIME_LINE.sub("", text)
    return text.splitlines()


def _digest(picture: re.Match[str]) -> str:
    return f"picture {hashlib.sha256(picture[0].encode()).hexdigest()[:12]}"


def compare_numbers(old: Path, new: Path) -> Differences:
    """Compare files whose bytes differ; arrays and tables say by how much."""
    reader = _READERS.get(old.suffix)
    if reader is None:
        return Differences(["other bytes"])

    changes = list(_array_changes(reader(old), reader(new)))
    return Differences(
        changes or ["other bytes, though the values are the same"]
    )


def _array_changes(old: Arrays, new: Arrays) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{name} is missing after"
        elif name not in old:
            yield f"{name} is missing before"
        elif old[name].tobytes() != new[name].tobytes():
            yield f"{name}: {_array_change(old[name], new[name])}"


def _array_change(old: Any, new: Any) -> str:
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{old.dtype} {old.shape} → {new.dtype} {new.shape}"

    changed = np.count_nonzero(old != new)
    count = f"{changed} of {old.size} values differ"
    if old.dtype.kind not in "fiu":
        return count

    gap = np.abs(old.astype(np.float64) - new.astype(np.float64))
    largest = np.nanmax(np.abs(old), initial=0)
    return f"{count}, by {np.nanmax(gap, initial=0):.3g} (the largest is {largest:.3g})"


def _read_array(path: Path) -> Arrays:
    return {path.stem: np.load(path)}


def _read_tensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def _read_table(path: Path) -> Arrays:
    from pyarrow import parquet

    columns = parquet.read_table(path).to_pydict()
    return {
        name: np.array(list(map(str, column)))
        for name, column in columns.items()
    }


_READERS = {
    ".npy": _read_array,
    ".safetensors": _read_tensors,
    ".parquet": _read_table,
}
