"""The verb explain: photos to reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.attribution.methods import DEFAULT_METHOD, METHODS
from unitscope.cli.loading import load_model
from unitscope.cli.options import (
    JSON,
    OUT,
    PHOTOS,
    chosen_units,
    model_options,
    take_model_options,
    top_option,
    units_option,
)
from unitscope.cli.output import folder_for, print_document, say
from unitscope.cli.reader import Reader

if TYPE_CHECKING:
    from unitscope.accounts.account import Account

_METHODS = "; ".join(
    f"{name}, {method.summary}" for name, method in METHODS.items()
)


@click.command()
@PHOTOS
@model_options
@top_option(5)
@click.option(
    "--class",
    "classes",
    metavar="CLASS",
    multiple=True,
    help="Show the map of this class (label or index) instead of the top ones; may be "
    "repeated.",
)
@click.option(
    "--against",
    metavar="CLASS",
    help="Say why it is the first class and not this one (label or index); reports compare "
    "with the second class by default.",
)
@units_option(
    "Switch off this unit, or attention head (3.5), instead of the first class's maximal "
    "one; may be repeated, or several with commas."
)
@click.option(
    "--layer",
    metavar="LAYER",
    help="Explain at this layer: all but the head's give a local answer.",
)
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    help="Give a local answer by this method (default: exact or residual where possible, else "
    f"{DEFAULT_METHOD}): "
    f"{_METHODS}.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Precision of exact answers (default: the network's own); the report says how "
    "far bfloat16 is off.",
)
@OUT
@click.option(
    "--no-pieces",
    is_flag=True,
    help="Write the report and JSON only, without PNG files.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Photos in one forward pass.",
)
@JSON
def explain(
    photos: Sequence[str],
    out: Path | None,
    no_pieces: bool,
    batch_size: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Explain photos: predictions, class activation maps, units, ablation and filters.

    Writes OUT/report.html (for several photos OUT/PHOTO/report.html and
    OUT/index.html), the same pictures as PNG files, and explanation.json. Without
    --out, the folder is unitscope-report. With --json and no --out, no file is written.

    \b
    unitscope explain photo.jpg --out report
    unitscope explain a.jpg b.jpg --model torchvision:resnet50 --weights resnet50.pth --json
    unitscope explain photo.jpg --against harbor
    unitscope explain photo.jpg --model timm:vit_small_patch16_224 --method gradcam
    """
    from unitscope.accounts.account import accounts_of

    out = folder_for(out, None if as_json else "unitscope-report")
    source = take_model_options(options)
    model = load_model(source, len(photos), options["layer"])
    options["batch_size"] = batch_size
    chosen = chosen_units(model, options["layer"], options["units"])
    options["units"] = chosen or None
    options["classes"] = list(options["classes"]) or None

    reader = Reader(photos, model.preprocessing)
    is_asked = options["against"] is not None
    summaries = _Summaries(as_json, is_asked)
    reports: list[Path] = []
    with reader.bar() as progress:

        def each(account: Account) -> None:
            summaries.add(account)
            progress(1)

        if out is None:
            for account in accounts_of(model, reader, **options):
                each(account)
        else:
            from unitscope.render.reporting import report

            reports = report(
                model,
                reader,
                out,
                pieces=not no_pieces,
                each=each,
                screen=len(photos) == 1,
                **options,
            )
    summaries.print(reports)
    reader.finish()


class _Summaries:
    """What is printed of each account.

    The accounts themselves are dropped: with the maps of thousands of photos they would
    not fit into memory.
    """

    def __init__(self, as_json: bool, with_contrast: bool) -> None:
        self._as_json = as_json
        self._with_contrast = with_contrast
        self._network: dict[str, Any] | None = None
        self._photos: list[Any] = []
        # Each once, however many photos it is about.
        self._notes: dict[str, None] = {}

    def add(self, account: Account) -> None:
        """Summarise an account."""
        if not self._as_json:
            from unitscope.attribution.local_head import LocalHead

            self._photos.append(_account_text(account))
            if self._with_contrast:
                self._photos.append(_contrast_text(account))
            head = account.explanation.head
            if isinstance(head, LocalHead) and head.instead:
                self._notes[head.instead] = None
            return

        from unitscope.accounts import record

        if self._network is None:
            self._network = record.of_network(account.network)
        self._photos.append(record.of_account(account))

    def print(self, reports: Sequence[Path]) -> None:
        """Print all summaries, and the last of the reports, which links to the others."""
        if self._as_json:
            print_document(
                "explanation", network=self._network, photos=self._photos
            )
            return
        say("\n".join([*self._photos, *self._notes]))
        if reports:
            say(f"report: {reports[-1]}")


def _account_text(account: Account) -> str:
    predictions = account.predictions
    width = max(len(prediction.label) for prediction in predictions)

    scores = account.explanation.scores
    lines = [f"{account.subject.name}: {account.sentence()}"]
    for rank, prediction in enumerate(predictions, 1):
        share = prediction.probability
        probability = "" if share is None else f"{share:>6.1%}"
        shown = scores.shown(probability, f"{prediction.logit:>7.3f}")
        numbers = "  ".join(shown)
        lines.append(f"  {rank:>2}  {prediction.label:<{width}}  {numbers}")
    return "\n".join(lines)


def _contrast_text(account: Account) -> str:
    """Why one class and not another: the margin, the main units, and what flips it."""
    from unitscope.render.margins import lead, margin_rows
    from unitscope.render.words import number

    contrast, flip = account.contrast, account.flip
    assert contrast is not None and flip is not None
    numbers = account.explanation.scores.numbers
    rows = margin_rows(contrast, 0, 4)
    width = max(len(row.name) for row in rows)
    margin = number(float(contrast.margin[0]), 3, sign=True)
    kind = "" if account.explanation.adds_up else " (a local answer)"
    return "\n".join(
        [
            f"  {contrast.question()}{kind}: {lead(contrast, 0)}",
            *(
                f"      {row.name:<{width}}  {number(row.value, 3, sign=True):>8}"
                for row in rows
            ),
            f"    = {'margin':<{width}}  {margin:>8}  {numbers}",
            f"  {flip.sentence()}",
        ]
    )
