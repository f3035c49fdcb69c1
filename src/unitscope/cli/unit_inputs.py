"""units --inputs: what units are made of on a photo, one layer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import numbered_units
from unitscope.cli.output import draw, file_name, print_document, say
from unitscope.cli.reader import Reader

if TYPE_CHECKING:
    from unitscope.attribution.unit_inputs import Summand, UnitInputs

_F = TypeVar("_F", bound=Callable[..., Any])

_TOP = 10


def inputs_options(function: _F) -> _F:
    """Add --inputs and --cell."""
    function = click.option(
        "--cell",
        metavar="ROW,COL",
        callback=_cell,
        help="With --inputs: the cell of the unit's map, or 'mean' (default: the cell with the "
        "largest pre-activation).",
    )(function)
    return click.option(
        "--inputs",
        is_flag=True,
        help="Take the units apart: which earlier units give how much to each, one layer "
        "back; needs --layer.",
    )(function)


def check_inputs(inputs: bool, cell: Any, layer: str | None) -> None:
    """Exit with status 2 for options that do not go together."""
    if cell is not None and not inputs:
        raise click.UsageError("--cell is about --inputs: ask for these too")
    if inputs and layer is None:
        raise click.UsageError(
            "--inputs needs the --layer of the units; `unitscope info` lists layers"
        )


def take_apart(
    photos: Sequence[str],
    source: Mapping[str, Any],
    *,
    layer: str,
    units: Sequence[str],
    cell: tuple[int, int] | str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print what units are made of on photos."""
    from unitscope.accounts.inner_record import of_unit_inputs

    chosen = numbered_units(units)
    model = load_model(source)
    reader = Reader(photos, model.preprocessing)
    records = []
    with reader.bar() as progress:
        for photo in reader:
            stem = reader.unique(photo.name)
            for unit in chosen:
                inputs = model.inputs_of(photo, layer, unit, cell)
                records.append(of_unit_inputs(inputs, _TOP))
                if not as_json:
                    say(_text(photo.name, inputs))
                if out is not None:
                    name = f"{stem}-{file_name(layer)}-unit-{unit}-inputs.png"
                    draw(inputs, out, name, as_json)
            progress(1)
    if as_json:
        print_document("inputs", units=records)
    reader.finish()


def _cell(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | str | None:
    if value is None or value == "mean":
        return value
    row, _, col = value.partition(",")
    if not (row.strip().isdecimal() and col.strip().isdecimal()):
        raise click.BadParameter(
            f"'{value}' is no cell: name it as ROW,COL from 0, such as 3,4, or 'mean'"
        )
    return int(row), int(col)


def _text(name: str, inputs: UnitInputs) -> str:
    where = "mean over the map"
    if inputs.cell is not None:
        where = "cell {},{}".format(*inputs.cell)
    functions = ", then ".join(inputs.functions)
    after = f"; {functions} gives {inputs.output:.3f}" if functions else ""
    rows = [(_name(each), each.contribution) for each in inputs.top(_TOP)]
    given = sum(value for _, value in rows)
    total = sum(source.total for source in inputs.sources)
    others = len(inputs.summands) - len(rows)
    if others:
        rows.append((f"{others} others", total - given))
    rows.append(("bias", inputs.bias))
    width = max(len(text) for text, _ in rows)
    lines = [
        f"{name}: unit {inputs.unit} of '{inputs.layer}', {where}: pre-activation "
        f"{inputs.value:.3f}{after}",
        *(f"  {text:<{width}}  {value:>+9.3f}" for text, value in rows),
    ]
    return "\n".join(lines)


def _name(summand: Summand) -> str:
    name = f"unit {summand.unit} of {summand.source}"
    if summand.origin is None:
        return name
    layer, unit = summand.origin
    return f"{name} (unit {unit} of {layer})"
