"""The page's files: headers, limits, keys. What it does: tests/browser."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import page_routes
from service.page_routes import FILES, FOLDER, PATHS, read_files
from tests.service.test_routes import OpenServer, problem

PICTURES = (".jpg",)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_each_file_is_served_with_an_etag(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    name = path.removeprefix("/page/") if path != "/" else "index.html"
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"] == page_routes.MEDIA_TYPES[Path(name).suffix]
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    again = client.get(path, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")


def test_the_page_may_do_only_what_it_needs(client: httpx.Client) -> None:
    headers = client.get("/").headers
    assert headers.get_list("content-security-policy") == [
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ]
    assert headers["permissions-policy"].startswith("camera=(self)")
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = FILES["index.html"].content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    for name in re.findall(r'(?:src|href)="page/([^"]+)"', html):
        assert name in FILES
    for name, file in FILES.items():
        if Path(name).suffix in PICTURES:
            continue
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in FILES


def test_the_page_is_light() -> None:
    sizes = [len(f.content) for n, f in FILES.items() if Path(n).suffix not in PICTURES]
    assert sum(sizes) < 100_000


def test_no_other_file_is_served(client: httpx.Client) -> None:
    for path in ("/page/nothing.js", "/page/..%2Fapp.py", "/page/%2e%2e/app.py", "/page/"):
        problem(client.get(path), "not_found")


def test_a_kind_of_file_that_no_page_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(KeyError):
        read_files(tmp_path)


def test_the_page_wants_no_key_and_counts_against_no_rate(open_server: OpenServer) -> None:
    limits: dict[str, Any] = {"api_keys": "one", "rate_limit": 0.01, "rate_burst": 1}
    with open_server(**limits) as client:
        assert {client.get(path).status_code for path in PATHS} == {200}
        problem(client.get("/page/nothing.js"), "unauthorized")
