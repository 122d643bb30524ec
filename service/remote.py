"""Models whose graphs another process runs: to all that use a Model, one like any other."""

import socket
from typing import Any, Literal

from pydantic import BaseModel

from service.cuda import RECORDED
from service.manifest import Manifest, ModelError
from service.models import Model
from service.problems import Problem
from service.wire import WARM_UP, Array, WireError, receive, send


class ModelNotice(BaseModel):
    """What the process that runs a model tells those that call it."""

    key: int
    manifest: Manifest
    device: Literal["cpu", "cuda"]
    provider: str
    most: int


class RunError(Exception):
    """A run failed where it was run, for the reason told."""


class Line:
    """Connections to the process that runs the graphs: as many as there are calls at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.idle: list[socket.socket] = []  # its append and pop need no lock

    def call(self, key: int, words: tuple[str, ...], arrays: list[Array]) -> list[Array]:
        """What comes back; blocks. Raises RunError, WireError, and Problem not_ready where nobody
        is there to answer."""
        connection = None
        try:
            connection = self.connection()
            send(connection, key, words, arrays)
            _, errors, outputs = receive(connection)
        except (OSError, WireError) as error:
            if connection is not None:
                connection.close()  # it may be in the middle of a frame
            if isinstance(error, WireError):
                raise
            raise Problem("not_ready", "what runs the models is not there") from error
        self.idle.append(connection)
        if errors:
            raise RunError(errors[0])
        return outputs

    def connection(self) -> socket.socket:
        """One that nobody uses. Raises OSError."""
        try:
            return self.idle.pop()
        except IndexError:  # all are in use
            connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection


class RemoteSession:
    """The session of one graph, over there; has what Model needs of onnxruntime's."""

    def __init__(self, line: Line, key: int, role: str) -> None:
        self.line = line
        self.key = key
        self.role = role

    def run(self, names: list[str], feed: dict[str, Array]) -> list[Array]:
        """The named outputs. Raises as Line.call does."""
        words = (self.role, str(len(names)), *names, *feed)
        return self.line.call(self.key, words, list(feed.values()))


class RemoteModel(Model):
    """A model that runs in another process, which has loaded and checked it."""

    def __init__(self, notice: ModelNotice, line: Line) -> None:
        self.key = notice.key
        self.line = line
        self.manifest = notice.manifest
        self.sessions: dict[str, Any] = {
            role: RemoteSession(line, notice.key, role) for role in notice.manifest.graphs
        }
        self.provider = notice.provider
        self.device = notice.device
        self.most = notice.most

    @property
    def enough(self) -> int:
        """Pictures worth a call of their own while another is under way: those of many processes
        become one run over there."""
        return min(RECORDED[-1], super().enough)

    def warm_up(self) -> None:
        """Wait until the model is warm. Raises ModelError where it will not be."""
        try:
            ((most,),) = self.line.call(self.key, (WARM_UP,), [])
        except (RunError, Problem) as error:
            raise ModelError(str(error)) from error
        self.most = int(most)


def notice_of(model: Model, key: int) -> dict[str, Any]:
    """What to tell of a model, as JSON."""
    return {
        "key": key,
        "manifest": model.manifest.model_dump(mode="json", by_alias=True),
        "device": model.device,
        "provider": model.provider,
        "most": model.most,
    }
