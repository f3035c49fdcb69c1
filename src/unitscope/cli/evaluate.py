"""The verb evaluate: what methods' maps are worth over a data set."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import JSON, OUT, model_options, take_model_options
from unitscope.cli.output import (
    draw,
    folder_for,
    print_document,
    print_table,
    say,
    stdout,
)

if TYPE_CHECKING:
    from unitscope.evaluation.evaluation import Evaluation

# Help must not wait for torch; a test compares these with the registries.
METHODS = (
    "exact, residual, local, hirescam, gradcam, fullgrad, fusion; with the extra peers "
    "gradcam++, layercam, scorecam, xgradcam, finercam, ablationcam, eigencam, "
    "integrated-gradients, occlusion, torchcam-gradcam++, torchcam-smoothgradcam++, "
    "torchcam-layercam, torchcam-xgradcam, torchcam-scorecam"
)
MEASURES = (
    "deletion, insertion, average drop, increase in confidence, patch correlation, unit "
    "correlation, left out, stability, randomised head, randomised later half, randomised "
    "network; with masks also pointing game, energy inside, pixel average precision, IoU, "
    "box accuracy"
)


@click.command()
@click.argument("source", metavar="SOURCE")
@model_options
@click.option(
    "--method",
    "methods",
    metavar="NAME",
    multiple=True,
    help=f"A method: {METHODS}; may be repeated. The first is what others are compared "
    "with [default: all that the network has, the best first].",
)
@click.option(
    "--measure",
    "measures",
    metavar="NAME",
    multiple=True,
    help=f"A measure: {MEASURES}; may be repeated [default: deletion and insertion].",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="Photos, drawn by --seed [default: all].",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--explained",
    type=click.Choice(["predicted", "label"]),
    default="predicted",
    show_default=True,
    help="The class of each photo that is explained.",
)
@click.option(
    "--hide",
    type=click.Choice(["blur", "mean", "zero"]),
    default="blur",
    show_default=True,
    help="What stands in the place of hidden pixels.",
)
@click.option(
    "--split", metavar="NAME", help="The split of a data set that has several."
)
@click.option(
    "--classes",
    metavar="FILE",
    help="Names of the data set's classes, where its labels are numbers.",
)
@click.option(
    "--concept-names",
    "names",
    metavar="FILE",
    help="Names of the masks' concepts, where they have numbers only.",
)
@OUT
@JSON
def evaluate(
    source: str,
    methods: Sequence[str],
    measures: Sequence[str],
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure what methods' maps are worth over a data set, with intervals and baselines.

    SOURCE is what `scan` takes; measures with masks need a folder that has some. Random
    maps, the middle of the photo and the map of another photo are in every table. With --out
    the rows are kept there while they come: the same command goes on where it was stopped,
    and evaluation.json and evaluation.png are written at the end.

    \b
    unitscope evaluate val.tar --count 200 --out evaluation
    unitscope evaluate annotated/ --model miniplaces-vit --measure pointing-game --measure deletion
    """
    from unitscope.evaluation.evaluating import evaluate as run

    folder = folder_for(out)
    model = load_model(take_model_options(options))
    with _bar() as progress:
        evaluation = run(
            model,
            source,
            list(methods) or None,
            list(measures) or None,
            out=folder,
            progress=progress,
            **options,
        )
    if as_json:
        print_document("evaluation", **evaluation.as_json())
    else:
        _print(evaluation)
    if folder is not None:
        _write(evaluation, folder, as_json)


def _print(evaluation: Evaluation) -> None:
    directions = {1: " ↑", -1: " ↓", 0: ""}
    rows = []
    for method in evaluation.methods:
        row = {"method": method.name}
        for measure in evaluation.measures:
            mean, low, high = evaluation.mean(measure.name, method.name)
            column = measure.name + directions[measure.better]
            row[column] = (
                f"{mean:.3f} ({low:.3f} to {high:.3f})"
                if evaluation.count(measure.name, method.name)
                else "–"
            )
        rows.append(row)
    print_table(rows, list(rows[0]))
    count = len(evaluation.photos)
    say(f"means over {count} photos with 95 % bootstrap intervals")
    for statement in evaluation.statements():
        say(statement)
    for name, text in evaluation.about.items():
        say(f"{name}: {text}")
    for id_, reason in evaluation.skipped.items():
        click.echo(f"skipped {id_}: {reason}", err=True)


def _write(evaluation: Evaluation, folder: Path, as_json: bool) -> None:
    from unitscope.accounts import record
    from unitscope.files import written_whole

    file = folder / "evaluation.json"
    document = record.document("evaluation", **evaluation.as_json())
    text = json.dumps(document, indent=1, allow_nan=False)
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"rows: {file}", file=sys.stderr if as_json else stdout())
    draw(evaluation, folder, "evaluation.png", as_json)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, in a terminal."""
    from tqdm import tqdm

    with tqdm(unit="photo", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
