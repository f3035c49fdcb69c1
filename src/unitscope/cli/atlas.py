"""The verbs about data sets: scan, and what is read out of an atlas."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.shared import (
    CONTEXT,
    JSON,
    MODEL_OPTIONS,
    UNITS,
    load_model,
    model_options,
    print_json,
    print_table,
)

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
    help="A layer to scan beside the head's.",
)
@click.option(
    "--split", metavar="NAME", help="Which split of the data set, where it has several."
)
@click.option(
    "--classes",
    metavar="FILE",
    help="Names of the data set's own classes, where its labels are numbers.",
)
@click.option(
    "--concepts",
    metavar="MASKS",
    help="Photos with concept masks: MiniPlaces objects, index PNGs, Broden.",
)
@click.option(
    "--concept-names",
    metavar="FILE",
    help="Names of the concepts, where the masks bring numbers only.",
)
@click.option(
    "--concept-split",
    metavar="NAME",
    help="Which split of the photos with masks, where they have several.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    help="Images kept for every unit [default: 20].",
)
@click.option(
    "--sample",
    type=click.IntRange(0),
    metavar="N",
    help="Images drawn at random and kept [default: 48].",
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
    help="Scan the I-th of N parts only; `atlas merge` puts parts together.",
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
    help="Processes to share the work.",
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "torch"]),
    help="What runs the network [default: the faster one].",
)
@click.option(
    "--resume",
    is_flag=True,
    hidden=True,
    help="A scan that was stopped always goes on.",
)
@JSON
def scan(
    source: Sequence[str],
    out: Path,
    layers: Sequence[str],
    split: str | None,
    classes: str | None,
    concepts: str | None,
    concept_names: str | None,
    concept_split: str | None,
    part: str | None,
    workers: int,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Scan a data set: what every unit responds to, in one pass, into an atlas on disk.

    SOURCE is a folder (of classes, or flat), a list or CSV of files, a MiniPlaces
    folder or tar, WebDataset shards, or Parquet files. Stopped at any moment, the same
    command goes on. Exit status 0 also where images were skipped: they are listed in
    the table `skipped`.

    \b
    unitscope scan photos/ --out atlas
    unitscope scan val.tar --out atlas --concepts annotated/ --concept-names objects.txt
    unitscope scan 'train-{000..127}.tar' --model torchvision:resnet50 --weights DEFAULT --layer layer3 --out atlas
    """
    from unitscope.atlas.scanning import scan as run

    model = load_model({name: options.pop(name) for name in MODEL_OPTIONS})
    with _scan_bar() as progress:
        atlas = run(
            model,
            source[0] if len(source) == 1 else list(source),
            out,
            layers=list(layers) or None,
            split=split,
            classes=classes,
            concepts=concepts,
            concept_names=concept_names,
            concept_split=concept_split,
            part=_part(part),
            workers=workers,
            progress=progress,
            **options,
        )
    _print_atlas(atlas, as_json)


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    which, _, of = text.partition("/")
    if not (which.isdecimal() and of.isdecimal()):
        raise click.BadParameter(
            f"'{text}' is no part: write for instance 1/4", param_hint="--part"
        )
    return int(which), int(of)


@contextlib.contextmanager
def _scan_bar() -> Iterator[Callable[[Progress], None]]:
    """A progress bar for every stage, with rate, time left and skipped images, where standard error is a terminal."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def tell(progress: Progress) -> None:
        bar = bars.get(progress.stage)
        if bar is None:
            hidden = not sys.stderr.isatty()
            # Photos of the first batches take longer: the rate is that of the last
            # minute or so.
            bar = bars[progress.stage] = tqdm(
                desc=progress.stage,
                total=progress.total,
                unit="img",
                smoothing=0.02,
                disable=hidden,
            )
        bar.set_postfix(skipped=progress.skipped, refresh=False)
        bar.update(progress.done + progress.skipped - bar.n)

    try:
        yield tell
    finally:
        for bar in bars.values():
            bar.close()


def _print_atlas(atlas: Atlas, as_json: bool) -> None:
    if as_json:
        _print_document("atlas", path=str(atlas.path), manifest=atlas.manifest)
        return
    for name, text in atlas.facts():
        click.echo(f"{name:<12} {text}")


def _print_document(kind: str, **content: Any) -> None:
    from unitscope.accounts import record

    print_json(record.document(kind, **content))


@click.group("atlas", context_settings=CONTEXT)
def atlas_group() -> None:
    """Read an atlas: units, classes, concepts, ablation, and pages to browse.

    \b
    unitscope atlas info ATLAS
    unitscope atlas units ATLAS --class bedroom --top 10
    unitscope atlas html ATLAS --out pages
    """


_ATLAS = click.argument("path", metavar="ATLAS", type=click.Path(path_type=Path))
_LAYER = click.option(
    "--layer",
    metavar="LAYER",
    help="A layer's name (default: the one that the head reads).",
)


@atlas_group.command("info")
@_ATLAS
@JSON
def atlas_info(path: Path, as_json: bool) -> None:
    """Show what an atlas is of, and what it found.

    \b
    unitscope atlas info ATLAS
    """
    from unitscope.atlas.atlas import Atlas

    _print_atlas(Atlas.open(path), as_json)


@atlas_group.command("units")
@_ATLAS
@_LAYER
@click.option(
    "--class",
    "of_class",
    metavar="CLASS",
    help="The units that matter for a class, by label or index.",
)
@click.option("--concept", metavar="NAME", help="The detectors of a concept.")
@click.option("--detectors", is_flag=True, help="The detectors of any concept.")
@click.option("--dead", is_flag=True, help="The units that never fire.")
@click.option(
    "--sort",
    type=click.Choice(["unit", "maximum", "selectivity", "iou", "positive"]),
    help="In which order (default: by number, or by what was asked for).",
)
@click.option(
    "--top",
    "count",
    metavar="N",
    type=click.IntRange(1),
    help="How many to list (default: all).",
)
@JSON
def atlas_units(path: Path, as_json: bool, **options: Any) -> None:
    """List units: of a layer, of a class, of a concept.

    \b
    unitscope atlas units ATLAS --class bedroom --top 10
    unitscope atlas units ATLAS --concept bed
    """
    from unitscope.atlas.atlas import Atlas

    rows = Atlas.open(path).units(**options)
    if as_json:
        _print_document("rows", rows=rows)
        return
    columns = [
        "layer",
        "unit",
        "name",
        "named_by",
        "maximum",
        "threshold",
        "share_positive",
        "selectivity",
    ]
    if rows and "iou" in rows[0]:
        columns += ["concept_name", "iou", "p_value"]
    if options["of_class"] is not None:
        columns = [
            "layer",
            "unit",
            "name",
            "class_mean",
            "class_share",
            "importance",
            "contribution",
        ]
    print_table(rows, columns)


@atlas_group.command("classes")
@_ATLAS
@click.option(
    "--unit",
    metavar="N",
    type=int,
    help="The classes to which a unit answers most (default: all classes).",
)
@_LAYER
@JSON
def atlas_classes(
    path: Path, unit: int | None, layer: str | None, as_json: bool
) -> None:
    """List classes: all with their accuracy, or those to which a unit answers.

    \b
    unitscope atlas classes ATLAS
    unitscope atlas classes ATLAS --unit 204
    """
    from unitscope.atlas.atlas import Atlas

    atlas = Atlas.open(path)
    rows = (
        atlas.table("classes").to_pylist()
        if unit is None
        else atlas.classes_of(unit, layer)
    )
    of_unit = ["rank", "class_name", "images", "mean", "mean_low", "mean_high"]
    of_all = [
        "class",
        "name",
        "images",
        "found",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
    ]
    _print_document("rows", rows=rows) if as_json else print_table(
        rows, of_all if unit is None else of_unit
    )


@atlas_group.command("concepts")
@_ATLAS
@click.option(
    "--unit",
    metavar="N",
    type=int,
    help="The concepts that a unit agrees with (default: all concepts).",
)
@_LAYER
@JSON
def atlas_concepts(
    path: Path, unit: int | None, layer: str | None, as_json: bool
) -> None:
    """List concepts: all that were measured, or those that a unit agrees with, beside chance.

    \b
    unitscope atlas concepts ATLAS --unit 204
    """
    from unitscope.atlas.atlas import Atlas

    atlas = Atlas.open(path)
    rows = (
        atlas.table("concepts").to_pylist()
        if unit is None
        else atlas.concepts_of(unit, layer)
    )
    of_unit = [
        "rank",
        "name",
        "category",
        "iou",
        "iou_low",
        "iou_high",
        "chance",
        "chance_high",
    ]
    of_all = ["concept", "name", "category", "images", "share"]
    _print_document("rows", rows=rows) if as_json else print_table(
        rows, of_all if unit is None else of_unit
    )


@atlas_group.command("ablation")
@_ATLAS
@UNITS
@click.option(
    "--class",
    "which",
    metavar="CLASS",
    help="What is left of a class without its most and least important units.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="How many classes to list.",
)
@JSON
def atlas_ablation(
    path: Path, units: Sequence[int], which: str | None, top: int, as_json: bool
) -> None:
    """Switch units off over the whole data set, exactly and without its photos.

    \b
    unitscope atlas ablation ATLAS --unit 204 --unit 257
    unitscope atlas ablation ATLAS --class bedroom
    """
    from unitscope.atlas.atlas import Atlas

    if bool(units) == (which is not None):
        raise click.UsageError(
            "name units to switch off with --unit N, or a class with --class"
        )
    atlas = Atlas.open(path)
    if which is not None:
        rows = atlas.removals(which)
        shown = [
            "removed",
            "units",
            "balanced_accuracy",
            "balanced_accuracy_low",
            "balanced_accuracy_high",
            "accuracy",
        ]
        _print_document("rows", rows=rows) if as_json else print_table(rows, shown)
        return
    before, after, rows = atlas.without(list(units))
    if as_json:
        _print_document(
            "accuracy", before=before._asdict(), after=after._asdict(), classes=rows
        )
        return
    given = atlas.manifest["data"]["labels"] == "given"
    what = "accuracy" if given else "agreement with the model's own predictions"
    for name, estimate in (("all on", before), (f"{len(set(units))} off", after)):
        click.echo(
            f"{name:<8} {what} {estimate.value:.1%} "
            f"({estimate.low:.1%}–{estimate.high:.1%}, 95 %)"
        )
    print_table(rows[:top], ["class", "images", "found_before", "found_after"])


@atlas_group.command("html")
@_ATLAS
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to write the pages (default: ATLAS/pages).",
)
@click.option(
    "--source", metavar="SOURCE", help="The data set, where it lies elsewhere now."
)
def atlas_html(path: Path, out: Path | None, source: str | None) -> None:
    """Write an atlas as pages that work offline, from disk.

    \b
    unitscope atlas html ATLAS --out pages
    """
    from unitscope.atlas.atlas import Atlas
    from unitscope.datasets import open_dataset

    write_pages(
        Atlas.open(path),
        out or path / "pages",
        dataset=None if source is None else open_dataset(source),
    )


def write_pages(atlas: Atlas | None, out: Path, **options: Any) -> None:
    """Write the explorer's pages into a folder, with a bar of the units, and say where they are."""
    from tqdm import tqdm

    from unitscope.explorer.static_copy import export

    total = 0 if atlas is None else sum(layer.units for layer in atlas.layers)
    with tqdm(
        total=total, unit="unit", disable=not total or not sys.stderr.isatty()
    ) as bar:

        def drawn(units: int) -> None:
            bar.update(units - bar.n)

        index = export(atlas, out, each=drawn, **options)
    click.echo(f"pages: {index}")


@atlas_group.command("merge")
@click.argument(
    "parts", metavar="PART...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    metavar="ATLAS",
    required=True,
    type=click.Path(path_type=Path),
    help="The merged atlas's folder.",
)
@JSON
def atlas_merge(parts: Sequence[Path], out: Path, as_json: bool) -> None:
    """Put atlases of parts of one data set together.

    \b
    unitscope atlas merge part-1 part-2 --out atlas
    """
    from unitscope.atlas.merging import merge

    _print_atlas(merge(parts, out), as_json)
