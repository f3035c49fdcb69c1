"""ablate --screen: estimates for all units of all layers, the top ones verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitscope.cli.loading import load_model
from unitscope.cli.output import draw, print_document, say
from unitscope.cli.reader import Reader
from unitscope.plurals import plural

if TYPE_CHECKING:
    from unitscope.attribution.screening import Screening

_F = TypeVar("_F", bound=Callable[..., Any])


def screening_options(function: _F) -> _F:
    """Add --screen and --verify."""
    function = click.option(
        "--verify",
        metavar="N",
        type=click.IntRange(0),
        default=0,
        help="With --screen: switch the N units with the largest estimates off by real "
        "passes, and N drawn at random, and say how well the estimates rank them.",
    )(function)
    return click.option(
        "--screen",
        is_flag=True,
        help="Estimate what switching off each unit of every layer (or of --layer) does to the "
        "first class (or --class), from one forward and one backward pass; --top units are "
        "listed.",
    )(function)


def check_screening(
    screen: bool, verify: int, others: Mapping[str, Any]
) -> None:
    """Exit with status 2 for options that do not go together; `others` by their names."""
    if verify and not screen:
        raise click.UsageError(
            "--verify is about estimates: ask for them with --screen"
        )
    if not screen:
        return
    for name, value in others.items():
        if value:
            raise click.UsageError(
                f"--screen is about every unit: leave out {name}"
            )


def screen_photos(
    photos: Sequence[str],
    source: Mapping[str, Any],
    *,
    layer: str | None,
    class_name: str | None,
    verify: int,
    top: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Screen photos and print what their layers carry."""
    from unitscope.accounts.inner_record import of_screening

    model = load_model(source)
    reader = Reader(photos, model.preprocessing)
    records = []
    with reader.bar() as progress:
        for photo in reader:
            screening = model.screen(photo, class_name, layer, verify)
            records.append(of_screening(screening, 0, top))
            if not as_json:
                say(_text(photo.name, screening, top))
            if out is not None:
                name = f"{reader.unique(photo.name)}-layers.png"
                draw(screening, out, name, as_json, top=top)
            progress(1)
    if as_json:
        print_document("screening", photos=records)
    reader.finish()


def _text(name: str, screening: Screening, top: int) -> str:
    units = sum(each.shape[1] for each in screening.estimates.values())
    what = screening.scores.number
    lines = [
        f"{name}: {screening.label()}, {what} {screening.logit():.3f}; "
        f"{plural(units, 'unit')} of {plural(len(screening.layers), 'layer')}, estimated to "
        "first order",
        *_layer_lines(screening),
        "  units with the largest estimates",
        *_unit_lines(screening, top),
    ]
    if screening.verified:
        lines += _correlation_lines(screening)
    return "\n".join(lines)


def _layer_lines(screening: Screening) -> list[str]:
    shown = screening.outline()
    rows = [row for row in screening.strengths() if row.layer in shown]
    width = max(len("layer"), *(len(row.layer) for row in rows))
    lines = [
        f"  {'layer':<{width}}  units  largest |estimate|        sum  units that give 90 %"
    ]
    for row in rows:
        largest = f"{row.largest:.3f} (unit {row.unit})"
        lines.append(
            f"  {row.layer:<{width}}  {row.units:>5}  {largest:>18}  {row.total:>9.3f}  "
            f"{row.share:>20.1%}"
        )
    return lines


def _unit_lines(screening: Screening, top: int) -> list[str]:
    effects = screening.top(top)
    names = [f"unit {each.unit} of {each.layer}" for each in effects]
    width = max(map(len, names), default=0)
    lines = []
    for effect, name in zip(effects, names, strict=True):
        line = f"  {name:<{width}}  {effect.estimate:>+8.3f}"
        if effect.measured is not None:
            line += f"   measured {effect.measured:>+8.3f}"
        lines.append(line)
    return lines


def _correlation_lines(screening: Screening) -> list[str]:
    verified = screening.verified[0]
    if verified.correlation is None:
        return ["  too few units were switched off for a rank correlation"]
    line = (
        f"  rank correlation with real passes: {verified.correlation:.2f} over "
        f"{len(verified.sample)} units drawn at random"
    )
    if verified.top_correlation is None:
        return [line]
    return [
        line,
        f"  ({verified.top_correlation:.2f} over the top {len(verified.top)} alone, which is "
        "not that over all units)",
    ]
