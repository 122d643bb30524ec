"""Replicas end, stall and come back while load runs: nobody notices."""

import signal

from tests.cluster.cluster import Cluster
from tests.cluster.load import go_on, load

ENOUGH = 10_000  # requests of a rolling restart


def test_rolling_restarts_fail_no_request(whole: Cluster, photo: bytes, expected: bytes) -> None:
    rounds = 0
    with load(whole.url, "/transfer", photo, expected) as counted:
        while rounds == 0 or counted.total < ENOUGH:
            for replica in whole.replicas:
                assert replica.stop() == 0
                replica.start()
                whole.wait_until_up(3)
            rounds += 1
    assert counted.total >= ENOUGH
    assert counted.failed == 0, counted


def test_a_killed_replica_fails_no_request(whole: Cluster, photo: bytes, expected: bytes) -> None:
    with load(whole.url, "/transfer", photo, expected) as counted:
        for replica in whole.replicas:
            go_on(counted, 200)
            replica.kill()
            whole.wait_until_up(2)
            replica.start()
            whole.wait_until_up(3)
    assert counted.failed == 0, counted


def test_a_stalled_replica_is_left_out_and_taken_back(
    whole: Cluster, photo: bytes, expected: bytes
) -> None:
    """SIGSTOP: it takes connections and never answers. What it had goes to another."""
    stalled = whole.replicas[1]
    with load(whole.url, "/transfer", photo, expected) as counted:
        go_on(counted, 100)
        stalled.signal(signal.SIGSTOP)
        try:
            whole.wait_until_up(2)
            go_on(counted, 500)
        finally:
            stalled.signal(signal.SIGCONT)
        whole.wait_until_up(3)
    assert counted.failed == 0, counted


def test_replicas_are_found_and_forgotten_by_their_name(
    whole: Cluster, photo: bytes, expected: bytes
) -> None:
    """`docker compose up --scale api=2`, and back."""
    addresses = list(whole.addresses)
    with load(whole.url, "/transfer", photo, expected, clients=4) as counted:
        whole.addresses[:] = addresses[:2]
        whole.wait_until_up(2)
        whole.addresses[:] = addresses
        whole.wait_until_up(3)
    assert counted.total > 0 and counted.failed == 0, counted
