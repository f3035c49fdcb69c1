"""Static copy: the explorer's pages as files that are looked through from disk, without a server or a network."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unitscope.atlas.atlas import Atlas
from unitscope.datasets import Dataset
from unitscope.errors import OutputError, UnitscopeError, UnitscopeWarning
from unitscope.explorer.atlas_documents import AtlasContents
from unitscope.explorer.bundle import bundle
from unitscope.explorer.documents import Documents, photos_of
from unitscope.files import folder_written_whole
from unitscope.model import Classifier

INDEX = "index.html"
SCRIPT = "explorer.js"

_DATA = "data"
# Nothing but the pages' own files is loaded, and no script or style that stands in a
# page.
_POLICY = (
    "default-src 'none'; img-src 'self' file:; style-src 'self' file:; script-src "
    "'self' file:; base-uri 'none'; "
    "form-action 'none'"
)


def export(
    atlas: Atlas | None,
    out: Path,
    *,
    model: Classifier | None = None,
    photos: Sequence[Path] = (),
    dataset: Dataset | None = None,
    each: Callable[[int], None] | None = None,
    images: int = 9,
) -> Path:
    """Write an atlas as pages that need nothing but themselves: whole, or nothing at all. Returns OUT/index.html.

    Every unit is shown with `images` images by its maximum and by its mean. Photos are
    read again from `dataset`, or from the data set that was scanned where none is
    given; one that is gone, or is another now, is shown as a grey tile that says so.
    Where the head is exact, units are switched off in the pages themselves, on the
    images that the atlas kept whole. With its `model` the network and its filters are
    shown too, and `photos` are explained; then the atlas may be missing. `each` is
    called with the number of units done, after each.

    Raises InputError where `images` is less than 1, AtlasError where the atlas is not
    done or is of another model, PhotoError for photos that cannot be read, and
    OutputError where the pages cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / SCRIPT).is_file():
        raise OutputError(
            f"'{out}' holds other files, and no pages of an atlas: name another folder"
        )
    dataset = photos_of(atlas) if dataset is None and atlas is not None else dataset
    with folder_written_whole(out) as staging:
        documents = Documents(
            model,
            atlas,
            dataset=dataset,
            folder=staging,
            photos=photos,
            images=images,
            drawn=True,
        )
        contents = documents.of_atlas
        if contents is not None:
            _write_atlas(contents, staging, each)
        if model is not None:
            _write_network(documents, staging)
        told = documents.index() | {
            "live": False,
            "photos": _write_photos(documents, staging),
        }
        # Which pictures are there is known only now.
        _write_script(
            staging,
            "index",
            told | {"atlas": None if contents is None else contents.index()},
        )
        _write_pages(told["architecture"], staging)
    if contents is not None and contents.tiles.missing:
        warnings.warn(
            f"{contents.tiles.missing} of {contents.tiles.asked} images could not be "
            "shown: say where the data set "
            "lies now",
            UnitscopeWarning,
            stacklevel=2,
        )
    return out / INDEX


def _write_atlas(
    contents: AtlasContents, folder: Path, each: Callable[[int], None] | None
) -> None:
    """All that is told of units and classes, and the pictures of them."""
    done = itertools.count(1)
    for place in range(contents.layers):
        for chunk, units in enumerate(contents.chunks(place)):
            _write_script(
                folder, f"units-{place}-{chunk}", contents.units(place, chunk)
            )
            _write_script(
                folder, f"neighbours-{place}-{chunk}", contents.neighbours(place, chunk)
            )
            for unit in units:
                contents.draw_sprite(place, unit)
                if each is not None:
                    each(next(done))
    for chunk in contents.class_chunks():
        _write_script(folder, f"classes-{chunk}", contents.classes(chunk))


def _write_network(documents: Documents, folder: Path) -> None:
    """The network, and the filters of its convolutions, of large ones part by part."""
    network = documents.network()
    _write_script(folder, "network", network)
    for layer in network["filters"]:
        filters = documents.filters(layer)
        _write_script(folder, f"filters/{layer}", filters)
        for begin in range(filters["count"], filters["filters"], filters["most"]):
            _write_script(
                folder, f"filters/{layer}.from-{begin}", documents.filters(layer, begin)
            )


def _write_photos(documents: Documents, folder: Path) -> list[Any]:
    """The photos, with all that switching units off takes; none where that takes the network itself.

    Images of the atlas that are gone, or others by now, are left out.
    """
    head = documents.index()["head"]
    if head is None or not head["exact"]:
        return []
    photos = []
    for photo in documents.index()["photos"]:
        try:
            picture = documents.picture(photo["id"])
        except UnitscopeError:
            if photo["kept"]:
                continue
            raise
        _write_script(folder, f"photos/{photo['id']}", documents.photo(photo["id"]))
        (folder / _DATA / "photos" / f"{photo['id']}.jpg").write_bytes(picture)
        photos.append(photo)
    if photos:
        _write_script(folder, "head", documents.head())
    return photos


def _write_script(folder: Path, name: str, value: Any) -> None:
    """Write data as a script, as pages from disk can load scripts only.

    Nothing in it can end the script or be read as an address: "<", ">" and "&" are
    written as escapes, as is all that is not ASCII, and so is the second of two
    slashes.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.replace("//", "/\\/")
    path = folder / _DATA / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'unitscope.add("{name}",{text});\n', encoding="ascii")


def _write_pages(architecture: str, folder: Path) -> None:
    """The page that all is shown in, with the live explorer's style sheets and its modules as one script."""
    static = resources.files("unitscope.explorer") / "static"

    def read(name: str) -> str:
        return (static / name).read_text(encoding="utf-8")

    script = bundle(
        read, "main.js", "unitscope", ["add"], {"data.js": "data-scripts.js"}
    )
    (folder / SCRIPT).write_text(script, encoding="utf-8")
    page, others = copied_page(
        read(INDEX), f"{architecture} – unitscope", version("unitscope")
    )
    for name in others:
        (folder / name).write_text(read(name), encoding="utf-8")
    (folder / INDEX).write_text(page, encoding="utf-8")


def copied_page(page: str, title: str, made_by: str) -> tuple[str, list[str]]:
    """The live explorer's page for a copy: its one script in place of modules, and a policy of its own.

    Returns the page, and the names of the other files of the static folder that it
    needs, which lie beside it.
    """
    page = re.sub(r'<link rel="modulepreload"[^>]*>\n', "", page)
    page, scripts = re.subn(
        r'<script type="module"[^>]*>', f'<script src="{SCRIPT}" defer>', page
    )
    page, titles = re.subn(
        r"<title>[^<]*</title>", lambda _: f"<title>{escape(title)}</title>", page
    )
    others = re.findall(r'href="static/([^"]+)"', page)
    page = page.replace('href="static/', 'href="')
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    page, begins = re.subn(
        r'<meta charset="utf-8">',
        lambda found: (
            f'{found[0]}\n{policy}\n<meta name="generator" content="unitscope {escape(made_by)}">'
        ),
        page,
    )
    if (scripts, titles, begins) != (1, 1, 1) or "static/" in page:
        raise ValueError(
            "index.html has not the one script, title and character set that a copy is "
            "made of"
        )
    return page, others
