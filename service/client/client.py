"""Client: the service's routes as methods that block."""

import threading
import uuid
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Self, TypeVar

import httpx

from service import schemas
from service.client import calls
from service.client.calls import Call, PersonEmoji, Transferred
from service.client.errors import (
    Answer,
    ClientError,
    unreachable,
)
from service.client.http import Patience, judge, options, parameters, take
from service.client.many import Done, check_concurrency, in_threads
from service.client.photos import EncodedPhoto, Photo
from service.client.retries import Attempts
from service.schemas import EmojiSize, PictureFormat

T = TypeVar("T")
Make = Callable[[Photo | EncodedPhoto], Call[Transferred]]


class Client:
    """A client of the service at `url`; may be used by several threads at once.

    A call whose answer does not come, or says that the service is busy or draining, is made
    again: up to `retries` times, after pauses that grow and are as long as the service asks
    for, in at most `deadline` seconds; one attempt waits up to `timeout` seconds for the service
    to go on. Every method raises a ClientError where there is no result. A photo is a path,
    the bytes of a file, an open binary file, or a PIL picture.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 10,
        deadline: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`transport` is httpx's, for certificates and proxies of one's own. Raises ValueError
        where a value is out of bounds."""
        self.patience = Patience(timeout, retries, deadline)
        self.http = httpx.Client(**options(url, api_key), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def transfer(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002 - as the service's parameter
        distance: bool = False,
    ) -> Transferred:
        """G(x) of a photo, by the model of this name (`name` or `name@version`) or the service's
        default; with `distance` also Eq. 8's ‖f(x) − f(G(x))‖."""
        return self.run(calls.transfer_call(photo, model, format, distance))

    def emoji(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
        face: int | None = None,
    ) -> Transferred:
        """The largest face in a photo as an emoji of `size` pixels, or face number `face`, 0
        being the largest."""
        return self.run(calls.emoji_call(photo, model, format, size, face))

    def transfer_many(
        self,
        photos: Iterable[Photo],
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        distance: bool = False,
        concurrency: int = 8,
        ordered: bool = True,
        progress: bool = True,
    ) -> Generator[Done[Transferred], None, None]:
        """G(x) of each photo, `concurrency` at a time: exactly one Done for each, in the photos'
        order or, not `ordered`, as they come.

        A photo that fails is a Done with an error, and the others go on. Photos are taken from
        the iterable as results are taken from here, at most twice `concurrency` ahead, so that
        there may be any number of them. `progress` shows a bar where stderr is a terminal.
        """
        return self.many(
            lambda photo: calls.transfer_call(photo, model, format, distance),
            photos,
            concurrency,
            ordered,
            progress,
        )

    def emoji_many(
        self,
        photos: Iterable[Photo],
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
        concurrency: int = 8,
        ordered: bool = True,
        progress: bool = True,
    ) -> Generator[Done[Transferred], None, None]:
        """The emoji of each photo's largest face, as transfer_many."""
        return self.many(
            lambda photo: calls.emoji_call(photo, model, format, size, None),
            photos,
            concurrency,
            ordered,
            progress,
        )

    def person(self, id: str) -> "Person":  # noqa: A002
        """A person by an id of one's own choice. Raises ValueError where it is no id."""
        return Person(self, calls.checked_person(id))

    def models(self) -> list[schemas.ModelCard]:
        """The cards of the served models."""
        return self.run(calls.models_call())

    def ready(self) -> bool:
        """Whether the service is there and takes calls now; asked once."""
        try:
            self.run(calls.ready_call(), retries=0)
        except ClientError:
            return False
        return True

    def many(
        self, make: Make, photos: Iterable[Photo], concurrency: int, ordered: bool, progress: bool
    ) -> Generator[Done[Transferred], None, None]:
        """A call of each photo. Raises ValueError where the concurrency is out of bounds."""
        check_concurrency(concurrency)
        hope = self.patience.hope()
        stopped = threading.Event()

        def each(photo: Photo | EncodedPhoto) -> Transferred:
            call = make(photo)
            with hope.kept():
                return self.run(call, hope.retries(), stopped)

        return in_threads(each, photos, concurrency, ordered, progress, stopped)

    def run(
        self, call: Call[T], retries: int | None = None, stopped: threading.Event | None = None
    ) -> T:
        """The result of a call, asked for again as long as that makes sense and nobody has
        `stopped` it."""
        request_id = uuid.uuid4().hex
        attempts = self.patience.attempts(retries)
        stopped = stopped or threading.Event()
        while True:
            try:
                answer = self.send(call, request_id, attempts)
            except (httpx.RequestError, TimeoutError) as error:
                failure: ClientError = unreachable(error, str(self.http.base_url), request_id)
            else:
                told = judge(answer, call, request_id)
                if told is None:
                    return call.read(answer, attempts.failed)
                failure = told
            if stopped.wait(attempts.pause(failure)):
                raise failure

    def send(self, call: Call[T], request_id: str, attempts: Attempts) -> Answer:
        """One attempt. Raises httpx.RequestError, TimeoutError, BrokenError."""
        request = parameters(call, request_id, self.patience.timeout_of(attempts))
        body = bytearray()
        with self.http.stream(**request) as response:
            for chunk in response.iter_bytes():
                take(chunk, body, attempts)
        return Answer(response.status_code, response.headers, bytes(body))


class Person:
    """A person of the service: of all photos that were ever sent, the best emoji (Eq. 8)."""

    def __init__(self, client: Client, id: str) -> None:  # noqa: A002
        self.client = client
        self.id = id
        self.kept = calls.BestEmojis(id)

    def emoji(
        self,
        *photos: Photo,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
    ) -> PersonEmoji:
        """The best emoji of 1 to 32 photos and of all before, and what became of each photo.

        Raises RefusedError where none can be used; its members["photos"] tells of each.
        """
        return self.client.run(calls.judge_call(self.id, photos, model, format, size))

    def best(
        self,
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
    ) -> Transferred:
        """The best emoji so far; not sent again while it is the same (ETag).

        Raises RefusedError unknown_person where nothing is kept.
        """
        return self.client.run(self.kept.call(model, format, size))

    def about(self) -> schemas.Person:
        """What is kept of the person: no photo. Raises RefusedError unknown_person."""
        return self.client.run(calls.about_call(self.id))

    def forget(self) -> bool:
        """Let the service delete all that it keeps of the person; whether there was anything."""
        return self.client.run(calls.forget_call(self.id))
