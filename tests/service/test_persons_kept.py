"""Persons over requests, restarts and replicas, and without a database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.models import load_models
from tests.service.dummy import encoded, write_model
from tests.service.dummy_faces import photo_of, write_face_model
from tests.service.test_persons import FAR, NEAR, NONE, RED, OpenServer, files, post
from tests.service.test_routes import RAW, problem


def test_posts_at_the_same_time_never_lose_the_minimum(
    open_server: OpenServer, person: str
) -> None:
    """Two servers on one database, twelve clients."""
    photos = [encoded(photo_of(RED, grey=grey)) for grey in range(60, 180, 10)]
    with open_server() as one, open_server() as other, ThreadPoolExecutor(12) as pool:
        posted = list(
            pool.map(lambda i: post((one, other)[i % 2], person, photos[i]), reversed(range(12)))
        )
        (kept,) = one.get(f"/persons/{person}").json()["emojis"]
        least = min(answer["photos"][0]["f_distance"] for answer in posted)
        assert kept["f_distance"] == least
        assert all(answer["f_distance"] <= answer["photos"][0]["f_distance"] for answer in posted)


def test_a_restart_keeps_the_minimum(open_server: OpenServer, tmp_path: Path, person: str) -> None:
    url = f"sqlite:///{tmp_path}/dtn.db"
    with open_server(database_url=url) as client:
        first = post(client, person, NEAR)
    with open_server(database_url=url) as client:
        assert post(client, person, FAR)["chosen"] is None
        assert post(client, person, FAR)["f_distance"] == first["f_distance"]


def test_a_new_version_of_the_model_starts_anew(
    open_server: OpenServer, tmp_path: Path, person: str
) -> None:
    write_model(tmp_path)
    write_face_model(tmp_path, version="2")
    newer = load_models(tmp_path, "digits", "cpu", threads=1)
    with open_server() as old, open_server(newer) as new:
        post(old, person, NEAR)
        assert new.get(f"/persons/{person}/emoji").headers["x-model"] == "emoji@1"
        answer = post(new, person, FAR)
        assert (answer["model"], answer["chosen"]) == ("emoji@2", 0)


@pytest.fixture
def stored(open_server: OpenServer, tmp_path: Path, person: str) -> Iterator[bytes]:
    """All that the store has written after some requests."""
    with open_server(database_url=f"sqlite:///{tmp_path}/dtn.db") as client:
        named = [("files", ("secret-holiday.png", photo)) for photo in (NEAR, FAR, NONE)]
        response = client.post(f"/persons/{person}/emoji", files=named)
        assert response.status_code == 200
        yield b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_no_photo_and_no_file_name_is_kept(stored: bytes, person: str) -> None:
    assert person.encode() in stored
    assert b"secret" not in stored
    for photo in (NEAR, FAR, NONE):
        start = photo.index(b"IDAT") + 4
        assert photo[start : start + 40] not in stored


def test_without_a_database_only_persons_are_refused(
    open_server: OpenServer, tmp_path: Path, person: str
) -> None:
    (tmp_path / "file").touch()
    with open_server(database_url=f"sqlite:///{tmp_path}/file/dtn.db") as client:
        for response in (
            client.post(f"/persons/{person}/emoji", **files(FAR)),
            client.get(f"/persons/{person}/emoji"),
            client.get(f"/persons/{person}"),
            client.delete(f"/persons/{person}"),
        ):
            problem(response, "store_unavailable")
        assert client.post("/emoji", content=FAR, headers=RAW).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_persons_want_a_key_where_one_is_set(open_server: OpenServer, person: str) -> None:
    with open_server(api_keys="one") as client:
        problem(client.get(f"/persons/{person}"), "unauthorized")
        problem(client.delete(f"/persons/{person}"), "unauthorized")
        key = {"x-api-key": "one"}
        problem(client.get(f"/persons/{person}", headers=key), "unknown_person")
