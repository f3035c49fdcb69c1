"""The browser: how long a photo's page and a click take with 2,048 units and 365 classes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from explorer_load.clients import photo
from explorer_load.serving import Address, server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_WIDE = Path(__file__).parents[1] / "wide.py"
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_VIEWS = 5
_CLICKS = 48

_FIRST_VIEW = """async () => {
  while (!document.querySelector(".unit-switch")) {
    await new Promise(requestAnimationFrame);
  }
  return performance.now();
}"""

_TOGGLES = """async (count) => {
  const channel = new MessageChannel();
  const task = () => new Promise((done) => {
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  });
  const frame = () => new Promise(requestAnimationFrame);
  const predictions = () => document.querySelector(".predictions").innerText;
  const times = [];
  for (let click = 0; click < count; click++) {
    const units = document.querySelectorAll(".unit-switch");
    const before = predictions();
    await frame();
    await task();
    const begin = performance.now();
    units[click % units.length].click();
    await task();
    const changed = performance.now() - begin;
    await frame();
    await task();
    if (predictions() === before) throw new Error("nothing changed");
    times.push([changed, performance.now() - begin]);
    await new Promise((done) => setTimeout(done, 60));
  }
  return times;
}"""


def clicks() -> dict[str, Any]:
    """How long a browser takes to show a photo's page, and to switch one of 2,048 units off."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {"reason": "playwright is not installed"}

    program = _chromium()
    if program is None:
        return {"reason": "there is no Chromium"}

    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
    ):
        path = Path(folder) / "noise.jpg"
        path.write_bytes(photo(0))
        arguments = ["--model", f"python:{_WIDE}:Wide", "--photo", str(path)]
        with server(arguments) as address:
            browser = playwright.chromium.launch(
                executable_path=program, args=_FLAGS
            )
            views = [_view(browser, address) for _ in range(_VIEWS)]
            browser.close()

    firsts = [first for first, _ in views]
    _, toggles = views[-1]
    changed = [milliseconds for milliseconds, _ in toggles]
    painted = [milliseconds for _, milliseconds in toggles]
    return {
        "first_view_milliseconds": statistics.median(firsts),
        "first_view_worst_milliseconds": max(firsts),
        "toggle_milliseconds": statistics.median(changed),
        "toggle_quartiles": statistics.quantiles(changed, n=4)[::2],
        "toggle_painted_milliseconds": statistics.median(painted),
    }


def _chromium() -> str | None:
    paths = map(which, _PROGRAMS)
    return next((path for path in paths if path is not None), None)


def _view(
    browser: Browser, address: Address
) -> tuple[float, list[list[float]]]:
    """Milliseconds until a photo's units are shown; and of every click, until its
    change and its painting."""
    host, port = address
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"http://{host}:{port}/#/photo/photo-0", wait_until="commit")
    first: float = page.evaluate(_FIRST_VIEW)
    page.wait_for_load_state()
    toggles: list[list[float]] = page.evaluate(_TOGGLES, _CLICKS)
    page.close()
    return first, toggles
