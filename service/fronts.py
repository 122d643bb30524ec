"""Several processes: this one runs the graphs, DTN_FRONTS others speak HTTP, decode and encode.

Each front listens on the same port by a socket of its own, and the kernel spreads connections
over them. They are told of signals and of new models over a socket each; that it closes tells
them of the end of this process.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service import engine, logs
from service.engine import Engine
from service.manifest import ModelError
from service.metrics import MULTIPROC
from service.models import Models, load_models
from service.remote import notice_of
from service.server import ServeError, reserve
from service.settings import PREFIX, Settings, unknown_variables
from service.wire import LENGTH, WireError, message_length, pack_message

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5  # before another front is started in place of one that ended
LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 60.0  # a front that has lived so long does not make the pause longer
END_S = 5.0


class Front:
    """A front, as this process sees it."""

    def __init__(self, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.writer = writer
        self.keys: set[int] = set()  # of models that it may call
        self.number = 0  # of the list of models that it serves
        self.changed = asyncio.Event()
        self.listening = False
        self.ready = False
        self.reason = ""  # why it cannot serve
        self.gone = False

    def tell(self, kind: str, **members: Any) -> None:
        if not self.writer.is_closing():
            self.writer.write(pack_message({"kind": kind, **members}))

    async def serves(self, number: int) -> None:
        """Wait until it serves a list of models, or is gone."""
        while self.number < number and not self.gone:
            self.changed.clear()
            await self.changed.wait()


class Fronts:
    """All fronts, and the models that run here for them."""

    def __init__(self, settings: Settings, models: Models, port: int, directory: Path) -> None:
        self.settings = settings
        self.path = str(directory / "engine")
        self.environment = os.environ | {
            f"{PREFIX}HOST": settings.host,
            f"{PREFIX}PORT": str(port),
            MULTIPROC: os.environ.get(MULTIPROC) or str(directory / "metrics"),
        }
        self.port = port
        self.engine = Engine(settings.workers)
        self.models = models
        self.keys = self.add(models)
        self.number = 1  # of the list of models
        self.fronts: set[Front] = set()
        self.reloading = asyncio.Lock()
        self.tasks: set[asyncio.Task[Any]] = set()  # kept, lest they be collected half done
        self.stopping = asyncio.Event()
        self.was_ready = False
        self.told_listening = False

    def add(self, models: Models, before: Sequence[int] = ()) -> list[int]:
        """The keys of models, in order; where there were others before, they are warm."""
        return [self.engine.add(model, warm=bool(before)) for model in models]

    async def run(self) -> None:
        """Serve until told to stop. Raises ServeError."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, self.stop, sig)
        loop.add_signal_handler(signal.SIGHUP, self.begin, self.reload_by_signal())
        engine.start(self.engine, engine.listen(self.path))
        try:
            await asyncio.gather(*(self.keep() for _ in range(self.settings.fronts)))
        finally:
            await asyncio.gather(*map(end, self.fronts))

    def stop(self, sig: int) -> None:
        """Tell all fronts of a signal; what they do is for them to know."""
        self.stopping.set()
        for front in self.fronts:
            front.tell("signal", signal=sig)

    async def keep(self) -> None:
        """Let there be a front until it is told to stop. Raises ServeError where there cannot."""
        pause = FIRST_PAUSE_S
        while not self.stopping.is_set():
            began = time.monotonic()
            front = await self.start()
            code = await self.follow(front)
            if code == 0 and self.stopping.is_set():
                return
            reason = front.reason or f"a front ended unexpectedly, {ending(code)}"
            if self.stopping.is_set() or not self.was_ready:
                raise ServeError(reason)
            pause = FIRST_PAUSE_S if time.monotonic() - began > LONG_LIFE_S else pause
            log.error("%s; another one starts in %g s", reason, pause)
            try:
                await asyncio.wait_for(self.stopping.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def start(self) -> Front:
        """A new process, told what it serves."""
        mine, its = socket.socketpair()
        with its:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.front", str(its.fileno()), self.path),
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                process_group=0,  # Ctrl-C is for this process only
            )
        self.reader, writer = await asyncio.open_connection(sock=mine)
        return Front(process, writer)

    async def follow(self, front: Front) -> int:
        """Hear what a front tells until it ends: its exit code."""
        raise NotImplementedError

    async def reload_by_signal(self) -> None:
        raise NotImplementedError

    def begin(self, work: Any) -> None:
        raise NotImplementedError


async def end(front: Front) -> None:
    raise NotImplementedError


def ending(code: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
