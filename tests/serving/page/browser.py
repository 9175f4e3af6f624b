"""A real headless Chromium, and what it asked for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.engines import EngineMissing

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of the machine."""
    path = shutil.which("chromium")
    if path is None:
        raise EngineMissing(
            "these tests open a page in Chromium, which is not installed: apt-get install "
            "chromium, or leave them out with make test"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, origin: str, **options: object) -> Iterator[BrowserContext]:
    """Open a window of its own; at its end, nothing but ``origin`` was asked, no script failed."""
    context = browser.new_context(**options)
    asked: list[str] = []
    failures: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: failures.append(str(error.error)))
    context.on(
        "console",
        lambda said: failures.append(said.text) if "Content Security" in said.text else None,
    )
    yield context
    context.close()
    assert asked
    local = (f"{origin}/", f"blob:{origin}/", "data:")
    elsewhere = [url for url in asked if not url.startswith(local)]
    assert not elsewhere + failures, elsewhere + failures
