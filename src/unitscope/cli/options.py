"""Options: the arguments and options that several verbs have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitscope.sources import DEFAULT_SPEC, usages

if TYPE_CHECKING:
    from unitscope.model import Classifier

_F = TypeVar("_F", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
MODEL_OPTIONS = (
    "spec",
    "weights",
    "arch",
    "labels",
    "preprocessing",
    "output",
    "scores",
    "templates",
)


def model_options(function: _F) -> _F:
    """Add the options that name a model, for `load_model`."""
    options = [
        click.option(
            "--model",
            "spec",
            metavar="SPEC",
            help=f"The network: {', '.join(usages())}; default {DEFAULT_SPEC}.",
        ),
        click.option(
            "--weights",
            metavar="FILE",
            help="A weights file, or the name of weights that torchvision or timm "
            "offers (DEFAULT).",
        ),
        click.option(
            "--arch",
            metavar="SPEC",
            help="The network of a checkpoint, e.g. torchvision:resnet50.",
        ),
        click.option(
            "--labels",
            metavar="FILE",
            help="Names of the classes, one per line; for CLIP and SigLIP the texts that photos "
            "are matched with.",
        ),
        click.option(
            "--template",
            "templates",
            metavar="TEXT",
            multiple=True,
            help="What CLIP or SigLIP reads of a label, e.g. 'a photo of a {}.' (default); "
            "repeated: the mean of all.",
        ),
        click.option(
            "--preprocessing",
            metavar="TEXT",
            help="E.g. 'resize=256,crop=224' or 'resize=227x227,order=bgr,scale=255,"
            "mean=104/117/123,std=1/1/1'; also interpolation, white, and "
            "mean=FILE.npy. Or the name of a convention for Places365.",
        ),
        click.option(
            "--output",
            metavar="NAME",
            help="The name or index of the logits, for a network that gives several tensors.",
        ),
        click.option(
            "--scores",
            metavar="KIND",
            help="How outputs become probabilities: softmax (one class is right), sigmoid "
            "(each class for itself), none (regression, embeddings), or probabilities "
            "(they are such already); guessed by default.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def take_model_options(options: dict[str, Any]) -> dict[str, Any]:
    """Move the options of `model_options` out of a verb's options."""
    return {name: options.pop(name) for name in MODEL_OPTIONS}


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
    help="The folder to write to.",
)


def _separate(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """The units of one or several options, which may hold several with commas between."""
    return tuple(
        part.strip()
        for value in values
        for part in value.split(",")
        if part.strip()
    )


def units_option(help_text: str) -> Callable[[_F], _F]:
    """The option that names units, for `chosen_units`."""
    return click.option(
        "--unit",
        "--units",
        "units",
        metavar="N",
        multiple=True,
        callback=_separate,
        help=help_text,
    )


UNITS = units_option(
    "The number of a unit, or the name of an attention head (3.5); may be repeated, or "
    "several with commas (3.5,7.0)."
)


def numbered_units(units: Sequence[str]) -> list[int]:
    """The numbers of units where these have no names; exits with status 2 for others."""
    for unit in units:
        if not unit.isdecimal():
            raise click.UsageError(
                f"'{unit}' is not the number of a unit: they are numbered from 0"
            )
    return [int(unit) for unit in units]


def chosen_units(
    model: Classifier, layer: str | None, names: Sequence[str]
) -> list[int]:
    """The numbers of units that are given by numbers or names.

    Raises UnitError for a name that no unit has; a number is checked where it is used.
    """
    from unitscope.residual.head import HEADS

    is_head = layer in (None, HEADS)
    units: list[Any] = []
    for name in names:
        if name.isdecimal():
            units.append(int(name))
        else:
            # A layer's own units have no names: the library's error says so.
            units.append(model.head.unit_of(name) if is_head else name)
    return units


def top_option(default: int) -> Callable[[_F], _F]:
    """The option --top, the number of classes."""
    return click.option(
        "--top",
        metavar="N",
        type=click.IntRange(1),
        default=default,
        show_default=True,
        help="How many classes to list.",
    )
