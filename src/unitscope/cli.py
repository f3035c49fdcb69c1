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
    from unitscope.drawable import Drawable
    from unitscope.explanation import AnyHead
    from unitscope.model import Classifier
    from unitscope.photos import Photo
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
