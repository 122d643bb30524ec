"""Databases for all tests that want one; as PostgreSQL TEST_POSTGRES_URL's, else one of ours."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.postgres import missing, postgres


@pytest.fixture(scope="session")
def any_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database in which tests may delete our tables."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given
    elif missing():
        pytest.skip(f"no TEST_POSTGRES_URL, and {missing()}")
    else:
        with postgres(tmp_path_factory.mktemp("postgres")) as server:
            yield server.url


@pytest.fixture
def postgres_url(any_postgres: str) -> str:
    """The URL of a database that has none of our tables."""
    engine = create_engine(make_url(any_postgres).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS person_emojis, dtn_revision"))
    engine.dispose()
    return any_postgres


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an SQLite, then of a PostgreSQL, without our tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/dtn.db"
    return str(request.getfixturevalue("postgres_url"))
