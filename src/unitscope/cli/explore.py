"""The verb about looking: explore, in a browser."""

from __future__ import annotations

import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unitscope.cli.atlas import write_pages
from unitscope.cli.shared import complain, load_model, model_options
from unitscope.errors import UnitscopeError

if TYPE_CHECKING:
    from unitscope.atlas.atlas import Atlas
    from unitscope.model import Classifier


@click.command()
@click.argument(
    "path", metavar="[ATLAS]", required=False, type=click.Path(path_type=Path)
)
@model_options
@click.option(
    "--photo",
    "photos",
    metavar="FILE",
    multiple=True,
    help="A photo to begin with; may be repeated.",
)
@click.option(
    "--source",
    metavar="SOURCE",
    help="The atlas's data set, where it lies elsewhere now.",
)
@click.option(
    "--export",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the pages as files instead.",
)
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    help="Where to listen; 0 for any that is free [default: 8421, or the next that is free].",
)
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Another address of this machine lets others on the network in.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    metavar="NAME",
    multiple=True,
    help="A further name by which browsers get here.",
)
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Open a browser [default: where standard output is a terminal].",
)
def explore(
    path: Path | None,
    photos: Sequence[str],
    source: str | None,
    export: Path | None,
    port: int | None,
    host: str,
    allow_hosts: Sequence[str],
    browser: bool | None,
    **named: str | None,
) -> None:
    """Look around in a browser: your photos explained, units switched off, and the atlas where there is one.

    Serves pages to this machine only, until Ctrl-C. With ATLAS and no --model, the
    model is the one that the atlas names. With --export, writes the pages as files that
    work from disk and on any web server.

    \b
    unitscope explore --photo photo.jpg
    unitscope explore ATLAS
    unitscope explore ATLAS --export pages
    """
    if export is None:
        # Before anything is loaded: without the server's libraries that would be for
        # nothing.
        from unitscope.explorer.server import explore as serve
    from unitscope.atlas.atlas import Atlas
    from unitscope.datasets import open_dataset

    atlas = None if path is None else Atlas.open(path)
    dataset = None if source is None else open_dataset(source)
    if atlas is not None and not any(named.values()):
        model = _model_of(atlas)
    else:
        model = load_model(
            named if atlas is None or named["spec"] else named | {"spec": _spec(atlas)}
        )

    if export is not None:
        write_pages(
            atlas, export, model=model, photos=list(map(Path, photos)), dataset=dataset
        )
        return

    def ready(address: str) -> None:
        click.echo(f"unitscope: {address} (Ctrl-C ends it)")
        if sys.stdout.isatty() if browser is None else browser:
            # A browser of the terminal would keep us until it is left.
            threading.Thread(
                target=webbrowser.open, args=(address,), daemon=True
            ).start()

    serve(
        model,
        atlas,
        dataset=dataset,
        photos=photos,
        host=host,
        port=port,
        allow_hosts=allow_hosts,
        ready=ready,
        freeze=True,
    )


def _spec(atlas: Atlas) -> str:
    return str(atlas.manifest["model"]["spec"])


def _model_of(atlas: Atlas) -> Classifier | None:
    """The model that an atlas was made of; None, with a line that says why, where it cannot be had again."""
    from unitscope.atlas.identity import fingerprint
    from unitscope.sources import load

    identity = atlas.manifest["identity"]
    try:
        model = load(_spec(atlas))
        if fingerprint(model) != identity["model"]:
            reason = f"'{_spec(atlas)}' alone has other weights"
        elif model.preprocessing.describe() != identity["preprocessing"]:
            reason = f"it was scanned with another preprocessing, {identity['preprocessing']}"
        else:
            return model
    except UnitscopeError as error:
        reason = str(error)
    told = f"only the atlas is shown, not its model ({reason})"
    complain(
        UnitscopeError(f"{told}: name that with --model, --weights and --preprocessing")
    )
    return None
