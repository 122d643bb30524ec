"""dtn database: which revision the database of persons is at, and bringing it up to date."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from service.cli import Fault
from service.commands import read_settings
from service.migrate import NewerDatabase, is_newest, newest, upgrade
from service.migrate import current as current_revision
from service.store import PersonStore, StoreError

WAIT_S = 600  # for a replica that is at it


@click.group()
def database() -> None:
    """Look after the database of persons, DTN_DATABASE_URL's."""


@database.command("upgrade")
def upgrade_command() -> None:
    """Bring the database to this release's revision.

    The service does that itself on the first request that is about a person. Where replicas
    are replaced one by one, this does it before, and says what went wrong.
    """
    with connected() as connection:
        done = upgrade(connection, WAIT_S)
        click.echo(f"{newest()}: {'upgraded' if done else 'was up to date'}")


@database.command()
def current() -> None:
    """Print the database's revision and whether it is this release's."""
    with connected() as connection:
        up_to_date = is_newest(connection)
        found = current_revision(connection) or "none"
        click.echo(f"{found}: {'up to date' if up_to_date else f'{newest()} is the newest'}")


@contextmanager
def connected() -> Iterator[Connection]:
    """A connection to the database. Raises Fault on whatever goes wrong with it."""
    url = read_settings().database_url
    try:
        store = PersonStore(url.get_secret_value() if url else None)
        try:
            with store.connect() as connection:
                yield connection
        finally:
            store.close()
    except (StoreError, NewerDatabase) as error:
        raise Fault(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        raise Fault(f"the database of persons: {str(error).partition(chr(10))[0]}") from error
