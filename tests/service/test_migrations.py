import logging
import multiprocessing
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner, Result
from sqlalchemy import Connection, column, inspect, table, text, update
from sqlalchemy.exc import OperationalError

from service import migrate
from service.cli import main
from service.migrate import TABLE, NewerDatabase, current, newest, upgrade
from service.problems import Problem
from service.store import Kept, PersonStore, emojis, metadata

PNG = b"\x89PNG one"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(database_url: str) -> Iterator[PersonStore]:
    store = PersonStore(database_url)
    yield store
    store.close()


@pytest.fixture
def connection(store: PersonStore) -> Iterator[Connection]:
    with store.connect() as connection:
        yield connection


def revision(store: PersonStore) -> str | None:
    with store.connect() as connection:
        return current(connection)


def execute(store: PersonStore, *statements: str) -> None:
    with store.connect() as connection, connection.begin():
        for statement in statements:
            connection.execute(text(statement))


def set_revision(store: PersonStore, revision: str) -> None:
    with store.connect() as connection, connection.begin():
        changed = update(table(TABLE, column("version_num"))).values(version_num=revision)
        assert connection.execute(changed).rowcount == 1


def offer(store: PersonStore) -> Kept:
    kept, _ = store.offer("ann", "emoji", "1", PNG, 0.5, 3)
    return kept


def test_the_first_use_makes_the_tables_of_the_newest_revision(store: PersonStore) -> None:
    assert revision(store) is None
    assert store.all("ann") == []
    assert revision(store) == newest()


def test_the_revisions_make_the_tables_that_the_code_uses(store: PersonStore) -> None:
    store.all("ann")
    with store.connect() as connection:
        ours = {*metadata.tables, TABLE}
        options = {
            "version_table": TABLE,
            "include_name": lambda name, kind, _: kind != "table" or name in ours,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_a_database_of_the_release_before_migrations_is_adopted(store: PersonStore) -> None:
    kept = offer(store)
    execute(store, f"DROP TABLE {TABLE}")  # which leaves what that release had made
    store.up_to_date = False
    assert store.all("ann") == [kept]
    assert revision(store) == newest()
    assert store.offer("ann", "emoji", "1", PNG, 0.6, 0) == (kept, False)


def test_a_newer_database_is_refused_and_left_alone(
    store: PersonStore, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = offer(store)
    set_revision(store, "9999")
    older = PersonStore(database_url)
    for use in (lambda: offer(older), lambda: older.all("ann"), lambda: older.forget("ann")):
        with pytest.raises(Problem, match="later release") as raised:
            use()
        assert raised.value.code == "store_unavailable"
    assert "revision 9999, this release knows no later than 0001" in caplog.text
    assert store.all("ann") == [kept]  # a replica that runs already goes on
    set_revision(store, newest())
    assert older.all("ann") == [kept]
    older.close()


# Revisions to come


@pytest.fixture
def add_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Adds a revision 0002 of some statements to those there are."""

    def add(body: str) -> None:
        scripts = tmp_path / "migrations 100%"  # % is special where Alembic reads its settings
        shutil.copytree(migrate.SCRIPTS, scripts)
        (scripts / "versions" / "v0002.py").write_text(
            "from alembic import op\n"
            "import sqlalchemy as sa\n"
            'revision, down_revision = "0002", "0001"\n'
            f"def upgrade():\n    {body}\n"
        )
        monkeypatch.setattr(migrate, "SCRIPTS", scripts)

    return add


def columns(store: PersonStore) -> set[str]:
    return {each["name"] for each in inspect(store.engine).get_columns(emojis.name)}


ADD_COLUMN = "op.add_column('person_emojis', sa.Column('note', sa.String(9)))"


def test_a_further_revision_keeps_what_is_stored(
    store: PersonStore, database_url: str, add_revision: Callable[[str], None]
) -> None:
    kept = offer(store)
    add_revision(ADD_COLUMN)
    newer = PersonStore(database_url)
    assert newer.all("ann") == [kept]
    assert columns(newer) == {*emojis.columns.keys(), "note"}
    assert revision(newer) == "0002"
    assert store.all("ann") == [kept]
    newer.close()


def test_a_revision_that_fails_half_way_changes_nothing(
    store: PersonStore, database_url: str, add_revision: Callable[[str], None]
) -> None:
    kept = offer(store)
    add_revision(ADD_COLUMN + "; op.drop_table('person_emojis'); op.execute('nonsense')")
    newer = PersonStore(database_url)
    with pytest.raises(Problem) as raised:
        newer.all("ann")
    assert raised.value.code == "store_unavailable"
    assert columns(store) == set(emojis.columns.keys())
    assert revision(store) == "0001"
    assert store.all("ann") == [kept]
    newer.close()


# Many at once


def upgrade_one(url: str) -> bool:
    store = PersonStore(url)
    with store.connect() as connection:
        done = upgrade(connection, 60)
    store.close()
    return done


def test_of_replicas_that_start_at_once_one_upgrades(database_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert sorted(pool.map(upgrade_one, [database_url] * 4)) == [False] * 3 + [True]


def test_who_is_kept_waiting_too_long_changes_nothing(
    store: PersonStore, connection: Connection, database_url: str
) -> None:
    other = PersonStore(database_url)
    with other.connect() as holding, holding.begin():
        migrate.begin_alone(holding, 60)
        with pytest.raises(OperationalError):
            upgrade(connection, 0.1)
    assert revision(store) is None
    assert upgrade(connection, 60)
    other.close()


def test_alembic_of_others_in_the_same_database_is_left_alone(store: PersonStore) -> None:
    execute(
        store,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('theirs')",
    )
    try:
        offer(store)
        with store.connect() as connection:
            theirs = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        assert theirs == "theirs"
    finally:
        execute(store, "DROP TABLE alembic_version")


def test_alembic_logs_only_what_goes_wrong(
    store: PersonStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        store.all("ann")
    assert caplog.messages == ["the database of persons: revision 0001, before none"]


# dtn database


@pytest.fixture
def dtn(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("DTN_DATABASE_URL", database_url)
    return lambda *arguments: CliRunner().invoke(main, ["database", *arguments])


def told(result: Result) -> tuple[int, str]:
    return result.exit_code, result.output.strip()


def test_the_command_upgrades_and_tells(dtn: Callable[..., Result]) -> None:
    assert told(dtn("current")) == (0, f"none: {newest()} is the newest")
    assert told(dtn("upgrade")) == (0, f"{newest()}: upgraded")
    assert told(dtn("upgrade")) == (0, f"{newest()}: was up to date")
    assert told(dtn("current")) == (0, f"{newest()}: up to date")


@pytest.mark.parametrize("command", ["current", "upgrade"])
def test_the_command_refuses_a_newer_database(
    store: PersonStore, dtn: Callable[..., Result], command: str
) -> None:
    offer(store)
    set_revision(store, "9999")
    code, output = told(dtn(command))
    assert code == 2
    assert output == f"Error: {NewerDatabase('9999')}"
    assert len(store.all("ann")) == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://user:hush@host/db", "sqlite:///FILE or postgresql://... is wanted"),
        ("sqlite:////proc/none/dtn.db", "unable to open|No such file"),
        ("postgresql://user:hush@127.0.0.1:1/db", "connection failed"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setenv("DTN_DATABASE_URL", url)
    result = CliRunner().invoke(main, ["database", "upgrade"])
    assert result.exit_code == 2
    assert re.search(reason, result.output)
    assert result.output.count("\n") == 1
    assert "hush" not in result.output


def test_the_wheel_brings_every_folder_of_code() -> None:
    listed: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = listed["tool"]["setuptools"]["packages"]
    found = {path.parent.relative_to(ROOT) for path in (ROOT / "service").rglob("*.py")}
    assert {".".join(folder.parts) for folder in found} <= set(packages)
