import hashlib
from pathlib import Path

import httpx
import pytest

from training.download import FILES, Remote, fetch

BODY = bytes(range(256)) * 40
REMOTE = Remote("file.mat", "http://data.test", hashlib.md5(BODY).hexdigest())  # noqa: S324


class Server:
    """Answers like the data sets' hosts, with ranges or without; remembers what was asked."""

    def __init__(self, body: bytes = BODY, ranges: bool = True, cut: int | None = None) -> None:
        self.body, self.ranges, self.cut = body, ranges, cut
        self.asked: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.asked.append(start)
        if not self.ranges:
            return httpx.Response(200, content=self.body)
        if start >= len(self.body):
            return httpx.Response(416)
        return httpx.Response(206, content=self.body[start : self.cut])

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))


def test_fetches_and_then_only_checks(tmp_path: Path) -> None:
    server = Server()
    with server.client() as client:
        path = fetch(REMOTE, tmp_path, client)
        assert path.read_bytes() == BODY
        fetch(REMOTE, tmp_path, client)
    assert server.asked == [0]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("have", [1, 5000, len(BODY)])
def test_goes_on_where_it_broke_off(tmp_path: Path, ranges: bool, have: int) -> None:
    (tmp_path / "file.mat.part").write_bytes(BODY[:have])
    server = Server(ranges=ranges)
    with server.client() as client:
        assert fetch(REMOTE, tmp_path, client).read_bytes() == BODY
    assert server.asked == [have]


def test_refuses_a_wrong_sum_and_starts_anew(tmp_path: Path) -> None:
    with Server(b"x" * 100).client() as client, pytest.raises(ValueError, match="wrong MD5"):
        fetch(REMOTE, tmp_path, client)
    assert list(tmp_path.iterdir()) == []


def test_says_when_a_file_on_disk_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file.mat").write_bytes(b"other")
    with Server().client() as client, pytest.raises(ValueError, match="delete it"):
        fetch(REMOTE, tmp_path, client)


def test_without_a_network_one_line_says_what_to_put_where(tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    transport = httpx.MockTransport(refuse)
    with httpx.Client(transport=transport) as client, pytest.raises(ConnectionError) as caught:
        fetch(REMOTE, tmp_path, client)
    assert "\n" not in str(caught.value)
    assert f"put http://data.test/file.mat into {tmp_path}" in str(caught.value)


def test_every_file_has_its_sum() -> None:
    assert len(FILES) == 7
    assert all(len(remote.md5) == 32 for remote in FILES)
