"""A private PostgreSQL for tests, of the binaries that Debian installs.

    with postgres(tmp_path) as server:
        PersonStore(server.url)
        server.kill()
        server.start()

Data live in a temporary folder and are gone afterwards. The server refuses to run as root, so
that root's tests run it as the user `postgres`.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 120.0  # for a start or a stop, on a machine that is busy
USER = "postgres"


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL's programs, None where there is none."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: float(path.parents[1].name), default=None)
    if newest is not None:
        return newest.parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def missing() -> str:
    """Why no PostgreSQL can be started here; empty where one can."""
    if not hasattr(os, "geteuid"):
        return "PostgreSQL is started on Unix only"
    if binaries() is None:
        return "no PostgreSQL is installed"
    if os.geteuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"PostgreSQL refuses to run as root, and there is no user {USER!r}"
    return ""


class Server:
    """A PostgreSQL with an empty database `dtn`, which its user `dtn` enters without a password.

    It listens on `host`:`port`, over restarts too, and on a socket in `sockets`.
    """

    def __init__(self, folder: Path, log: Path, host: str, options: Mapping[str, str]) -> None:
        self.host, self.port = host, free_port(host)
        self.url = f"postgresql://dtn@{host}:{self.port}/dtn"
        self.log = log
        self.data, self.sockets = folder / "data", folder
        self.options = {
            "listen_addresses": host,
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets),
            **options,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.call("initdb", "-D", str(self.data), "-U", "dtn", "-A", "trust", "-E", "UTF8")

    def start(self) -> None:
        """Start it and wait until it answers, also after a kill."""
        end = time.monotonic() + WAIT_S
        command = ["postgres", "-D", str(self.data)]
        for name, value in self.options.items():
            command += ["-c", f"{name}={value}"]
        while not self.ready():
            # After a kill, PostgreSQL refuses to start while a child of the old one is left.
            if self.process is None or self.process.poll() is not None:
                self.process = self.popen(command)
            if time.monotonic() > end:
                raise AssertionError(f"PostgreSQL does not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut it down as an operator does: clients are cut off, what is committed is kept."""
        self.end(signal.SIGINT)

    def kill(self) -> None:
        """kill -9, as when the machine's power fails."""
        self.end(signal.SIGKILL)

    def end(self, by: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(by)
            self.process.wait(WAIT_S)
            self.process = None

    def ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        return self.popen(["pg_isready", "-q", *self.at()]).wait(WAIT_S) == 0

    def at(self) -> list[str]:
        """Options by which PostgreSQL's own programs find it."""
        return ["-h", str(self.sockets), "-p", str(self.port)]

    def call(self, *command: str) -> None:
        if self.popen(list(command)).wait(WAIT_S) != 0:
            raise AssertionError(f"{command[0]} failed:\n{self.log.read_text()}")

    def popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        programs = binaries()
        assert programs is not None, missing()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(programs / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                user=USER if os.geteuid() == 0 else None,
                group=USER if os.geteuid() == 0 else None,
                extra_groups=[] if os.geteuid() == 0 else None,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop it
            )


@contextmanager
def postgres(
    folder: Path, host: str = "127.0.0.1", options: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A started Server, whose log is `folder`/postgresql.log; `options` are PostgreSQL's own.

    Its data are not in `folder`: pytest's are closed to other users, and a socket's path may
    have no more than 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="dtn-pg-", dir="/tmp") as own:
        if os.geteuid() == 0:
            shutil.chown(own, USER, USER)
        server = Server(Path(own), folder / "postgresql.log", host, options or {})
        try:
            server.start()
            server.call("createdb", *server.at(), "-U", "dtn", "dtn")
            yield server
        finally:
            server.stop()


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
