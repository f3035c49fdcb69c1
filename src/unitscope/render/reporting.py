"""Reporting: from photos to reports, pictures and JSON on disk, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unitscope.accounts.account import Account, accounts_of
from unitscope.inputs.photos import is_photo
from unitscope.model import Classifier, OnePhoto
from unitscope.render.report import write_report


def report(
    model: Classifier,
    photos: OnePhoto | Iterable[OnePhoto],
    out: str | os.PathLike[str],
    *,
    pieces: bool = True,
    batch_size: int = 16,
    each: Callable[[Account], None] | None = None,
    screen: bool | None = None,
    **options: Any,
) -> list[Path]:
    """Write a one-file HTML report, pictures (PNG) and JSON for every photo.

    The report of one photo is OUT/report.html. Several photos have
    OUT/<photo>/report.html each, and OUT/index.html links them. `pieces` writes the
    pictures too. `each` is called with every account after it is written. `screen` adds
    what every layer carries, which takes one to three times as long as the explanation
    itself; by default it is done for a lone photo. The other
    options are those of `explain` (layer, method) and of `accounts` (top, classes,
    units, unit_count). Returns the paths of the reports, and last that of the index.

    Raises what `explain` raises, and OutputError when the files cannot be written.
    """
    accounts = accounts_of(
        model,
        photos,
        batch_size=batch_size,
        screen=is_photo(photos) if screen is None else screen,
        **options,
    )
    return write_report(
        accounts,
        Path(out),
        pieces=pieces,
        each=each,
    )
