"""Static copy: the explorer's pages as files that work from disk, without a server."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unitscope.atlas.atlas import Atlas
from unitscope.datasets import Dataset
from unitscope.errors import OutputError, UnitscopeError, warn_user
from unitscope.explorer.atlas_documents import AtlasDocuments
from unitscope.explorer.bundle import bundle
from unitscope.explorer.documents import Documents, photos_of
from unitscope.files import clean_up, folder_written_whole
from unitscope.model import Classifier
from unitscope.plurals import plural

INDEX = "index.html"
SCRIPT = "explorer.js"

_DATA = "data"
# Only the pages' own files are loaded, and no script or style inside a page.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "img-src 'self' file:",
        "style-src 'self' file:",
        "script-src 'self' file:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
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
    """Write an atlas as pages that need no server, all or nothing; returns OUT/index.html.

    Every unit has `images` images by its maximum and by its mean. Photos are read from
    `dataset`, or from where they were scanned; one that is gone or has changed becomes
    a grey tile that says so. Where the head is exact, the pages themselves switch units
    off, on the images in the atlas's sample. With its `model` they show the network and
    its filters and explain `photos`, and `atlas` may be None. `each` is called with the
    number of finished units, after each one.

    Raises InputError where `images` is less than 1, AtlasError where the atlas is not
    complete or is of another model, PhotoError for photos that cannot be read, and
    OutputError where the pages cannot be written.
    """
    _check_folder(out)
    if dataset is None and atlas is not None:
        dataset = photos_of(atlas)

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
        _write_documents(documents, staging, each)
        _write_pages(documents.index()["architecture"], staging)

    _warn_of_missing(documents.atlas_documents)
    return out / INDEX


def _check_folder(out: Path) -> None:
    """Refuse to replace a folder that holds anything but pages."""
    clean_up(out)
    if out.is_dir() and any(out.iterdir()) and not (out / SCRIPT).is_file():
        raise OutputError(
            f"'{out}' holds other files, and no pages of an atlas: name another folder"
        )


def _warn_of_missing(of_atlas: AtlasDocuments | None) -> None:
    if of_atlas is None or not of_atlas.tiles.missing:
        return
    tiles = of_atlas.tiles
    warn_user(
        f"{tiles.missing} of {tiles.requested} images could not be shown: say "
        "where the data set lies now with --source"
    )


def _write_documents(
    documents: Documents, folder: Path, each: Callable[[int], None] | None
) -> None:
    """All documents of an atlas, of a model, or of both."""
    of_atlas = documents.atlas_documents
    if of_atlas is not None:
        _write_atlas(of_atlas, folder, each)
    if documents.model is not None:
        _write_network(documents, folder)

    photos = _write_photos(documents, folder)
    index = documents.index() | {"live": False, "photos": photos}
    # The index of the atlas says which pictures exist, which is known only now.
    index["atlas"] = None if of_atlas is None else of_atlas.index()
    _write_script(folder, "index", index)


def _write_atlas(
    of_atlas: AtlasDocuments, folder: Path, each: Callable[[int], None] | None
) -> None:
    """The documents about units and classes, and their pictures."""
    done = itertools.count(1)
    for place in range(of_atlas.layers):
        for chunk, units in enumerate(of_atlas.chunks(place)):
            name = f"{place}-{chunk}"
            _write_script(folder, f"units-{name}", of_atlas.units(place, chunk))
            neighbours = of_atlas.neighbours(place, chunk)
            _write_script(folder, f"neighbours-{name}", neighbours)

            for unit in units:
                of_atlas.draw_sprite(place, unit)
                if each is not None:
                    each(next(done))

    for chunk in of_atlas.class_chunks():
        _write_script(folder, f"classes-{chunk}", of_atlas.classes(chunk))


def _write_network(documents: Documents, folder: Path) -> None:
    """The network, and the filters of its convolutions, of large ones part by part."""
    network = documents.network()
    _write_script(folder, "network", network)
    for layer in network["filters"]:
        first = documents.filters(layer)
        _write_script(folder, f"filters/{layer}", first)
        for begin in range(first["count"], first["filters"], first["most"]):
            part = documents.filters(layer, begin)
            _write_script(folder, f"filters/{layer}.from-{begin}", part)


def _write_photos(documents: Documents, folder: Path) -> list[Any]:
    """The photos that pages can ablate without the network: none without an exact head.

    Images of the atlas that are gone or have changed are left out. Returns the photos
    that were written.
    """
    index = documents.index()
    if index["head"] is None or not index["head"]["exact"]:
        _warn_of_left_out(index["photos"])
        return []

    photos = []
    for photo in index["photos"]:
        id = photo["id"]
        try:
            picture = documents.picture(id)
        except UnitscopeError:
            is_image_of_atlas = photo["kept"]
            if is_image_of_atlas:
                continue
            raise
        _write_script(folder, f"photos/{id}", documents.photo(id))
        (folder / _DATA / "photos" / f"{id}.jpg").write_bytes(picture)
        photos.append(photo)

    if photos:
        _write_script(folder, "head", documents.head())
    return photos


def _warn_of_left_out(offered: Sequence[Any]) -> None:
    """Say that photos that were given are not among the pages."""
    given = sum(not photo["kept"] for photo in offered)
    if given:
        warn_user(
            f"the pages leave {plural(given, 'photo')} out: without an exact head every "
            "answer needs the network, which a copy cannot run; `unitscope explore` shows "
            "them, and `unitscope explain` writes reports of them"
        )


def _write_script(folder: Path, name: str, value: Any) -> None:
    """Write data as a script, the only kind of data that pages from disk can load.

    Nothing in it can end the script or look like an address: "<", ">", "&" and
    characters beyond ASCII are escaped, and so is the second of two slashes.
    """
    text = json.dumps(
        value, ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    text = text.replace("//", "/\\/")

    path = folder / _DATA / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'unitscope.add("{name}",{text});\n', encoding="ascii")


def _write_pages(architecture: str, folder: Path) -> None:
    """The page, the live explorer's style sheets, and its modules as one script."""
    static = resources.files("unitscope.explorer") / "static"

    def read(name: str) -> str:
        return (static / name).read_text(encoding="utf-8")

    replacements = {"data.js": "data-scripts.js"}
    script = bundle(read, "main.js", "unitscope", ["add"], replacements)
    (folder / SCRIPT).write_text(script, encoding="utf-8")

    title = f"{architecture} – unitscope"
    page, other_files = copied_page(read(INDEX), title, version("unitscope"))
    for name in other_files:
        (folder / name).write_text(read(name), encoding="utf-8")
    (folder / INDEX).write_text(page, encoding="utf-8")


def copied_page(page: str, title: str, made_by: str) -> tuple[str, list[str]]:
    """The live explorer's page for a copy: one script, and a policy of its own.

    Returns the page, and the names of the files of the static folder that belong beside
    it. Raises ValueError where the page has not exactly one script, title and character
    set.
    """
    page = re.sub(r'<link rel="modulepreload"[^>]*>\n', "", page)
    page, scripts = _replaced(
        r'<script type="module"[^>]*>', f'<script src="{SCRIPT}" defer>', page
    )
    page, titles = _replaced(
        r"<title>[^<]*</title>", f"<title>{escape(title)}</title>", page
    )
    other_files = re.findall(r'href="static/([^"]+)"', page)
    page = page.replace('href="static/', 'href="')

    charset = '<meta charset="utf-8">'
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    generator = f'<meta name="generator" content="unitscope {escape(made_by)}">'
    page, charsets = _replaced(
        charset, f"{charset}\n{policy}\n{generator}", page
    )

    if (scripts, titles, charsets) != (1, 1, 1) or "static/" in page:
        raise ValueError(
            "index.html must have one script, one title and one character set, which a "
            "copy replaces"
        )
    return page, other_files


def _replaced(pattern: str, text: str, page: str) -> tuple[str, int]:
    """A page with all matches replaced by a literal text, and the number of matches."""
    return re.subn(pattern, lambda _: text, page)
