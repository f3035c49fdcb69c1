"""Folder: the measured rows of an evaluation on disk, a file for each shard of photos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitscope.errors import OutputError
from unitscope.files import clean_up, make_folder, written_whole

_IDENTITY = "identity.json"
_ROWS = "rows"
_REMEDY = "name another folder (out=, --out), or remove this one"


class EvaluationFolder:
    """Where the rows of one evaluation are kept, so that the same call goes on.

    Raises OutputError where the folder holds the rows of another evaluation.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        file = path / _ROWS / _IDENTITY
        if file.exists():
            _check_same(path, _read(file), identity)
            clean_up(file.parent)
            return
        if any(file.parent.glob("*.json")):
            raise OutputError(
                f"'{path}' holds rows of an evaluation that is not known ({file} is "
                f"missing): {_REMEDY}"
            )
        make_folder(file.parent)
        _write(file, identity)

    def rows(self, shard: int) -> dict[str, Any] | None:
        """What was measured of a shard; None where it was not yet."""
        file = self._file(shard)
        return _read(file) if file.exists() else None

    def keep(self, shard: int, rows: Mapping[str, Any]) -> None:
        """Write what was measured of a shard, whole or not at all."""
        _write(self._file(shard), rows)

    def _file(self, shard: int) -> Path:
        return self.path / _ROWS / f"{shard:06d}.json"


def _check_same(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    for name, value in now.items():
        then = before.get(name)
        if then != value:
            short = f" ({_short(then)}, not {_short(value)})"
            raise OutputError(
                f"'{path}' holds an evaluation with another {name}{short}: {_REMEDY}"
            )


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:8]}…"


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"'{file}' cannot be read ({error}): remove it, and it is measured again"
        ) from None
    return content


def _write(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, allow_nan=False)
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
