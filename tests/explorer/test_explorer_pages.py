"""Every page of the live explorer, by day and by night, wide and narrow, with names
that want to be markup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import served, watched
from networks import Gap, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.explorer.documents import Documents
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap

HOSTILE = "<img src=x onerror=hacked=1>"
LABELS = (
    HOSTILE,
    "a_b",
    "</script><script>hacked=1</script>",
    "d",
    "e \u2028 \u202e e",
)
SIZES = {
    "wide": {"width": 1280, "height": 900},
    "narrow": {"width": 390, "height": 844},
}
PAGES = {
    "start": ("#/", ".at-hand img"),
    "photo": ("#/photo/photo-0?off=0-1&level=40&region=0-9", ".unit-switch"),
    "contrast": (
        "#/photo/photo-0?class=2&against=0&off=0-1&region=0-9",
        ".contrast .value",
    ),
    "layer": ("#/layer/features.0", ".card"),
    "unit": ("#/unit/features.0/2", ".gallery"),
    "classes": ("#/classes", "table"),
    "class": ("#/class/0", "h1"),
    "about": ("#/about", "dl"),
    "network": ("#/network", ".net-stage"),
    "filters": ("#/filters/features.0?filter=1", "canvas"),
    "help": ("#/photo/photo-0", ".unit-switch"),
    "lost": ("#/nowhere", "h1"),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("scanned")
    noise = np.random.default_rng(5)
    for name in LABELS:
        for number in range(4):
            path = (
                root
                / "photos"
                / name.replace("/", "∕")
                / f'{number}"><svg onload=hacked=1>.png'
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (6, 7, 3), np.uint8)).resize(
                (64, 40)
            ).save(path)
    labels = [name.replace("/", "∕") for name in LABELS]
    model = wrap(
        seeded(Gap),
        labels=labels,
        preprocessing=Preprocessing(resize=36, crop=32),
    )
    atlas = scan(
        model,
        root / "photos",
        root / "atlas",
        layers=["features.0"],
        top=4,
        sample=10,
        batch_size=8,
    )
    given = root / f"{HOSTILE}.png"
    Image.fromarray(noise.integers(0, 256, (6, 9, 3), np.uint8)).resize(
        (90, 60)
    ).save(given)
    documents = Documents(
        model,
        Atlas.open(atlas.path),
        dataset=atlas.photos(),
        folder=tmp_path_factory.mktemp("tiles"),
        photos=[given],
    )
    documents.index()
    with served(documents) as address:
        yield address


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures of the pages are kept: UNITSCOPE_SCREENSHOTS, or nowhere for long."""
    folder = Path(os.environ.get("UNITSCOPE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("scheme", "size"),
    [
        pytest.param("light", "wide", marks=pytest.mark.slow),
        ("dark", "narrow"),
        pytest.param("light", "narrow", marks=pytest.mark.slow),
        pytest.param("dark", "wide", marks=pytest.mark.slow),
    ],
)
def test_every_page_is_shown(
    browser: Any, address: str, screenshots: Path, scheme: str, size: str
) -> None:
    with watched(
        browser, address, viewport=SIZES[size], color_scheme=scheme
    ) as page:
        for name, (state, there) in PAGES.items():
            page.goto("about:blank")
            page.goto(f"{address}/{state}")
            page.locator(there).first.wait_for(timeout=5000)
            page.wait_for_function(
                "() => [...document.images].every((one) => one.complete || one.loading "
                "=== 'lazy')"
            )
            if name == "help":
                page.keyboard.press("?")
                assert page.locator("#help").is_visible()
            assert page.evaluate("window.hacked") is None
            assert page.evaluate(
                "document.documentElement.scrollWidth <= innerWidth"
            ), f"{name} scrolls sideways"
            assert page.locator("h1").count() == 1 and page.title().endswith(
                "unitscope"
            )
            unnamed = page.locator("button, a, input, select").evaluate_all(
                UNNAMED
            )
            assert unnamed == [], f"{name}: nothing says what these are for"
            page.screenshot(
                path=screenshots / f"{name}-{size}-{scheme}.png",
                full_page=size == "wide",
            )


# What has neither text, nor a label, nor a name of its own.
UNNAMED = """(found) => found
  .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || (one.labels && one.labels.length)
    || one.querySelector("img[alt]:not([alt=''])")))
  .map((one) => one.outerHTML.slice(0, 120))"""


def test_what_needs_an_atlas_says_how_to_make_one(
    browser: Any, tmp_path: Path
) -> None:
    documents = Documents(
        wrap(seeded(Gap), preprocessing=Preprocessing(resize=36, crop=32)),
        folder=tmp_path,
    )
    with served(documents) as address, watched(browser, address) as page:
        for state in (
            "layer/features.3",
            "unit/features.3/2",
            "classes",
            "class/0",
            "about",
        ):
            page.goto(f"{address}/#/{state}")
            page.get_by_text("unitscope scan").wait_for()
            assert "unitscope explore ATLAS" in page.inner_text("main")


def test_one_goes_from_a_class_to_a_unit_to_a_photo_and_back(
    browser: Any, address: str
) -> None:
    with watched(browser, address, viewport=SIZES["wide"]) as page:
        page.goto(f"{address}/#/classes")
        page.locator("tbody th a").first.click()
        page.locator(".card a").first.click()
        page.get_by_role("heading", name="Unit").first.wait_for()
        unit = page.url
        page.locator("nav").get_by_role("link", name="Photo").click()
        page.locator(".at-hand a").first.click()
        page.locator(".unit-switch").first.wait_for()
        page.locator(".unit-list .more").first.click()
        page.get_by_role("heading", name="Unit").first.wait_for()
        for _ in range(3):
            page.go_back()
        page.wait_for_url(unit)
        page.get_by_role("heading", name="Unit").first.wait_for()


@pytest.mark.parametrize(
    ("state", "there"),
    [
        ("#/layer/features.0?sort=constructor&show=toString", ".card"),
        ("#/classes?sort=constructor", "tbody tr"),
        ("#/constructor", "h1"),
    ],
)
def test_choices_are_those_of_the_page_alone(
    browser: Any, address: str, state: str, there: str
) -> None:
    """What every object of JavaScript has is no choice: such an address shows the usual page."""
    with watched(browser, address, viewport=SIZES["wide"]) as page:
        page.goto(f"{address}/{state}")
        page.locator(there).first.wait_for(timeout=5000)
        assert "undefined" not in page.inner_text("main")
        assert ("Not found" in page.inner_text("h1")) == (
            state == "#/constructor"
        )
