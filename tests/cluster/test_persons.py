"""What is kept of persons, with three replicas and one PostgreSQL that comes and goes."""

import asyncio
import json
import time
from threading import Event, Thread

import httpx

from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.load import Connection, load
from tests.postgres import Server
from tests.service.dummy import encoded
from tests.service.dummy_faces import photo_of

ROUNDS, POSTS = 200, 64


def face(grey: int) -> bytes:
    """A photo of a face; the lighter its grey, the larger the distance."""
    return encoded(photo_of((20, 15, 30, "red"), size=(80, 60), grey=grey))


async def offer(connection: Connection, person: str, body: bytes) -> tuple[int, float | None]:
    """POST a photo of a person; the status, and the photo's own distance."""
    path = f"/persons/{person}/emoji?size=64"
    status, content = await connection.ask("POST", path, body, "application/json")
    if status != 200:
        return status, None
    return status, float(json.loads(content)["photos"][0]["f_distance"])


def test_of_posts_at_once_the_smallest_distance_is_kept(whole: Cluster) -> None:
    """Eq. 8 across replicas: 64 concurrent posts for one person, 200 times."""
    photos = [face(80 + 2 * i) for i in range(POSTS)]

    async def all_rounds() -> list[str]:
        connections = [Connection(whole.url) for _ in range(POSTS)]
        wrong = []
        for number in range(ROUNDS):
            person = f"round-{number}"
            # The smallest comes from another place in the crowd each time.
            turned = photos[number % POSTS :] + photos[: number % POSTS]
            offers = zip(connections, turned, strict=True)
            answers = await asyncio.gather(*(offer(c, person, body) for c, body in offers))
            distances = [distance for status, distance in answers if status == 200]
            _, content = await connections[0].ask("GET", f"/persons/{person}")
            kept = json.loads(content)["emojis"][0]["f_distance"]
            if len(distances) != POSTS or kept != min(filter(None, distances)):
                wrong.append(f"{person}: {kept} of {sorted(answers)[:3]}")
        for connection in connections:
            connection.close()
        return wrong

    assert asyncio.run(all_rounds()) == []
    ended = [replica.process.poll() for replica in whole.replicas if replica.process]
    assert ended == [None] * 3


class Visitors:
    """One client that keeps offering photos of ever new persons, and remembers what it was told."""

    def __init__(self, url: str) -> None:
        self.url, self.stop = url, Event()
        self.acknowledged: dict[str, float] = {}
        self.statuses: list[int] = []
        self.thread = Thread(target=asyncio.run, args=(self.visit(),))

    async def visit(self) -> None:
        connection, photos = Connection(self.url), [face(80 + i) for i in range(0, 100, 10)]
        number = 0
        while not self.stop.is_set():
            person = f"visitor-{id(self)}-{number}"
            status, distance = await offer(connection, person, photos[number % len(photos)])
            self.statuses.append(status)
            if distance is not None:
                self.acknowledged[person] = distance
            number += 1
        connection.close()

    def wait_for(self, status: int) -> None:
        """Until a request from now on is answered so."""
        seen = len(self.statuses)
        wait_until(lambda: status in self.statuses[seen:], f"a {status}")


def test_a_database_that_restarts_loses_nothing_that_was_acknowledged(
    whole: Cluster, database: Server, photo: bytes, expected: bytes
) -> None:
    """While it is away persons' routes say 503, and nothing else does; then they recover."""
    visitors = Visitors(whole.url)
    with load(whole.url, "/transfer", photo, expected, clients=4) as counted:
        visitors.thread.start()
        try:
            for end in (database.stop, database.kill):
                visitors.wait_for(200)
                end()
                visitors.wait_for(503)
                before = counted.total
                wait_until(lambda before=before: counted.total > before + 100, "others' answers")
                database.start()
                visitors.wait_for(200)
        finally:
            visitors.stop.set()
            visitors.thread.join()
            database.start()
    assert set(visitors.statuses) == {200, 503}
    assert counted.failed == 0, counted
    with httpx.Client(base_url=whole.url, timeout=60) as client:
        for person, distance in visitors.acknowledged.items():
            answer = client.get(f"/persons/{person}")
            assert answer.status_code == 200, person
            assert answer.json()["emojis"][0]["f_distance"] == distance


def test_the_answer_without_a_database_is_quick(whole: Cluster, database: Server) -> None:
    database.stop()
    try:
        start = time.monotonic()
        answer = httpx.get(f"{whole.url}/persons/ann", timeout=120)
        took = time.monotonic() - start
    finally:
        database.start()
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert took < 60  # four tries, on a machine that may be busy
    wait_until(
        lambda: httpx.get(f"{whole.url}/persons/ann", timeout=60).status_code == 404, "recovery"
    )
