"""The page fits itself to the models that are served."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.test_digits import expect_digit
from tests.browser.watch import check_accessible

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]
KEY = {"x-api-key": "sesame"}


def open_with(open_page: OpenPage, url: str, keep: Callable[[dict[str, Any]], bool]) -> Page:
    """The page of a service that serves only some of its models."""
    cards = httpx.get(f"{url}/models").json()["models"]
    body = json.dumps({"models": [card for card in cards if keep(card)]})
    page = open_page(url)
    page.context.route("**/models", lambda route: fulfil(route, body))
    page.reload()
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    return page


def fulfil(route: Route, body: str) -> None:
    route.fulfill(status=200, content_type="application/json", body=body)


def test_without_a_model_of_faces_their_tab_says_so(open_page: OpenPage, url: str) -> None:
    page = open_with(open_page, url, lambda card: not card["alignment"])
    expect(page.get_by_role("tab", name="Digits")).to_have_attribute("aria-selected", "true")
    faces = page.get_by_role("tab", name="Faces")
    expect(faces).to_have_attribute("aria-disabled", "true")
    faces.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("no model that draws emoji")).to_be_visible()
    expect(page.get_by_role("button", name="Choose photos")).to_be_hidden()
    check_accessible(page)


def test_without_a_model_of_digits_their_tab_says_so(open_page: OpenPage, url: str) -> None:
    page = open_with(open_page, url, lambda card: card["alignment"])
    expect(page.get_by_role("tab", name="Faces")).to_have_attribute("aria-selected", "true")
    page.get_by_role("tab", name="Digits").click(force=True)  # it is disabled, but can be opened
    expect(page.get_by_text("no model of digits")).to_be_visible()
    expect(page.locator("#digit-canvas")).to_be_hidden()


def test_limits_and_domains_are_the_models_own(open_page: OpenPage, url: str) -> None:
    cards = {card["name"]: card for card in httpx.get(f"{url}/models").json()["models"]}
    page = open_page(url)
    page.get_by_text("What can it not do?").click()
    expect(page.locator("#faces [data-limits]")).to_have_text(cards["emoji"]["limits"])
    page.get_by_role("tab", name="Digits").click()
    page.get_by_text("What is this?").click()
    expect(page.locator("#digits [data-source]")).to_have_text(cards["digits"]["source_domain"])


def test_of_several_models_one_is_chosen(open_page: OpenPage, keyed: str) -> None:
    page = open_page(f"{keyed}/#digits", script="sessionStorage.setItem('dtn-key', 'sesame')")
    page.get_by_role("button", name="3", exact=True).click()
    expect_digit(page)
    with page.expect_response("**/transfer?model=plain") as answer:
        page.get_by_label("Model").select_option("plain")
    assert answer.value.status == 200
    expect(page.locator("#digit-result")).to_have_attribute(
        "alt", "What plain@1 makes of drawing.png"
    )
    # It has no distance to tell.
    expect(page.locator("#digit-likeness")).to_be_empty()
