"""Several photos of one person: Eq. 8 made visible, and nothing kept of it."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.browser.pictures import HOUSE_NUMBER
from tests.browser.test_faces import expect_emoji
from tests.service.dummy_faces import photo_of

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]
PERSON = re.compile(r"/persons/(page-[0-9a-f]{32})")
FORGOTTEN = "the service keeps nothing"


@pytest.fixture
def photos(faces: dict[str, Path]) -> list[Path]:
    return [faces["one"], HOUSE_NUMBER, faces["another"]]


def test_each_photo_has_its_distance_and_the_best_is_marked(
    open_page: OpenPage, url: str, photos: list[Path]
) -> None:
    page = open_page(url)
    asked: list[tuple[str, str]] = []

    def note(request: Request) -> None:
        if found := PERSON.search(request.url):
            asked.append((request.method, found[1]))

    page.on("request", note)
    page.set_input_files("#face-file", photos)
    expect_emoji(page)
    items = page.locator("#several-list li")
    expect(items).to_have_count(3)
    expect(items.nth(1)).to_contain_text("No face found")
    expect(items.nth(1).locator(".pick")).to_be_disabled()
    values = {i: float(items.nth(i).locator(".value").inner_text().split()[1]) for i in (0, 2)}
    best, other = sorted(values, key=lambda index: values[index])
    expect(items.nth(best)).to_contain_text("Best")
    expect(items.nth(best)).to_contain_text("the smallest")
    expect(items.nth(other)).to_contain_text("further")
    expect(items.nth(best).locator(".pick")).to_have_attribute("aria-pressed", "true")
    assert float(page.locator("#face-likeness strong").inner_text()) == values[best]
    # Compared under a random name, of which the service then keeps nothing.
    expect(page.locator("#several-kept")).to_contain_text(FORGOTTEN)
    assert [method for method, _ in asked] == ["POST", "DELETE"]
    (name,) = {name for _, name in asked}
    assert httpx.get(f"{url}/persons/{name}").json()["code"] == "unknown_person"


def test_another_photo_shows_its_emoji(open_page: OpenPage, url: str, photos: list[Path]) -> None:
    page = open_page(url)
    page.set_input_files("#face-file", photos)
    expect_emoji(page)
    first = page.get_attribute("#face-emoji", "src")
    other = page.locator("#several-list .pick[aria-pressed=false]:enabled")
    value = other.locator(".value").inner_text().split()[1]
    other.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#face-likeness strong")).to_have_text(value)
    expect(page.locator("#face-emoji")).not_to_have_attribute("src", first or "")
    # The focus stays on what was chosen, and so does the mark on the best.
    expect(page.locator("#several-list .pick[aria-pressed=true]")).to_be_focused()
    expect(page.locator("#several-list .badge")).to_have_count(1)


def test_photos_are_added_and_removed(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url)
    page.set_input_files("#face-file", faces["one"])
    expect_emoji(page)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add photos").click()
    chooser.value.set_files(faces["another"])
    expect(page.locator("#several-list .badge")).to_have_count(1)
    expect_emoji(page)
    page.get_by_role("button", name="Remove another.png").click()
    expect(page.locator("#several")).to_be_hidden()
    expect_emoji(page)
    expect(page.locator("#face-photo img")).to_have_attribute("alt", "Photo one.png")


def test_where_no_photo_has_a_face_each_says_so(open_page: OpenPage, url: str) -> None:
    page = open_page(url, allowed=(422,))
    page.set_input_files("#face-file", [HOUSE_NUMBER, HOUSE_NUMBER])
    expect(page.locator("#face-out").get_by_role("alert")).to_contain_text("No face found")
    expect(page.locator("#several-list .value")).to_have_text(["No face found", "No face found"])


def test_more_than_32_photos_are_too_many(open_page: OpenPage, keyed: str, tmp_path: Path) -> None:
    photo_of((150, 100, 90, "#ff0000")).save(tmp_path / "face.png")
    page = open_page(keyed, script="sessionStorage.setItem('dtn-key', 'sesame')")
    page.set_input_files("#face-file", [tmp_path / "face.png"] * 33)
    expect(page.locator("#several-kept")).to_contain_text(FORGOTTEN)
    expect(page.locator("#several-list li[data-status=ok]")).to_have_count(32)
    expect(page.locator("#several-left")).to_contain_text("Only 32 photos")


def test_what_could_not_be_deleted_is_told_and_tried_again(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    # The pauses between tries pass at once.
    at_once = "const later = setTimeout; setTimeout = (call, ms) => later(call, ms > 1e4 ? ms : 0)"
    page = open_page(url, allowed=(0,), script=at_once)
    names: set[str] = set()

    def refuse(route: Route) -> None:
        names.add(route.request.url.rsplit("/", 1)[1])
        route.abort()

    page.route(re.compile(r"/persons/[^/]+$"), refuse)
    page.set_input_files("#face-file", [faces["one"], faces["another"]])
    expect_emoji(page)
    expect(page.locator("#several-kept")).to_contain_text("could not be deleted")
    (name,) = names
    assert httpx.get(f"{url}/persons/{name}").status_code == 200
    page.unroute_all()
    page.get_by_role("button", name="Delete it now").click()
    expect(page.locator("#several-kept")).to_contain_text(FORGOTTEN)
    assert httpx.get(f"{url}/persons/{name}").status_code == 404


def test_who_starts_over_meanwhile_leaves_nothing_behind(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url)
    page.set_input_files("#face-file", [faces["one"], faces["another"]])
    expect(page.locator("#face-working")).to_have_text("Comparing 2 photos")
    with page.expect_request(lambda request: request.method == "DELETE") as deleted:
        page.get_by_role("button", name="Start over").click()
    answer = deleted.value.response()
    assert answer is not None
    assert answer.status == 204
    expect(page.locator("#face-out")).to_have_attribute("data-state", "empty")
