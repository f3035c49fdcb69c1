"""The verb explore: a classifier and an atlas in a browser."""

from __future__ import annotations

import threading
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import model_options, take_model_options
from unitscope.cli.output import complain, say, stdout
from unitscope.cli.pages import write_pages
from unitscope.errors import LabelsError, UnitscopeError
from unitscope.interrupts import Uninterrupted

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
    help="The data set of the atlas, where it has moved since the scan.",
)
@click.option(
    "--export",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the pages as files, and do not serve them.",
)
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    help="The port to listen at; 0 for any free one [default: 8421, or the next free one].",
)
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen at; one other than this lets others on the network in.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    metavar="NAME",
    multiple=True,
    help="A further name of this machine that browsers may use; may be repeated.",
)
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Open a browser [default: where standard output is a terminal].",
)
def explore(
    path: Path | None,
    source: str | None,
    export: Path | None,
    browser: bool | None,
    **options: Any,
) -> None:
    """Look around in a browser: explain your photos, switch units off, and browse an atlas.

    Serves pages to this machine only, until Ctrl-C. With ATLAS and no --model, the
    model is the one that the atlas names. With --export, writes the pages as files that
    work from disk and on any web server.

    \b
    unitscope explore --photo photo.jpg
    unitscope explore ATLAS
    unitscope explore ATLAS --export pages
    """
    # An import may drop a Ctrl-C without a word.
    with Uninterrupted():
        if export is None:
            # First of all: a missing library is reported before the model loads.
            from unitscope.explorer.server import explore as serve
        from unitscope.atlas.atlas import Atlas
        from unitscope.datasets import open_dataset

    atlas = None if path is None else Atlas.open(path)
    dataset = None if source is None else open_dataset(source)
    model = _load(take_model_options(options), atlas)

    if export is not None:
        photos = [Path(photo) for photo in options["photos"]]
        write_pages(atlas, export, model=model, photos=photos, dataset=dataset)
        return

    def ready(address: str) -> None:
        say(f"unitscope: {address} (Ctrl-C ends it)")
        if stdout().isatty() if browser is None else browser:
            _open_browser(address)

    serve(model, atlas, dataset=dataset, ready=ready, freeze=True, **options)


def _open_browser(address: str) -> None:
    # In a thread: a browser in the terminal blocks until somebody leaves it.
    threading.Thread(
        target=webbrowser.open, args=(address,), daemon=True
    ).start()


def _load(options: dict[str, Any], atlas: Atlas | None) -> Classifier | None:
    """The model that the options name, completed by what the atlas notes."""
    if atlas is None or options["spec"]:
        return load_model(options)
    if any(options.values()):
        return load_model(
            options
            | {
                "spec": _spec(atlas),
                "output": options["output"] or _output(atlas),
                "scores": options["scores"] or str(atlas.scores),
            }
        )
    return _model_of(atlas)


def _model_of(atlas: Atlas) -> Classifier | None:
    """The model of an atlas; None, with a line that says why, where it is not available."""
    from unitscope.atlas.identity import fingerprint
    from unitscope.sources import load

    identity = atlas.manifest["identity"]
    preprocessing = identity["preprocessing"]
    try:
        named = partial(
            load, _spec(atlas), output=_output(atlas), scores=atlas.scores
        )
        try:
            model = named()
        except LabelsError:
            # The classes of CLIP and its kin are what their labels say.
            model = named(labels=atlas.labels)
        if fingerprint(model) != identity["model"]:
            reason = f"'{_spec(atlas)}' alone has other weights"
        elif model.preprocessing.describe() != preprocessing:
            reason = (
                f"it was scanned with another preprocessing, {preprocessing}"
            )
        else:
            return model
    except UnitscopeError as error:
        reason = str(error)

    complain(
        UnitscopeError(
            f"only the atlas is shown, not its model ({reason}): name that with "
            "--model, --weights, --labels, --template and --preprocessing"
        )
    )
    return None


def _output(atlas: Atlas) -> str | None:
    """The output that was read as logits; None where the network gives one."""
    output: str | None = atlas.manifest["identity"].get("output")
    return output


def _spec(atlas: Atlas) -> str:
    return str(atlas.manifest["model"]["spec"])
