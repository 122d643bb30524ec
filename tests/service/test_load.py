"""What happens when more is asked than can be answered at once."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.models import Models
from tests.service.conftest import Gated
from tests.service.test_routes import RAW, OpenServer, problem


def test_other_requests_are_answered_while_a_model_runs(
    open_server: OpenServer, gated: Gated, photo: bytes
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1) as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.post, "/transfer", content=photo, headers=RAW)
        assert gated.started.acquire(timeout=10)
        start = time.monotonic()
        for _ in range(10):
            assert client.get("/health/live").status_code == 200
        assert time.monotonic() - start < 2
        assert not answer.done()
        gated.go.set()
        assert answer.result().status_code == 200


def test_one_more_than_the_queue_holds_is_refused_at_once(
    open_server: OpenServer, gated: Gated, photo: bytes
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, max_queue=1) as client, ThreadPoolExecutor() as pool:
        answers = [
            pool.submit(client.post, "/transfer", content=photo, headers=RAW) for _ in range(6)
        ]
        # Of six, one runs and one waits; the other four are answered while nothing moves.
        deadline = time.monotonic() + 10
        while sum(answer.done() for answer in answers) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = [answer.result() for answer in answers if answer.done()]
        assert len(refused) == 4
        for response in refused:
            problem(response, "queue_full")
        gated.go.set()
        assert sorted(answer.result().status_code for answer in answers) == [200] * 2 + [429] * 4


def test_a_full_queue_refuses_before_the_body_has_come(
    open_server: OpenServer, gated: Gated, photo: bytes
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, max_queue=0) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/transfer", content=photo, headers=RAW)
        assert gated.started.acquire(timeout=10)
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(
                b"POST /transfer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: 1000000\r\n\r\n"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")
        gated.go.set()
        assert first.result().status_code == 200


def test_a_late_answer_is_not_waited_for(
    open_server: OpenServer, gated: Gated, photo: bytes
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, deadline_s=0.3) as client:
        start = time.monotonic()
        response = client.post("/transfer", content=photo, headers=RAW)
        assert time.monotonic() - start < 5
        assert "0.3 seconds" in problem(response, "deadline_exceeded")["detail"]
        gated.go.set()
        assert client.post("/transfer", content=photo, headers=RAW).status_code == 200


def test_work_that_waits_is_dropped_when_its_client_leaves(
    open_server: OpenServer, gated: Gated, photo: bytes
) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, max_queue=1) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/transfer", content=photo, headers=RAW)
        assert gated.started.acquire(timeout=10)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/transfer", content=photo, headers=RAW, timeout=0.3)
        time.sleep(0.2)  # for the server to notice
        third = pool.submit(client.post, "/transfer", content=photo, headers=RAW)
        gated.go.set()
        assert (first.result().status_code, third.result().status_code) == (200, 200)
        assert gated.runs == 2


def test_an_upload_that_stalls_is_given_up(open_server: OpenServer, photo: bytes) -> None:
    def stalling() -> Any:
        yield photo[:10]
        time.sleep(1)
        yield photo[10:]

    with open_server(upload_timeout_s=0.3) as client:
        response = client.post("/transfer", content=stalling(), headers=RAW)
        problem(response, "deadline_exceeded")
