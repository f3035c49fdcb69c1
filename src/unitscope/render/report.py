"""Report: accounts of photos as self-contained HTML files, with pictures and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unitscope.accounts.account import Account
from unitscope.accounts.record import of_accounts
from unitscope.errors import InputError
from unitscope.files import folder_written_whole
from unitscope.render.diagram_svg import svg
from unitscope.render.figures import figure
from unitscope.render.figures.cams import cam_scale
from unitscope.render.markup import data_uri, templates
from unitscope.render.report_contents import contents
from unitscope.render.sheets import DPI
from unitscope.render.views import View
from unitscope.render.words import clean, slug

REPORT = "report.html"
INDEX = "index.html"
RECORD = "explanation.json"

# The pictures of an account that lie beside its report, each on a page.
_PIECES = (
    "predictions",
    "cams",
    "units",
    "contributions",
    "ablation",
    "network",
)

_THUMBNAIL = 320


def write_report(
    accounts: Iterable[Account],
    out: Path,
    *,
    pieces: bool = True,
    each: Callable[[Account], None] | None = None,
) -> list[Path]:
    """Write the accounts of photos as HTML and JSON: whole, or not at all.

    The report of one photo is OUT/report.html. Several photos have
    OUT/<photo>/report.html each, and OUT/index.html links them. Beside each report lies
    explanation.json and, with `pieces`, predictions.png, cams.png,
    cam-<rank>-<class>.png, units.png, contributions.png, contrast.png, ablation.png,
    layers.png, filters-<layer>.png, network.png and network.svg. Each account is written, and
    `each` called with it, before the next account is asked for. Returns the paths of
    the reports, and last that of the index.

    Raises InputError when there are no accounts, and OutputError when the files cannot
    be written.
    """
    waiting = iter(accounts)
    first_two = list(islice(waiting, 2))
    if not first_two:
        raise InputError(
            "there is nothing to report: the list of accounts is empty"
        )
    several = len(first_two) > 1

    entries: list[dict[str, Any]] = []
    folders = FolderNames()
    with folder_written_whole(out) as staging:
        for account in chain(first_two, waiting):
            name = folders.new(account.subject.name)
            folder = staging / name if several else staging
            _write_account(account, folder, pieces=pieces, index=several)
            if several:
                entries.append(_entry(account, name))
            if each is not None:
                each(account)

        if several:
            _write(staging / INDEX, _index(entries))

    if not several:
        return [out / REPORT]
    return [*(out / entry["folder"] / REPORT for entry in entries), out / INDEX]


class FolderNames:
    """Names of folders for photos, each different on any file system."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, photo: str) -> str:
        """A photo's name without its suffix, numbered where it is already taken."""
        stem = slug(Path(clean(photo)).stem)
        candidate, number = stem, 1
        # Not every file system tells capitals from small letters.
        while candidate.casefold() in self._taken:
            number += 1
            candidate = f"{stem}-{number}"
        self._taken.add(candidate.casefold())
        return candidate


def _write_account(
    account: Account, folder: Path, *, pieces: bool, index: bool
) -> None:
    folder.mkdir(exist_ok=True)
    if pieces:
        write_pieces(account, folder)

    record = json.dumps(
        of_accounts([account]), indent=1, ensure_ascii=False, allow_nan=False
    )
    _write(folder / RECORD, record)
    _write(folder / REPORT, html_of(account, index=index))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_pieces(account: Account, folder: Path) -> None:
    """Write the pieces of an account as pictures into a folder."""
    for name, page in _pages(account):
        page.savefig(folder / name, dpi=DPI, pil_kwargs={"compress_level": 4})
    _write(folder / "network.svg", str(svg(account.network, alone=True)))


def _pages(account: Account) -> Iterator[tuple[str, Figure]]:
    """The pictures that lie beside a report, each with the name of its file."""
    pieces = list(_PIECES)
    pieces += ["contrast"] if account.contrast is not None else []
    pieces += ["attention"] if account.heads is not None else []
    for piece in pieces:
        yield f"{piece}.png", figure(account, show=piece)

    explanation = account.explanation
    scale = cam_scale(explanation, [0], [account.classes])
    for rank, index in enumerate(account.classes, 1):
        name = f"cam-{rank}-{slug(account.label(index), 40)}.png"
        yield (
            name,
            figure(
                explanation,
                classes=[index],
                scale=scale,
                image=0,
            ),
        )

    if account.screening is not None:
        yield "layers.png", figure(account.screening)
    for filters in account.filters:
        yield f"filters-{slug(filters.layer)}.png", figure(filters)


def html_of(account: Account, *, index: bool = False) -> str:
    """The report of a photo as one HTML page.

    `index` adds a link to the index of several reports, one folder up.
    """
    template = templates().get_template("report/page.html.j2")
    return template.render(
        page=contents(account),
        account=account,
        network=account.network,
        index=index,
    )


def _index(entries: Sequence[dict[str, Any]]) -> str:
    network = entries[0]["network"]
    template = templates().get_template("index.html.j2")
    return template.render(entries=entries, network=network)


def _entry(account: Account, folder: str) -> dict[str, Any]:
    """What the index says about one photo; it keeps none of the account's maps."""
    view = View.of(account.subject, account.explanation.input_size, _THUMBNAIL)
    return {
        "folder": folder,
        "photo": data_uri(view.veiled()),
        "name": account.subject.name,
        "label": account.predictions[0].label,
        "sentence": account.sentence(),
        "network": account.network,
    }
