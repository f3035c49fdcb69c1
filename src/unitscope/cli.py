"""The command line: every verb parses, calls one library function, and prints."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitscope.errors import OutputError, PhotoError, UnitscopeError, UnitscopeWarning

if TYPE_CHECKING:
    from unitscope.account import Account
    from unitscope.atlas import Atlas
    from unitscope.drawable import Drawable
    from unitscope.explanation import AnyHead
    from unitscope.model import Classifier
    from unitscope.photos import Photo
    from unitscope.scanning import Progress
    from unitscope.verification import Verification

# torch and everything that needs it are imported inside the verbs: --help must not wait for them.

_F = TypeVar("_F", bound=Callable[..., Any])
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT)
@click.version_option(package_name="unitscope", prog_name="unitscope")
def cli() -> None:
    """Ask an image classifier what it has learned, and why it said that.

    \b
    unitscope explain photo.jpg                         # the bundled scene network, offline
    unitscope explain *.jpg --model torchvision:resnet50 --weights DEFAULT
    unitscope info --model torchvision:resnet18
    """


def _model_options(function: _F) -> _F:
    options = [
        click.option(
            "--model",
            "spec",
            metavar="SPEC",
            help="Which network: torchvision:NAME, timm:NAME, transformers:REPO, places365:NAME, checkpoint:FILE, "
            "python:FILE.py:NAME, or the bundled one (default).",
        ),
        click.option(
            "--weights", metavar="FILE", help="Weights file, or the name of torchvision's or timm's own (DEFAULT)."
        ),
        click.option("--arch", metavar="SPEC", help="The network a checkpoint belongs to, e.g. torchvision:resnet50."),
        click.option("--labels", metavar="FILE", help="Names of the classes, one a line."),
        click.option(
            "--preprocessing",
            metavar="TEXT",
            help="E.g. 'resize=256,crop=224', 'resize=227x227'; or one of the conventions for Places365 by name.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


_MODEL_OPTIONS = ("spec", "weights", "arch", "labels", "preprocessing")
_PHOTOS = click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output (schema: docs/json.md).")
_OUT = click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Where to write the files.")
_UNITS = click.option("--unit", "units", metavar="N", type=int, multiple=True, help="A unit's number; may be repeated.")


@cli.command()
@_PHOTOS
@_model_options
@click.option(
    "--top", metavar="N", type=click.IntRange(1), default=5, show_default=True, help="How many classes to list."
)
@click.option(
    "--class",
    "classes",
    metavar="CLASS",
    multiple=True,
    help="Show the map of this class (label or index) instead of the top ones; may be repeated.",
)
@click.option(
    "--unit",
    "units",
    metavar="N",
    type=int,
    multiple=True,
    help="Switch off this unit instead of the first class's maximal one; may be repeated.",
)
@click.option("--layer", metavar="LAYER", help="Explain at this layer: any but the head's gets a local answer.")
@click.option(
    "--method",
    type=click.Choice(["hirescam", "gradcam"]),
    help="Ask for a local answer, by this method (default: exact where it can be, else hirescam).",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Compute exact answers in this (default: the network's own); the report says how far bfloat16 is off.",
)
@_OUT
@click.option("--no-pieces", is_flag=True, help="Write the report and JSON only, without PNG files.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Photos in one forward pass.")
@_JSON
def explain(
    photos: Sequence[str],
    top: int,
    classes: Sequence[str],
    units: Sequence[int],
    layer: str | None,
    method: str | None,
    precision: str | None,
    out: Path | None,
    no_pieces: bool,
    batch_size: int,
    as_json: bool,
    **source: str | None,
) -> None:
    """Explain photos: predictions, class activation maps, units, ablation, filters, as one report each.

    Writes OUT/report.html (several photos: OUT/PHOTO/report.html and OUT/index.html), the same pieces as PNG, and
    explanation.json; without --out, into the folder unitscope-report. With --json and no --out no file is written.

    \b
    unitscope explain photo.jpg --out report
    unitscope explain a.jpg b.jpg --model torchvision:resnet50 --weights resnet50.pth --json
    unitscope explain photo.jpg --model timm:vit_small_patch16_224 --method gradcam
    """
    from unitscope import record
    from unitscope.account import accounts_of

    options: dict[str, Any] = {"top": top, "classes": list(classes) or None, "units": list(units) or None}
    options |= {"layer": layer, "method": method, "precision": precision}
    out = _folder(out, None if as_json else "unitscope-report")
    model = _load(source)
    reader = _Reader(photos)
    told: list[Any] = []
    network: dict[str, Any] | None = None
    written: list[Path] = []
    with reader.bar() as progress:

        def each(account: Account) -> None:
            # What is printed is kept, not the account with its maps: there may be thousands of photos.
            nonlocal network
            network = record.of_network(account.network) if as_json and network is None else network
            told.append(record.of_account(account) if as_json else _account_text(account))
            progress(1)

        if out is not None:
            from unitscope.reporting import report

            written = report(model, reader, out, pieces=not no_pieces, batch_size=batch_size, each=each, **options)
        else:
            for account in accounts_of(model, reader, batch_size=batch_size, **options):
                each(account)
    if as_json:
        _print_json(record.document("explanation", network=network, photos=told))
    else:
        click.echo("\n".join(told))
        if written:
            click.echo(f"report: {written[-1]}")
    reader.finish()


@cli.command("filters")
@_model_options
@click.option(
    "--layer", metavar="LAYER", default="0", show_default=True, help="A convolution's name, or its number in order."
)
@click.option("--filter", "chosen", metavar="N", type=int, multiple=True, help="A filter's number; may be repeated.")
@click.option("--channel", "channels", metavar="N", type=int, multiple=True, help="An input channel; may be repeated.")
@click.option(
    "--scale",
    type=click.Choice(["kernel", "shared"]),
    default="kernel",
    show_default=True,
    help="Stretch each kernel to its own range, or all to one.",
)
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic"]),
    default="nearest",
    show_default=True,
    help="How kernels are enlarged.",
)
@_OUT
@_JSON
def filters_command(
    layer: str,
    chosen: Sequence[int],
    channels: Sequence[int],
    scale: Any,
    interpolation: str,
    out: Path | None,
    as_json: bool,
    **source: str | None,
) -> None:
    """Show what the filters of a convolution look like.

    \b
    unitscope filters --layer conv1 --out pictures
    unitscope filters --model torchvision:resnet50 --layer layer3.0.conv2 --channel 0 --json
    """
    from unitscope import record
    from unitscope.kernels import filters

    out = _folder(out, None if as_json else "unitscope-filters")
    shown = filters(_load(source), layer, filters=list(chosen) or None, channels=list(channels) or None, scale=scale)
    if out is not None:
        _draw(shown, out, f"filters-{_file_name(shown.layer)}.png", as_json, interpolation=interpolation)
    if as_json:
        _print_json(record.document("filters", **record.of_filters(shown)))


@cli.command("units")
@_PHOTOS
@_model_options
@click.option("--layer", metavar="LAYER", help="A layer's name (default: the last feature map).")
@_UNITS
@click.option(
    "--style",
    type=click.Choice(["heat", "contour", "write-up", "plain"]),
    default="heat",
    show_default=True,
    help="How a map is laid over the photo.",
)
@click.option(
    "--scale",
    type=click.Choice(["map", "photo", "shared"]),
    default="photo",
    show_default=True,
    help="One colour scale a map, a photo, or for all.",
)
@_OUT
@_JSON
def units_command(
    photos: Sequence[str],
    layer: str | None,
    units: Sequence[int],
    style: str,
    scale: str,
    out: Path | None,
    as_json: bool,
    **source: str | None,
) -> None:
    """Show where units of a layer fire on photos.

    \b
    unitscope units photo.jpg --layer layer4 --unit 300 --unit 100 --out pictures
    """
    from unitscope import record

    if not units:
        raise click.UsageError("name at least one unit with --unit N")
    out = _folder(out, None if as_json else "unitscope-units")
    model = _load(source)
    reader = _Reader(photos)
    results = []
    with reader.bar() as progress:
        for photo in reader:
            maps = model.units(photo, layer, list(units))
            results.append(record.of_unit_maps(maps, 0))
            if out is not None:
                numbers = "-".join(map(str, maps.units[:8]))
                name = f"{reader.unique(photo.name)}-{_file_name(maps.layer)}-units-{numbers}.png"
                _draw(maps, out, name, as_json, style=style, scale=scale)
            progress(1)
    if as_json:
        _print_json(record.document("units", photos=results))
    reader.finish()


@cli.command()
@_PHOTOS
@_model_options
@click.option(
    "--layer", metavar="LAYER", help="A layer's name (default: the last feature map, exact from one forward pass)."
)
@_UNITS
@click.option(
    "--maximal", is_flag=True, help="Switch off the unit with the largest weight for the first class (default)."
)
@click.option("--class", "which", metavar="CLASS", help="With --maximal: the class whose maximal unit it is.")
@click.option(
    "--top", metavar="N", type=click.IntRange(1), default=5, show_default=True, help="How many classes to list."
)
@_OUT
@_JSON
def ablate(
    photos: Sequence[str],
    layer: str | None,
    units: Sequence[int],
    maximal: bool,
    which: str | None,
    top: int,
    out: Path | None,
    as_json: bool,
    **source: str | None,
) -> None:
    """Switch units off and classify again: the top classes before and after.

    \b
    unitscope ablate photo.jpg --maximal
    unitscope ablate photo.jpg --layer layer3 --unit 3 --unit 5 --out pictures
    """
    from unitscope import record
    from unitscope.ablation import Ablation

    if units and (maximal or which is not None):
        raise click.UsageError("name units with --unit, or ask for the --maximal one, not both")
    if layer is not None and not units:
        raise click.UsageError("--maximal is about the last feature map: with --layer, name units with --unit")
    out = _folder(out)
    model = _load(source)
    reader = _Reader(photos)
    results = []
    with reader.bar() as progress:
        for photo in reader:
            if units:
                ablation = model.ablate(photo, layer, list(units))
            else:
                explanation = model.explain(photo)
                target = explanation.top(1)[0][0].index if which is None else explanation.class_index(which)
                ablation = Ablation.of(explanation, [explanation.maximal_unit(target)])
            results.append({"photo": photo.name, **record.of_ablation(ablation, 0, top)})
            if not as_json:
                _print_ablation(photo.name, ablation, top)
            if out is not None:
                _draw(ablation, out, f"{reader.unique(photo.name)}-ablation.png", as_json, top=top)
            progress(1)
    if as_json:
        _print_json(record.document("ablation", photos=results))
    reader.finish()


@cli.command()
@_model_options
@_JSON
def info(as_json: bool, **source: str | None) -> None:
    """Show a network's layers and shapes, its head, and how well the head's algebra holds.

    \b
    unitscope info --model torchvision:densenet121
    """
    from unitscope import record
    from unitscope.account import NetworkFacts
    from unitscope.verification import verify

    model = _load(source)
    verification = verify(model)
    facts = NetworkFacts.of(model)
    if as_json:
        content = {**record.of_network(facts), "verification": record.of_verification(verification)}
        _print_json(record.document("network", **content))
        return
    lines = [
        (
            "model",
            f"{facts.provenance.spec} ({facts.architecture}, {facts.parameters:,} parameters, {facts.classes} classes)",
        ),
        (
            "weights",
            facts.provenance.weights + (f", sha256 {facts.provenance.sha256}" if facts.provenance.sha256 else ""),
        ),
        ("input", f"{'×'.join(map(str, facts.input_shape))} (channel × row × col), {facts.dtype} on {facts.device}"),
        ("preprocessing", facts.preprocessing),
        *_head_lines(facts.head, verification),
    ]
    lines += [("note", note) for note in facts.provenance.notes]
    for name, text in lines:
        click.echo(f"{name:<14} {text}")
    click.echo("\nlayers, in order of execution (unit × row × col):")
    width = max(len(layer.name) for layer in facts.layers)
    for layer in facts.layers:
        click.echo(f"  {layer.name:<{width}}  {layer.kind:<20} {layer.describe_shape()}")


def _head_lines(head: AnyHead | None, verification: Verification) -> list[tuple[str, str]]:
    """What `info` says of the head: exact and how well verified, or local, why, and what it leaves out."""
    if head is None:
        return [("head", f"none: {verification.reason}")]
    lines = [("head", head.describe())]
    on = f"on {head.probes} random inputs"
    if head.exact:
        size = f"to {head.error:.1e} of the largest logit" if head.error else "exactly"
        lines.append(("verified", f"{head.kind}: mean of every map + bias = logit {size}, {on}"))
    else:
        lines.append(("not exact", verification.reason))
        left = f"its maps leave out up to {head.error:.0%} of the largest logit, {on}"
        lines.append(("measured", f"{head.kind}: {left}"))
    if verification.ablation_error is not None:
        units = f"{verification.tried} random units switched off one by one"
        error = verification.ablation_error
        size = f"to {error:.1e} of the largest logit" if error else "exactly"
        lines.append(("ablation", f"{units} = real forward passes without them, {size}"))
    found, forward = verification.seconds, verification.forward_seconds
    return [*lines, ("time", f"found and verified in {found:.1f} s; one forward pass takes {forward:.2f} s")]


@cli.command()
@click.argument("what", type=click.Choice(["write-up"]))
@click.argument("photo")
@click.option("--weights", metavar="FILE", help="A copy of resnet50_places365.pth.tar; downloaded when left out.")
@click.option("--labels", metavar="FILE", help="A copy of categories_places365.txt; downloaded when left out.")
@_OUT
@_JSON
def reproduce(what: str, photo: str, weights: str | None, labels: str | None, out: Path | None, as_json: bool) -> None:
    """Repeat the write-up that unitscope began as, each published number beside the one obtained.

    Downloads the Places365 ResNet-50 (95 MB) on first use. PHOTO is the write-up's photograph of Rio.

    \b
    unitscope reproduce write-up rio.jpg --out pictures
    """
    from unitscope import record, write_up
    from unitscope.sources import load

    out = _folder(out)
    model = load(write_up.MODEL, weights=weights, labels=labels, preprocessing=write_up.PREPROCESSING)
    result = write_up.reproduce(model, photo, out)
    agreeing, compared = result.agreeing
    if as_json:
        _print_json(record.document("reproduction", **result.plain()))
        return
    click.echo(f"{write_up.TITLE}\n")
    for row in result.comparisons:
        mark = {True: "agrees", False: "DIFFERS", None: ""}[row.agrees]
        click.echo(f"{row.where:<13} {row.quantity:<48} {row.published:<24} {row.obtained:<24} {mark}")
    click.echo(f"\n{agreeing} of {compared} published numbers agree.")
    for picture in result.pictures:
        click.echo(f"picture: {picture}")


@cli.command()
@click.argument("source", metavar="SOURCE", nargs=-1, required=True)
@_model_options
@click.option("--out", metavar="ATLAS", type=click.Path(path_type=Path), required=True, help="The atlas's folder.")
@click.option("--layer", "layers", metavar="LAYER", multiple=True, help="A layer to scan beside the head's.")
@click.option("--split", metavar="NAME", help="Which split of the data set, where it has several.")
@click.option("--classes", metavar="FILE", help="Names of the data set's own classes, where its labels are numbers.")
@click.option("--concepts", metavar="MASKS", help="Photos with concept masks: MiniPlaces objects, index PNGs, Broden.")
@click.option("--concept-names", metavar="FILE", help="Names of the concepts, where the masks bring numbers only.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Images kept for every unit [default: 20].")
@click.option("--sample", type=click.IntRange(0), metavar="N", help="Images drawn at random and kept [default: 48].")
@click.option("--quantile", type=float, metavar="Q", help="Thresholds T with P(a ≥ T) ≤ Q [default: 0.005].")
@click.option("--part", metavar="I/N", help="Scan the I-th of N parts only; `atlas merge` puts parts together.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Images in one forward pass [default: 32].")
@click.option("--shard-size", type=click.IntRange(1), metavar="N", help="Images committed together [default: 1024].")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes to share the work.")
@click.option("--resume", is_flag=True, hidden=True, help="A scan that was stopped always goes on.")
@_JSON
def scan(
    source: Sequence[str],
    out: Path,
    layers: Sequence[str],
    split: str | None,
    classes: str | None,
    concepts: str | None,
    concept_names: str | None,
    part: str | None,
    workers: int,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Scan a data set: what every unit responds to, in one pass, into an atlas on disk.

    SOURCE is a folder (of classes, or flat), a list or CSV of files, a MiniPlaces folder or tar, WebDataset shards, or
    Parquet files. Stopped at any moment, the same command goes on. Exit status 0 also where images were skipped: they
    are listed in the table `skipped`.

    \b
    unitscope scan photos/ --out atlas
    unitscope scan val.tar --out atlas --concepts annotated/ --concept-names objects.txt
    unitscope scan 'train-{000..127}.tar' --model torchvision:resnet50 --weights DEFAULT --layer layer3 --out atlas
    """
    from unitscope.scanning import scan as run

    model = _load({name: options.pop(name) for name in _MODEL_OPTIONS})
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
        raise click.BadParameter(f"'{text}' is no part: write for instance 1/4", param_hint="--part")
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
            # Photos of the first batches take longer: the rate is that of the last minute or so.
            bar = bars[progress.stage] = tqdm(
                desc=progress.stage, total=progress.total, unit="img", smoothing=0.02, disable=hidden
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
        from unitscope import record

        _print_json(record.document("atlas", path=str(atlas.path), **atlas.manifest))
        return
    for name, text in atlas.facts():
        click.echo(f"{name:<12} {text}")


@cli.group("atlas", context_settings=_CONTEXT)
def atlas_group() -> None:
    """Read an atlas: units, classes, concepts, ablation, and pages to browse.

    \b
    unitscope atlas info ATLAS
    unitscope atlas units ATLAS --class bedroom --top 10
    unitscope atlas html ATLAS --out pages
    """


_ATLAS = click.argument("path", metavar="ATLAS", type=click.Path(path_type=Path))
_LAYER = click.option("--layer", metavar="LAYER", help="A layer's name (default: the one that the head reads).")


@atlas_group.command("info")
@_ATLAS
@_JSON
def atlas_info(path: Path, as_json: bool) -> None:
    """Show what an atlas is of, and what it found.

    \b
    unitscope atlas info ATLAS
    """
    from unitscope.atlas import Atlas

    _print_atlas(Atlas.open(path), as_json)


@atlas_group.command("units")
@_ATLAS
@_LAYER
@click.option("--class", "of_class", metavar="CLASS", help="The units that matter for a class, by label or index.")
@click.option("--concept", metavar="NAME", help="The detectors of a concept.")
@click.option("--detectors", is_flag=True, help="The detectors of any concept.")
@click.option("--dead", is_flag=True, help="The units that never fire.")
@click.option(
    "--sort",
    type=click.Choice(["unit", "maximum", "selectivity", "iou", "positive"]),
    help="In which order (default: by number, or by what was asked for).",
)
@click.option("--top", "count", metavar="N", type=click.IntRange(1), help="How many to list (default: all).")
@_JSON
def atlas_units(path: Path, as_json: bool, **options: Any) -> None:
    """List units: of a layer, of a class, of a concept.

    \b
    unitscope atlas units ATLAS --class bedroom --top 10
    unitscope atlas units ATLAS --concept bed
    """
    from unitscope.atlas import Atlas
    from unitscope.atlas_queries import units

    rows = units(Atlas.open(path), **options)
    if as_json:
        _print_json(rows)
        return
    columns = ["layer", "unit", "name", "named_by", "maximum", "threshold", "share_positive", "selectivity"]
    if rows and "iou" in rows[0]:
        columns += ["concept_name", "iou", "p_value"]
    if options["of_class"] is not None:
        columns = ["layer", "unit", "name", "class_mean", "class_share", "importance", "contribution"]
    _print_table(rows, columns)


@atlas_group.command("classes")
@_ATLAS
@click.option("--unit", metavar="N", type=int, help="The classes to which a unit answers most (default: all classes).")
@_LAYER
@_JSON
def atlas_classes(path: Path, unit: int | None, layer: str | None, as_json: bool) -> None:
    """List classes: all with their accuracy, or those to which a unit answers.

    \b
    unitscope atlas classes ATLAS
    unitscope atlas classes ATLAS --unit 204
    """
    from unitscope.atlas import Atlas
    from unitscope.atlas_queries import classes_of

    atlas = Atlas.open(path)
    rows = atlas.table("classes").to_pylist() if unit is None else classes_of(atlas, unit, layer)
    of_unit = ["rank", "class_name", "images", "mean", "mean_low", "mean_high"]
    of_all = ["class", "name", "images", "found", "accuracy", "accuracy_low", "accuracy_high"]
    _print_json(rows) if as_json else _print_table(rows, of_all if unit is None else of_unit)


@atlas_group.command("concepts")
@_ATLAS
@click.option("--unit", metavar="N", type=int, help="The concepts that a unit agrees with (default: all concepts).")
@_LAYER
@_JSON
def atlas_concepts(path: Path, unit: int | None, layer: str | None, as_json: bool) -> None:
    """List concepts: all that were measured, or those that a unit agrees with, beside chance.

    \b
    unitscope atlas concepts ATLAS --unit 204
    """
    from unitscope.atlas import Atlas
    from unitscope.atlas_queries import concepts_of

    atlas = Atlas.open(path)
    rows = atlas.table("concepts").to_pylist() if unit is None else concepts_of(atlas, unit, layer)
    of_unit = ["rank", "name", "category", "iou", "iou_low", "iou_high", "chance", "chance_high"]
    of_all = ["concept", "name", "category", "images", "share"]
    _print_json(rows) if as_json else _print_table(rows, of_all if unit is None else of_unit)


@atlas_group.command("ablation")
@_ATLAS
@_UNITS
@click.option(
    "--class", "which", metavar="CLASS", help="What is left of a class without its most and least important units."
)
@click.option(
    "--top", metavar="N", type=click.IntRange(1), default=10, show_default=True, help="How many classes to list."
)
@_JSON
def atlas_ablation(path: Path, units: Sequence[int], which: str | None, top: int, as_json: bool) -> None:
    """Switch units off over the whole data set, exactly and without its photos.

    \b
    unitscope atlas ablation ATLAS --unit 204 --unit 257
    unitscope atlas ablation ATLAS --class bedroom
    """
    from unitscope.atlas import Atlas
    from unitscope.atlas_queries import removals, without

    if bool(units) == (which is not None):
        raise click.UsageError("name units to switch off with --unit N, or a class with --class")
    atlas = Atlas.open(path)
    if which is not None:
        rows = removals(atlas, which)
        shown = ["removed", "units", "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "accuracy"]
        _print_json(rows) if as_json else _print_table(rows, shown)
        return
    before, after, rows = without(atlas, list(units))
    if as_json:
        _print_json({"before": before._asdict(), "after": after._asdict(), "classes": rows})
        return
    for name, estimate in (("all on", before), (f"{len(set(units))} off", after)):
        click.echo(f"{name:<8} accuracy {estimate.value:.1%} ({estimate.low:.1%}–{estimate.high:.1%})")
    _print_table(rows[:top], ["class", "images", "found_before", "found_after"])


@atlas_group.command("html")
@_ATLAS
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Where to write the pages (default: ATLAS/pages)."
)
@click.option("--source", metavar="SOURCE", help="The data set, where it lies elsewhere now.")
def atlas_html(path: Path, out: Path | None, source: str | None) -> None:
    """Write an atlas as pages that work offline, from disk.

    \b
    unitscope atlas html ATLAS --out pages
    """
    from tqdm import tqdm

    from unitscope.atlas import Atlas
    from unitscope.datasets import open_dataset
    from unitscope.render.atlas_pages import write_pages

    atlas = Atlas.open(path)
    total = sum(layer.units for layer in atlas.layers)
    with tqdm(total=total, unit="unit", disable=not sys.stderr.isatty()) as bar:

        def drawn(units: int) -> None:
            bar.update(units)

        dataset = None if source is None else open_dataset(source)
        index = write_pages(atlas, out or path / "pages", dataset=dataset, each=drawn)
    click.echo(f"pages: {index}")


@atlas_group.command("merge")
@click.argument("parts", metavar="PART...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", metavar="ATLAS", required=True, type=click.Path(path_type=Path), help="The merged atlas's folder."
)
@_JSON
def atlas_merge(parts: Sequence[Path], out: Path, as_json: bool) -> None:
    """Put atlases of parts of one data set together.

    \b
    unitscope atlas merge part-1 part-2 --out atlas
    """
    from unitscope.merging import merge

    _print_atlas(merge(parts, out), as_json)


def _print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Rows as a table of text: numbers to four digits, and a dash for what is missing."""
    if not rows:
        click.echo("none")
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[place]) for line in cells)) for place, column in enumerate(columns)]
    numeric = [not any(isinstance(row.get(column), str) for row in rows) for column in columns]
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


class _Reader:
    """Opens photos one by one; of several, one that cannot be read is reported and left out, for exit status 1."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._failed = 0
        self._names: dict[str, int] = {}

    def __iter__(self) -> Iterator[Photo]:
        from unitscope.photos import open_photo

        for path in self._paths:
            try:
                yield open_photo(path)
            except PhotoError as error:
                if len(self._paths) == 1:
                    raise
                self._failed += 1
                _complain(error)
        if self._failed == len(self._paths):
            raise PhotoError(f"none of the {self._failed} photos could be read")

    @contextlib.contextmanager
    def bar(self) -> Iterator[Callable[[int], Any]]:
        """A progress bar on standard error, where that is a terminal and there is more than one photo."""
        from tqdm import tqdm

        with tqdm(total=len(self._paths), unit="photo", disable=len(self._paths) < 2 or not sys.stderr.isatty()) as bar:
            yield bar.update

    def unique(self, name: str) -> str:
        """A file name's stem, with a number behind it when another photo of this call has the same."""
        stem = _file_name(Path(name).stem)
        self._names[stem] = self._names.get(stem, 0) + 1
        return stem if self._names[stem] == 1 else f"{stem}-{self._names[stem]}"

    def finish(self) -> None:
        """Exit with status 1 when a photo could not be read."""
        if self._failed:
            raise click.exceptions.Exit(1)


def _load(source: dict[str, str | None]) -> Classifier:
    from unitscope.sources import load

    return load(
        source["spec"],
        weights=source["weights"],
        arch=source["arch"],
        labels=source["labels"],
        preprocessing=source["preprocessing"],
    )


def _folder(out: Path | None, default: str | None = None) -> Path | None:
    """The folder to write to, if any; one that cannot be a folder is refused before any work is done."""
    out = Path(default) if out is None and default else out
    try:
        if out is not None and out.exists() and not out.is_dir():
            raise OutputError(f"'{out}' is a file, not a folder: name another folder with --out")
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"'{out}' cannot be a folder ({error.strerror}): name another with --out") from None
    return out


def _draw(result: Drawable, out: Path, name: str, as_json: bool, **options: Any) -> None:
    """Draw a result into a file of the output folder and say where it is, beside the JSON rather than in it."""
    from unitscope.render import make_folder

    click.echo(f"picture: {result.save(make_folder(out) / name, **options)}", err=as_json)


def _account_text(account: Account) -> str:
    width = max(len(prediction.label) for prediction in account.predictions)
    rows = [
        f"  {rank:>2}  {prediction.label:<{width}}  {prediction.probability:>6.1%}  logit {prediction.logit:>7.3f}"
        for rank, prediction in enumerate(account.predictions, 1)
    ]
    return "\n".join([f"{account.subject.name}: {account.sentence()}", *rows])


def _print_ablation(name: str, ablation: Any, top: int) -> None:
    how = "exact, from one forward pass" if ablation.exact else "measured, by a second forward pass"
    units = ", ".join(map(str, ablation.units))
    click.echo(f"{name}: {len(ablation.units)} of the units of '{ablation.layer}' off ({units}); {how}")
    changes = ablation.changes(top)
    width = max(len(change.label) for change in changes)
    click.echo(f"  {'class':<{width}}  rank        logit               probability")
    for change in changes:
        click.echo(
            f"  {change.label:<{width}}  {change.rank_before:>3} → {change.rank_after:<3}   "
            f"{change.logit_before:>7.3f} → {change.logit_after:>7.3f}   "
            f"{change.probability_before:>6.1%} → {change.probability_after:>6.1%}"
        )


def _print_json(value: Any) -> None:
    # Where standard output cannot take every character, JSON's own escapes lose none.
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(value, indent=1, ensure_ascii=plain, allow_nan=False))


def _file_name(text: str) -> str:
    """A text as a file name: nothing but letters, digits, dots, dashes and underscores."""
    return (
        "".join(character if character.isalnum() or character in "._-" else "-" for character in text).strip(".") or "x"
    )


def _complain(error: BaseException) -> None:
    click.echo(f"unitscope: {' '.join(str(error).split())}", err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
    """Say a warning of ours on one line, without the place in the code; those of other libraries stay unsaid."""
    if issubclass(category, UnitscopeWarning):
        _complain(UnitscopeWarning(f"warning: {message}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 done, 1 failed with one clear line, 2 wrong usage, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # A terminal that lacks → or × gets ? instead of a traceback.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UnitscopeWarning)
            warnings.showwarning = _show_warning
            result = cli.main(
                args=None if arguments is None else list(arguments), prog_name="unitscope", standalone_mode=False
            )
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return 2 if isinstance(error, click.UsageError) else 1
    except (KeyboardInterrupt, click.Abort):
        _complain(KeyboardInterrupt("interrupted"))
        return 130
    except UnitscopeError as error:
        _complain(error)
        return 1
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): nothing to say, and Python must not say it at exit either.
        sys.stdout = None
        return 1
    except OSError as error:
        # Everything that unitscope writes itself is told of by OutputError: this is standard output.
        _complain(OutputError(f"standard output cannot be written ({error.strerror or error}): free some space"))
        sys.stdout = None
        return 1


if __name__ == "__main__":
    sys.exit(main())
