import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from service import server
from service.server import ServeError, listen
from service.settings import MIB

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
RAW = {"content-type": "image/png"}


@contextmanager
def dtn_serve(models: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of `dtn serve` that is ready, and its URL."""
    environment = {f"DTN_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--port", "0"],
        env=os.environ | {"DTN_MODELS": str(models)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        try:
            url = ""
            for line in process.stderr:
                url = url or "".join(re.findall(r"listening on (http\S+)", line))
                if " ready: " in line:
                    break
            yield process, url
        finally:
            process.kill()


def resident_bytes(process: subprocess.Popen[str]) -> int:
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("chunked", [False, True])
def test_memory_stays_flat_while_an_upload_is_far_too_large(
    models_dir: Path, photo: bytes, chunked: bool
) -> None:
    sent = 0
    peak = 0

    def body() -> Iterator[bytes]:
        nonlocal sent, peak
        while sent < 60 * MIB:
            yield bytes(MIB)
            sent += MIB
            peak = max(peak, resident_bytes(process))

    length = {} if chunked else {"content-length": str(60 * MIB)}
    with dtn_serve(models_dir) as (process, url):
        assert httpx.post(f"{url}/transfer", content=photo, headers=RAW).status_code == 200
        before = resident_bytes(process)
        response = httpx.post(f"{url}/transfer", content=body(), headers=RAW | length, timeout=30)
        after = resident_bytes(process)
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"
    assert response.headers["connection"] == "close"
    # Chunks are kept until they exceed the limit of 20 MiB; a length is refused at once.
    allowed = 24 * MIB if chunked else 8 * MIB
    assert max(peak, after) - before < allowed


def read_all(connection: socket.socket) -> bytes:
    """What a server sends until it closes the connection."""
    connection.settimeout(10)
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port))


def test_a_refusal_is_sent_before_the_body_has_come(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(
            b"POST /transfer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 62914560\r\n\r\n"
        )
        connection.settimeout(5)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_an_upload_nobody_wants_is_not_taken_for_ever(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.middleware.LINGER_S", 0.3)
    with connect(client) as connection:
        connection.sendall(
            b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
        )
        start = time.monotonic()
        assert b"HTTP/1.1 404 " in read_all(connection)
        assert time.monotonic() - start < 5


def test_a_refused_request_with_a_small_body_keeps_its_connection(client: httpx.Client) -> None:
    response = client.post("/nowhere", content=b"small")
    assert response.status_code == 404
    assert response.headers.get("connection") != "close"


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        b"POST /transfer HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /transfer HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"PUT / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nX-Large: " + b"x" * 300_000,
        b"GET /" + b"x" * 300_000,
    ],
)
def test_what_is_no_http_is_a_bad_request(client: httpx.Client, sent: bytes) -> None:
    with connect(client) as connection:
        connection.sendall(sent)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert b"x-request-id: " in head
    assert b'"code":"bad_request"' in body


@pytest.mark.parametrize(("sent", "answer"), [(b"", b""), (b"GET / HT", b"HTTP/1.1 400 ")])
def test_a_head_that_does_not_come_is_not_waited_for(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, sent: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.2)
    with connect(client) as connection:
        connection.sendall(sent)
        assert read_all(connection)[: len(b"HTTP/1.1 400 ")] == answer


def test_a_connection_serves_many_requests_and_tells_no_server(client: httpx.Client) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n%s\r\n"
    with connect(client) as connection:
        connection.sendall(request % b"" + request % b"Connection: close\r\n")
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b"server:" not in answers.lower()


def accepts(address: httpx.URL) -> bool:
    """Whether the server still takes connections."""
    try:
        socket.create_connection((address.host, address.port or 0)).close()
    except ConnectionRefusedError:
        return False
    time.sleep(0.05)
    return True


def test_sigterm_turns_readiness_off_then_finishes_what_is_in_flight(
    models_dir: Path, photo: bytes
) -> None:
    with dtn_serve(models_dir, drain_delay_s=2.0) as (process, url):
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0)) as connection:
            connection.sendall(
                b"POST /transfer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: %d\r\n\r\n" % len(photo)
            )
            connection.sendall(photo[:-1])
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while (ready := httpx.get(f"{url}/health/ready")).status_code == 200:
                assert time.monotonic() < deadline
            assert ready.status_code == 503
            assert ready.json()["code"] == "draining"
            assert "retry-after" in ready.headers
            # The port is still open: a balancer may not have noticed yet.
            time.sleep(0.4)
            response = httpx.post(f"{url}/transfer", content=photo, headers=RAW)
            assert response.status_code == 200
            deadline = time.monotonic() + 10
            while accepts(address):
                assert time.monotonic() < deadline
            connection.sendall(photo[-1:])
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
        assert process.wait(timeout=10) == 0


def test_an_idle_server_leaves_at_once(models_dir: Path) -> None:
    with dtn_serve(models_dir) as (process, url):
        with httpx.Client(base_url=url) as client:
            client.get("/health/live")  # leaves an idle connection open
            process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            assert process.wait(timeout=10) == 0
        assert time.monotonic() - start < 3


def test_an_address_that_cannot_be_had_is_a_clear_error() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port}: Address already in use"):
            listen("127.0.0.1", port)
    with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)
