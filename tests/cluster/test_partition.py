"""A replica whose network is cut: in a network namespace of its own, so root alone can test it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import cluster
from tests.cluster.load import go_on, load

NETWORK = f"dtn-{os.getpid()}"
LINK, PEER = f"dtn{os.getpid()}a", f"dtn{os.getpid()}b"
OURS, THEIRS = "10.253.97.1", "10.253.97.2"


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def apart() -> Iterator[tuple[str, ...]]:
    """The words before a command that put it into a network of its own, linked to this one."""
    try:
        made = ip("netns", "add", NETWORK)
    except FileNotFoundError:
        pytest.skip("no program `ip` (Debian's iproute2)")
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    inside = ("-n", NETWORK)
    try:
        for words in (
            ("link", "add", LINK, "type", "veth", "peer", "name", PEER, "netns", NETWORK),
            ("addr", "add", f"{OURS}/30", "dev", LINK),
            ("link", "set", LINK, "up"),
            (*inside, "addr", "add", f"{THEIRS}/30", "dev", PEER),
            (*inside, "link", "set", PEER, "up"),
            (*inside, "link", "set", "lo", "up"),
        ):
            done = ip(*words)
            if done.returncode:
                pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
        yield ("ip", "netns", "exec", NETWORK)
    finally:
        ip("link", "del", LINK)
        ip("netns", "del", NETWORK)


def test_a_replica_that_cannot_be_reached_fails_no_request(
    apart: tuple[str, ...], models: Path, tmp_path: Path, photo: bytes, expected: bytes
) -> None:
    addresses = ["127.0.2.1", "127.0.2.2", THEIRS]
    database = f"sqlite:///{tmp_path}/dtn.db"
    with (
        cluster(tmp_path, models, addresses, ((), (), apart), DTN_DATABASE_URL=database) as three,
        load(three.url, "/transfer", photo, expected) as counted,
    ):
        go_on(counted, 100)
        assert ip("-n", NETWORK, "link", "set", PEER, "down").returncode == 0
        three.wait_until_up(2)
        go_on(counted, 500)
        assert ip("-n", NETWORK, "link", "set", PEER, "up").returncode == 0
        three.wait_until_up(3)
    assert counted.failed == 0, counted
