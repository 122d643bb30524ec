"""What is kept of persons: of each, per model, the best emoji so far (Eq. 8), no photo.

SQLite in a file, or PostgreSQL where several replicas share it. Nothing is opened before the
first use, so that the service starts, and serves everything else, without its database; the
first use also brings its tables up to date.
"""

import hashlib
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    delete,
    event,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from service.circuit import Circuit
from service.migrate import NewerDatabase, upgrade
from service.problems import Problem

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 3  # for a connection to PostgreSQL, and until a silent one counts as broken
WAIT_S = 5  # for what another writer holds, or for a statement

metadata = MetaData()
emojis = Table(
    "person_emojis",
    metadata,
    Column("person", String(128), primary_key=True),
    Column("model", String(64), primary_key=True),  # a new version of it starts anew
    Column("version", String(64), nullable=False),
    Column("png", LargeBinary, nullable=False),  # 64 x 64, as g drew it
    Column("f_distance", Float(53), nullable=False),
    Column("photo", Integer, nullable=False),
    Column("etag", String(32), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
)


class StoreError(Exception):
    """Why DTN_DATABASE_URL cannot be used, in one line without the URL and its password."""


@dataclass(frozen=True)
class Kept:
    """A person's best emoji of one model."""

    model: str
    version: str
    png: bytes
    f_distance: float
    photo: int  # index in the request it came with
    etag: str
    created: datetime
    updated: datetime

    @property
    def reference(self) -> str:
        """`name@version` of the model that drew it."""
        return f"{self.model}@{self.version}"


class PersonStore:
    """The emojis of all persons. Its methods block, and may be called from several threads.

    Each raises Problem store_unavailable where the database cannot be used.
    """

    def __init__(self, url: str | None = None) -> None:
        """The store of a database, by default of data_file(). Raises StoreError."""
        self.engine = open_engine(url or f"sqlite:///{data_file()}")
        self.insert: Any = sqlite.insert
        if self.engine.dialect.name == "postgresql":
            self.insert = postgresql.insert
        self.circuit = Circuit()
        self.up_to_date = False
        self.lock = Lock()

    def offer(
        self, person: str, model: str, version: str, png: bytes, f_distance: float, photo: int
    ) -> tuple[Kept, bool]:
        """Keep an emoji if it is better than what is kept; what is kept then, and whether
        that is this one.

        One statement decides, so that of offers at the same time the best remains. Another
        version of the model starts anew, for its distances cannot be compared.
        """
        now = datetime.now(UTC)
        digest = hashlib.sha256(f"{model}@{version} {f_distance!r} ".encode() + png)
        row = {
            "version": version,
            "png": png,
            "f_distance": f_distance,
            "photo": photo,
            "etag": digest.hexdigest()[:32],
            "updated": now,
        }
        offered = self.insert(emojis).values(person=person, model=model, created=now, **row)
        better = or_(
            offered.excluded.f_distance < emojis.c.f_distance,
            offered.excluded.version != emojis.c.version,
        )
        statement = offered.on_conflict_do_update(
            index_elements=[emojis.c.person, emojis.c.model], set_=row, where=better
        ).returning(emojis)

        def work(connection: Connection) -> tuple[Kept, bool]:
            taken = connection.execute(statement).first()
            if taken is not None:
                return kept(taken), True
            # The statement has locked the row it left alone, so it is still there.
            return kept(connection.execute(of(person, model)).one()), False

        return self.run(work)

    def best(self, person: str, model: str) -> Kept | None:
        """The person's emoji of a model."""

        def work(connection: Connection) -> Kept | None:
            row = connection.execute(of(person, model)).first()
            return kept(row) if row else None

        return self.run(work)

    def all(self, person: str) -> list[Kept]:
        """The person's emojis by model."""
        query = select(emojis).where(emojis.c.person == person).order_by(emojis.c.model)
        return self.run(lambda connection: [kept(row) for row in connection.execute(query)])

    def forget(self, person: str) -> bool:
        """Delete all of a person; whether there was anything.

        SQLite overwrites what it deletes, and here also empties its log of earlier pages.
        """
        statement = delete(emojis).where(emojis.c.person == person)
        forgotten = self.run(lambda connection: connection.execute(statement).rowcount > 0)
        if forgotten and self.engine.dialect.name == "sqlite":
            self.run(lambda connection: connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")))
        return forgotten

    def run(self, work: Callable[[Connection], T]) -> T:
        """The result of work in a transaction, in a database that has our tables."""
        try:
            with self.connect() as connection:
                self.bring_up_to_date(connection)
                with connection.begin():
                    return work(connection)
        except NewerDatabase as error:
            log.error("the database of persons: %s; update the service", error)
            raise Problem(
                "store_unavailable", "the database of persons is one of a later release"
            ) from error
        except (SQLAlchemyError, OSError) as error:
            self.up_to_date = False  # perhaps it is another database when it comes back
            log.error("the database of persons: %s", str(error).partition("\n")[0])
            raise unreachable() from error

    def require_reachable(self) -> None:
        """Raises Problem where the database was found to be out of reach just now; asks nothing."""
        if self.circuit.is_open():
            raise unreachable()

    def connect(self) -> Connection:
        """A connection that works. Raises Problem at once where the database was found to be
        out of reach just now, and what SQLAlchemy raises."""
        if not self.circuit.may_try():
            raise unreachable()
        try:
            if self.engine.dialect.name == "sqlite":
                Path(str(self.engine.url.database)).parent.mkdir(0o700, parents=True, exist_ok=True)
            connection = self.engine.connect()
        except BaseException:
            self.circuit.failed()
            raise
        self.circuit.succeeded()
        return connection

    def bring_up_to_date(self, connection: Connection) -> None:
        """Bring the tables to this release's revision, once."""
        with self.lock:
            if not self.up_to_date:
                upgrade(connection, WAIT_S)
                self.up_to_date = True

    def close(self) -> None:
        self.engine.dispose()


def unreachable() -> Problem:
    return Problem("store_unavailable", "the database of persons cannot be reached")


def of(person: str, model: str) -> Any:
    """The query for one row."""
    return select(emojis).where(emojis.c.person == person, emojis.c.model == model)


def kept(row: Row[Any]) -> Kept:
    fields = dict(row._mapping)
    del fields["person"]
    for name in ("created", "updated"):
        moment = fields[name]  # SQLite keeps no time zone, PostgreSQL answers in its own
        naive = moment.tzinfo is None
        fields[name] = moment.replace(tzinfo=UTC) if naive else moment.astimezone(UTC)
    return Kept(**fields)


def data_file() -> Path:
    """dtn.db where the platform keeps a user's data."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "dtn" / "dtn.db"


def open_engine(address: str) -> Engine:
    """An engine, not yet connected. Raises StoreError where the URL is none of ours."""
    try:
        url = make_url(address)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "sqlite":
            return open_sqlite(url)
        if url.get_backend_name() == "postgresql":
            return open_postgresql(url)
    except ModuleNotFoundError as error:
        raise StoreError(
            f'DTN_DATABASE_URL: {error.name} is not installed; pip install "dtn[postgres]"'
        ) from error
    except SQLAlchemyError as error:
        raise StoreError("DTN_DATABASE_URL is no URL of a database") from error
    raise StoreError("DTN_DATABASE_URL: sqlite:///FILE or postgresql://... is wanted")


def open_postgresql(url: URL) -> Engine:
    """An engine whose every step has a limit, a server that has fallen silent included."""
    limits = {
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": CONNECT_S * 1000,
        "keepalives_idle": CONNECT_S,
        "keepalives_interval": 1,
        "keepalives_count": CONNECT_S,
    }
    engine = create_engine(
        url,
        pool_pre_ping=True,  # a database that was restarted has closed the old ones
        pool_timeout=WAIT_S,
        connect_args={name: limit for name, limit in limits.items() if name not in url.query},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.execute(f"SET statement_timeout = {WAIT_S * 1000}")
        connection.commit()

    return engine


def open_sqlite(url: URL) -> Engine:
    """An engine of an SQLite file in WAL mode: readers and a writer do not wait for another."""
    if url.database in (None, "", ":memory:"):
        raise StoreError("DTN_DATABASE_URL: SQLite needs a file, as in sqlite:////data/dtn.db")
    engine = create_engine(
        url, pool_timeout=WAIT_S, connect_args={"timeout": WAIT_S}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        turn_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")  # what was answered outlives a power cut
        connection.execute("PRAGMA secure_delete = ON")

    return engine


def turn_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for its lock where two turn a new file to WAL mode at once."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # its kinds lie above
            if not busy or time.monotonic() > until:
                raise
        time.sleep(0.01)
