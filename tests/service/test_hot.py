"""The short way of POST /transfer: the same answers as the usual way's, and good manners."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service import hot
from service.hot import HotRequest
from service.models import Model, Models
from tests.service.conftest import Gated
from tests.service.dummy import encoded, noise, png

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
RAW = {"content-type": "image/png"}
PICTURE = encoded(Image.fromarray(noise(20, 24)))
JPEG = encoded(Image.new("RGB", (9, 9)), "JPEG")


@pytest.fixture(scope="module")
def ways(open_server: OpenServer) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of two servers: one with the short way, one whose settings forbid it."""
    with open_server() as short, open_server(access_log=True) as usual:
        yield short, usual


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[HotRequest]:
    """The requests that went the short way to their end."""
    done = []
    send = HotRequest.send

    def noted(self: HotRequest, *args: Any) -> None:
        done.append(self)
        send(self, *args)

    monkeypatch.setattr(HotRequest, "send", noted)
    return done


FORM: dict[str, Any] = {"files": {"file": ("a.png", PICTURE, "image/png")}}
BODY: dict[str, Any] = {"content": PICTURE, "headers": RAW}


def with_headers(**headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"content": PICTURE, "headers": RAW | named}


@pytest.mark.parametrize(
    ("path", "sent", "is_short"),
    [
        ("/transfer", FORM, True),
        ("/transfer", BODY, True),
        ("/transfer?model=plain", BODY, True),
        ("/transfer?model=digits@1&format=png", FORM, True),
        ("/transfer", with_headers(accept="image/*"), True),
        ("/transfer", with_headers(connection="close"), True),
        ("/transfer", {"content": encoded(Image.new("L", (9, 9))), "headers": RAW}, True),
        ("/transfer", with_headers(accept="application/json"), False),
        ("/transfer", with_headers(accept="image/webp"), False),
        ("/transfer", with_headers(accept="text/html"), False),
        ("/transfer", with_headers(x_timeout_ms="5000"), False),
        ("/transfer", with_headers(content_encoding="gzip"), False),
        ("/transfer", with_headers(x_long="a" * 3000), False),
        ("/transfer?format=webp", BODY, False),
        ("/transfer?distance=true", BODY, False),
        ("/transfer?model=nobody", BODY, False),
        ("/transfer?colour=red", BODY, False),
        ("/transferred", BODY, False),
        ("/transfer/", BODY, False),
        ("/transfer", {"content": PICTURE, "headers": {"content-type": "text/plain"}}, False),
        ("/transfer", {"content": PICTURE}, False),
        ("/transfer", {"content": b"", "headers": RAW}, False),
        ("/transfer", {"content": PICTURE[:200], "headers": RAW}, False),
        ("/transfer", {"content": png(5000, 20000), "headers": RAW}, False),
        ("/transfer", {"content": iter([PICTURE]), "headers": RAW}, False),
        ("/transfer", {"files": {"picture": PICTURE}}, False),
        ("/transfer", {"files": [("file", PICTURE), ("file", PICTURE)]}, False),
        ("/transfer", {"content": encoded(Image.new("RGB", (90, 90))), "headers": RAW}, False),
        ("/transfer", {"content": encoded(Image.new("RGBA", (9, 9))), "headers": RAW}, False),
        ("/transfer", {"content": JPEG, "headers": RAW}, False),
    ],
)
def test_both_ways_answer_the_same(
    ways: tuple[httpx.Client, httpx.Client],
    taken: list[HotRequest],
    path: str,
    sent: dict[str, Any],
    is_short: bool,
) -> None:
    short, usual = (client.post(path, **fresh(sent)) for client in ways)
    assert len(taken) == is_short
    assert short.status_code == usual.status_code
    known = {"x-request-id", "date"}
    assert {k: v for k, v in short.headers.items() if k not in known} == {
        k: v for k, v in usual.headers.items() if k not in known
    }
    assert set(short.headers) == set(usual.headers)
    if short.headers["content-type"] == "application/problem+json":
        both = [answer.json() | {"request_id": ""} for answer in (short, usual)]
        assert both[0] == both[1]
    else:
        assert short.content == usual.content


def fresh(sent: dict[str, Any]) -> dict[str, Any]:
    """The request once more: an iterator can be sent only once."""
    if isinstance(sent.get("content", b""), bytes):
        return sent
    return sent | {"content": iter([PICTURE])}


def test_get_goes_the_usual_way(
    ways: tuple[httpx.Client, httpx.Client], taken: list[HotRequest]
) -> None:
    assert ways[0].get("/transfer").status_code == 405
    assert ways[0].put("/transfer", **BODY).status_code == 405
    assert taken == []


def test_the_request_id_is_echoed_or_made(ways: tuple[httpx.Client, httpx.Client]) -> None:
    short, _ = ways
    answer = short.post("/transfer", **with_headers(x_request_id="mine-1"))
    assert answer.headers["x-request-id"] == "mine-1"
    answer = short.post("/transfer", **with_headers(x_request_id="no good"))
    assert len(answer.headers["x-request-id"]) == 32


def test_a_key_is_wanted_where_there_are_keys(
    open_server: OpenServer, taken: list[HotRequest]
) -> None:
    with open_server(api_keys="one,two") as client:
        assert client.post("/transfer", **BODY).status_code == 401
        assert client.post("/transfer", **with_headers(x_api_key="three")).status_code == 401
        assert taken == []
        for key in ({"x_api_key": "two"}, {"authorization": "Bearer one"}):
            assert client.post("/transfer", **with_headers(**key)).status_code == 200
        assert len(taken) == 2


def test_it_counts(open_server: OpenServer) -> None:
    with open_server() as client:
        assert client.post("/transfer", **BODY).status_code == 200
        text = client.get("/metrics").text
    assert 'dtn_requests_total{method="POST",route="/transfer",status="200"} 1.0' in text
    for stage in ("decode", "queue", "run", "encode"):
        assert f'dtn_stage_seconds_count{{stage="{stage}"}} 1.0' in text


def request(picture: bytes, *headers: str) -> bytes:
    """A whole POST /transfer as it goes over the line."""
    head = (
        *("POST /transfer HTTP/1.1", "Host: x", "Content-Type: image/png"),
        *(f"Content-Length: {len(picture)}", *headers),
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + picture


def answers(connection: socket.socket, n: int) -> list[tuple[bytes, bytes]]:
    """The heads and bodies of n answers."""
    data = b""
    found: list[tuple[bytes, bytes]] = []
    while len(found) < n:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")),
            None,
        )
        if length is not None and len(rest) >= length:
            found.append((head, rest[:length]))
            data = rest[length:]
            continue
        received = connection.recv(65536)
        assert received, f"closed after {len(found)} answers"
        data += received
    assert data == b""
    return found


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10)


@pytest.mark.parametrize("cut", [1, 40, 150, 400])
def test_a_request_may_come_in_pieces(ways: tuple[httpx.Client, httpx.Client], cut: int) -> None:
    with connect(ways[0]) as connection:
        whole = request(PICTURE)
        for piece in (whole[:cut], whole[cut:-1], whole[-1:]):
            connection.sendall(piece)
            time.sleep(0.02)
        ((head, _),) = answers(connection, 1)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_stalls_is_given_up(open_server: OpenServer) -> None:
    with open_server(upload_timeout_s=0.3) as client, connect(client) as connection:
        connection.sendall(request(PICTURE)[:-1])
        ((head, _),) = answers(connection, 1)
        assert head.startswith(b"HTTP/1.1 504 ")


def test_answers_of_a_pipeline_come_in_order(ways: tuple[httpx.Client, httpx.Client]) -> None:
    pictures = [encoded(Image.fromarray(noise(20, 20, seed=seed))) for seed in range(6)]
    wanted = [ways[1].post("/transfer", content=each, headers=RAW).content for each in pictures]
    get = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(ways[0]) as connection:
        first, *rest = (request(each) for each in pictures)
        connection.sendall(first + get + b"".join(rest))
        found = answers(connection, 7)
        assert [body for _, body in found[:1] + found[2:]] == wanted
        assert found[1][1] == b'{"status":"live"}'


def test_a_piece_of_a_request_that_looks_like_one_is_none(
    ways: tuple[httpx.Client, httpx.Client], taken: list[HotRequest]
) -> None:
    inner = request(PICTURE)
    with connect(ways[0]) as connection:
        for piece in (b"GET /health/live HTTP/1.1\r\nX-Any: ", inner, inner):
            connection.sendall(piece)
            time.sleep(0.05)
        (_, live), (_, drawn) = answers(connection, 2)
    assert live == b'{"status":"live"}'
    assert drawn.startswith(b"\x89PNG")
    assert len(taken) == 1


def test_what_follows_an_early_answer_is_no_request(
    ways: tuple[httpx.Client, httpx.Client], taken: list[HotRequest]
) -> None:
    inner = request(PICTURE)
    outer = f"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: {len(inner)}\r\n\r\n"
    with connect(ways[0]) as connection:
        connection.sendall(outer.encode())
        ((head, _),) = answers(connection, 1)
        assert head.startswith(b"HTTP/1.1 405 ")
        connection.sendall(inner)
        with suppress(ConnectionError):
            assert connection.recv(1) == b""
    assert taken == []


@pytest.mark.parametrize(
    "twice", ["Content-Type: image/png", "Content-Length: 5", "X-Any: 1\r\nX-Any: 2"]
)
def test_a_header_that_comes_twice_is_the_parsers_matter(
    ways: tuple[httpx.Client, httpx.Client], taken: list[HotRequest], twice: str
) -> None:
    with connect(ways[0]) as connection, connect(ways[1]) as usual:
        for each in (connection, usual):
            each.sendall(request(PICTURE, twice))
        ((short_head, _),), ((usual_head, _),) = (answers(each, 1) for each in (connection, usual))
        assert short_head.partition(b"\r\n")[0] == usual_head.partition(b"\r\n")[0]
    assert taken == []


def test_a_connection_is_closed_where_the_client_wants_it(
    ways: tuple[httpx.Client, httpx.Client],
) -> None:
    with connect(ways[0]) as connection:
        connection.sendall(request(PICTURE, "Connection: close"))
        ((head, _),) = answers(connection, 1)
        assert b"connection: close" in head
        assert connection.recv(1) == b""


def test_no_more_than_the_queue_holds(
    open_server: OpenServer, gated: Gated, taken: list[HotRequest]
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, max_queue=1) as client, ThreadPoolExecutor() as pool:
        under_way = [pool.submit(client.post, "/transfer", **BODY) for _ in range(2)]
        assert gated.started.acquire(timeout=10)
        time.sleep(0.2)
        refused = client.post("/transfer", **BODY)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        gated.go.set()
        assert [each.result().status_code for each in under_way] == [200, 200]
        assert client.post("/transfer", **BODY).status_code == 200
    assert len(taken) == 4


def test_a_run_that_does_not_end_is_not_waited_for(open_server: OpenServer, gated: Gated) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, deadline_s=0.3) as client:
        late = client.post("/transfer", **BODY)
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        gated.go.set()
        assert client.post("/transfer", **BODY).status_code == 200


def test_what_waits_is_dropped_when_its_client_leaves(
    open_server: OpenServer, gated: Gated
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, max_queue=1) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/transfer", **BODY)
        assert gated.started.acquire(timeout=10)
        with connect(client) as connection:
            connection.sendall(request(PICTURE))
            time.sleep(0.2)
        time.sleep(0.2)  # for the server to notice
        third = pool.submit(client.post, "/transfer", **BODY)
        time.sleep(0.1)
        gated.go.set()
        assert (first.result().status_code, third.result().status_code) == (200, 200)
        assert gated.runs == 2
        assert "dtn_abandoned_total 1.0" in client.get("/metrics").text


def test_a_picture_that_the_model_cannot_draw_is_refused(
    open_server: OpenServer, models_dir: Path, taken: list[HotRequest]
) -> None:
    class Unlucky(Model):
        def warm_up(self) -> None:
            """Nothing goes wrong yet."""

        def run(self, x: np.ndarray, distance: bool) -> Any:
            raise RuntimeError("no")

    with open_server(Models([Unlucky(models_dir / "digits")], "digits")) as client:
        answer = client.post("/transfer", **BODY)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert len(taken) == 1


def test_an_answer_that_fails_leaves_the_others_of_its_run_alone(
    open_server: OpenServer, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_png = hot.encode_png
    failing = iter([True, False])

    def fails_once(y: np.ndarray) -> bytes:
        if next(failing, False):
            raise RuntimeError("no")
        return encode_png(y)

    monkeypatch.setattr(hot, "encode_png", fails_once)
    models = Models([gated], "digits")
    with open_server(models, workers=1) as client, ThreadPoolExecutor() as pool:
        gated.most = 4
        under_way = [pool.submit(client.post, "/transfer", **BODY) for _ in range(4)]
        assert gated.started.acquire(timeout=10)
        time.sleep(0.2)
        gated.go.set()
        assert sorted(each.result().status_code for each in under_way) == [200, 200, 200, 500]
        assert client.post("/transfer", **BODY).status_code == 200
