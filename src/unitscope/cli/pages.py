"""The verb atlas html: the explorer's pages as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.output import say

if TYPE_CHECKING:
    from unitscope.atlas.atlas import Atlas


@click.command("html")
@click.argument("path", metavar="ATLAS", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder to write the pages to (default: ATLAS/pages).",
)
@click.option(
    "--source",
    metavar="SOURCE",
    help="The data set, where it has moved since the scan.",
)
def html(path: Path, out: Path | None, source: str | None) -> None:
    """Write an atlas as pages that work offline, from disk.

    \b
    unitscope atlas html ATLAS --out pages
    """
    from unitscope.atlas.atlas import Atlas
    from unitscope.datasets import open_dataset

    atlas = Atlas.open(path)
    dataset = None
    if source is not None:
        dataset = open_dataset(source)
    folder = out or path / "pages"
    write_pages(atlas, folder, dataset=dataset)


def write_pages(atlas: Atlas | None, out: Path, **options: Any) -> None:
    """Write the explorer's pages with a progress bar, and print where they are."""
    from tqdm import tqdm

    from unitscope.explorer.static_copy import export

    total = 0
    if atlas is not None:
        total = sum(layer.units for layer in atlas.layers)
    is_hidden = not total or not sys.stderr.isatty()

    with tqdm(total=total, unit="unit", disable=is_hidden) as bar:

        def show(units: int) -> None:
            bar.update(units - bar.n)

        index = export(atlas, out, each=show, **options)
    say(f"pages: {index}")
