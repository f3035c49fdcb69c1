"""The verbs filters and units: pictures of what a layer has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import (
    JSON,
    OUT,
    PHOTOS,
    UNITS,
    chosen_units,
    model_options,
)
from unitscope.cli.output import draw, file_name, folder_for, print_document
from unitscope.cli.reader import Reader
from unitscope.cli.unit_inputs import (
    check_inputs,
    inputs_options,
    take_apart,
)

_UNITS_IN_NAME = 8


@click.command("filters")
@model_options
@click.option(
    "--layer",
    metavar="LAYER",
    default="0",
    show_default=True,
    help="The name of a convolution, or its number in order.",
)
@click.option(
    "--filter",
    "chosen",
    metavar="N",
    type=int,
    multiple=True,
    help="The number of a filter; may be repeated.",
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
    help="Scale each kernel to its own range, or all to one.",
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
    **source: Any,
) -> None:
    """Show what the filters of a convolution look like.

    \b
    unitscope filters --layer conv1 --out pictures
    unitscope filters --model torchvision:resnet50 --layer layer3.0.conv2 --channel 0 --json
    """
    from unitscope.accounts import record
    from unitscope.kernels import filters

    out = folder_for(out, None if as_json else "unitscope-filters")
    kernels = filters(
        load_model(source),
        layer,
        filters=list(chosen) or None,
        channels=list(channels) or None,
        scale=scale,
    )

    if out is not None:
        name = f"filters-{file_name(kernels.layer)}.png"
        draw(kernels, out, name, as_json, interpolation=interpolation)
    if as_json:
        print_document("filters", **record.of_filters(kernels))


@click.command("units")
@PHOTOS
@model_options
@click.option(
    "--layer",
    metavar="LAYER",
    help="The name of a layer (default: the last feature map).",
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
    help="One colour scale for each map, for each photo, or for all.",
)
@inputs_options
@OUT
@JSON
def units_command(
    photos: Sequence[str],
    layer: str | None,
    units: Sequence[str],
    style: str,
    scale: str,
    inputs: bool,
    cell: Any,
    out: Path | None,
    as_json: bool,
    **source: Any,
) -> None:
    """Show where units of a layer fire on photos, or what attention heads attend to.

    \b
    unitscope units photo.jpg --layer layer4 --unit 300 --unit 100 --out pictures
    unitscope units photo.jpg --model timm:vit_small_patch16_224 --units 3.5,7.0
    unitscope units photo.jpg --layer layer3 --unit 17 --inputs
    """
    from unitscope.accounts import record

    if not units:
        raise click.UsageError("name at least one unit with --unit N")
    check_inputs(inputs, cell, layer)
    if inputs and layer is not None:
        take_apart(
            photos,
            source,
            layer=layer,
            units=units,
            cell=cell,
            out=folder_for(out),
            as_json=as_json,
        )
        return
    out = folder_for(out, None if as_json else "unitscope-units")
    model = load_model(source, len(photos), layer)
    chosen = chosen_units(model, layer, units)

    reader = Reader(photos, model.preprocessing)
    records = []
    with reader.bar() as progress:
        for photo in reader:
            maps = model.units(photo, layer, chosen)
            records.append(record.of_unit_maps(maps, 0))
            if out is not None:
                name = _picture_name(
                    reader.unique(photo.name), maps.layer, maps.unit_names
                )
                draw(maps, out, name, as_json, style=style, scale=scale)
            progress(1)

    if as_json:
        print_document("units", photos=records)
    reader.finish()


def _picture_name(photo: str, layer: str, units: Sequence[str]) -> str:
    numbers = "-".join(units[:_UNITS_IN_NAME])
    return f"{photo}-{file_name(layer)}-units-{numbers}.png"
