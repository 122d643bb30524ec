"""For everybody: axe in every state, wide and narrow, light and dark; the keyboard alone."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.pictures import HOUSE_NUMBER, ROOT
from tests.browser.test_digits import expect_digit
from tests.browser.test_faces import FILE, expect_emoji
from tests.browser.watch import check_accessible, check_fits

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]
MOST_BYTES = 300_000  # of a picture in docs/
# Where set, README's pictures of the page are made anew: PAGE_PICTURES=docs pytest tests/browser
PICTURES = os.environ.get("PAGE_PICTURES")


def check(page: Page) -> None:
    check_accessible(page)
    check_fits(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_every_state_is_accessible(
    open_page: OpenPage, url: str, faces: dict[str, Path], tmp_path: Path, width: int, scheme: str
) -> None:
    page = open_page(
        url,
        allowed=(422,),
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    check(page)
    transfer = page.evaluate_handle(FILE, ["page/astronaut.jpg", "x.jpg"])
    page.dispatch_event("#face-in", "dragenter", {"dataTransfer": transfer})
    expect(page.locator(".over")).to_have_count(1)
    check(page)
    page.dispatch_event("#face-in", "dragleave", {"dataTransfer": transfer})
    # An answer that is held back: the page is at work.
    page.route("**/emoji?*", lambda route: None)
    page.set_input_files("#face-file", faces["astronaut"])
    expect(page.locator("#face-out")).to_have_attribute("data-state", "working")
    check(page)
    page.unroute_all()
    page.set_input_files("#face-file", faces["two"])
    expect_emoji(page)
    check(page)
    page.set_input_files("#face-file", [faces["one"], faces["another"], HOUSE_NUMBER])
    expect(page.locator("#several-kept")).to_contain_text("nothing")
    expect_emoji(page)
    for summary in page.locator("#faces .told summary").all():
        summary.click()
    check(page)
    take_picture(page, tmp_path, f"several-{width}-{scheme}")
    page.set_input_files("#face-file", HOUSE_NUMBER)
    expect(page.locator("#face-out")).to_have_attribute("data-state", "error")
    check(page)
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.get_by_role("button", name="Take the photo")).to_be_enabled()
    check(page)
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Digits").click()
    check(page)
    page.get_by_role("button", name="5", exact=True).click()
    expect_digit(page)
    check(page)


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("page", 1440, 980, "light"), ("page-phone", 375, 1440, "dark")],
)
def test_the_pictures_of_the_page(
    open_page: OpenPage, url: str, tmp_path: Path, name: str, width: int, height: int, scheme: str
) -> None:
    page = open_page(
        url,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page.get_by_role("button", name="Try an astronaut").click()
    expect_emoji(page)
    page.evaluate("scrollTo(0, 0)")
    path = take_picture(page, ROOT / PICTURES if PICTURES else tmp_path, name)
    with Image.open(path) as picture:
        assert picture.size == (width, height)
    # Elsewhere other fonts may take more.
    assert not PICTURES or path.stat().st_size < MOST_BYTES


def take_picture(page: Page, folder: Path, name: str) -> Path:
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        opaque = picture.convert("RGB")
    opaque.save(path, optimize=True)
    return path


def press_until(page: Page, key: str, name: str) -> None:
    """Press a key until the focus is on what is called so."""
    for _ in range(40):
        page.keyboard.press(key)
        focused = page.evaluate(
            "document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()"
        )
        if focused == name:
            return
    pytest.fail(f"{key} does not lead to {name}")


def test_a_keyboard_is_enough(open_page: OpenPage, url: str, faces: dict[str, Path]) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    # From now on the dialog of files is caught; a key would open it before expect_… is heard of.
    page.on("filechooser", lambda _: None)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press_until(page, "Tab", "Choose photos")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([faces["one"], faces["another"]])
    expect_emoji(page)
    # The radio buttons are one stop, and the arrows move among them.
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "size":
            break
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="512")).to_be_checked()
    expect(page.locator("#face-out [data-do=download]")).to_have_attribute(
        "download", "emoji-512.png"
    )
    expect(page.get_by_role("radio", name="512")).to_be_focused()
    press_until(page, "Tab", "Download")
    with page.expect_download():
        page.keyboard.press("Enter")
    press_until(page, "Tab", "Copy")
    page.keyboard.press("Space")
    expect(page.locator("#face-out [data-do=copy]")).to_have_text("Copied")
    press_until(page, "Tab", "Remove another.png")
    page.keyboard.press("Enter")
    expect(page.locator("#several")).to_be_hidden()
    expect_emoji(page)
    expect(page.locator("#face-out-title")).to_be_focused()


def test_tabs_follow_the_arrows(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    faces, digits = (page.get_by_role("tab", name=name) for name in ("Faces", "Digits"))
    faces.focus()
    for key, tab in (("ArrowRight", digits), ("ArrowRight", faces), ("End", digits)):
        page.keyboard.press(key)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
    assert page.url.endswith("#digits")
    press_until(page, "Tab", "6")
    page.keyboard.press("Space")
    expect_digit(page)
    expect(page.get_by_role("img", name="Plate with the digit 6")).to_be_visible()
    expect(page.locator("#status")).to_have_text(re.compile("The picture is there"))


def test_nothing_moves_for_who_wants_it_calm(open_page: OpenPage, url: str) -> None:
    page = open_page(url, reduced_motion="reduce")
    page.route("**/emoji?*", lambda route: None)
    page.get_by_role("button", name="Try an astronaut").click()
    expect(page.locator("#face-out")).to_have_attribute("aria-busy", "true")
    assert page.evaluate("document.getAnimations().length") == 0
