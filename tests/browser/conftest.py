"""One Chromium for all tests of this folder, and the pages that they look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.browser import pages
from tests.browser.chromium import find_chromium

VIEWS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 2,
    },
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "print": {"viewport": {"width": 718, "height": 1000}},
    "no script": {"viewport": {"width": 1280, "height": 900}, "java_script_enabled": False},
}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless; without its sandbox, which root may not have: it sees our own files only."""
    path, reason = find_chromium()
    if not path:
        pytest.skip(f"NO BROWSER HERE: {reason}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a builder in pages.py, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = getattr(pages, name)(tmp_path_factory.mktemp(name))
        return made[name]

    return make


@dataclass
class Opened:
    """A loaded page and what the browser complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(chromium: Browser, page_file: Callable[[str], Path]) -> Iterator[Callable[..., Opened]]:
    """`open_page(builder, view)`."""
    contexts = []

    def open_it(name: str, view: str = "desktop") -> Opened:
        context = chromium.new_context(**VIEWS[view])
        contexts.append(context)
        opened = Opened(context.new_page())
        page = opened.page

        def on_console(message: ConsoleMessage) -> None:
            opened.complaints.append(f"{message.type}: {message.text}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (opened.complaints.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: _note_request(opened, request.url))
        if view == "print":
            page.emulate_media(media="print")
        page.goto(page_file(name).as_uri())
        return opened

    yield open_it
    for context in contexts:
        context.close()


def _note_request(opened: Opened, url: str) -> None:
    if not url.startswith("file:") or not url.endswith("report.html"):
        opened.complaints.append(f"asked for {url[:200]}")
