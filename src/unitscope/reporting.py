"""Reporting: from photos to reports, pictures and JSON on disk, in one call."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from unitscope.account import Account, accounts
from unitscope.errors import InputError
from unitscope.model import Classifier, OnePhoto
from unitscope.photos import Photo
from unitscope.record import of_accounts
from unitscope.render.files import write_text
from unitscope.render.report import write_report


def accounts_of(
    model: Classifier,
    photos: OnePhoto | Iterable[OnePhoto],
    *,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Iterator[Account]:
    """Explain photos in batches and give the account of each; the options are those of `accounts`."""
    waiting = iter([photos] if isinstance(photos, (str, os.PathLike, Image.Image, Photo)) else photos)
    while batch := list(islice(waiting, batch_size)):
        for account in accounts(model, model.explain(batch, batch_size=batch_size), **options):
            yield account
            if progress is not None:
                progress(1)


def report(
    model: Classifier,
    photos: OnePhoto | Iterable[OnePhoto],
    out: str | os.PathLike[str],
    *,
    pieces: bool = True,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> list[Path]:
    """Write the complete account of photos: a one-file HTML report each, its pieces as PNG, and JSON.

    For one photo OUT/report.html, for several OUT/<photo>/report.html and OUT/index.html; `pieces` writes the pictures
    too. The other options are those of `accounts`: top, classes, units, unit_count. Returns the reports' paths.

    Raises what `explain` raises, and OutputError when the files cannot be written.
    """
    told = list(accounts_of(model, photos, batch_size=batch_size, progress=progress, **options))
    return write(told, out, pieces=pieces)


def write(told: Sequence[Account], out: str | os.PathLike[str], *, pieces: bool = True) -> list[Path]:
    """Write accounts as `report` does; returns the reports' paths, and last the index of several."""
    if not told:
        raise InputError("there is nothing to report: the list of photos is empty")
    written = write_report(told, Path(out), pieces=pieces)
    for account, path in zip(told, written, strict=False):
        write_text(path.with_name("explanation.json"), json.dumps(of_accounts([account]), indent=1, allow_nan=False))
    return written
