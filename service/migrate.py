"""A database's tables brought to the newest revision, by one of all that start at once."""

import logging
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, column, inspect, select, table

log = logging.getLogger(__name__)

SCRIPTS = Path(__file__).with_name("migrations")
TABLE = "dtn_revision"  # of our own: the database may have other users of Alembic
KEY = 0x64746E  # of PostgreSQL's advisory lock: "dtn"

# Alembic hands env.py its context in a global variable.
one_at_a_time = Lock()


class NewerDatabase(Exception):  # noqa: N818 - it is what was found
    """A database of a later release: this one does not know what its tables mean."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database is at revision {found}, this release knows no later than {newest()}"
        )


def newest() -> str:
    """The revision that this release works with."""
    return str(scripts().get_current_head())


def current(connection: Connection) -> str | None:
    """The database's revision; None where it has none, being empty or older than migrations."""
    if not inspect(connection).has_table(TABLE):
        return None
    return connection.execute(select(column("version_num")).select_from(table(TABLE))).scalar()


def upgrade(connection: Connection, wait_s: float) -> bool:
    """Bring a database to the newest revision, all or nothing; whether there was anything to do.

    Waits that long, in seconds, where another process is at it. Raises NewerDatabase, which
    changes nothing, and SQLAlchemyError.
    """
    with connection.begin():
        if is_newest(connection):
            return False
    with one_at_a_time, connection.begin():
        begin_alone(connection, wait_s)
        if is_newest(connection):  # another process has done it meanwhile
            return False
        found = current(connection)
        config = configuration()
        config.attributes.update(connection=connection, version_table=TABLE)
        command.upgrade(config, "head")
    log.info("the database of persons: revision %s, before %s", newest(), found or "none")
    return True


def begin_alone(connection: Connection, wait_s: float) -> None:
    """Wait until no other process is in a transaction that began like this."""
    limit = f"{wait_s * 1000:.0f}"
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {limit}")
        # The driver itself begins no transaction before it changes tables.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {limit}")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({KEY})")


def is_newest(connection: Connection) -> bool:
    """Raises NewerDatabase."""
    found = current(connection)
    if found is not None and found not in {each.revision for each in scripts().walk_revisions()}:
        raise NewerDatabase(found)
    return found == newest()


def scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(configuration())


def configuration() -> Config:
    """Alembic's, which elsewhere is a file."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config
