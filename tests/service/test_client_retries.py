import base64
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from service.client import (
    Client,
    ClientError,
    RefusedError,
    UnavailableError,
    UnreachableError,
)
from service.client.calls import forget_call, judge_call, models_call, transfer_call
from service.client.retries import LONGEST_PAUSE_S, Attempts, retry_after

BUSY = httpx.Response(
    429,
    headers={"Retry-After": "3", "Content-Type": "application/problem+json"},
    content=json.dumps({"code": "queue_full", "detail": "full", "request_id": "x"}),
)
PICTURE = httpx.Response(200, headers={"Content-Type": "image/png"}, content=b"picture")
LOST = httpx.RemoteProtocolError("Server disconnected without sending a response.")
CALL = transfer_call(b"photo", None, "png", False)


class Waits(threading.Event):
    """Notes how long somebody would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        return False


class Script:
    """A service that answers what is written, in turn."""

    def __init__(self, *turns: httpx.Response | Exception) -> None:
        self.turns = list(turns)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return httpx.Response(turn.status_code, headers=turn.headers, content=turn.content)


def client_of(script: Script, **options: Any) -> Client:
    return Client("http://host", transport=httpx.MockTransport(script), **options)


@pytest.mark.parametrize(
    "failure",
    [
        BUSY,
        httpx.Response(502, text="nginx"),
        httpx.Response(503),
        httpx.Response(504),
        LOST,
        httpx.ConnectError("Connection refused"),
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
    ],
)
def test_what_may_pass_is_asked_again_under_the_same_id(
    failure: httpx.Response | Exception,
) -> None:
    script = Script(failure, failure, PICTURE)
    with client_of(script) as client:
        assert client.run(CALL, stopped=Waits()).image == b"picture"
    ids = {request.headers["x-request-id"] for request in script.requests}
    assert len(script.requests) == 3
    assert len(ids) == 1


@pytest.mark.parametrize(
    "failure",
    [
        httpx.Response(400),
        httpx.Response(404),
        httpx.Response(413),
        httpx.Response(500),
        httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"),
        httpx.ConnectError("[Errno -2] Name or service not known"),
    ],
)
def test_what_will_not_pass_is_not_asked_again(failure: httpx.Response | Exception) -> None:
    script = Script(failure)
    with client_of(script) as client, pytest.raises(ClientError):
        client.run(CALL, stopped=Waits())
    assert len(script.requests) == 1


def test_the_pause_is_never_shorter_than_the_service_asks_for() -> None:
    waits = Waits()
    with client_of(Script(BUSY, BUSY, PICTURE)) as client:
        client.run(CALL, stopped=waits)
    assert all(3 <= seconds <= 3.1 for seconds in waits.seconds)


def test_pauses_grow_to_a_bound_and_vary() -> None:
    waits = Waits()
    with client_of(Script(*[LOST] * 12, PICTURE), retries=12, deadline=1000) as client:
        client.run(CALL, stopped=waits)
    assert len(set(waits.seconds)) == 12
    for i, seconds in enumerate(waits.seconds):
        usual = min(0.1 * 2**i, LONGEST_PAUSE_S)
        assert usual / 2 <= seconds <= usual


def test_after_so_many_attempts_the_last_failure_is_told() -> None:
    script = Script(*[LOST] * 4, BUSY)
    with client_of(script, retries=4) as client, pytest.raises(UnavailableError) as caught:
        client.run(CALL, stopped=Waits())
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == (
        "queue_full",
        429,
        3.0,
    )
    assert len(script.requests) == 5


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    waits = Waits()
    with client_of(Script(BUSY), deadline=2.9) as client, pytest.raises(UnavailableError):
        client.run(CALL, stopped=waits)
    assert waits.seconds == []


def test_one_attempt_takes_no_longer_than_what_is_left() -> None:
    now = [0.0]
    attempts = Attempts(5, 10.0, clock=lambda: now[0])
    assert attempts.left() == 10.0
    now[0] = 9.0
    assert attempts.left() == 1.0
    now[0] = 11.0
    assert attempts.is_over()
    assert attempts.left() > 0


def test_who_is_stopped_does_not_go_on() -> None:
    stopped = threading.Event()
    stopped.set()
    script = Script(LOST, PICTURE)
    with client_of(script) as client, pytest.raises(UnreachableError):
        client.run(CALL, stopped=stopped)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("0", 0.0), ("120", 120.0), ("soon", None), ("-1", None), ("9" * 30, 999999999)],
)
def test_retry_after_is_a_number(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(100, 100), (-100, 0)])
def test_retry_after_is_a_date(ahead: int, seconds: float) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=ahead)
    found = retry_after(format_datetime(moment, usegmt=True))
    assert found == pytest.approx(seconds, abs=60)
    assert found is not None
    assert found >= 0


# A real connection that breaks


@contextmanager
def one_after_another(*answers: bytes | None) -> Iterator[str]:
    """A server that gives each connection one of these and closes it; None: it says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    silent: list[socket.socket] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            if answer is None:
                silent.append(connection)
                continue
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        for connection in silent:
            connection.close()
        thread.join(20)


def failure_of(client: Client) -> ClientError:
    with pytest.raises(UnreachableError) as caught:
        client.transfer(b"photo")
    return caught.value


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 7\r\n\r\n"
CHUNKED = HEAD.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        HEAD[:30],
        HEAD,
        HEAD + b"pict",
        CHUNKED + b"7\r\npic",
    ],
)
def test_an_answer_that_is_cut_off_is_asked_for_again(broken: bytes) -> None:
    with one_after_another(broken, HEAD + b"picture") as url, Client(url) as client:
        assert client.transfer(b"photo").image == b"picture"


def test_an_attempt_that_hears_nothing_ends() -> None:
    with one_after_another(None, HEAD + b"picture") as url, Client(url, timeout=0.5) as client:
        assert client.transfer(b"photo").image == b"picture"


def test_who_is_never_answered_hears_of_it() -> None:
    with one_after_another(None) as url, Client(url, timeout=0.2, retries=0) as client:
        caught = failure_of(client)
    assert caught.code == "timed_out"


def test_an_answer_that_only_drips_ends_with_the_deadline() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    gone = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(HEAD.replace(b": 7", b": 1000000"))
            while not gone.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with Client(url, deadline=1.0) as client:
            caught = failure_of(client)
    finally:
        gone.set()
        thread.join(20)
        listener.close()
    assert caught.code == "timed_out"


# What a repeated call makes of its answer


def judged(chosen: int | None, distances: Sequence[float | None], kept: float) -> httpx.Response:
    face = {"box": [1, 2, 3, 4], "score": 1.0, "count": 1}
    photos = [
        {"name": None, "status": "ok" if d else "no_face", "f_distance": d, "face": d and face}
        for d in distances
    ]
    return httpx.Response(
        200,
        json={
            "model": "emoji@1",
            "width": 64,
            "height": 64,
            "media_type": "image/png",
            "image": base64.b64encode(b"picture").decode(),
            "f_distance": kept,
            "face": None if chosen is None else face,
            "person": "ann",
            "chosen": chosen,
            "photos": photos,
        },
    )


@pytest.mark.parametrize(
    ("turns", "chosen"),
    [
        ([judged(0, [0.25, 0.5], 0.25)], [True, False]),
        ([judged(None, [0.25, 0.5], 0.125)], [False, False]),
        # The first attempt may have been the one whose emoji is kept now.
        ([LOST, judged(None, [None, 0.5, 0.25], 0.25)], [False, False, True]),
        ([LOST, judged(None, [0.5, 0.25], 0.125)], [False, False]),
        # Nothing was lost: the same photo was kept by an earlier call.
        ([judged(None, [0.25, 0.5], 0.25)], [False, False]),
    ],
)
def test_the_chosen_photo_is_found_again_where_an_answer_was_lost(
    turns: list[httpx.Response | Exception], chosen: list[bool]
) -> None:
    call = judge_call("ann", (b"a", b"b", b"c")[: len(chosen)], None, "png", 256)
    with client_of(Script(*turns)) as client:
        emoji = client.run(call, stopped=Waits())
    assert [photo.chosen for photo in emoji.photos] == chosen
    assert (emoji.face is not None) == any(chosen)


UNKNOWN = httpx.Response(
    404,
    headers={"Content-Type": "application/problem+json"},
    content=json.dumps({"code": "unknown_person", "detail": "nothing is kept"}),
)


@pytest.mark.parametrize(
    ("turns", "found"),
    [([httpx.Response(204)], True), ([UNKNOWN], False), ([LOST, UNKNOWN], True)],
)
def test_to_forget_twice_is_to_forget(turns: list[httpx.Response | Exception], found: bool) -> None:
    with client_of(Script(*turns)) as client:
        assert client.run(forget_call("ann"), stopped=Waits()) is found


def test_another_404_is_no_forgotten_person() -> None:
    with client_of(Script(httpx.Response(404))) as client, pytest.raises(RefusedError):
        client.run(forget_call("ann"))


def test_the_first_attempt_is_the_only_one_where_it_must_be() -> None:
    script = Script(LOST)
    with client_of(script) as client, pytest.raises(UnreachableError):
        client.run(models_call(), retries=0)
    assert len(script.requests) == 1
