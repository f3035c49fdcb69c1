"""The verb ablate: photos classified again without some units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import (
    JSON,
    OUT,
    PHOTOS,
    UNITS,
    chosen_units,
    model_options,
    top_option,
)
from unitscope.cli.output import draw, folder_for, print_document, say
from unitscope.cli.reader import Reader
from unitscope.cli.screening import (
    check_screening,
    screen_photos,
    screening_options,
)

if TYPE_CHECKING:
    from unitscope.attribution.ablation import Ablation
    from unitscope.attribution.effects import Effect
    from unitscope.inputs.photos import Photo
    from unitscope.model import Classifier


@click.command()
@PHOTOS
@model_options
@click.option(
    "--layer",
    metavar="LAYER",
    help="The name of a layer (default: the last feature map, exact from one forward "
    "pass).",
)
@UNITS
@click.option(
    "--maximal",
    is_flag=True,
    help="Switch off the unit with the largest weight for the first class, or the attention "
    "head that gives most to it (default).",
)
@click.option(
    "--class",
    "class_name",
    metavar="CLASS",
    help="The class whose maximal unit is switched off, instead of the first one.",
)
@click.option(
    "--effect",
    type=click.Choice(["total", "direct"]),
    default="total",
    show_default=True,
    help="Of attention heads: later blocks react (total, a real forward pass), or only what "
    "the heads write to the logits is gone (direct, exact algebra).",
)
@screening_options
@top_option(5)
@OUT
@JSON
def ablate(
    photos: Sequence[str],
    layer: str | None,
    units: Sequence[str],
    maximal: bool,
    class_name: str | None,
    effect: Effect,
    screen: bool,
    verify: int,
    top: int,
    out: Path | None,
    as_json: bool,
    **source: Any,
) -> None:
    """Switch units off and classify again: the top classes before and after.

    \b
    unitscope ablate photo.jpg --maximal
    unitscope ablate photo.jpg --layer layer3 --unit 3 --unit 5 --out pictures
    unitscope ablate photo.jpg --model timm:vit_small_patch16_224 --units 3.5,7.0 --effect direct
    unitscope ablate photo.jpg --screen --verify 20 --out pictures
    """
    from unitscope.accounts import record

    is_direct = effect == "direct"
    others = {
        "--unit": units,
        "--maximal": maximal,
        "--effect direct": is_direct,
    }
    check_screening(screen, verify, others)
    if screen:
        screen_photos(
            photos,
            source,
            layer=layer,
            class_name=class_name,
            verify=verify,
            top=top,
            out=folder_for(out),
            as_json=as_json,
        )
        return

    _check_usage(layer, units, maximal or class_name is not None)
    out = folder_for(out)
    model = load_model(source, len(photos), layer)
    chosen = chosen_units(model, layer, units)

    reader = Reader(photos, model.preprocessing)
    records = []
    with reader.bar() as progress:
        for photo in reader:
            if units:
                ablation = model.ablate(photo, layer, chosen, effect=effect)
            else:
                ablation = _without_maximal_unit(
                    model, photo, class_name, effect
                )

            content = record.of_ablation(ablation, 0, top)
            records.append({"photo": photo.name, **content})
            if not as_json:
                say(_ablation_text(photo.name, ablation, top))
            if out is not None:
                name = f"{reader.unique(photo.name)}-ablation.png"
                draw(ablation, out, name, as_json, top=top)
            progress(1)

    if as_json:
        print_document("ablation", photos=records)
    reader.finish()


def _check_usage(
    layer: str | None, units: Sequence[str], asks_maximal: bool
) -> None:
    if units and asks_maximal:
        raise click.UsageError(
            "name units with --unit, or ask for the --maximal one, not both"
        )
    if layer is not None and not units:
        raise click.UsageError(
            "--maximal is about the last feature map: with --layer, name units with "
            "--unit"
        )


def _without_maximal_unit(
    model: Classifier, photo: Photo, class_name: str | None, effect: Effect
) -> Ablation:
    """The ablation of the unit with the largest weight for a class."""
    from unitscope.attribution.ablation import Ablation

    explanation = model.explain(photo)
    if class_name is None:
        index = explanation.top(1)[0][0].index
    else:
        index = explanation.class_index(class_name)
    return Ablation.of(explanation, explanation.maximal_unit(index), effect)


def _of_layer(ablation: Ablation) -> str:
    """What is switched off: heads stand in no layer."""
    is_of_heads = ablation.effect is not None
    return ablation.layer if is_of_heads else f"units of '{ablation.layer}'"


def _ablation_text(name: str, ablation: Ablation, top: int) -> str:
    source = (
        "exact, from one forward pass"
        if ablation.exact
        else "measured, by a second forward pass"
    )
    if ablation.effect == "direct":
        source = "direct effect, exact from one forward pass"
    elif ablation.effect == "total":
        source = "total effect, measured by a second forward pass"
    units = ", ".join(ablation.maps.unit_names)
    changes = ablation.changes(top)
    width = max(len(change.label) for change in changes)

    scores = ablation.scores
    headings = f"  {'class':<{width}}  rank        {scores.number:<17}"
    has_two = scores.has_probabilities and scores.has_logits
    if has_two:
        headings += "   probability"
    lines = [
        f"{name}: {len(ablation.units)} of the {_of_layer(ablation)} off ({units}); "
        f"{source}",
        headings.rstrip(),
    ]
    for change in changes:
        ranks = f"{change.rank_before:>3} → {change.rank_after:<3}"
        logits = f"{change.logit_before:>7.3f} → {change.logit_after:>7.3f}"
        line = f"  {change.label:<{width}}  {ranks}   {logits}"
        if has_two:
            before, after = change.probability_before, change.probability_after
            line += f"   {before:>6.1%} → {after:>6.1%}"
        lines.append(line)
    return "\n".join(lines)
