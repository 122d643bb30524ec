"""What must hold of a page whatever is done on it."""

import re
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request

# Chromium reports an answer that is an error by itself; no page can prevent that.
FAILED = re.compile(r"Failed to load resource: .*(?:status of (\d+)|net::ERR_\w+)")


class Watched:
    """A page with what went wrong on it."""

    def __init__(self, page: Page, url: str, allowed: tuple[int, ...] = ()) -> None:
        self.page = page
        self.host = urlsplit(url).netloc
        self.allowed = allowed  # statuses of answers; 0: no answer
        self.wrong: list[str] = []
        page.on("console", self.read)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self.look_at)

    def read(self, message: ConsoleMessage) -> None:
        failed = FAILED.match(message.text)
        if failed and int(failed[1] or 0) in self.allowed:
            return
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def look_at(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data") and parts.netloc != self.host:
            self.wrong.append(f"asked another host: {request.url}")

    def check(self) -> None:
        assert not self.wrong, "\n".join(self.wrong)


def check_accessible(page: Page) -> None:
    """No violation of any of axe's rules, the best practices among them."""
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def check_fits(page: Page) -> None:
    """Nothing reaches beyond the window's width."""
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.evaluate("innerWidth")
