"""One of several processes that speak HTTP, while another one runs the graphs.

`python -m service.front FD PATH`, started by service.fronts: FD is a socket over which both tell
each other what happens, PATH the unix socket to which calls of graphs go.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, NoReturn

import uvicorn

from service import logs
from service.app import create_app
from service.lifecycle import Service
from service.manifest import ModelError
from service.models import Models
from service.remote import Line, ModelNotice, RemoteModel
from service.server import ServeError, Server, config_of, listen
from service.settings import Settings
from service.store import StoreError
from service.wire import WireError, pack_message, receive_message

log = logging.getLogger("service.front")  # as which it is run, not imported

WARM_S = 2.0  # longest wait for warm models before requests are answered, with not_ready
ORPHAN_S = 2.0  # for requests under way when there is nobody left to run anything


class Parent:
    """The process that has started this one and runs the graphs."""

    def __init__(self, connection: socket.socket, path: str) -> None:
        self.connection = connection
        self.line = Line(path)
        self.sending = Lock()
        self.known: weakref.WeakValueDictionary[int, RemoteModel] = weakref.WeakValueDictionary()
        self.unused: SimpleQueue[int] = SimpleQueue()  # keys of models that no request holds

    def tell(self, kind: str, **members: Any) -> None:
        """Send a message; from any thread."""
        try:
            with self.sending:
                self.connection.sendall(pack_message({"kind": kind, **members}))
        except OSError:
            log.debug("nobody to tell of %s", kind)

    def hear(self) -> dict[str, Any]:
        """The next message; blocks. Raises ConnectionError where that process is gone."""
        return receive_message(self.connection)

    def models(self, message: dict[str, Any]) -> Models:
        """The models of a message; of those known, the very same."""
        return Models(
            (self.model(ModelNotice.model_validate(each)) for each in message["models"]),
            message["default"],
        )

    def model(self, notice: ModelNotice) -> RemoteModel:
        model = self.known.get(notice.key)
        if model is None:
            model = self.known[notice.key] = RemoteModel(notice, self.line)
            weakref.finalize(model, self.unused.put, notice.key).atexit = False
        return model

    def tell_unused(self) -> None:
        """Tell of models that will never be called again."""
        while not self.unused.empty():
            self.tell("dropped", key=self.unused.get())


class Front(Server):
    """A Server that its parent tells what others learn from signals."""

    def __init__(self, config: uvicorn.Config, service: Service, parent: Parent) -> None:
        super().__init__(config, service)
        self.parent = parent
        self.asked = 0  # how often to reload
        self.reloaded: asyncio.Future[str | None] | None = None  # of the last time
        self.told_ready = False
        self.orphaned = False
        service.reload_models = self.have_reloaded

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ignored: who signals all processes alike means the parent, which tells."""
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, signal.SIG_IGN)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From now on what the parent tells is done."""
        # Others may be taking requests already: do not refuse them here for a moment's time.
        warming = asyncio.create_task(self.service.warm_up())
        await asyncio.wait((warming,), timeout=WARM_S)
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        Thread(target=self.follow, args=(loop,), name="parent", daemon=True).start()
        self.parent.tell("listening")

    async def on_tick(self, counter: int) -> bool:
        if not self.told_ready and self.service.phase == "ready":
            self.told_ready = True
            self.parent.tell("ready")
        self.parent.tell_unused()
        return await super().on_tick(counter)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand on what the parent tells, in a thread, until it is gone."""
        try:
            while True:
                loop.call_soon_threadsafe(self.obey, self.parent.hear())
        except (OSError, WireError):
            with suppress(RuntimeError):  # the loop has ended, too
                loop.call_soon_threadsafe(self.be_orphaned, loop)
        except RuntimeError:
            log.debug("the loop has ended")

    def obey(self, message: dict[str, Any]) -> None:
        """Do what the parent tells."""
        kind = message["kind"]
        if kind == "signal":
            self.handle_exit(message["signal"], None)
        elif kind == "models":
            self.service.take_over(self.parent.models(message))
            self.parent.tell("took", number=message["number"])
        elif kind == "reloaded" and message["number"] == self.asked:
            self.have_answer(message["error"])

    async def have_reloaded(self) -> None:
        """Let all processes take over what the models' directory holds. Raises ModelError."""
        self.asked += 1
        self.reloaded = asyncio.get_running_loop().create_future()
        self.parent.tell("reload", number=self.asked)
        error = await self.reloaded
        if error is not None:
            raise ModelError(error)

    def have_answer(self, error: str | None) -> None:
        """What came of a reload, for whoever waits for it."""
        if self.reloaded is not None and not self.reloaded.done():
            self.reloaded.set_result(error)

    def be_orphaned(self, loop: asyncio.AbstractEventLoop) -> None:
        """End soon: what runs the graphs is gone, and this process would never be told to."""
        if self.service.phase != "draining":
            log.error("the process that runs the graphs is gone")
            self.service.drain()
        self.orphaned = True
        self.should_exit = True
        loop.call_later(ORPHAN_S, self.force)
        self.have_answer("what runs the models is not there")

    def force(self) -> None:
        self.force_exit = True


def main(fd: int, path: str) -> None:
    """Serve until told to stop, or until nobody is left to tell."""
    settings = Settings.model_validate({})
    logs.configure(settings)
    # Of what all processes do alike one of them tells.
    logging.getLogger("service.lifecycle").setLevel(logging.WARNING)
    parent = Parent(socket.socket(fileno=fd), path)
    try:
        front = open_front(settings, parent)
        front.run(sockets=[listen(settings.host, settings.port, shared=True)])
        if front.orphaned:
            leave(path)
        if front.service.failure is not None:
            raise front.service.failure
    except ConnectionError:
        log.error("the process that runs the graphs is gone")
        leave(path)
    except (ModelError, ServeError, StoreError) as error:
        parent.tell("failed", reason=str(error))
        sys.exit(2)


def leave(path: str) -> NoReturn:
    """End, and remove what the parent would have removed."""
    shutil.rmtree(Path(path).parent, ignore_errors=True)
    os._exit(1)  # without waiting for threads that wait


def open_front(settings: Settings, parent: Parent) -> Front:
    """A Front of the models that the parent tells of first, not yet listening."""
    app = create_app(settings, parent.models(parent.hear()))
    return Front(config_of(app), app.state.service, parent)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
