"""What the balancer answers by itself, and what it passes on."""

import httpx

from tests.cluster.cluster import Cluster


def test_without_a_replica_the_answer_is_a_problem(whole: Cluster) -> None:
    addresses = list(whole.addresses)
    whole.addresses.clear()
    try:
        whole.wait_until_up(0)
        answer = httpx.post(
            f"{whole.url}/transfer", content=b"x", headers={"x-request-id": "mine"}, timeout=30
        )
    finally:
        whole.addresses[:] = addresses
        whole.wait_until_up(3)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["code"] == "not_ready" and answer.json()["request_id"] == "mine"


def test_the_replicas_own_errors_pass_through(whole: Cluster) -> None:
    headers = {"content-type": "image/png", "x-request-id": "mine"}
    answer = httpx.post(f"{whole.url}/transfer", content=b"no picture", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "not_an_image")
    assert answer.headers["x-request-id"] == "mine"


def test_a_request_without_an_id_gets_one(whole: Cluster) -> None:
    answer = httpx.get(f"{whole.url}/health/ready")
    assert len(answer.headers["x-request-id"]) >= 8


def test_uploads_of_many_buffers_reach_a_replica(whole: Cluster) -> None:
    """5 MB is more than a buffer holds: it goes through, though it could not be sent twice."""
    headers = {"content-type": "image/png"}
    answer = httpx.post(
        f"{whole.url}/transfer", content=b"\x89PNG" + bytes(5_000_000), headers=headers, timeout=60
    )
    assert answer.json()["code"] == "not_an_image"


def test_an_id_that_is_none_is_not_passed_on(whole: Cluster) -> None:
    """It would stand in the balancer's own JSON as it came."""
    addresses = list(whole.addresses)
    whole.addresses.clear()
    try:
        whole.wait_until_up(0)
        headers = {"x-request-id": 'a","code":"owned'}
        answer = httpx.get(f"{whole.url}/models", headers=headers, timeout=30)
    finally:
        whole.addresses[:] = addresses
        whole.wait_until_up(3)
    assert answer.json()["code"] == "not_ready"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_a_delete_is_not_repeated_nor_refused(whole: Cluster) -> None:
    assert httpx.delete(f"{whole.url}/persons/nobody", timeout=30).status_code == 404


def test_one_replica_is_not_administered_by_chance(whole: Cluster) -> None:
    answer = httpx.post(f"{whole.url}/admin/reload")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "ask a replica" in answer.json()["detail"]


def test_the_exporter_tells_of_every_replica(whole: Cluster) -> None:
    text = httpx.get(f"{whole.metrics}/metrics").text
    assert text.count('state="UP"} 1') >= 3 and "haproxy_server_retry_warnings_total" in text
    assert httpx.get(f"{whole.metrics}/stats").status_code == 200
