"""The verb ablate: photos classified again without some units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.each_unit import ablations_of, text_of
from unitscope.cli.loading import load_model
from unitscope.cli.options import (
    JSON,
    OUT,
    PHOTOS,
    UNITS,
    chosen_units,
    model_options,
    take_model_options,
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
    from unitscope.drawable import Drawable
    from unitscope.inputs.photos import Photo
    from unitscope.model import Classifier

# Units that are printed one by one.
_MOST_NAMED = 100


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
    "--each",
    is_flag=True,
    help="Switch every unit of the layer off, or those named, one at a time; lists the largest "
    "changes (all in --json).",
)
@click.option(
    "--region",
    metavar="CELLS",
    help="Change these cells of the maps only: 2,3 (row, column) or 2:5,0:3 (rows 2–4, columns "
    "0–2).",
)
@click.option(
    "--value",
    metavar="VALUE",
    default="0",
    show_default=True,
    help="Put this in place of units: a number, a photo (what they do there), or the folder of "
    "an atlas (their mean over its images).",
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
    screen: bool,
    verify: int,
    top: int,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Switch units off and classify again: the top classes before and after.

    \b
    unitscope ablate photo.jpg --maximal
    unitscope ablate photo.jpg --layer layer3 --unit 3 --unit 5 --out pictures
    unitscope ablate photo.jpg --layer layer3 --each
    unitscope ablate photo.jpg --layer layer3 --units all --region 2:5,0:3
    unitscope ablate photo.jpg --model timm:vit_small_patch16_224 --units 3.5,7.0 --effect direct
    unitscope ablate photo.jpg --screen --verify 20 --out pictures
    """
    source = take_model_options(options)
    wanted = _Wanted(**options)
    check_screening(screen, verify, wanted.beside_screening())
    if screen:
        screen_photos(
            photos,
            source,
            layer=wanted.layer,
            class_name=wanted.class_name,
            verify=verify,
            top=top,
            out=folder_for(out),
            as_json=as_json,
        )
        return

    wanted.check()
    out = folder_for(out)
    model = load_model(source, len(photos), wanted.layer)
    chosen = wanted.chosen(model)
    done = _Done(
        model, wanted.layer, chosen, wanted.class_name, top, out, as_json
    )
    _run(photos, done, wanted)


def _run(photos: Sequence[str], done: _Done, wanted: _Wanted) -> None:
    """Ablate photo after photo; Ctrl-C ends it behind what was measured until then."""
    options = wanted.options(done.model)
    reader = Reader(photos, done.model.preprocessing)
    is_interrupted = False
    with reader.bar() as progress:
        for photo in reader:
            if wanted.each:
                is_interrupted = done.each(photo, reader, **options)
            else:
                done.together(photo, reader, **options)
            progress(1)
            if is_interrupted:
                break

    if done.as_json:
        kind = "unit-ablations" if wanted.each else "ablation"
        print_document(kind, photos=done.records)
    if is_interrupted:
        raise KeyboardInterrupt
    reader.finish()


@dataclass(frozen=True)
class _Wanted:
    """What is to be switched off, as the options of the verb say it."""

    layer: str | None
    units: Sequence[str]
    maximal: bool
    class_name: str | None
    each: bool
    region: str | None
    value: str
    effect: Effect

    def beside_screening(self) -> dict[str, Any]:
        """The options that do not go with --screen, by name."""
        return {
            "--unit": self.units,
            "--maximal": self.maximal,
            "--effect direct": self.effect == "direct",
            "--each": self.each,
            "--region": self.region,
            "--value": self.value != "0",
        }

    def chosen(self, model: Classifier) -> list[int] | None:
        """The units that are named: None for all, none for the maximal one."""
        is_all = list(self.units) == ["all"]
        if is_all or (not self.units and (self.each or self.region)):
            return None
        return chosen_units(model, self.layer, self.units)

    def options(self, model: Classifier) -> dict[str, Any]:
        """The options of `Classifier.ablate`."""
        from unitscope.attribution.region import region_in_text

        region = None
        if self.region is not None:
            region = region_in_text(self.region)
        value = _value_of(self.value, model, self.layer)
        return {"effect": self.effect, "region": region, "value": value}

    def check(self) -> None:
        """Exit with status 2 for options that do not go together."""
        if self.maximal and (self.each or self.region is not None):
            raise click.UsageError(
                "--maximal is one unit: leave it out with --each or --region"
            )
        if self.units and (
            self.maximal or (self.class_name is not None and not self.each)
        ):
            raise click.UsageError(
                "name units with --unit, or ask for the --maximal one, not both"
            )
        if (
            self.layer is not None
            and not self.units
            and not self.each
            and self.region is None
        ):
            raise click.UsageError(
                "--maximal is about the last feature map: with --layer, name units with "
                "--unit (--units all for the whole layer), or ask for --each of them"
            )


@dataclass
class _Done:
    """What is done with every photo, printed and drawn at once; `records` are for JSON.

    `units` None are all of the layer; the maximal one where there are none.
    """

    model: Classifier
    layer: str | None
    units: list[int] | None
    class_name: str | None
    top: int
    out: Path | None
    as_json: bool
    records: list[dict[str, Any]] = field(default_factory=list)

    def together(self, photo: Photo, reader: Reader, **options: Any) -> None:
        """Units off together."""
        from unitscope.accounts import record

        if self.units == []:
            ablation = self._without_maximal_unit(photo, **options)
        else:
            ablation = self.model.ablate(
                photo, self.layer, self.units, **options
            )
        content = record.of_ablation(ablation, 0, self.top)
        self.records.append({"photo": photo.name, **content})
        if not self.as_json:
            say(_ablation_text(photo.name, ablation, self.top))
        name = f"{reader.unique(photo.name)}-ablation.png"
        self._draw(ablation, name, top=self.top)

    def each(self, photo: Photo, reader: Reader, **options: Any) -> bool:
        """Units off one at a time; whether that was interrupted."""
        from unitscope.accounts import record

        ablations, is_interrupted = ablations_of(
            self.model, photo, self.layer, self.units, **options
        )
        content = record.of_unit_ablations(ablations, 0, self.top)
        self.records.append({"photo": photo.name, **content})
        if not self.as_json:
            say(text_of(photo.name, ablations, self.class_name))
        if not is_interrupted:
            name = f"{reader.unique(photo.name)}-each-unit.png"
            self._draw(ablations, name, which=self.class_name)
        return is_interrupted

    def _without_maximal_unit(self, photo: Photo, **options: Any) -> Ablation:
        """The ablation of the unit with the largest weight for a class."""
        from unitscope.attribution.ablation import Ablation

        explanation = self.model.explain(photo)
        if self.class_name is None:
            index = explanation.top(1)[0][0].index
        else:
            index = explanation.class_index(self.class_name)
        unit = explanation.maximal_unit(index)
        if options["value"] == 0:
            return Ablation.of(explanation, unit, options["effect"])
        return self.model.ablate(photo, None, [unit], **options)

    def _draw(self, result: Drawable, name: str, **options: Any) -> None:
        if self.out is not None:
            draw(result, self.out, name, self.as_json, **options)


def _value_of(text: str, model: Classifier, layer: str | None) -> Any:
    """What is put in place of units: a number, an atlas's means, or a photo."""
    from unitscope.atlas.disk.layout import MANIFEST

    try:
        return float(text)
    except ValueError:
        pass
    if not Path(text, MANIFEST).is_file():
        return text

    from unitscope.atlas.atlas import Atlas
    from unitscope.residual.head import HEADS

    atlas = Atlas.open(text)
    is_of_heads = layer in (None, HEADS) and model.head.maps_are_a_part
    if is_of_heads:
        return atlas.head_means(model)
    return atlas.unit_means(model, layer)


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
    names = ablation.maps.unit_names
    units = f" ({', '.join(names)})" if len(names) <= _MOST_NAMED else ""
    done = f"set to {ablation.replaced}" if ablation.replaced else "off"
    done += f" in {ablation.where}" if ablation.where else ""
    changes = ablation.changes(top)
    width = max(len(change.label) for change in changes)

    scores = ablation.scores
    headings = f"  {'class':<{width}}  rank        {scores.number:<17}"
    has_two = scores.has_probabilities and scores.has_logits
    if has_two:
        headings += "   probability"
    lines = [
        f"{name}: {len(ablation.units)} of the {_of_layer(ablation)} {done}{units}; "
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
