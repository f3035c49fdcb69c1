"""The documents: what they link to is there, and what they show runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unitscope.attribution.exact_heads import EXACT_KINDS
from unitscope.attribution.methods import METHODS
from unitscope.residual.head import ResidualHead

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [
        link
        for link in links
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not missing


def test_the_readme_begins_with_the_two_commands_and_a_picture() -> None:
    begin = (ROOT / "README.md").read_text(encoding="utf-8")[:800]
    assert (
        begin.index("make demo") < begin.index("make test") < begin.index("![")
    )


def test_the_answers_page_names_every_kind_of_head_and_every_method() -> None:
    page = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")
    kinds = [kind.kind for kind in EXACT_KINDS]
    for name in (*kinds, ResidualHead.kind):
        assert f"`{name}`" in page
    for method in METHODS.values():
        assert method.title in page or f'"{method.name}"' in page


def test_the_architecture_page_lists_every_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "unitscope"
    for folder in package.iterdir():
        if folder.is_dir() and not folder.name.startswith("__"):
            assert f"`{folder.name}/`" in page, (
                f"docs/architecture.md lacks {folder.name}/"
            )
    parts = {path.stem for path in package.glob("*.py")} - {
        "__init__",
        "__main__",
    }
    for part in parts:
        assert f"`{part}`" in page, f"docs/architecture.md lacks {part}"
