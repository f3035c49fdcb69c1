"""The explorer served for real, and pages of a real browser that keep what goes wrong in them."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from unitscope.explorer.application import create_app
from unitscope.explorer.documents import Documents
from unitscope.explorer.server import listening, web_server

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium; skips, with the reason, where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is not installed: pages are not opened",
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    with playwright.sync_playwright() as running:
        # The distribution's, or else the one that playwright itself can fetch.
        own = running.chromium.executable_path
        program = next(
            (path for name in (*names, own) if (path := shutil.which(name))),
            None,
        )
        if program is None:
            pytest.skip(
                "there is no Chromium: pages are not opened (`playwright install "
                "chromium`)"
            )
        browser = running.chromium.launch(executable_path=program, args=FLAGS)
        browser.new_context()  # the profile that pages share
        yield browser
        browser.close()


def opened_page(
    browser: Any,
    viewport: Any = None,
    color_scheme: str = "light",
    **options: Any,
) -> Any:
    """A new page; pages that need no device of their own share one profile, for a new one
    takes a second. The explorer stores nothing in it."""
    if options:
        return browser.new_page(
            viewport=viewport, color_scheme=color_scheme, **options
        )
    page = browser.contexts[0].new_page()
    page.set_viewport_size(viewport or {"width": 1280, "height": 720})
    page.emulate_media(color_scheme=color_scheme)
    return page


@contextlib.contextmanager
def watched(browser: Any, begins: str, **options: Any) -> Iterator[Any]:
    """A page that keeps errors, console messages and other requests in `page.wrong`,
    which must be empty at the end."""
    page = opened_page(browser, **options)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text))
    # What was still under way when another address was gone to is no failure.
    page.on(
        "requestfailed",
        lambda one: (
            "ABORTED" in one.failure or page.wrong.append(f"failed {one.url}")
        ),
    )
    page.on(
        "request",
        lambda one: (
            one.url.startswith((begins, "blob:")) or page.wrong.append(one.url)
        ),
    )
    yield page
    assert page.wrong == []
    page.close()


@contextlib.contextmanager
def running(documents: Documents, **options: Any) -> Iterator[tuple[str, int]]:
    """The explorer on a free port of this machine meanwhile, in a thread: its host and port."""
    listener = listening("127.0.0.1", 0)
    up = threading.Event()
    server = web_server(create_app(documents, **options), lambda _: up.set())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert up.wait(10)
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@contextlib.contextmanager
def served(documents: Documents) -> Iterator[str]:
    """The same, as an address without a slash at the end."""
    with running(documents) as (host, port):
        yield f"http://{host}:{port}"
