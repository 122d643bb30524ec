import multiprocessing
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import text

from service.problems import Problem
from service.store import PersonStore, StoreError, data_file, open_engine

PNG = b"\x89PNG one"
OTHER = b"\x89PNG two"
Open = Callable[[], PersonStore]


@pytest.fixture
def opened(database_url: str) -> Iterator[Open]:
    """Opens further stores of the database, as replicas and restarts do."""
    stores: list[PersonStore] = []

    def open_another() -> PersonStore:
        stores.append(PersonStore(database_url))
        return stores[-1]

    yield open_another
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Open) -> PersonStore:
    return opened()


def test_the_first_emoji_is_kept(store: PersonStore) -> None:
    kept, taken = store.offer("ann", "emoji", "1", PNG, 0.5, 3)
    assert taken
    assert (kept.reference, kept.png, kept.f_distance, kept.photo) == ("emoji@1", PNG, 0.5, 3)
    assert datetime.now(UTC) - kept.updated < timedelta(minutes=1)
    assert kept.created == kept.updated
    assert store.best("ann", "emoji") == kept
    assert store.all("ann") == [kept]


def test_only_a_smaller_distance_takes_its_place(store: PersonStore) -> None:
    first, _ = store.offer("ann", "emoji", "1", PNG, 0.5, 0)
    assert store.offer("ann", "emoji", "1", OTHER, 0.5, 1) == (first, False)
    assert store.offer("ann", "emoji", "1", OTHER, 0.6, 1) == (first, False)
    better, taken = store.offer("ann", "emoji", "1", OTHER, 0.4, 2)
    assert taken
    assert (better.png, better.f_distance, better.photo) == (OTHER, 0.4, 2)
    assert better.created == first.created
    assert better.updated > first.updated
    assert better.etag != first.etag


def test_another_version_starts_anew(store: PersonStore) -> None:
    store.offer("ann", "emoji", "1", PNG, 0.1, 0)
    kept, taken = store.offer("ann", "emoji", "2", OTHER, 0.9, 0)
    assert taken
    assert (kept.reference, kept.f_distance) == ("emoji@2", 0.9)


def test_persons_and_models_are_kept_apart(store: PersonStore) -> None:
    store.offer("ann", "emoji", "1", PNG, 0.1, 0)
    assert store.offer("ann", "other", "1", PNG, 0.9, 0)[1]
    assert store.offer("Ann", "emoji", "1", PNG, 0.9, 0)[1]
    assert [kept.model for kept in store.all("ann")] == ["emoji", "other"]
    assert store.best("bob", "emoji") is None


def test_a_restart_keeps_the_minimum(opened: Open) -> None:
    first = opened()
    kept, _ = first.offer("ann", "emoji", "1", PNG, 0.5, 0)
    first.close()
    assert opened().offer("ann", "emoji", "1", OTHER, 0.6, 0) == (kept, False)


def test_a_forgotten_person_is_gone(store: PersonStore) -> None:
    store.offer("ann", "emoji", "1", PNG, 0.5, 0)
    store.offer("ann", "other", "1", PNG, 0.5, 0)
    store.offer("bob", "emoji", "1", PNG, 0.5, 0)
    assert store.forget("ann")
    assert store.all("ann") == []
    assert not store.forget("ann")
    assert store.best("bob", "emoji") is not None


def test_of_a_forgotten_person_nothing_is_left_in_the_file(tmp_path: Path) -> None:
    store = PersonStore(f"sqlite:///{tmp_path}/dtn.db")
    png = os.urandom(9000)
    store.offer("a-rather-long-person-id", "emoji", "1", png, 0.5, 0)
    store.offer("bob", "emoji", "1", PNG, 0.5, 0)

    def written() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert b"a-rather-long-person-id" in written()
    assert store.forget("a-rather-long-person-id")
    assert b"a-rather-long-person-id" not in written()
    assert png[100:140] not in written()
    store.close()


# Many at once

OFFERS = 40


def offer_many(url: str, start: int) -> int:
    """Offer distances in an order of their own; how many were taken."""
    store = PersonStore(url)
    taken = 0
    for i in range(OFFERS):
        distance = (start * 31 + i * 17) % 101 / 7 + 1 + start / 1000
        taken += store.offer("ann", "emoji", "1", b"%r" % distance, distance, i)[1]
    store.close()
    return taken


def least() -> float:
    return min((s * 31 + i * 17) % 101 / 7 + 1 + s / 1000 for s in range(6) for i in range(OFFERS))


def test_threads_never_lose_the_minimum(database_url: str, store: PersonStore) -> None:
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(offer_many, [database_url] * 6, range(6)))
    kept = store.best("ann", "emoji")
    assert kept is not None
    assert kept.f_distance == least()
    assert kept.png == b"%r" % least()
    assert 1 <= sum(taken) <= 6 * OFFERS


def test_processes_never_lose_the_minimum(database_url: str, store: PersonStore) -> None:
    """They also make file and tables at the same time."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(3) as pool:
        pool.starmap(offer_many, [(database_url, start) for start in range(6)])
    kept = store.best("ann", "emoji")
    assert kept is not None
    assert kept.f_distance == least()


def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    """SQLite refuses to turn a file to WAL mode for two at a time: one in six such files, here."""
    for i in range(60):
        barrier = Barrier(6)

        def connect(url: str, barrier: Barrier = barrier) -> None:
            engine = open_engine(url)
            barrier.wait()
            with engine.connect() as connection:
                assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            engine.dispose()

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(connect, [f"sqlite:///{tmp_path}/{i}.db"] * 6))


# Databases that are not there


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    store = PersonStore(f"sqlite:///{tmp_path}/new/dtn.db")
    assert not (tmp_path / "new").exists()
    store.all("ann")
    assert (tmp_path / "new" / "dtn.db").exists()
    store.close()


@pytest.mark.parametrize(
    "address", ["sqlite:///{tmp}/file/dtn.db", "sqlite:///{tmp}", "sqlite:///{tmp}/file"]
)
def test_a_database_that_cannot_be_used_is_a_problem(tmp_path: Path, address: str) -> None:
    (tmp_path / "file").write_bytes(b"no database" * 1000)
    store = PersonStore(address.format(tmp=tmp_path))
    for use in (
        lambda: store.offer("ann", "emoji", "1", PNG, 0.5, 0),
        lambda: store.best("ann", "emoji"),
        lambda: store.all("ann"),
        lambda: store.forget("ann"),
    ):
        with pytest.raises(Problem) as raised:
            use()
        assert raised.value.code == "store_unavailable"
    store.close()


def test_a_postgresql_that_does_not_answer_is_a_problem() -> None:
    pytest.importorskip("psycopg")
    store = PersonStore("postgresql://user:hush@127.0.0.1:1/dtn")
    with pytest.raises(Problem) as raised:
        store.all("ann")
    assert raised.value.code == "store_unavailable"
    assert "hush" not in raised.value.detail
    store.close()


def test_a_database_that_comes_back_empty_gets_its_table_again(tmp_path: Path) -> None:
    path = tmp_path / "dtn.db"
    store = PersonStore(f"sqlite:///{path}")
    store.offer("ann", "emoji", "1", PNG, 0.5, 0)
    connection = sqlite3.connect(path)
    for table in ("person_emojis", "dtn_revision"):
        connection.execute(f"DROP TABLE {table}")
    connection.close()
    with pytest.raises(Problem):
        store.all("ann")
    assert store.all("ann") == []
    store.close()


@pytest.mark.parametrize(
    "address",
    [
        "mysql://user:hush@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "hush",
        "",
        "nosuch://user:hush@host",
    ],
)
def test_other_databases_are_refused(address: str) -> None:
    if not address:
        assert str(PersonStore(address).engine.url).startswith("sqlite:////")
        return
    with pytest.raises(StoreError, match="DTN_DATABASE_URL") as refused:
        PersonStore(address)
    assert "hush" not in str(refused.value)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        StoreError, match=r'psycopg is not installed; pip install "dtn\[postgres\]"'
    ):
        PersonStore("postgresql://user:hush@host/db")


@pytest.mark.parametrize(
    ("platform", "variable", "ending"),
    [
        ("linux", "XDG_DATA_HOME", "data/dtn/dtn.db"),
        ("linux", "", ".local/share/dtn/dtn.db"),
        ("darwin", "", "Library/Application Support/dtn/dtn.db"),
        ("win32", "LOCALAPPDATA", "data/dtn/dtn.db"),
        ("win32", "", "AppData/Local/dtn/dtn.db"),
    ],
)
def test_the_default_file_is_where_the_platform_keeps_data(
    monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, ending: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "data")
    assert data_file().as_posix().endswith(ending)
