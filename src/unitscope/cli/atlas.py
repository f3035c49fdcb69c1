"""The verbs of atlas: what an atlas says about units, classes and concepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.options import (
    CONTEXT,
    JSON,
    UNITS,
    numbered_units,
    top_option,
)
from unitscope.cli.output import print_document, print_rows, print_table, say
from unitscope.cli.pages import html
from unitscope.cli.scan import print_atlas

if TYPE_CHECKING:
    from unitscope.atlas.atlas import Atlas


@click.group("atlas", context_settings=CONTEXT)
def atlas_group() -> None:
    """Read an atlas: units, classes, concepts, ablation, and pages to browse.

    \b
    unitscope atlas info ATLAS
    unitscope atlas units ATLAS --class bedroom --top 10
    unitscope atlas html ATLAS --out pages
    """


_ATLAS = click.argument(
    "path", metavar="ATLAS", type=click.Path(path_type=Path)
)
_LAYER = click.option(
    "--layer",
    metavar="LAYER",
    help="The name of a layer (default: the one that the head reads).",
)

# The columns of the tables that are printed; JSON has all.
_UNITS = (
    "layer",
    "unit",
    "name",
    "named_by",
    "maximum",
    "threshold",
    "share_positive",
    "selectivity",
)
_UNITS_OF_CLASS = (
    "layer",
    "unit",
    "name",
    "class_mean",
    "class_share",
    "importance",
    "contribution",
)
_DETECTORS = ("concept_name", "iou", "p_value")
_HEADS = ("contribution_mean", "contribution_size")
_CLASSES = (
    "class",
    "name",
    "images",
    "found",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
)
_PRECISION = "average_precision"
_CLASSES_OF_UNIT = (
    "rank",
    "class_name",
    "images",
    "mean",
    "mean_low",
    "mean_high",
)
_CONCEPTS = ("concept", "name", "category", "images", "share")
_CONCEPTS_OF_UNIT = (
    "rank",
    "name",
    "category",
    "iou",
    "iou_low",
    "iou_high",
    "chance",
    "chance_high",
)
_REMOVALS = (
    "removed",
    "units",
    "balanced_accuracy",
    "balanced_accuracy_low",
    "balanced_accuracy_high",
    "accuracy",
)
_ACCURACIES = ("class", "images", "found_before", "found_after")


@atlas_group.command("info")
@_ATLAS
@JSON
def atlas_info(path: Path, as_json: bool) -> None:
    """Show what an atlas is of, and what it found.

    \b
    unitscope atlas info ATLAS
    """
    from unitscope.atlas.atlas import Atlas

    print_atlas(Atlas.open(path), as_json)


@atlas_group.command("units")
@_ATLAS
@_LAYER
@click.option(
    "--class",
    "of_class",
    metavar="CLASS",
    help="The units that matter for a class (label or index).",
)
@click.option("--concept", metavar="NAME", help="The detectors of a concept.")
@click.option("--detectors", is_flag=True, help="The detectors of any concept.")
@click.option("--dead", is_flag=True, help="The units that never fire.")
@click.option(
    "--sort",
    type=click.Choice(["unit", "maximum", "selectivity", "iou", "positive"]),
    help="The order (default: by number, or by the class or concept asked for).",
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
    columns: Sequence[str]
    if options["of_class"] is not None:
        columns = _UNITS_OF_CLASS
    elif rows and "iou" in rows[0]:
        columns = _UNITS + _DETECTORS
    else:
        columns = _UNITS
    if rows and rows[0].get("head") is not None:
        columns = ["layer", "unit", "head", *columns[2:], *_HEADS]
    print_rows(rows, columns, as_json)


@atlas_group.command("classes")
@_ATLAS
@click.option(
    "--unit",
    metavar="N",
    type=int,
    help="The classes to which a unit responds most (default: all classes).",
)
@_LAYER
@JSON
def atlas_classes(
    path: Path, unit: int | None, layer: str | None, as_json: bool
) -> None:
    """List classes: all with their accuracy, or those to which a unit responds.

    \b
    unitscope atlas classes ATLAS
    unitscope atlas classes ATLAS --unit 204
    """
    from unitscope.atlas.atlas import Atlas

    atlas = Atlas.open(path)
    if unit is None:
        rows = atlas.table("classes").to_pylist()
        columns = list(_CLASSES)
        if rows and _PRECISION in rows[0]:
            columns.append(_PRECISION)
        print_rows(rows, columns, as_json)
    else:
        print_rows(atlas.classes_of(unit, layer), _CLASSES_OF_UNIT, as_json)


@atlas_group.command("concepts")
@_ATLAS
@click.option(
    "--unit",
    metavar="N",
    type=int,
    help="The concepts whose masks match a unit (default: all concepts).",
)
@_LAYER
@JSON
def atlas_concepts(
    path: Path, unit: int | None, layer: str | None, as_json: bool
) -> None:
    """List concepts: all that were measured, or those that a unit matches, beside chance.

    \b
    unitscope atlas concepts ATLAS --unit 204
    """
    from unitscope.atlas.atlas import Atlas

    atlas = Atlas.open(path)
    if unit is None:
        rows = atlas.table("concepts").to_pylist()
        print_rows(rows, _CONCEPTS, as_json)
    else:
        print_rows(atlas.concepts_of(unit, layer), _CONCEPTS_OF_UNIT, as_json)


@atlas_group.command("ablation")
@_ATLAS
@UNITS
@click.option(
    "--class",
    "class_name",
    metavar="CLASS",
    help="The accuracy on a class without its most and least important units.",
)
@top_option(10)
@JSON
def atlas_ablation(
    path: Path,
    units: Sequence[str],
    class_name: str | None,
    top: int,
    as_json: bool,
) -> None:
    """Switch units off over the whole data set, exactly and without its photos.

    \b
    unitscope atlas ablation ATLAS --unit 204 --unit 257
    unitscope atlas ablation ATLAS --class bedroom
    """
    from unitscope.atlas.atlas import Atlas

    if bool(units) == (class_name is not None):
        raise click.UsageError(
            "name units to switch off with --unit N, or a class with --class"
        )
    chosen = numbered_units(units)
    atlas = Atlas.open(path)
    if class_name is not None:
        print_rows(atlas.removals(class_name), _REMOVALS, as_json)
    else:
        _print_accuracy(atlas, chosen, top, as_json)


def _print_accuracy(
    atlas: Atlas, units: Sequence[int], top: int, as_json: bool
) -> None:
    """Print the accuracy with all units and without some, and the classes it changes."""
    before, after, rows = atlas.without(list(units))
    if as_json:
        estimates = {"before": before._asdict(), "after": after._asdict()}
        print_document("accuracy", **estimates, classes=rows)
        return

    has_labels = atlas.manifest["data"]["labels"] == "given"
    quantity = (
        atlas.scores.accuracy
        if has_labels
        else "agreement with the model's own predictions"
    )
    for name, estimate in (
        ("all on", before),
        (f"{len(set(units))} off", after),
    ):
        interval = f"{estimate.low:.1%}–{estimate.high:.1%}, 95 %"
        say(f"{name:<8} {quantity} {estimate.value:.1%} ({interval})")
    print_table(rows[:top], _ACCURACIES)


@atlas_group.command("merge")
@click.argument(
    "parts",
    metavar="PART...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--out",
    metavar="ATLAS",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder of the merged atlas.",
)
@JSON
def atlas_merge(parts: Sequence[Path], out: Path, as_json: bool) -> None:
    """Join the atlases of parts of one data set.

    \b
    unitscope atlas merge part-1 part-2 --out atlas
    """
    from unitscope.atlas.merging import merge

    print_atlas(merge(parts, out), as_json)


atlas_group.add_command(html)
