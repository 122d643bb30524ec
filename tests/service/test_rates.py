from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from service import rates
from service.app import create_app
from service.middleware import OPEN_PATHS
from service.models import Models
from service.rates import Buckets, client_of
from service.settings import Settings
from tests.service.test_lifecycle import call
from tests.service.test_routes import problem

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]


class Clock:
    """time.monotonic() that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rates, "time", clock)
    return clock


def test_a_burst_then_the_rate(clock: Clock) -> None:
    buckets = Buckets(rate=2.0, burst=3.0)
    assert [buckets.take("ann") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("bob") == 0.0
    clock.now += 0.4
    assert buckets.take("ann") == pytest.approx(0.1)
    clock.now += 0.11
    assert buckets.take("ann") == 0.0
    assert buckets.take("ann") == pytest.approx(0.49)


def test_over_a_long_time_the_rate_holds(clock: Clock) -> None:
    buckets = Buckets(rate=10.0, burst=1.0)
    admitted = 0
    for _ in range(1000):  # ten seconds, a hundred requests in each
        admitted += buckets.take("ann") == 0.0
        clock.now += 0.01
    assert 99 <= admitted <= 101


@pytest.mark.parametrize(("rate", "burst", "expected"), [(5, 0, 10), (0.1, 0, 1), (5, 2, 2)])
def test_the_burst_is_twice_the_rate_and_at_least_one(
    clock: Clock, rate: float, burst: float, expected: int
) -> None:
    buckets = Buckets(rate, burst)
    waits = [buckets.take("ann") for _ in range(expected + 1)]
    assert waits == [*[0.0] * expected, pytest.approx(1 / rate)]


def test_a_pause_is_not_worth_more_than_a_burst(clock: Clock) -> None:
    buckets = Buckets(rate=2.0, burst=2.0)
    buckets.take("ann")
    clock.now += 3600
    assert [buckets.take("ann") == 0.0 for _ in range(3)] == [True, True, False]


def test_idle_clients_are_forgotten(clock: Clock) -> None:
    buckets = Buckets(rate=1.0, burst=1.0)
    for number in range(20):
        buckets.take(f"client {number}")
    assert len(buckets.clients) == 20
    clock.now += 1.5
    for _ in range(20):
        buckets.take("client 19")
    assert list(buckets.clients) == ["client 19"]


def test_no_more_clients_are_remembered_than_there_is_room_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "MAX_CLIENTS", 100)
    buckets = Buckets(rate=0.001, burst=1.0)
    for number in range(300):
        assert buckets.take(f"client {number}") == 0.0
        assert buckets.take("busy") > 0.0 or number == 0
        assert len(buckets.clients) <= 101
    assert buckets.take("client 299") > 0.0


@pytest.mark.parametrize(
    ("scope", "client"),
    [
        ({"client": ("192.0.2.1", 5000)}, "192.0.2.1"),
        ({"client": ("2001:db8:1:2:3:4:5:6", 5000)}, "2001:db8:1:2::/64"),
        ({"client": ("2001:db8:1:2::9", 5001)}, "2001:db8:1:2::/64"),
        ({"client": ("::ffff:192.0.2.1", 5000)}, "192.0.2.1"),
        ({"client": ("fe80::1%eth0", 5000)}, "fe80::/64"),
        ({"client": None}, ""),
        ({}, ""),
        ({"client": ("192.0.2.1", 5000), "state": {"key": 1}}, "key 1"),
    ],
)
def test_a_client_is_a_key_or_an_address(scope: dict[str, Any], client: str) -> None:
    assert client_of({"state": {}} | scope) == client


@pytest.fixture
def limited(open_server: OpenServer) -> Iterator[httpx.Client]:
    with open_server(rate_limit=0.25, rate_burst=2) as client:
        yield client


def test_too_many_requests_are_refused(limited: httpx.Client) -> None:
    for _ in range(2):
        assert limited.get("/models").status_code == 200
    for response in (limited.get("/models"), limited.post("/transfer"), limited.get("/nowhere")):
        problem(response, "rate_limited")
        assert 1 <= int(response.headers["retry-after"]) <= 4
    for path in OPEN_PATHS:
        assert limited.get(path).status_code in (200, 307)


def test_each_key_has_a_rate_of_its_own(open_server: OpenServer) -> None:
    with open_server(rate_limit=0.01, rate_burst=1, api_keys="one,two") as client:
        for key in ("one", "two"):
            assert client.get("/models", headers={"x-api-key": key}).status_code == 200
        bearer = {"authorization": "Bearer one"}
        problem(client.get("/models", headers=bearer), "rate_limited")
        for _ in range(2):
            problem(client.get("/models", headers={"x-api-key": "three"}), "unauthorized")


def test_without_a_setting_there_is_no_limit(models: Models) -> None:
    app = create_app(Settings(), models)
    assert all(call(app, "GET", "/models").status_code == 200 for _ in range(50))


def test_openapi_tells_of_the_limit_where_there_is_one(limited: httpx.Client) -> None:
    paths = limited.get("/openapi.json").json()["paths"]

    def codes(method: str, path: str) -> list[str]:
        content = paths[path][method]["responses"]["429"]["content"]
        found: list[str] = content["application/problem+json"]["schema"]["properties"]["code"][
            "enum"
        ]
        return found

    assert codes("get", "/models") == ["rate_limited"]
    assert codes("post", "/transfer") == ["queue_full", "rate_limited"]
    assert "429" not in paths["/health/live"]["get"]["responses"]
