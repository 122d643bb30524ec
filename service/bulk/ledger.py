"""What OUT holds: a ledger of every picture, so that a run can be killed and started again.

A chunk is published, then committed in one transaction. Where a run was killed between the two
nothing but the ledger counts: the pictures are drawn again, and published over what lies there.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any
from uuid import uuid4

from service.bulk.chunks import BulkError, Chunk, Done, Group, Item, Kind
from service.bulk.folder import publish_folder

FILE = "bulk.db"
STAGING = ".staging"
PUBLISHING = ".publishing.json"  # names of files that are being moved to their places
MOST_BYTES = 240  # of a name between slashes; file systems take 255, we add to it

TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    key TEXT PRIMARY KEY,
    name TEXT UNIQUE, -- of its file, member or row in OUT; NULL where it was rejected
    shard INTEGER, -- number of the one it lies in; NULL where OUT is a folder of pictures
    f_distance REAL,
    code TEXT
) WITHOUT ROWID;
"""


def staging_in(out: Path) -> Path:
    """Where a run's workers write to: a folder that no other run, nor what is left of it, uses."""
    return out.resolve() / STAGING / uuid4().hex


class Ledger:
    """The ledger of one OUT, which is locked against other runs until it is closed."""

    def __init__(self, out: Path, target: Kind, facts: Mapping[str, str], staging: Path) -> None:
        """Opens or makes it, and the folder `staging`.

        Raises BulkError: OUT is in use, or cannot be; it holds pictures that were made
        otherwise than `facts` say.
        """
        self.out, self.target, self.facts = out, target, facts
        self.staging = staging
        self.pending: dict[int, Chunk] = {}
        self.keys: set[str] = set()  # of pending chunks
        self.names: set[str] = set()
        self.lists = {name: out / f"{name}.jsonl" for name in ("manifest", "rejects")}
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not (out / FILE).exists() and any(out.iterdir()):
                raise BulkError(f"{out} is neither empty nor the OUT of an earlier run")
            self.database = self.lock(out / FILE)
            try:
                self.database.executescript(TABLES)
                self.check()
                self.clear_up()
            except BaseException:
                self.database.close()
                raise
        except OSError as error:
            raise BulkError(f"{error.filename or out}: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise BulkError(f"{out / FILE}: {error}") from error

    def lock(self, file: Path) -> sqlite3.Connection:
        """The database, held for as long as this process lives. Raises BulkError where another
        one holds it."""
        database = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")  # in this mode that lets nobody else in
        except sqlite3.OperationalError as error:
            database.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BulkError(f"{self.out} is in use by another run") from error
            raise
        return database

    def check(self) -> None:
        """Raises BulkError where OUT was begun with others."""
        before = dict(self.database.execute("SELECT name, value FROM facts"))
        for name, value in self.facts.items():
            if before.get(name, value) != value:
                raise BulkError(
                    f"{self.out} was begun with {name} {before[name]}, not {value}; "
                    "take another OUT"
                )

    def clear_up(self) -> None:
        """Forget what a killed run had begun: chunks, a shard, lines that were not committed."""
        rmtree(self.out / STAGING, ignore_errors=True)  # its workers may still be writing there
        self.staging.mkdir(parents=True)
        if self.target != "folder":
            self.shard(self.shards()).unlink(missing_ok=True)
        self.forget_publishing()
        for name, file in self.lists.items():
            file.touch()
            os.truncate(file, int(self.fact(f"{name}.jsonl", "0")))

    def forget_publishing(self) -> None:
        """Delete those of the files last moved to their places that were not committed."""
        if (self.out / PUBLISHING).exists():
            names = json.loads((self.out / PUBLISHING).read_bytes())
            for name in set(names) - self.known("name", names):
                (self.out / name).unlink(missing_ok=True)
            (self.out / PUBLISHING).unlink()

    def plan(self, groups: Iterable[Group], ending: str, limit: int | None) -> Iterator[Chunk]:
        """Chunks of what is not done, of the first `limit` pictures that are found."""
        seen = 0
        number = 0
        for group in groups:
            found = group.found if limit is None else group.found[: limit - seen]
            seen += len(found)
            done = self.known("key", [each.key for each in found]) | self.keys
            items = []
            # The same key twice is a member that a tar file has twice: one of them counts.
            new = {each.key: each for each in found if each.key not in done}
            taken = self.known("name", [each.stem + ending for each in new.values()])
            for each in new.values():
                name = self.name(each.stem, each.key, ending, taken)
                items.append(Item(each.key, name, each.place))
            if items:
                chunk = Chunk(number, group.file, items)
                self.pending[number] = chunk
                self.keys.update(item.key for item in items)
                number += 1
                yield chunk
            if seen == limit:
                return

    def name(self, stem: str, key: str, ending: str, taken: set[str]) -> str:
        """A name in OUT that no other picture has or will get; empty where it cannot have any."""
        parts = stem.split("/")
        if {"", ".", ".."} & set(parts) or "\0" in stem:
            return ""
        if os.sep != "/" and (os.sep in stem or ":" in stem):
            return ""
        if max(len(part.encode()) for part in [*parts, key.rpartition("/")[2]]) > MOST_BYTES:
            return ""
        name, n = stem + ending, 1
        while name in self.names or name in taken:
            # IMG_1.jpg beside IMG_1.heic
            name = f"{key}{ending}" if n == 1 else f"{key}-{n}{ending}"
            taken |= self.known("name", [name])
            n += 1
        self.names.add(name)
        return name

    def known(self, column: str, values: Sequence[str]) -> set[str]:
        """Which of these the ledger has."""
        query = (
            f"SELECT {column} FROM pictures "  # noqa: S608 - a name of ours
            f"WHERE {column} IN (SELECT value FROM json_each(?))"
        )
        return {found for (found,) in self.database.execute(query, (json.dumps(values),))}

    def commit(self, done: Done) -> None:
        """Publish a chunk's pictures, then take them down as done, all or none.

        Raises BulkError where OUT cannot be written to.
        """
        try:
            shard = self.publish(done)
            with self.transaction():
                for name, value in self.facts.items():
                    self.note(name, value)
                if shard is not None:
                    self.note("shards", str(shard + 1))
                    line = {"file": self.shard(shard).name, "pictures": len(done.written)}
                    self.append("manifest", [line | {"rejected": len(done.rejected)}])
                elif done.written or done.rejected:
                    line = {"pictures": len(done.written), "rejected": len(done.rejected)}
                    self.append("manifest", [line])
                self.append("rejects", [each._asdict() for each in done.rejected])
                self.database.executemany(
                    "INSERT INTO pictures VALUES (?, ?, ?, ?, NULL)",
                    [(each.key, each.name, shard, each.f_distance) for each in done.written],
                )
                self.database.executemany(
                    "INSERT INTO pictures VALUES (?, NULL, NULL, NULL, ?)",
                    [(each.key, each.code) for each in done.rejected],
                )
        except OSError as error:
            raise BulkError(f"{error.filename or self.out}: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise BulkError(f"{self.out / FILE}: {error}") from error
        for item in self.pending.pop(done.number).items:
            self.keys.discard(item.key)
            self.names.discard(item.name)

    def publish(self, done: Done) -> int | None:
        """Move what was drawn to its place; the shard's number, where it is one."""
        if not done.written:
            return None
        if self.target == "folder":
            names = json.dumps([each.name for each in done.written])
            (self.staging / PUBLISHING).write_text(names)
            (self.staging / PUBLISHING).replace(self.out / PUBLISHING)
            publish_folder(Path(done.staged), done.written, self.out)
            return None
        number = self.shards()
        Path(done.staged).replace(self.shard(number))
        return number

    def shards(self) -> int:
        return int(self.fact("shards", "0"))

    def shard(self, number: int) -> Path:
        return self.out / f"{number:06d}.{self.target}"

    def append(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write lines; how long the file is then counts from the commit on."""
        if lines:
            with self.lists[name].open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
                self.note(f"{name}.jsonl", str(file.tell()))

    def totals(self) -> tuple[int, int]:
        """Pictures drawn and rejected, by all runs."""
        query = "SELECT count(name), count(code) FROM pictures"
        drawn, rejected = self.database.execute(query).fetchone()
        return drawn, rejected

    def fact(self, name: str, default: str) -> str:
        query = "SELECT value FROM facts WHERE name = ?"
        row = self.database.execute(query, (name,)).fetchone()
        return default if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def transaction(self) -> sqlite3.Connection:
        """Commits at the end of its block, or undoes it."""
        self.database.execute("BEGIN")
        return self.database

    def close(self) -> None:
        """Let other runs in; what is not committed is forgotten."""
        with suppress(OSError, sqlite3.DatabaseError):  # then the next run does it
            self.forget_publishing()
        rmtree(self.out / STAGING, ignore_errors=True)
        self.database.close()
