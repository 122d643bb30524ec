"""Runs graphs for other processes: one CUDA context, and what several of them send at the same
time is one run.

A thread for each connection, which reads a call, runs it and sends what came of it: on the way
of a picture no other thread has to wake up. Where all runs are taken a call waits, and what has
come meanwhile and fits joins it.
"""

import logging
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Lock, Thread

import numpy as np

from service.models import ON_CPU, Model
from service.wire import WARM_UP, Array, WireError, receive, send

log = logging.getLogger(__name__)

PAUSE_S = 0.05
JOINED = frozenset(("transfer", "distance"))  # roles whose pictures stand along axis 0


@dataclass(eq=False)
class Call:
    """One run that is wanted: a role's graph, names of its outputs, inputs by name."""

    role: str
    names: tuple[str, ...]
    feed: dict[str, Array]
    outputs: list[Array] = field(default_factory=list)
    error: Exception | None = None
    woken: Event = field(default_factory=Event)
    done: bool = False

    @property
    def pictures(self) -> int:
        return len(next(iter(self.feed.values())))

    def fits(self, other: "Call") -> bool:
        """Whether both may be one run."""
        if self.role not in JOINED or (self.role, self.names) != (other.role, other.names):
            return False
        mine, others = self.feed, other.feed
        return mine.keys() == others.keys() and all(
            mine[name].shape[1:] == others[name].shape[1:] for name in mine
        )


class Runs:
    """The runs of one model, in the order in which they were wanted, as many at once as
    Model.begins has it."""

    def __init__(self, model: Model, parallel: int) -> None:
        self.model = model
        self.parallel = parallel
        self.running = 0
        self.waiting: deque[Call] = deque()
        self.lock = Lock()

    def run(self, call: Call) -> list[Array]:
        """The outputs of a call, once they are there. Raises whatever onnxruntime raises."""
        if self.model.device == "cuda" and call.role in ON_CPU:
            outputs: list[Array] = self.model.sessions[call.role].run(list(call.names), call.feed)
            return outputs
        with self.lock:
            waits = not self.begins(call.pictures)
            if waits:
                self.waiting.append(call)
            else:
                self.running += 1
        if waits:
            call.woken.wait()
        if not call.done:  # then it is its turn; else another's run was its, too
            self.take_turn(call)
        if call.error is not None:
            raise call.error
        return call.outputs

    def begins(self, pictures: int = 0) -> bool:
        """Whether one more run may begin, of those that wait and `pictures` more."""
        pictures += sum(call.pictures for call in self.waiting)
        return self.model.begins(self.running, pictures, self.parallel)

    def take_turn(self, call: Call) -> None:
        """Run a call and those that fit, then wake the next one and who has joined."""
        with self.lock:
            calls = [call, *self.cut(call)]
        try:
            self.run_together(calls)
        finally:
            with self.lock:
                self.running -= 1
                following = None
                if self.waiting and self.begins():
                    following = self.waiting.popleft()
                    self.running += 1
            if following is not None:
                following.woken.set()
            for joined in calls:
                joined.done = True
                joined.woken.set()

    def cut(self, call: Call) -> list[Call]:
        """Those waiting that join a call, as many as one run should draw."""
        room = self.model.most - call.pictures
        joined: list[Call] = []
        for other in self.waiting if room > 0 else ():
            if other.fits(call) and other.pictures <= room:
                room -= other.pictures
                joined.append(other)
        for other in joined:
            self.waiting.remove(other)
        return joined

    def run_together(self, calls: Sequence[Call]) -> None:
        """Run calls as one; each alone where that fails."""
        try:
            self.run_joined(calls)
        except Exception as error:  # onnxruntime's exceptions share no base class
            if len(calls) == 1:
                calls[0].error = error
                return
            log.warning("a run of %d calls failed, each is tried alone", len(calls))
            for call in calls:
                self.run_together([call])

    def run_joined(self, calls: Sequence[Call]) -> None:
        first = calls[0]
        feed = first.feed
        if len(calls) > 1:
            feed = {name: np.concatenate([call.feed[name] for call in calls]) for name in feed}
        outputs = self.model.sessions[first.role].run(list(first.names), feed)
        if len(calls) == 1:
            first.outputs = outputs
            return
        ends = np.cumsum([call.pictures for call in calls])
        if any(len(output) != ends[-1] for output in outputs):
            raise ValueError(f"{first.role} does not answer picture by picture")
        parts = [np.split(output, ends[:-1]) for output in outputs]
        for call, part in zip(calls, zip(*parts, strict=True), strict=True):
            call.outputs = list(part)


class Engine:
    """Models by a number of their own, for as long as anybody may call them."""

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self.runs: dict[int, Runs] = {}
        self.keys = count(1)

    def add(self, model: Model) -> int:
        """The model's key; the one it has where it is known."""
        for key, runs in self.runs.items():
            if runs.model is model:
                return key
        key = next(self.keys)
        self.runs[key] = Runs(model, self.parallel)
        return key

    def keep(self, keys: Iterable[int]) -> None:
        """Let go of all other models."""
        wanted = set(keys)
        for key in self.runs.keys() - wanted:
            log.info("%s is not called any longer", self.runs.pop(key).model.reference)

    def warm_up(self, key: int) -> int:
        """How many pictures one run of the model should draw, once it is warm.

        Raises ModelError.
        """
        model = self.runs[key].model
        model.warm_up()
        return model.most

    def answer(self, key: int, words: tuple[str, ...], arrays: list[Array]) -> list[Array]:
        """What a frame asks for: `words` are a role, how many outputs, their names, then the
        names of the inputs, which are `arrays`. Raises whatever goes wrong."""
        if words == (WARM_UP,):
            return [np.array([self.warm_up(key)], np.int64)]
        role, outputs = words[0], 2 + int(words[1])
        feed = dict(zip(words[outputs:], arrays, strict=True))
        return self.runs[key].run(Call(role, words[2:outputs], feed))


def listen(path: str) -> socket.socket:
    """A unix socket that accepts connections. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1024)
    return listener


def start(engine: Engine, listener: socket.socket) -> None:
    """Answer calls until the listener is closed, in threads that end with the process."""

    def accept() -> None:
        while listener.fileno() >= 0:
            try:
                connection, _ = listener.accept()
            except OSError as error:  # such as too many open files
                log.debug("no connection: %s", error)
                time.sleep(PAUSE_S)
                continue
            Thread(target=attend, args=(engine, connection), daemon=True).start()

    Thread(target=accept, name="engine", daemon=True).start()


def attend(engine: Engine, connection: socket.socket) -> None:
    """Answer one connection's calls until its other end is closed."""
    with connection:
        try:
            while True:
                key, words, arrays = receive(connection)
                try:
                    outputs = engine.answer(key, words, arrays)
                    send(connection, key, (), outputs)
                except OSError:
                    raise
                except Exception as error:
                    send(connection, key, (str(error)[:1000] or type(error).__name__,), [])
        except ConnectionError:
            return  # that process has ended
        except (OSError, WireError):
            log.exception("a connection that makes no sense is closed")
