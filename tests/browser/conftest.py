"""Fixtures of the page's tests: Chromium, servers, pictures."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.pictures import ROOT, save_faces, write_video
from tests.browser.watch import Watched
from tests.service.dummy import write_model
from tests.service.dummy_faces import write_face_model
from tests.service.test_server import dtn_serve

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PATIENCE_MS = 30_000  # for a machine that does other things, too

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DTN_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="package")
def faces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Photographs by name: `astronaut`; `one` and `another` of one person; `two` people."""
    return save_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="package")
def browser(faces: dict[str, Path]) -> Iterator[Browser]:
    """Chromium, with a camera before which the astronaut sits."""
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium: install Debian's package chromium")
    video = write_video(faces["astronaut"], faces["astronaut"].with_suffix(".y4m"))
    flags = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    ]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page at a URL. At the end nothing may have gone wrong in any, but for answers
    of a status in `allowed`, nor may any have asked another host."""
    opened: list[Watched] = []

    def open_at(url: str, allowed: tuple[int, ...] = (), script: str = "", **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1440, "height": 900})
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        opened.append(Watched(page, url, allowed))
        page.goto(url)
        expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
        return page

    yield open_at
    for watched in opened:
        watched.page.context.close()
    for watched in opened:
        watched.check()


@contextmanager
def served(models: Path, folder: Path, **settings: object) -> Iterator[str]:
    with dtn_serve(models, database_url=f"sqlite:///{folder}/dtn.db", **settings) as (_, url):
        yield url


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the shipped models are served."""
    with served(ROOT / "models", tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture(scope="package")
def dummies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `digits`, `plain` and `emoji` that do next to nothing."""
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    write_model(models, "plain", distance=False, channels=3)
    write_face_model(models)
    return models


@pytest.fixture(scope="package")
def keyed(dummies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where dummies are served to who has the key `sesame`, of photos up to 3 megapixels."""
    store = tmp_path_factory.mktemp("store")
    with served(dummies, store, api_keys="sesame", max_pixels=3_000_000) as url:
        yield url


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Image.Image, str], Path]:
    """Writes a picture to a file of that name."""

    def saved(picture: Image.Image, name: str) -> Path:
        picture.save(tmp_path / name)
        return tmp_path / name

    return saved
