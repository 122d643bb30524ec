"""Several processes: this one runs the graphs, DTN_FRONTS others speak HTTP, decode and encode.

Each front listens on the same port by a socket of its own, and Linux spreads connections over
them; one shared socket would give whole bursts to whoever wakes up first. Over a socket to each
they are told of signals and of new models; that it closes tells them that this process is gone.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service import engine
from service.engine import Engine
from service.manifest import ModelError
from service.metrics import MULTIPROC
from service.models import Models, models_of
from service.remote import notice_of
from service.server import ServeError, reserve
from service.settings import PREFIX, Settings
from service.wire import LENGTH, WireError, message_length, pack_message

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5  # before another front starts in place of one that ended
LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 60.0  # after which a front's end is the first again
END_S = 5.0


class FrontProcess:
    """A front, as this process sees it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self.keys: set[int] = set()  # of models that it may call
        self.number = 0  # of the list of models that it serves
        self.changed = asyncio.Event()
        self.phases: set[str] = set()  # of listening, ready, gone
        self.reason = ""  # why it cannot serve

    def tell(self, kind: str, **members: Any) -> None:
        if not self.writer.is_closing():
            self.writer.write(pack_message({"kind": kind, **members}))

    async def hear(self) -> dict[str, Any]:
        """The next message. Raises IncompleteReadError where it has ended, WireError."""
        length = message_length(await self.reader.readexactly(LENGTH.size))
        message: dict[str, Any] = json.loads(await self.reader.readexactly(length))
        return message

    async def serves(self, number: int) -> None:
        """Wait until it serves a list of models, or is gone."""
        while self.number < number and "gone" not in self.phases:
            self.changed.clear()
            await self.changed.wait()

    async def end(self) -> None:
        """Wait for its end, which has come or comes now."""
        for _ in range(2):  # the second signal: at once
            self.tell("signal", signal=signal.SIGTERM)
        self.writer.close()
        try:
            await asyncio.wait_for(self.process.wait(), END_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Fronts:
    """All fronts, and the models that run here for them."""

    def __init__(self, settings: Settings, models: Models, port: int, directory: Path) -> None:
        self.settings = settings
        self.port = port
        self.path = str(directory / "engine")
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            f"{PREFIX}HOST": settings.host,
            f"{PREFIX}PORT": str(port),
            MULTIPROC: os.environ.get(MULTIPROC) or str(directory / "metrics"),
        }
        self.engine = Engine(settings.workers)
        self.models = models
        self.keys = [self.engine.add(model) for model in models]
        self.number = 1  # of the list of models
        self.fronts: set[FrontProcess] = set()
        self.told: set[str] = set()  # phases that all have reached
        self.reloading = asyncio.Lock()
        self.tasks: set[asyncio.Task[None]] = set()  # kept, lest they be collected half done
        self.stopping = asyncio.Event()
        self.failures: list[str] = []  # of fronts at their end

    async def run(self) -> None:
        """Serve until told to stop. Raises ServeError, OSError."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, self.stop, sig)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.begin(self.reload_for(None)))
        engine.start(self.engine, engine.listen(self.path))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.settings.fronts):
                    group.create_task(self.keep())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if self.failures:
            raise ServeError(self.failures[0])

    def stop(self, sig: int) -> None:
        """Hand a signal on to all fronts, which drain at the first, as every server does."""
        self.stopping.set()
        for front in self.fronts:
            front.tell("signal", signal=sig)

    async def keep(self) -> None:
        """Let there be a front until all are told to stop.

        Raises ServeError where it cannot serve from the start.
        """
        pause = FIRST_PAUSE_S
        while not self.stopping.is_set():
            began = time.monotonic()
            front = await self.start()
            try:
                await self.follow(front)
            finally:
                await front.end()
            code = front.process.returncode
            reason = front.reason or f"a process that speaks HTTP ended, {ending(code)}"
            if self.stopping.is_set():
                self.failures += [reason] if code else []
                return  # the others go on with what they have taken
            if "ready" not in self.told:
                raise ServeError(reason)
            if time.monotonic() - began > LONG_LIFE_S:
                pause = FIRST_PAUSE_S
            log.error("%s; another one starts in %g s", reason, pause)
            try:
                await asyncio.wait_for(self.stopping.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def start(self) -> FrontProcess:
        """A new front, told what it serves."""
        mine, its = socket.socketpair()
        with its:
            process = await asyncio.create_subprocess_exec(
                # -P: the module is that of this package, whatever lies in the current directory.
                *(sys.executable, "-P", "-m", "service.front", str(its.fileno()), self.path),
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                process_group=0,  # Ctrl-C is meant for this process, which hands it on
            )
        front = FrontProcess(process, *await asyncio.open_connection(sock=mine))
        self.fronts.add(front)
        self.tell_models(front)
        if self.stopping.is_set():
            front.tell("signal", signal=signal.SIGTERM)
        return front

    def tell_models(self, front: FrontProcess) -> None:
        front.keys.update(self.keys)
        told = zip(self.models, self.keys, strict=True)
        front.tell(
            "models",
            number=self.number,
            default=self.models.default,
            models=[notice_of(model, key) for model, key in told],
        )

    async def follow(self, front: FrontProcess) -> None:
        """Do what a front asks for, until it ends."""
        try:
            while True:
                self.obey(front, await front.hear())
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # it has ended
        except (WireError, ValueError, KeyError):
            log.exception("a front says what makes no sense")
        finally:
            self.fronts.discard(front)
            front.phases.add("gone")
            front.changed.set()
            self.let_go()

    def obey(self, front: FrontProcess, message: dict[str, Any]) -> None:
        """Do or note what a front tells. Raises KeyError on what is no message."""
        kind = message["kind"]
        if kind in ("listening", "ready"):
            front.phases.add(kind)
            self.tell_of(kind)
        elif kind == "took":
            front.number = message["number"]
            front.changed.set()
        elif kind == "dropped":
            front.keys.discard(message["key"])
            self.let_go()
        elif kind == "reload":
            self.begin(self.reload_for(front, message["number"]))
        elif kind == "failed":
            front.reason = message["reason"]

    def tell_of(self, phase: str) -> None:
        """Log, once, that all fronts have come as far as this."""
        fronts = self.settings.fronts
        reached = sum(phase in front.phases for front in self.fronts)
        if reached < fronts or phase in self.told or self.stopping.is_set():
            return
        self.told.add(phase)
        if phase == "ready":
            log.info("ready: %s", self.references)
            return
        pids = ", ".join(str(front.process.pid) for front in self.fronts)
        log.info("process %d runs the graphs, %s speak HTTP", os.getpid(), pids)
        log.info("listening on http://%s:%d", self.settings.host, self.port)

    @property
    def references(self) -> str:
        return ", ".join(model.reference for model in self.models)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self.tasks.discard)

    async def reload_for(self, front: FrontProcess | None, number: int = 0) -> None:
        """Reload, and tell what came of it: the front that has asked, by its number of that,
        else the log."""
        reason = None
        try:
            await self.reload()
        except ModelError as error:
            reason = str(error)
        if front is not None:
            front.tell("reloaded", number=number, error=reason)
        elif reason is not None:
            log.error("not reloaded, serving what was served before: %s", reason)

    async def reload(self) -> None:
        """Let all fronts serve what the models' directory holds now, once it is warm.

        As Service.reload. Raises ModelError.
        """
        async with self.reloading:
            before = list(self.models)
            models = await asyncio.to_thread(models_of, self.settings, before)
            for model in models:
                if model not in before:
                    await asyncio.to_thread(model.warm_up)
            self.models = models
            self.keys = [self.engine.add(model) for model in models]
            self.number += 1
            fronts = list(self.fronts)
            for front in fronts:
                self.tell_models(front)
            await asyncio.gather(*(front.serves(self.number) for front in fronts))
            self.let_go()
            log.info("reloaded: %s", self.references)

    def let_go(self) -> None:
        """Drop models that are not served and that no front can call any longer."""
        self.engine.keep({*self.keys, *(key for front in self.fronts for key in front.keys)})


def ending(code: int | None) -> str:
    """A process's exit code in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def serve(settings: Settings, models: Models) -> None:
    """Serve by several processes until told to stop. Raises ModelError or ServeError."""
    with reserve(settings.host, settings.port) as reserved:
        port = reserved.getsockname()[1]
        try:
            with TemporaryDirectory(prefix="dtn-", ignore_cleanup_errors=True) as directory:
                asyncio.run(Fronts(settings, models, port, Path(directory)).run())
        except OSError as error:
            raise ServeError(f"cannot run several processes: {error}") from error
