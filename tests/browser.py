"""Chromium for tests: pages that must not raise errors, breach their content security policy or ask other servers.

Screenshots go to build/screenshots/, or to the folder that ORTHANC_LEDGER_SCREENSHOTS names.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

SCREENSHOTS = Path(os.environ.get("ORTHANC_LEDGER_SCREENSHOTS", ROOT / "build" / "screenshots"))
_SIZE = {"width": 1280, "height": 900}

Pages = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Browser]:
    """This machine's Chromium. A module's, as playwright keeps an event loop in its thread."""
    with sync_playwright() as driver:
        # Tests may run as root in a container, where Chromium's own sandbox cannot be made.
        browser = driver.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def pages(chromium: Browser) -> Iterator[Pages]:
    """Opens empty pages, each with cookies and cache of its own; options as `Browser.new_context` has them.

    The test fails at its end when a page raised an error, was stopped by its content security policy, or asked another
    server than the first.
    """
    wrong: list[str] = []
    with ExitStack() as stack:

        def make(**options: Any) -> Page:
            context = chromium.new_context(**{"viewport": _SIZE, "locale": "en", **options})
            stack.callback(context.close)
            page = context.new_page()
            _watch(page, wrong)
            return page

        yield make
    assert not wrong, "\n".join(wrong)


def screenshot(page: Page, name: str, whole: bool = True) -> Path:
    """Keep how a page looks now, or what the window shows of it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=whole)
    return path


def _watch(page: Page, wrong: list[str]) -> None:
    servers: list[str] = []

    def asked(request: Request) -> None:
        server = urlsplit(request.url).netloc
        servers.append(server)
        if server != servers[0]:
            wrong.append(f"asked another server: {request.url}")

    def said(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            wrong.append(message.text)

    page.on("request", asked)
    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
