"""Report: the account of a photo as one HTML file that needs nothing but itself, and its pieces as pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup

from unitscope.accounts.account import Account
from unitscope.accounts.record import of_accounts
from unitscope.attribution.classes import probabilities_of
from unitscope.errors import InputError
from unitscope.files import folder_written_whole
from unitscope.kernels import Filters
from unitscope.render import diagram, figures
from unitscope.render.colours import Scale
from unitscope.render.markup import bar, colour_bar, data_uri, templates
from unitscope.render.overlays import View, layer, shown
from unitscope.render.sheets import DPI, page
from unitscope.render.words import change, clean, listing, number, percent, place, slug

REPORT = "report.html"
INDEX = "index.html"
RECORD = "explanation.json"

_PHOTO = 1000
_LAYER = 640
_SMALL_LAYER = 420
_THUMBNAIL = 320
# A unit that adds less than this share of the logit hardly takes part in the
# prediction.
_HARDLY = 0.02


@dataclass(frozen=True)
class MapView:
    """A map as the page shows it: two layers over the one photo, what is read out, and what a blank one says."""

    heat: str
    contour: str
    alt: str
    blank: str


@dataclass(frozen=True)
class FilterView:
    """A layer's filters as one picture with their numbers: all places in units of a kernel's side."""

    layer: str
    picture: str
    width: float
    height: float
    numbers: tuple[tuple[int, float, float], ...]
    words: str
    alt: str


def write_report(
    accounts: Iterable[Account],
    out: Path,
    *,
    pieces: bool = True,
    each: Callable[[Account], None] | None = None,
) -> list[Path]:
    """Write the accounts of photos as HTML and JSON: whole, or nothing at all.

    For one photo OUT/report.html, for several OUT/<photo>/report.html each and
    OUT/index.html; beside each report explanation.json and, with `pieces`,
    predictions.png, cams.png, cam-<rank>-<class>.png, units.png, contributions.png,
    ablation.png, filters-<layer>.png, network.png and network.svg. Each account is
    written before the next is asked for, and `each` is called with it then. Returns the
    reports' paths, and last the index's.

    Raises InputError when there are no accounts, and OutputError where they cannot be
    written.
    """
    waiting = iter(accounts)
    begin = list(islice(waiting, 2))
    if not begin:
        raise InputError("there is nothing to report: the list of accounts is empty")
    several = len(begin) > 1
    entries: list[dict[str, Any]] = []
    names = []
    with folder_written_whole(out) as staging:
        for account, name in _named(chain(begin, waiting)):
            folder = staging / name if several else staging
            folder.mkdir(exist_ok=True)
            if pieces:
                write_pieces(account, folder)
            record = json.dumps(
                of_accounts([account]), indent=1, ensure_ascii=False, allow_nan=False
            )
            (folder / RECORD).write_text(record, encoding="utf-8")
            (folder / REPORT).write_text(
                html_of(account, index=several), encoding="utf-8"
            )
            names.append(name)
            if several:
                entries.append(_entry(account, name))
            if each is not None:
                each(account)
        if several:
            page = (
                templates()
                .get_template("index.html.j2")
                .render(entries=entries, **entries[0])
            )
            (staging / INDEX).write_text(page, encoding="utf-8")
    return (
        [*(out / name / REPORT for name in names), out / INDEX]
        if several
        else [out / REPORT]
    )


def _named(accounts: Iterable[Account]) -> Iterator[tuple[Account, str]]:
    """Accounts with a folder name for each, one at a time."""
    first, second = tee(accounts)
    return zip(
        first, unique_names(account.subject.name for account in second), strict=True
    )


def unique_names(names: Iterable[str]) -> Iterator[str]:
    """A folder name for each photo: its name without suffix, fit for any file system, numbered if two are the same."""
    taken: set[str] = set()
    for name in names:
        stem = slug(Path(clean(name)).stem)
        candidate, number_ = stem, 1
        # Not every file system tells capitals from small letters.
        while candidate.casefold() in taken:
            number_ += 1
            candidate = f"{stem}-{number_}"
        taken.add(candidate.casefold())
        yield candidate


def write_pieces(account: Account, folder: Path) -> list[Path]:
    """Write the pieces of an account as pictures into a folder."""
    blocks = figures.account_blocks(account)
    drawings = {
        name: blocks[name]
        for name in (
            "predictions",
            "cams",
            "units",
            "contributions",
            "ablation",
            "network",
        )
    }
    written = []
    for name, draw in drawings.items():
        written.append(_save(page(draw(), figures.WIDTH), folder / f"{name}.png"))
    scale = figures.cam_scale(
        account.explanation, [0], [account.classes], _shared_words(account)
    )
    for rank, index in enumerate(account.classes, 1):
        figure = figures.cams_figure(
            account.explanation, classes=[index], scale=scale, image=0
        )
        written.append(
            _save(figure, folder / f"cam-{rank}-{slug(account.label(index), 40)}.png")
        )
    for filters in account.filters:
        written.append(
            _save(
                figures.filters_figure(filters),
                folder / f"filters-{slug(filters.layer)}.png",
            )
        )
    drawing = folder / "network.svg"
    drawing.write_text(str(diagram.svg(account.network, alone=True)), encoding="utf-8")
    return [*written, drawing]


def html_of(account: Account, *, index: bool = False) -> str:
    """The report of a photo as one HTML page; `index` links to the index of several, one folder up."""
    template = templates().get_template("report.html.j2")
    return template.render(
        page=_page(account), account=account, network=account.network, index=index
    )


def _entry(account: Account, folder: str) -> dict[str, Any]:
    """What the page that lists several photos says of one; it keeps nothing of the account's maps."""
    view = View.of(account.subject, account.explanation.input_size, _THUMBNAIL)
    return {
        "folder": folder,
        "photo": data_uri(view.veiled()),
        "name": account.subject.name,
        "label": account.predictions[0].label,
        "sentence": account.sentence(),
        "network": account.network,
        "random": is_random(account),
    }


def _page(account: Account) -> dict[str, Any]:
    """Everything that the template puts on the page and cannot say by itself."""
    explanation = account.explanation
    view = View.of(account.subject, explanation.input_size, _PHOTO)
    size, small = _layer_size(view, _LAYER), _layer_size(view, _SMALL_LAYER)
    scale = figures.cam_scale(
        explanation, [0], [account.classes], _shared_words(account)
    )
    units = figures.account_unit_scale(account)
    return {
        "photo": data_uri(view.photo),
        "width": view.size[0],
        "height": view.size[1],
        "box": None if view.whole else [round(side, 1) for side in view.box],
        "photo_alt": _photo_alt(account, view),
        "random": is_random(account),
        "predictions": [(p, bar(p.probability, 0, 1)) for p in account.predictions],
        "maps": _class_maps(account, scale, size),
        "map_scale": scale,
        "map_bar": _bar_of(scale, "scale-classes", "logits"),
        "completeness": float(explanation.completeness_error.max())
        if explanation.exact
        else 0.0,
        "units": _unit_rows(account, units, small),
        "units_together": sum(
            story.contribution.contribution for story in account.units
        ),
        "unit_count": explanation.feature_map.shape[1],
        "unit_scale": units,
        "unit_bar": _bar_of(units, "scale-units", "activation"),
        "first": account.label(account.classes[0]),
        "first_logit": float(explanation.logits[0, account.classes[0]]),
        "ablation": _ablation(account, units, small),
        "diagram": diagram.svg(account.network),
        "diagram_summary": diagram.summary(account.network),
        "diagram_key": diagram.KEY,
        "filters": [_filter_view(filters) for filters in account.filters],
    }


def is_random(account: Account) -> bool:
    """Whether the weights are random, so that nothing but shapes and identities means anything."""
    provenance = account.network.provenance
    return "random" in provenance.weights.lower() or any(
        "weights are random" in note.lower() for note in provenance.notes
    )


def _shared_words(account: Account) -> str:
    count = len(account.classes)
    return f"shared over these {count} maps" if count > 1 else "this map alone"


def _layer_size(view: View, longest: int) -> tuple[int, int]:
    factor = min(1.0, longest / max(view.size))
    return max(2, round(view.size[0] * factor)), max(2, round(view.size[1] * factor))


def _photo_alt(account: Account, view: View) -> str:
    first = account.predictions[0]
    crop = "all of it" if view.whole else "only the outlined part; the rest is greyed"
    return (
        f"{clean(account.subject.name)}, {' by '.join(map(str, account.subject.size))} "
        f"pixels; the network saw {crop}. "
        f"Its first prediction is {clean(first.label)} with "
        f"{percent(first.probability)}."
    )


def _map_view(
    laid: Float[np.ndarray, "height width"], scale: Scale, alt: str, blank: str
) -> MapView:
    style = "signed" if scale.signed else "heat"
    return MapView(
        data_uri(layer(laid, scale, style), quality=75),
        data_uri(layer(laid, scale, "contour"), quality=75),
        alt,
        blank,
    )


def _class_maps(
    account: Account, scale: Scale, size: tuple[int, int]
) -> list[dict[str, Any]]:
    explanation, chosen = account.explanation, list(account.classes)
    laid = explanation.cams_on_photo(0, chosen, size)
    maps = explanation.cams_of(chosen)[0]
    probabilities = probabilities_of(explanation.logits[0])
    rows = []
    for index, one, cells in zip(chosen, laid, maps, strict=True):
        mean, bias = float(cells.mean()), float(explanation.left_out_of(index)[0, 0])
        logit = float(explanation.logits[0, index])
        label = clean(account.label(index))
        if bool(cells.any()):
            (most, there), (least, elsewhere) = place(one), place(one, -1)
            alt = f"Evidence for {label}: greatest {there} ({number(most, sign=True)} logits)"
            alt += f", least {elsewhere} ({number(least, sign=True)} logits)."
            blank = ""
        else:
            alt = f"Evidence for {label}: none anywhere, the map is 0 in every place."
            blank = "no evidence (all 0)"
        rows.append(
            {
                "label": account.label(index),
                "logit": logit,
                "probability": float(probabilities[index]),
                "mean": mean,
                "bias": bias,
                "difference": mean + bias - logit,
                "map": _map_view(one, scale, alt, blank),
            }
        )
    return rows


def _unit_view(
    account: Account, unit: int, scale: Scale, size: tuple[int, int]
) -> MapView:
    maps = account.explanation.unit_maps(unit)
    laid = maps.on_photo(0, size)[0]
    if not bool(maps.maps.any()):
        return _map_view(
            laid,
            scale,
            f"Unit {unit}: 0 in every place of the photo.",
            "no activation (all 0)",
        )
    most, there = place(laid)
    mean = number(float(maps.maps.mean()))
    return _map_view(
        laid,
        scale,
        f"Unit {unit}: strongest {there} (activation {number(most)}), {mean} on "
        "average.",
        "",
    )


def _unit_rows(
    account: Account, scale: Scale, size: tuple[int, int]
) -> list[dict[str, Any]]:
    # Where units and classes are one, all units but the class's own have the weight 0:
    # nothing to be told of them.
    told = [
        story for story in account.units if story.contribution.contribution
    ] or account.units[:1]
    values = [story.contribution.contribution for story in told]
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [
        {
            "story": story,
            "map": _unit_view(account, story.unit, scale, size),
            "bar": bar(story.contribution.contribution, low, high),
            "serves": listing(
                [clean(label) for label, weight in story.serves if weight > 0], 3
            ),
        }
        for story in told
    ]


def _ablation(account: Account, scale: Scale, size: tuple[int, int]) -> dict[str, Any]:
    ablation = account.ablation
    changes = ablation.changes(len(account.predictions))
    logits = [value for row in changes for value in (row.logit_before, row.logit_after)]
    low, high = min(logits, default=0.0), max(logits, default=0.0)
    first = account.classes[0]
    before = float(ablation.before[0, first])
    after = float(ablation.after[0, first])
    lost = before - after
    return {
        "rows": [
            (
                row,
                bar(row.logit_before, low, high, "before"),
                bar(row.logit_after, low, high, "after"),
            )
            for row in changes
        ],
        "maps": [
            (unit, _unit_view(account, unit, scale, size))
            for unit in ablation.units[:4]
        ],
        "more": max(0, len(ablation.units) - 4),
        "units": listing([str(unit) for unit in ablation.units], 8),
        "noun": "unit" if len(ablation.units) == 1 else "units",
        "weight": float(
            account.explanation.weights_of(first)[0, list(ablation.units)].sum()
        ),
        "lost": change(after, before).lstrip("+"),
        "fires": "This unit hardly fires here"
        if bool(ablation.maps.maps.any())
        else "This unit does not fire here",
        "hardly": abs(lost) < _HARDLY * abs(before),
        "turned": ablation.turned_over()[0],
        "after": account.label(int(ablation.after[0].argmax())),
        "turning": listing([str(unit) for unit in account.turning or ()], 12),
    }


def _bar_of(scale: Scale, name: str, unit: str) -> Markup:
    if scale.is_blank:
        return Markup("")
    drawn, lut = shown(scale, "signed" if scale.signed else "heat")
    return colour_bar(
        drawn,
        lut,
        name,
        f"Colour scale from {number(drawn.low)} to {number(drawn.high)} {unit}, "
        f"{scale.over}",
    )


def filters_picture(
    filters: Filters,
) -> tuple[UInt8[np.ndarray, "height width 4"], list[tuple[int, float, float]]]:
    """All kernels in one picture, enlarged without smoothing, and the places of the filters' numbers."""
    rows, cols = filters.weights.shape[-2:]
    pictures = filters.enlarged(max(1, 42 // max(rows, cols)) * max(rows, cols))
    pictures = (
        pictures[:, None] if filters.rgb else np.repeat(pictures[..., None], 3, axis=-1)
    )
    count, channels, high, wide = pictures.shape[:4]
    apart = channels > 1
    across = channels if apart else 16 if count > 24 else min(count, 12)
    step, drop = wide + 6, high + (6 if apart else 20)
    down = count if apart else -(-count // across)
    sheet = np.zeros((down * drop, across * step - 6, 4), np.uint8)
    numbers = []
    for position in range(count):
        for channel in range(channels):
            row, column = (position, channel) if apart else divmod(position, across)
            part = sheet[
                row * drop : row * drop + high, column * step : column * step + wide
            ]
            part[..., :3] = np.round(255 * pictures[position, channel])
            part[..., 3] = 255
            if not apart:
                numbers.append(
                    (
                        filters.filters[position],
                        column * step + wide / 2,
                        row * drop + high + 13,
                    )
                )
    return sheet, numbers


def _filter_view(filters: Filters) -> FilterView:
    sheet, numbers = filters_picture(filters)
    words = figures.filters_words(filters)
    words = words[0].upper() + words[1:]
    alt = f"The filters of {clean(filters.layer)} as small pictures. {words}"
    return FilterView(
        filters.layer,
        data_uri(sheet, lossless=True),
        sheet.shape[1],
        sheet.shape[0],
        tuple(numbers),
        words,
        alt,
    )


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=DPI, pil_kwargs={"compress_level": 4})
    return path
