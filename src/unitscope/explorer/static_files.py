"""Static files: the pages, scripts and style sheets of the explorer, read once."""

from __future__ import annotations

from importlib import resources

from unitscope.explorer.answers import CachedFile, media_type_of_name, tag_of


def static_files() -> dict[str, CachedFile]:
    """The files of the folder `static` by name.

    Requests look names up in this table and never on disk.
    """
    folder = resources.files("unitscope.explorer") / "static"
    files = {}
    for file in folder.iterdir():
        if file.is_file():
            body = file.read_bytes()
            media_type = media_type_of_name(file.name)
            files[file.name] = CachedFile(tag_of(body), media_type, body)
    return files
