"""A page of a report as tests read it: tags, ids and texts, and that it is well formed."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "wbr", "link", "hr"}


class Page(HTMLParser):
    """The tags, ids and texts of a page, whose tags close in the order they open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.pictures: list[tuple[str, dict[str, str]]] = []
        self.labelled: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = {name: value or "" for name, value in attrs}
        assert not any(name.startswith("on") for name in values), values
        if "id" in values:
            self.ids.append(values["id"])
        self.references += [
            values[name]
            for name in ("src", "href", "srcset", "action", "data")
            if name in values
        ]
        self.labelled += [
            word
            for name in ("aria-labelledby",)
            for word in values.get(name, "").split()
        ]
        if tag == "img" or values.get("role") == "img":
            self.pictures.append((tag, values))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check(text: str) -> Page:
    """A page that is well formed, labels all its pictures and loads nothing else."""
    page = Page(text)
    assert [
        name for name, count in Counter(page.ids).items() if count > 1
    ] == []
    assert set(page.labelled) <= set(page.ids)
    for tag, values in page.pictures:
        label = (
            values.get("alt")
            or values.get("aria-label")
            or values.get("aria-labelledby")
        )
        assert label, (tag, values)
    for reference in page.references:
        assert reference.startswith(("data:image/", "#")) or re.fullmatch(
            r"(\.\./)?[\w%.-]+(/report)?\.html", reference
        ), reference
        if reference.startswith("#"):
            assert reference[1:] in page.ids, reference
    assert (
        "url(http" not in text
        and "@import" not in text
        and "script src" not in text
    )
    return page
