"""The verb reproduce: published numbers, obtained again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unitscope.cli.options import JSON, OUT
from unitscope.cli.output import folder_for, print_document, say

if TYPE_CHECKING:
    from unitscope.write_up import Reproduction

_MARKS = {True: "agrees", False: "DIFFERS", None: ""}


@click.command()
@click.argument("what", type=click.Choice(["write-up"]))
@click.argument("photo")
@click.option(
    "--weights",
    metavar="FILE",
    help="A copy of resnet50_places365.pth.tar (default: downloaded).",
)
@click.option(
    "--labels",
    metavar="FILE",
    help="A copy of categories_places365.txt (default: downloaded).",
)
@OUT
@JSON
def reproduce(
    what: str,
    photo: str,
    weights: str | None,
    labels: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Repeat the write-up that unitscope began as, each published number beside the one obtained.

    Downloads the Places365 ResNet-50 (95 MB) on first use. PHOTO is the write-up's
    photograph of Rio.

    \b
    unitscope reproduce write-up rio.jpg --out pictures
    """
    from unitscope import write_up
    from unitscope.sources import load

    out = folder_for(out)
    model = load(
        write_up.MODEL,
        weights=weights,
        labels=labels,
        preprocessing=write_up.PREPROCESSING,
    )
    result = write_up.reproduce(model, photo, out)

    if as_json:
        print_document("reproduction", **result.plain())
    else:
        say(f"{write_up.TITLE}\n")
        _print_comparisons(result)


def _print_comparisons(result: Reproduction) -> None:
    for row in result.comparisons:
        say(
            f"{row.where:<13} {row.quantity:<48} {row.published:<24} "
            f"{row.obtained:<24} {_MARKS[row.agrees]}"
        )
    agreeing, compared = result.agreeing
    say(f"\n{agreeing} of {compared} published numbers agree.")
    for picture in result.pictures:
        say(f"picture: {picture}")
