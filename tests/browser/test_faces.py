"""The tab of faces with the shipped models: each way in, each way out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.pictures import HOUSE_NUMBER

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]
FILE = """async ([url, name]) => {
    const blob = await (await fetch(url)).blob();
    const transfer = new DataTransfer();
    transfer.items.add(new File([blob], name, { type: blob.type }));
    return transfer;
}"""


def expect_emoji(page: Page) -> None:
    """The emoji is there, and so is its distance, as a number and in words."""
    expect(page.locator("#face-out")).to_have_attribute("data-state", "result")
    expect(page.locator("#face-emoji")).to_be_visible()
    expect(page.locator("#face-likeness strong")).to_have_text(re.compile(r"^(0\.\d{3}|1\.\d\d)$"))
    expect(page.locator("#face-likeness .verdict")).to_have_text(re.compile("average"))
    expect(page.locator("#status")).to_have_text(re.compile(r"emoji is there.*distance \d"))


def test_a_photo_is_chosen(open_page: OpenPage, url: str, faces: dict[str, Path]) -> None:
    page = open_page(url)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photos").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files(faces["astronaut"])
    expect_emoji(page)
    expect(page.get_by_role("img", name="Emoji drawn from astronaut.png")).to_be_visible()
    expect(page.locator("#face-found")).to_have_text("One face found.")
    # The frame lies round the face, which is in the middle of the picture.
    frame, photo = (page.locator(f"#face-photo {part}").bounding_box() for part in ("span", "img"))
    assert frame is not None
    assert photo is not None
    assert photo["x"] < frame["x"] < frame["x"] + frame["width"] < photo["x"] + photo["width"]
    assert frame["width"] > photo["width"] / 5


def test_a_photo_is_dropped(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    transfer = page.evaluate_handle(FILE, ["page/astronaut.jpg", "dropped.jpg"])
    page.dispatch_event("#face-in", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Let go: it will be drawn").first).to_be_visible()
    page.dispatch_event("#face-in", "drop", {"dataTransfer": transfer})
    expect(page.get_by_text("Let go: it will be drawn").first).to_be_hidden()
    expect_emoji(page)
    expect(page.locator("#face-photo img")).to_have_attribute("alt", "Photo dropped.jpg")


def test_what_is_dragged_away_leaves_no_mark(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    transfer = page.evaluate_handle(FILE, ["page/astronaut.jpg", "x.jpg"])
    for event in ("dragenter", "dragleave"):
        page.dispatch_event("#face-in", event, {"dataTransfer": transfer})
    expect(page.locator(".over")).to_have_count(0)


def test_a_photo_is_pasted(open_page: OpenPage, url: str, faces: dict[str, Path]) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    page.set_input_files("#face-file", faces["astronaut"])
    expect_emoji(page)
    page.evaluate("""async () => {
        const image = document.querySelector("#face-photo img");
        const blob = await (await createCopy(image));
        await navigator.clipboard.write([new ClipboardItem({ [blob.type]: blob })]);
        function createCopy(image) {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
        }
    }""")
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#face-out")).to_have_attribute("data-state", "empty")
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()
    page.keyboard.press("Control+V")
    expect_emoji(page)


def test_a_photo_is_taken(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    page.get_by_role("button", name="Use the camera").first.click()
    take = page.get_by_role("button", name="Take the photo")
    expect(take).to_be_enabled()
    expect(take).to_be_focused()
    take.click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect_emoji(page)
    # The camera is off again, and another photo comes beside the first.
    assert page.evaluate("document.getElementById('camera-video').srcObject") is None
    page.get_by_role("button", name="Camera", exact=True).click()
    take.click()
    expect(page.locator("#several-list li")).to_have_count(2)
    expect_emoji(page)


def test_the_dialog_of_the_camera_is_left_with_escape(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    opener = page.get_by_role("button", name="Use the camera").first
    opener.click()
    expect(page.get_by_role("button", name="Take the photo")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(opener).to_be_focused()
    expect(page.locator("#face-out")).to_have_attribute("data-state", "empty")


REFUSED = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', '%s'); }"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (REFUSED % "NotAllowedError", "not allowed"),
        (REFUSED % "NotFoundError", "No camera"),
        (REFUSED % "NotReadableError", "Another program"),
        (REFUSED % "AbortError", "could not be started"),
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })", "over https"),
    ],
)
def test_where_there_is_no_camera_the_system_is_asked(
    open_page: OpenPage, url: str, faces: dict[str, Path], script: str, reason: str
) -> None:
    page = open_page(url, script=script)
    page.get_by_role("button", name="Use the camera").first.click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text(reason)
    assert page.get_attribute("#camera-file", "capture") == "user"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take or choose a photo").click()
    chooser.value.set_files(faces["astronaut"])
    expect_emoji(page)


def test_the_sample_needs_no_photo(open_page: OpenPage, url: str) -> None:
    page = open_page(url)
    page.get_by_role("button", name="Try an astronaut").click()
    expect_emoji(page)


def test_sizes_are_downloaded_and_copied(
    open_page: OpenPage, url: str, faces: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    page.set_input_files("#face-file", faces["astronaut"])
    for size in (256, 64, 128, 512):
        if size != 256:
            page.get_by_text(str(size), exact=True).click()
        expect_emoji(page)
        link = page.locator("#face-out [data-do=download]")
        expect(link).to_have_attribute("download", f"emoji-{size}.png")
        with page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename == f"emoji-{size}.png"
        download.value.save_as(tmp_path / "emoji.png")
        with Image.open(tmp_path / "emoji.png") as emoji:
            assert (emoji.format, emoji.size) == ("PNG", (size, size))
    button = page.locator("#face-out [data-do=copy]")
    button.click()
    expect(button).to_have_text("Copied")
    copied = page.evaluate("""async () => {
        const [item] = await navigator.clipboard.read();
        const bitmap = await createImageBitmap(await item.getType("image/png"));
        return [bitmap.width, bitmap.height];
    }""")
    assert copied == [512, 512]


def test_who_may_not_copy_is_told(open_page: OpenPage, url: str, faces: dict[str, Path]) -> None:
    page = open_page(
        url, script="navigator.clipboard.write = async () => { throw new DOMException(''); }"
    )
    page.set_input_files("#face-file", faces["astronaut"])
    page.locator("#face-out [data-do=copy]").click()
    expect(page.locator("#face-out [data-do=copy]")).to_have_text("Not copied")
    expect(page.locator("#status")).to_have_text(re.compile("Use Download"))


def test_of_two_faces_the_other_can_be_chosen(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url)
    page.set_input_files("#face-file", faces["two"])
    expect_emoji(page)
    expect(page.locator("#face-found")).to_contain_text("2 faces found")
    before = page.get_attribute("#face-emoji", "src")
    other = page.locator("#face-photo .face-box[aria-pressed=false]")
    expect(other).to_have_accessible_name(re.compile(r"Draw face \d of 2"))
    name = other.get_attribute("aria-label")
    with page.expect_response("**/emoji?*face=*"):
        other.click()
    expect(page.locator("#face-photo .face-box[aria-pressed=true]")).to_have_accessible_name(name)
    expect(page.locator("#face-emoji")).not_to_have_attribute("src", before or "")


def test_a_large_photo_is_made_smaller_and_stays_upright(
    open_page: OpenPage, url: str, faces: dict[str, Path], tmp_path: Path
) -> None:
    upright = Image.new("RGB", (3400, 850), "grey")
    with Image.open(faces["astronaut"]) as photo:
        upright.paste(photo.resize((850, 850), Image.Resampling.BICUBIC), (1200, 0))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise
    path = tmp_path / "lying.png"
    lying.save(path, exif=exif, compress_level=0)
    assert path.stat().st_size > 8 * 2**20
    page = open_page(url)
    with page.expect_request("**/emoji?*") as sent:
        page.set_input_files("#face-file", path)
    assert int(sent.value.header_value("content-length") or 0) < 2 * 2**20
    expect_emoji(page)
    width, height = page.evaluate("""() => {
        const image = document.querySelector("#face-photo img");
        return [image.naturalWidth, image.naturalHeight];
    }""")
    assert (width, height) == (3072, 768)


def test_a_new_photo_stops_the_old_one(
    open_page: OpenPage, url: str, faces: dict[str, Path]
) -> None:
    page = open_page(url, allowed=(422,))
    page.set_input_files("#face-file", HOUSE_NUMBER)
    page.set_input_files("#face-file", faces["astronaut"])
    expect_emoji(page)
    page.wait_for_timeout(500)
    expect(page.locator("#face-out")).to_have_attribute("data-state", "result")
