"""The verb scan: a data set to an atlas."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import JSON, model_options, take_model_options
from unitscope.cli.output import print_document, say
from unitscope.labels import is_index

if TYPE_CHECKING:
    from unitscope.atlas.atlas import Atlas
    from unitscope.atlas.scan.options import Progress


@click.command()
@click.argument("source", metavar="SOURCE", nargs=-1, required=True)
@model_options
@click.option(
    "--out",
    metavar="ATLAS",
    type=click.Path(path_type=Path),
    required=True,
    help="The atlas's folder.",
)
@click.option(
    "--layer",
    "layers",
    metavar="LAYER",
    multiple=True,
    help="A layer to scan besides the head's; may be repeated.",
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
    "--concepts",
    metavar="MASKS",
    help="Photos with concept masks: MiniPlaces objects, index PNGs, Broden.",
)
@click.option(
    "--concept-names",
    metavar="FILE",
    help="Names of the concepts, where the masks have numbers only.",
)
@click.option(
    "--concept-split",
    metavar="NAME",
    help="The split of photos with masks that have several.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    help="Top images stored for every unit [default: 20].",
)
@click.option(
    "--sample",
    type=click.IntRange(0),
    metavar="N",
    help="Random images stored with all their maps [default: 48].",
)
@click.option(
    "--quantile",
    type=float,
    metavar="Q",
    help="Thresholds T with P(a ≥ T) ≤ Q [default: 0.005].",
)
@click.option(
    "--part",
    metavar="I/N",
    help="Scan the I-th of N parts only; `atlas merge` joins parts.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Images in one forward pass [default: 32].",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    metavar="N",
    help="Images committed together [default: 1024].",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share the work.",
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "torch"]),
    help="The library that runs the network [default: the faster one].",
)
@click.option(
    "--resume",
    is_flag=True,
    hidden=True,
    help="Accepted for clarity: a stopped scan always resumes.",
)
@JSON
def scan(
    source: Sequence[str],
    out: Path,
    layers: Sequence[str],
    part: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Scan a data set: what every unit responds to, in one pass, into an atlas on disk.

    SOURCE is a folder (of classes, or flat), a list or CSV of files, a MiniPlaces
    folder or tar, WebDataset shards, or Parquet files. A scan that was stopped at any
    moment resumes with the same command. The exit status is 0 even where images were
    skipped: the table `skipped` lists them.

    \b
    unitscope scan photos/ --out atlas
    unitscope scan val.tar --out atlas --concepts annotated/ --concept-names objects.txt
    unitscope scan 'train-{000..127}.tar' --model torchvision:resnet50 --weights DEFAULT --out atlas
    """
    from unitscope.atlas.scanning import scan as run

    model = load_model(take_model_options(options))
    dataset = source[0] if len(source) == 1 else list(source)
    options["layers"] = list(layers) or None
    options["part"] = _part(part)
    with _progress_bars() as progress, _ending_in_order():
        atlas = run(model, dataset, out, progress=progress, **options)
    print_atlas(atlas, as_json)


def print_atlas(atlas: Atlas, as_json: bool) -> None:
    """Print what an atlas is of, and what it found."""
    if as_json:
        print_document("atlas", path=str(atlas.path), manifest=atlas.manifest)
        return
    for name, text in atlas.facts():
        say(f"{name:<12} {text}")


def _part(text: str | None) -> tuple[int, int] | None:
    """Which of how many parts "1/4" means."""
    if text is None:
        return None
    part, _, parts = text.partition("/")
    if not (is_index(part) and is_index(parts)):
        raise click.BadParameter(
            f"'{text}' is not a part: write for instance 1/4",
            param_hint="--part",
        )
    return int(part), int(parts)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """End by SIGTERM as by Ctrl-C: workers stop, and nothing is left half written."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress_bars() -> Iterator[Callable[[Progress], None]]:
    """A bar for every stage, with rate, time left and skipped images, in a terminal."""
    from tqdm import tqdm

    is_hidden = not sys.stderr.isatty()
    bars: dict[str, Any] = {}

    def show(progress: Progress) -> None:
        bar = bars.get(progress.stage)
        if bar is None:
            # The first batches are slower, so the rate is that of the last minute.
            bar = bars[progress.stage] = tqdm(
                desc=progress.stage,
                total=progress.total,
                unit="img",
                smoothing=0.02,
                disable=is_hidden,
            )
        bar.set_postfix(skipped=progress.skipped, refresh=False)
        bar.update(progress.done + progress.skipped - bar.n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
