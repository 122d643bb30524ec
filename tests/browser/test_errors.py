"""Each code of the contract, as the page tells it, and what it offers then."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from service.problems import RETRY_AFTER, STATUS, Code
from tests.browser.conftest import served
from tests.browser.pictures import HOUSE_NUMBER
from tests.browser.test_faces import expect_emoji
from tests.browser.watch import check_accessible
from tests.service.dummy_faces import photo_of

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]
Save = Callable[[Image.Image, str], Path]

TITLES: dict[Code, str] = {
    "bad_request": "The upload did not arrive whole",
    "unauthorized": "This service wants a key",
    "not_found": "This service does not do that",
    "unknown_model": "The model is not served any more",
    "unknown_person": "Nothing is kept of this person",
    "method_not_allowed": "This service does not do that",
    "too_large": "The picture is too large",
    "not_an_image": "That is not a picture",
    "unsupported_format": "A kind of picture it cannot read",
    "no_face": "No face found",
    "invalid_parameter": "The service did not accept a choice",
    "queue_full": "Busy just now",
    "rate_limited": "A little too fast",
    "internal_error": "The service made a mistake",
    "not_ready": "Still warming up",
    "draining": "The service is restarting",
    "store_unavailable": "Photos cannot be compared just now",
    "deadline_exceeded": "That took too long",
}
ALL = tuple(STATUS.values())


def out(page: Page) -> Locator:
    return page.locator("#face-out")


def refuse(page: Page, code: str, **headers: str) -> None:
    """Let the service answer requests for emoji with a problem."""
    status = STATUS.get(code, 418)  # type: ignore[call-overload]
    problem = {"code": code, "status": status, "detail": f"because of {code}", "request_id": "r1"}

    def answer(route: Route) -> None:
        route.fulfill(
            status=status,
            content_type="application/problem+json",
            headers=headers,
            body=json.dumps(problem),
        )

    page.unroute_all()
    page.route("**/emoji?*", answer)


def test_every_code_has_words_of_its_own(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    """Of all codes but `not_reloaded`, which only POST /admin/reload answers with."""
    assert set(TITLES) == set(STATUS) - {"not_reloaded"}
    page = open_page(url, allowed=(*ALL, 418))
    for code, title in TITLES.items():
        passes = code in RETRY_AFTER
        refuse(page, code, **({"Retry-After": "50"} if passes else {}))
        page.set_input_files("#face-file", faces["astronaut"])
        expect(out(page).get_by_role("heading", name=title)).to_be_visible()
        if passes:
            expect(out(page).locator(".count")).to_have_text(re.compile(r"again in (50|4\d) s"))
            expect(out(page).get_by_role("button", name="Try now")).to_be_visible()
            expect(page.locator("#status")).to_have_text(re.compile(f"{title}.*in 50 seconds"))
        else:
            expect(out(page).get_by_role("alert")).to_contain_text(title)
            out(page).get_by_text("What the service said").click()
            expect(out(page)).to_contain_text(f"because of {code} (request r1)")
        page.get_by_role("button", name="Start over").click()
        expect(out(page)).to_have_attribute("data-state", "empty")


def test_what_nobody_foresaw_is_told_as_well(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url, allowed=(418, 502))
    refuse(page, "toString")
    page.set_input_files("#face-file", faces["astronaut"])
    expect(out(page).get_by_role("alert")).to_contain_text("Something went wrong")
    # A balancer's own page, for want of a service behind it.
    page.unroute_all()
    page.route(
        "**/emoji?*", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>")
    )
    out(page).get_by_role("button", name="Try again").click()
    expect(out(page).get_by_role("heading", name="Still warming up")).to_be_visible()
    page.unroute_all()
    expect_emoji(page)


def test_it_is_tried_again_when_retry_after_is_over(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url, allowed=(429,))
    refuse(page, "queue_full", **{"Retry-After": "3"})
    page.set_input_files("#face-file", faces["astronaut"])
    for seconds in (3, 2, 1):
        expect(out(page).locator(".count")).to_have_text(f"Trying again in {seconds} s")
    page.unroute_all()
    expect_emoji(page)


def test_who_does_not_want_to_wait_tries_now(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url, allowed=(503,))
    refuse(page, "draining", **{"Retry-After": "50"})
    page.set_input_files("#face-file", faces["astronaut"])
    expect(out(page).locator(".count")).to_be_visible()
    check_accessible(page)
    page.unroute_all()
    out(page).get_by_role("button", name="Try now").click()
    expect_emoji(page)


def test_a_long_wait_is_left_to_the_person(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url, allowed=(429,))
    refuse(page, "rate_limited", **{"Retry-After": "3600"})
    page.set_input_files("#face-file", faces["astronaut"])
    expect(out(page).get_by_role("alert")).to_contain_text("A little too fast")
    page.unroute_all()
    out(page).get_by_role("button", name="Try again").click()
    expect_emoji(page)


def test_the_rate_of_a_real_service_is_waited_for(
    open_page: OpenPage, dummies: Path, tmp_path: Path, save: Save
) -> None:
    with served(dummies, tmp_path, rate_limit=0.4, rate_burst=1) as url:
        page = open_page(url, allowed=(429,))  # GET /models has taken what may come at once
        page.set_input_files("#face-file", save(photo_of((150, 100, 90, "#ff0000")), "face.png"))
        expect(out(page).get_by_role("heading", name="A little too fast")).to_be_visible()
        expect(out(page)).to_have_attribute("data-state", "result")


def test_a_lost_connection_is_told(open_page: OpenPage, url: str, faces: dict[str, Path]) -> None:
    page = open_page(url, allowed=(0,))
    page.context.set_offline(True)
    page.set_input_files("#face-file", faces["astronaut"])
    expect(out(page).get_by_role("alert")).to_contain_text("The service does not answer")
    check_accessible(page)
    page.context.set_offline(False)
    out(page).get_by_role("button", name="Try again").click()
    expect_emoji(page)


def test_no_face_and_no_picture_are_told_by_the_service(
    open_page: OpenPage, url: str, faces: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page(url, allowed=(415, 422))
    page.set_input_files("#face-file", HOUSE_NUMBER)
    expect(out(page).get_by_role("alert")).to_contain_text("No face found")
    (tmp_path / "damaged.png").write_bytes(HOUSE_NUMBER.read_bytes()[:40])
    page.set_input_files("#face-file", tmp_path / "damaged.png")
    expect(out(page).get_by_role("alert")).to_contain_text("That is not a picture")
    expect(page.locator("#face-photo")).to_have_text("No preview")
    check_accessible(page)
    with page.expect_file_chooser() as chooser:
        out(page).get_by_role("button", name="Choose another").click()
    chooser.value.set_files(faces["astronaut"])
    expect_emoji(page)


def test_what_says_it_is_no_picture_is_not_even_sent(
    open_page: OpenPage, url: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    page = open_page(url)
    page.set_input_files("#face-file", tmp_path / "notes.txt")
    expect(out(page).get_by_role("alert")).to_contain_text("That is not a picture")


def test_a_key_is_asked_for_and_kept_in_the_tab_only(
    open_page: OpenPage, keyed: str, save: Save
) -> None:
    photo = save(photo_of((150, 100, 90, "#ff0000")), "face.png")
    page = open_page(keyed, allowed=(401,))
    field = page.get_by_label("This service wants an API key")
    expect(field).to_be_focused()
    check_accessible(page)
    page.set_input_files("#face-file", photo)
    expect(out(page).get_by_role("alert")).to_contain_text("This service wants a key")
    out(page).get_by_role("button", name="Enter the key").click()
    expect(field).to_be_focused()
    field.fill("open")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The service does not know this key.")).to_be_visible()
    expect(field).to_be_focused()
    check_accessible(page)
    field.fill("sesame")
    page.get_by_role("button", name="Use this key").click()
    # What failed for want of it is done now.
    expect(out(page)).to_have_attribute("data-state", "result")
    expect(field).to_be_hidden()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    expect(field).to_be_hidden()
    assert httpx.get(f"{keyed}/models").status_code == 401


def test_a_photo_with_too_many_pixels_is_made_smaller(
    open_page: OpenPage, keyed: str, save: Save
) -> None:
    photo = photo_of((500, 400, 600, "#ff0000"), size=(2400, 1500))
    page = open_page(keyed, allowed=(413,), script="sessionStorage.setItem('dtn-key', 'sesame')")
    page.set_input_files("#face-file", save(photo, "large.png"))
    expect(out(page)).to_have_attribute("data-state", "result")
    # What cannot be made small enough is told of.
    page.route("**/emoji?*", lambda route: route.fulfill(status=413, body=""))
    page.set_input_files("#face-file", save(photo, "other.png"))
    expect(out(page).get_by_role("alert")).to_contain_text("The picture is too large")
