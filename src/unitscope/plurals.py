"""Plurals: how many there are of something, in words."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 unit", "2 units", "1 024 classes"."""
    ending = "es" if noun.endswith("s") else "s"
    if count == 1:
        ending = ""
    text = f"{count:,} {noun}{ending}"
    return text.replace(",", " ")
