"""The tab of digits with the shipped model: drawn, written, chosen, dropped, photographed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.pictures import HOUSE_NUMBER
from tests.browser.test_faces import FILE

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]


def expect_digit(page: Page) -> None:
    expect(page.locator("#digit-out")).to_have_attribute("data-state", "result")
    expect(page.locator("#digit-result")).to_be_visible()
    expect(page.locator("#digit-likeness strong")).to_have_text(re.compile(r"^\d+\.\d+$"))


def draw(page: Page, *points: tuple[float, float]) -> None:
    """A stroke on the plate, in parts of its side."""
    page.locator("#digit-canvas").scroll_into_view_if_needed()
    box = page.locator("#digit-canvas").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def test_a_digit_is_drawn(open_page: OpenPage, url: str) -> None:
    page = open_page(f"{url}/#digits")
    draw(page, (0.5, 0.15), (0.5, 0.85))
    expect_digit(page)
    expect(page.locator("#digit-result")).to_have_attribute("alt", re.compile("digits@2"))
    one = page.get_attribute("#digit-result", "src")
    draw(page, (0.2, 0.5), (0.8, 0.5))
    expect(page.locator("#digit-result")).not_to_have_attribute("src", one or "")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#digit-out")).to_have_attribute("data-state", "empty")
    expect(page.get_by_role("img", name="Empty plate")).to_be_visible()


def test_a_digit_is_written_and_its_plate_changed(
    open_page: OpenPage, url: str, tmp_path: Path
) -> None:
    page = open_page(url)
    page.get_by_role("tab", name="Digits").click()
    page.get_by_role("button", name="7", exact=True).click()
    expect_digit(page)
    blue = page.get_attribute("#digit-result", "src")
    page.get_by_text("Green").click()
    expect(page.locator("#digit-result")).not_to_have_attribute("src", blue or "")
    with page.expect_download() as download:
        page.locator("#digit-out [data-do=download]").click()
    assert download.value.suggested_filename == "digits.png"
    download.value.save_as(tmp_path / "digit.png")
    with Image.open(tmp_path / "digit.png") as digit:
        assert digit.size == (32, 32)


def test_a_picture_is_chosen_and_drawing_goes_on(open_page: OpenPage, url: str) -> None:
    page = open_page(f"{url}/#digits")
    with page.expect_file_chooser() as chooser:
        page.locator("#digits").get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files(HOUSE_NUMBER)
    expect_digit(page)
    expect(page.get_by_role("img", name="Picture house_number.png")).to_be_visible()
    page.get_by_role("button", name="Draw instead").click()
    expect(page.locator("#digit-canvas")).to_be_visible()
    expect(page.get_by_role("button", name="0", exact=True)).to_be_focused()
    expect(page.locator("#digit-out")).to_have_attribute("data-state", "empty")


def test_a_picture_is_dropped_pasted_and_photographed(open_page: OpenPage, url: str) -> None:
    page = open_page(f"{url}/#digits", permissions=["clipboard-read", "clipboard-write"])
    transfer = page.evaluate_handle(FILE, ["page/astronaut.jpg", "dropped.jpg"])
    page.dispatch_event("#digit-in", "drop", {"dataTransfer": transfer})
    expect_digit(page)
    expect(page.locator("#digit-name")).to_have_text("dropped.jpg")
    page.locator("#digit-out [data-do=copy]").click()
    expect(page.locator("#digit-out [data-do=copy]")).to_have_text("Copied")
    page.keyboard.press("Control+V")
    expect(page.locator("#digit-name")).to_have_text("image.png")
    expect_digit(page)
    page.locator("#digits").get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("dialog", name="Point the camera at the number")).to_be_visible()
    page.get_by_role("button", name="Take the photo").click()
    expect(page.locator("#digit-name")).to_have_text("camera.jpg")
    expect_digit(page)


def test_what_is_no_picture_is_refused(open_page: OpenPage, url: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page = open_page(f"{url}/#digits", allowed=(415,))
    page.set_input_files("#digit-file", tmp_path / "notes.png")
    alert = page.locator("#digit-out").get_by_role("alert")
    expect(alert).to_contain_text("That is not a picture")
    page.set_input_files("#digit-file", HOUSE_NUMBER)
    expect_digit(page)
