"""The verbs about photos and networks: explain, filters, units, ablate, info, reproduce."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.shared import (
    JSON,
    OUT,
    PHOTOS,
    UNITS,
    Reader,
    draw,
    file_name,
    folder_for,
    load_model,
    model_options,
    print_json,
)

if TYPE_CHECKING:
    from unitscope.accounts.account import Account
    from unitscope.accounts.verification import Verification
    from unitscope.attribution.head import Head


@click.command()
@PHOTOS
@model_options
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many classes to list.",
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
@click.option(
    "--layer",
    metavar="LAYER",
    help="Explain at this layer: any but the head's gets a local answer.",
)
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

    Writes OUT/report.html (several photos: OUT/PHOTO/report.html and OUT/index.html),
    the same pieces as PNG, and explanation.json; without --out, into the folder
    unitscope-report. With --json and no --out no file is written.

    \b
    unitscope explain photo.jpg --out report
    unitscope explain a.jpg b.jpg --model torchvision:resnet50 --weights resnet50.pth --json
    unitscope explain photo.jpg --model timm:vit_small_patch16_224 --method gradcam
    """
    from unitscope.accounts import record
    from unitscope.accounts.account import accounts_of

    options: dict[str, Any] = {
        "top": top,
        "classes": list(classes) or None,
        "units": list(units) or None,
    }
    options |= {"layer": layer, "method": method, "precision": precision}
    out = folder_for(out, None if as_json else "unitscope-report")
    model = load_model(source, len(photos), layer)
    reader = Reader(photos)
    told: list[Any] = []
    network: dict[str, Any] | None = None
    written: list[Path] = []
    with reader.bar() as progress:

        def each(account: Account) -> None:
            # What is printed is kept, not the account with its maps: there may be
            # thousands of photos.
            nonlocal network
            network = (
                record.of_network(account.network)
                if as_json and network is None
                else network
            )
            told.append(
                record.of_account(account) if as_json else _account_text(account)
            )
            progress(1)

        if out is not None:
            from unitscope.render.reporting import report

            written = report(
                model,
                reader,
                out,
                pieces=not no_pieces,
                batch_size=batch_size,
                each=each,
                **options,
            )
        else:
            for account in accounts_of(model, reader, batch_size=batch_size, **options):
                each(account)
    if as_json:
        print_json(record.document("explanation", network=network, photos=told))
    else:
        click.echo("\n".join(told))
        if written:
            click.echo(f"report: {written[-1]}")
    reader.finish()


@click.command("filters")
@model_options
@click.option(
    "--layer",
    metavar="LAYER",
    default="0",
    show_default=True,
    help="A convolution's name, or its number in order.",
)
@click.option(
    "--filter",
    "chosen",
    metavar="N",
    type=int,
    multiple=True,
    help="A filter's number; may be repeated.",
)
@click.option(
    "--channel",
    "channels",
    metavar="N",
    type=int,
    multiple=True,
    help="An input channel; may be repeated.",
)
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
@OUT
@JSON
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
    from unitscope.accounts import record
    from unitscope.kernels import filters

    out = folder_for(out, None if as_json else "unitscope-filters")
    shown = filters(
        load_model(source),
        layer,
        filters=list(chosen) or None,
        channels=list(channels) or None,
        scale=scale,
    )
    if out is not None:
        draw(
            shown,
            out,
            f"filters-{file_name(shown.layer)}.png",
            as_json,
            interpolation=interpolation,
        )
    if as_json:
        print_json(record.document("filters", **record.of_filters(shown)))


@click.command("units")
@PHOTOS
@model_options
@click.option(
    "--layer", metavar="LAYER", help="A layer's name (default: the last feature map)."
)
@UNITS
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
@OUT
@JSON
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
    from unitscope.accounts import record

    if not units:
        raise click.UsageError("name at least one unit with --unit N")
    out = folder_for(out, None if as_json else "unitscope-units")
    model = load_model(source, len(photos), layer)
    reader = Reader(photos)
    results = []
    with reader.bar() as progress:
        for photo in reader:
            maps = model.units(photo, layer, list(units))
            results.append(record.of_unit_maps(maps, 0))
            if out is not None:
                numbers = "-".join(map(str, maps.units[:8]))
                name = f"{reader.unique(photo.name)}-{file_name(maps.layer)}-units-{numbers}.png"
                draw(maps, out, name, as_json, style=style, scale=scale)
            progress(1)
    if as_json:
        print_json(record.document("units", photos=results))
    reader.finish()


@click.command()
@PHOTOS
@model_options
@click.option(
    "--layer",
    metavar="LAYER",
    help="A layer's name (default: the last feature map, exact from one forward pass).",
)
@UNITS
@click.option(
    "--maximal",
    is_flag=True,
    help="Switch off the unit with the largest weight for the first class (default).",
)
@click.option(
    "--class",
    "which",
    metavar="CLASS",
    help="With --maximal: the class whose maximal unit it is.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many classes to list.",
)
@OUT
@JSON
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
    from unitscope.accounts import record
    from unitscope.attribution.ablation import Ablation

    if units and (maximal or which is not None):
        raise click.UsageError(
            "name units with --unit, or ask for the --maximal one, not both"
        )
    if layer is not None and not units:
        raise click.UsageError(
            "--maximal is about the last feature map: with --layer, name units with "
            "--unit"
        )
    out = folder_for(out)
    model = load_model(source, len(photos), layer)
    reader = Reader(photos)
    results = []
    with reader.bar() as progress:
        for photo in reader:
            if units:
                ablation = model.ablate(photo, layer, list(units))
            else:
                explanation = model.explain(photo)
                target = (
                    explanation.top(1)[0][0].index
                    if which is None
                    else explanation.class_index(which)
                )
                ablation = Ablation.of(explanation, [explanation.maximal_unit(target)])
            results.append(
                {"photo": photo.name, **record.of_ablation(ablation, 0, top)}
            )
            if not as_json:
                _print_ablation(photo.name, ablation, top)
            if out is not None:
                draw(
                    ablation,
                    out,
                    f"{reader.unique(photo.name)}-ablation.png",
                    as_json,
                    top=top,
                )
            progress(1)
    if as_json:
        print_json(record.document("ablation", photos=results))
    reader.finish()


@click.command()
@model_options
@JSON
def info(as_json: bool, **source: str | None) -> None:
    """Show a network's layers and shapes, its head, and how well the head's algebra holds.

    \b
    unitscope info --model torchvision:densenet121
    """
    from unitscope.accounts import record
    from unitscope.accounts.verification import verify
    from unitscope.network_facts import NetworkFacts

    model = load_model(source)
    verification = verify(model)
    facts = NetworkFacts.of(model)
    if as_json:
        content = {
            **record.of_network(facts),
            "verification": record.of_verification(verification),
        }
        print_json(record.document("network", **content))
        return
    lines = [
        (
            "model",
            f"{facts.provenance.spec} ({facts.architecture}, {facts.parameters:,} "
            f"parameters, {facts.classes} classes)",
        ),
        (
            "weights",
            facts.provenance.weights
            + (
                f", sha256 {facts.provenance.sha256}" if facts.provenance.sha256 else ""
            ),
        ),
        (
            "input",
            f"{'×'.join(map(str, facts.input_shape))} (channel × row × col), "
            f"{facts.dtype} on {facts.device}",
        ),
        ("preprocessing", facts.preprocessing),
        *_head_lines(facts.head, verification),
    ]
    lines += [("note", note) for note in facts.provenance.notes]
    for name, text in lines:
        click.echo(f"{name:<14} {text}")
    click.echo("\nlayers, in order of execution (unit × row × col):")
    width = max(len(layer.name) for layer in facts.layers)
    for layer in facts.layers:
        click.echo(
            f"  {layer.name:<{width}}  {layer.kind:<20} {layer.describe_shape()}"
        )


def _head_lines(head: Head | None, verification: Verification) -> list[tuple[str, str]]:
    """What `info` says of the head: exact and how well verified, or local, why, and what it leaves out."""
    if head is None:
        return [("head", f"none: {verification.reason}")]
    lines = [("head", head.describe())]
    on = f"on {head.probes} random inputs"
    if head.exact:
        size = f"to {head.error:.1e} of the largest logit" if head.error else "exactly"
        lines.append(
            ("verified", f"{head.kind}: mean of every map + bias = logit {size}, {on}")
        )
    else:
        lines.append(("not exact", verification.reason))
        left = f"its maps leave out up to {head.error:.0%} of the largest logit, {on}"
        lines.append(("measured", f"{head.kind}: {left}"))
    if verification.ablation_error is not None:
        units = f"{verification.tried} random units switched off one by one"
        error = verification.ablation_error
        size = f"to {error:.1e} of the largest logit" if error else "exactly"
        lines.append(
            ("ablation", f"{units} = real forward passes without them, {size}")
        )
    found, forward = verification.seconds, verification.forward_seconds
    return [
        *lines,
        (
            "time",
            f"found and verified in {found:.1f} s; one forward pass takes "
            f"{forward:.2f} s",
        ),
    ]


@click.command()
@click.argument("what", type=click.Choice(["write-up"]))
@click.argument("photo")
@click.option(
    "--weights",
    metavar="FILE",
    help="A copy of resnet50_places365.pth.tar; downloaded when left out.",
)
@click.option(
    "--labels",
    metavar="FILE",
    help="A copy of categories_places365.txt; downloaded when left out.",
)
@OUT
@JSON
def reproduce(
    what: str,
    photo: str,
    weights: str | None,
    labels: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Repeat the write-up that unitscope began as, each published number beside the one obtained.

    Downloads the Places365 ResNet-50 (95 MB) on first use. PHOTO is the write-up's
    photograph of Rio.

    \b
    unitscope reproduce write-up rio.jpg --out pictures
    """
    from unitscope import write_up
    from unitscope.accounts import record
    from unitscope.sources import load

    out = folder_for(out)
    model = load(
        write_up.MODEL,
        weights=weights,
        labels=labels,
        preprocessing=write_up.PREPROCESSING,
    )
    result = write_up.reproduce(model, photo, out)
    agreeing, compared = result.agreeing
    if as_json:
        print_json(record.document("reproduction", **result.plain()))
        return
    click.echo(f"{write_up.TITLE}\n")
    for row in result.comparisons:
        mark = {True: "agrees", False: "DIFFERS", None: ""}[row.agrees]
        click.echo(
            f"{row.where:<13} {row.quantity:<48} {row.published:<24} "
            f"{row.obtained:<24} {mark}"
        )
    click.echo(f"\n{agreeing} of {compared} published numbers agree.")
    for picture in result.pictures:
        click.echo(f"picture: {picture}")


def _account_text(account: Account) -> str:
    width = max(len(prediction.label) for prediction in account.predictions)
    rows = [
        f"  {rank:>2}  {prediction.label:<{width}}  {prediction.probability:>6.1%}  "
        f"logit {prediction.logit:>7.3f}"
        for rank, prediction in enumerate(account.predictions, 1)
    ]
    return "\n".join([f"{account.subject.name}: {account.sentence()}", *rows])


def _print_ablation(name: str, ablation: Any, top: int) -> None:
    how = (
        "exact, from one forward pass"
        if ablation.exact
        else "measured, by a second forward pass"
    )
    units = ", ".join(map(str, ablation.units))
    click.echo(
        f"{name}: {len(ablation.units)} of the units of '{ablation.layer}' off "
        f"({units}); {how}"
    )
    changes = ablation.changes(top)
    width = max(len(change.label) for change in changes)
    click.echo(f"  {'class':<{width}}  rank        logit               probability")
    for change in changes:
        click.echo(
            f"  {change.label:<{width}}  {change.rank_before:>3} → "
            f"{change.rank_after:<3}   "
            f"{change.logit_before:>7.3f} → {change.logit_after:>7.3f}   "
            f"{change.probability_before:>6.1%} → {change.probability_after:>6.1%}"
        )
