"""Prompts: the texts that stand for classes, made of labels and templates."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unitscope.errors import InputError, warn_user
from unitscope.sources.request import TemplatesSource

DEFAULT_TEMPLATES = ("a photo of a {}.",)

_BLANK = "{}"
_MOST_SHOWN = 3
_ARTICLE = re.compile(r"(a|an|the)\s", re.IGNORECASE)
_ENDS_IN_ARTICLE = re.compile(r"\b(a|an|the)\s+\{\}", re.IGNORECASE)


def read_templates(source: TemplatesSource | None) -> tuple[str, ...]:
    """The templates of the texts; CLIP's where none are given.

    Raises InputError for a template without {}, or given twice.
    """
    if source is None:
        return DEFAULT_TEMPLATES
    given: object = source
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        raise InputError(
            f"templates are a list of texts, not {type(source).__name__}: give e.g. "
            "['a photo of a {}.']"
        )
    templates = (source,) if isinstance(source, str) else tuple(source)
    if not templates:
        raise InputError(
            "the list of templates is empty: leave templates out for 'a photo of a "
            "{}.', or give '{}' for the labels as they are"
        )
    for template in templates:
        if not isinstance(template, str) or _BLANK not in template:
            raise InputError(
                f"the template {template!r:.80} has no {{}} for the label to stand in: "
                "write e.g. 'a photo of a {}.'"
            )
        if templates.count(template) > 1:
            raise InputError(
                f"the template {template!r:.80} is given twice, and would count twice: "
                "give each template once"
            )
    return templates


def filled(template: str, labels: Sequence[str]) -> list[str]:
    """The texts of all labels by one template."""
    return [template.replace(_BLANK, label) for label in labels]


def warn_of_articles(templates: Sequence[str], labels: Sequence[str]) -> None:
    """Warn where a template's article meets a label's: "a photo of a a cat."."""
    template = next(filter(_ENDS_IN_ARTICLE.search, templates), None)
    label = next(filter(_ARTICLE.match, labels), None)
    if template is None or label is None:
        return
    (text,) = filled(template, [label])
    warn_user(
        f"the template '{template}' makes '{text}' of the label '{label}': leave the "
        "article out of the labels, or give templates without it ('a photo of {}.')"
    )


def described(templates: Sequence[str]) -> str:
    """The templates in words, the first of many."""
    listed = ", ".join(f"'{each}'" for each in templates[:_MOST_SHOWN])
    more = len(templates) - _MOST_SHOWN
    return f"{listed} and {more} more" if more > 0 else listed
