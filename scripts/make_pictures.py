"""Draw the pictures of the README and the docs from the demo photo: run it again when
the drawing or the model changes.

    python scripts/make_pictures.py

The explorer is photographed in a Chromium on the path, by playwright.

The photograph is china.jpg by danielbuechele (CC BY 2.0), as scikit-learn ships it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from shutil import which

import unitscope

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
PHOTO = Path(str(files("sklearn") / "datasets" / "images" / "china.jpg"))


def explorer(path: Path, units: list[int]) -> Path:
    """The explorer's page of the photo, with some units off."""
    from playwright.sync_api import sync_playwright

    command = [
        sys.executable,
        "-m",
        "unitscope",
        "explore",
        "--photo",
        str(PHOTO),
        "--port",
        "0",
        "--no-browser",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[1]
    try:
        with sync_playwright() as playwright:
            program = (
                which("chromium")
                or which("google-chrome")
                or playwright.chromium.executable_path
            )
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 980})
            page.goto(
                f"{address}#/photo/photo-0?off={','.join(map(str, units))}&level=30"
            )
            page.locator(".unit-switch").first.wait_for()
            page.screenshot(path=path)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return path


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    model = unitscope.load()
    explanation = model.explain(PHOTO)
    first = explanation.top(1)[0][0].index
    units = [part.unit for part in explanation.top_units(first, 8)]
    pictures = [
        explanation.save(PICTURES / "cams.png", dpi=110),
        explanation.unit_maps(units).save(
            PICTURES / "units.png", scale="photo", dpi=110
        ),
        model.ablate(PHOTO, units=units[:1]).save(
            PICTURES / "ablation.png", dpi=110
        ),
        unitscope.filters(model, "conv1").save(
            PICTURES / "filters.png", dpi=110
        ),
        explorer(PICTURES / "explorer.png", units[:2]),
    ]
    for picture in pictures:
        print(
            f"{picture.relative_to(PICTURES.parent.parent)}: "
            f"{picture.stat().st_size / 1024:.0f} KiB"
        )


if __name__ == "__main__":
    main()
