"""What the verbs share: options, reading photos, loading models, and printing."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitscope.errors import OutputError, PhotoError

if TYPE_CHECKING:
    from unitscope.drawable import Drawable
    from unitscope.inputs.photos import Photo
    from unitscope.model import Classifier

# torch and everything that needs it are imported inside functions: --help must not wait
# for them.

_F = TypeVar("_F", bound=Callable[..., Any])
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def model_options(function: _F) -> _F:
    """The options by which a model is named, for `load_model`."""
    options = [
        click.option(
            "--model",
            "spec",
            metavar="SPEC",
            help="Which network: torchvision:NAME, timm:NAME, transformers:REPO, places365:NAME, checkpoint:FILE, "
            "python:FILE.py:NAME, or the bundled one (default).",
        ),
        click.option(
            "--weights",
            metavar="FILE",
            help="Weights file, or the name of torchvision's or timm's own (DEFAULT).",
        ),
        click.option(
            "--arch",
            metavar="SPEC",
            help="The network a checkpoint belongs to, e.g. torchvision:resnet50.",
        ),
        click.option(
            "--labels", metavar="FILE", help="Names of the classes, one a line."
        ),
        click.option(
            "--preprocessing",
            metavar="TEXT",
            help="E.g. 'resize=256,crop=224', 'resize=227x227'; or one of the conventions for Places365 by name.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


MODEL_OPTIONS = ("spec", "weights", "arch", "labels", "preprocessing")
PHOTOS = click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON on standard output (schema: docs/json.md).",
)
OUT = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to write the files.",
)
UNITS = click.option(
    "--unit",
    "units",
    metavar="N",
    type=int,
    multiple=True,
    help="A unit's number; may be repeated.",
)


class Reader:
    """Opens photos one by one; of several, one that cannot be read is reported and left out, for exit status 1."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._failed = 0
        self._names: dict[str, int] = {}

    def __iter__(self) -> Iterator[Photo]:
        from unitscope.inputs.photos import open_photo

        for path in self._paths:
            try:
                yield open_photo(path)
            except PhotoError as error:
                if len(self._paths) == 1:
                    raise
                self._failed += 1
                complain(error)
        if self._failed == len(self._paths):
            raise PhotoError(f"none of the {self._failed} photos could be read")

    @contextlib.contextmanager
    def bar(self) -> Iterator[Callable[[int], Any]]:
        """A progress bar on standard error, where that is a terminal and there is more than one photo."""
        from tqdm import tqdm

        with tqdm(
            total=len(self._paths),
            unit="photo",
            disable=len(self._paths) < 2 or not sys.stderr.isatty(),
        ) as bar:
            yield bar.update

    def unique(self, name: str) -> str:
        """A file name's stem, with a number behind it when another photo of this call has the same."""
        stem = file_name(Path(name).stem)
        self._names[stem] = self._names.get(stem, 0) + 1
        return stem if self._names[stem] == 1 else f"{stem}-{self._names[stem]}"

    def finish(self) -> None:
        """Exit with status 1 when a photo could not be read."""
        if self._failed:
            raise click.exceptions.Exit(1)


# Compiling takes as long as some hundred photos save.
_FROZEN_FROM = 256


def load_model(
    source: dict[str, str | None], photos: int = 0, layer: str | None = None
) -> Classifier:
    """The model that those options name; frozen, with a layer beside the head's, where many photos are to come."""
    from unitscope.sources import load

    model = load(
        source["spec"],
        weights=source["weights"],
        arch=source["arch"],
        labels=source["labels"],
        preprocessing=source["preprocessing"],
    )
    # Photos of many sizes would be compiled for one by one.
    if photos >= _FROZEN_FROM and model.preprocessing.input_size is not None:
        model.freeze(() if layer is None else layer)
    return model


def folder_for(out: Path | None, default: str | None = None) -> Path | None:
    """The folder to write to, if any; one that cannot be a folder is refused before any work is done."""
    out = Path(default) if out is None and default else out
    try:
        if out is not None and out.exists() and not out.is_dir():
            raise OutputError(
                f"'{out}' is a file, not a folder: name another folder with --out"
            )
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"'{out}' cannot be a folder ({error.strerror}): name another with --out"
        ) from None
    return out


def draw(result: Drawable, out: Path, name: str, as_json: bool, **options: Any) -> None:
    """Draw a result into a file of the output folder and say where it is, beside the JSON rather than in it."""
    from unitscope.files import make_folder

    click.echo(
        f"picture: {result.save(make_folder(out) / name, **options)}", err=as_json
    )


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    # Where standard output cannot take every character, JSON's own escapes lose none.
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(value, indent=1, ensure_ascii=plain, allow_nan=False))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Rows as a table of text: numbers to four digits, and a dash for what is missing."""
    if not rows:
        click.echo("none")
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [
        max(len(column), *(len(line[place]) for line in cells))
        for place, column in enumerate(columns)
    ]
    numeric = [
        not any(isinstance(row.get(column), str) for row in rows) for column in columns
    ]
    for line in [list(columns), *cells]:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def file_name(text: str) -> str:
    """A text as a file name: nothing but letters, digits, dots, dashes and underscores."""
    return (
        "".join(
            character if character.isalnum() or character in "._-" else "-"
            for character in text
        ).strip(".")
        or "x"
    )


def complain(error: BaseException) -> None:
    """Say an error on one line of standard error."""
    click.echo(f"unitscope: {' '.join(str(error).split())}", err=True)
