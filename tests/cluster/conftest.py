"""A cluster of three, with a PostgreSQL, for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.cluster.cluster import Cluster, cluster, program
from tests.postgres import Server, missing, postgres
from tests.service.dummy import encoded, noise, write_model
from tests.service.dummy_faces import write_face_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need the programs, and the marker by which they can be chosen."""
    reason = missing() or ("" if program() else "no HAProxy is installed")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cluster-models")
    write_model(directory)
    write_face_model(directory)
    return directory


@pytest.fixture(scope="package")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgres(tmp_path_factory.mktemp("cluster-postgres")) as server:
        yield server


@pytest.fixture(scope="package")
def three(
    models: Path, database: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    addresses = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
    with cluster(folder, models, addresses, DTN_DATABASE_URL=database.url) as running:
        yield running


@pytest.fixture
def whole(three: Cluster) -> Cluster:
    """The cluster with all three replicas up, whatever an earlier test did to it."""
    for replica in three.replicas:
        if replica.process is None or replica.process.poll() is not None:
            replica.start()
    three.wait_until_up(3)
    return three


@pytest.fixture(scope="package")
def photo() -> bytes:
    return encoded(Image.fromarray(noise(32, 32)))


@pytest.fixture(scope="package")
def expected(three: Cluster, photo: bytes) -> bytes:
    """What a replica, asked directly, makes of the photo."""
    headers = {"content-type": "image/png"}
    answer = httpx.post(f"{three.replicas[0].url}/transfer", content=photo, headers=headers)
    assert answer.status_code == 200
    return answer.content
