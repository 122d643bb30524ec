"""AsyncClient: as service.client.Client, awaited."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

import httpx

from service import schemas
from service.client import calls
from service.client.calls import Call, PersonEmoji, Transferred
from service.client.errors import Answer, ClientError, unreachable
from service.client.http import Patience, judge, options, parameters, take
from service.client.many import Done, check_concurrency, in_tasks
from service.client.photos import EncodedPhoto, Photo
from service.client.retries import Attempts
from service.schemas import EmojiSize, PictureFormat

T = TypeVar("T")
Make = Callable[[Photo | EncodedPhoto], Call[Transferred]]


class AsyncClient:
    """A client of the service for asyncio; parameters, results and errors are Client's.

    >>> async with AsyncClient("http://127.0.0.1:8000") as client:
    ...     drawn = await client.transfer("photo.png")
    ...     async for done in client.transfer_many(paths):
    ...         ...
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 10,
        deadline: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.patience = Patience(timeout, retries, deadline)
        self.http = httpx.AsyncClient(**options(url, api_key), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.http.aclose()

    async def transfer(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002 - as the service's parameter
        distance: bool = False,
    ) -> Transferred:
        """As Client.transfer."""
        return await self.run(
            await asyncio.to_thread(calls.transfer_call, photo, model, format, distance)
        )

    async def emoji(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
        face: int | None = None,
    ) -> Transferred:
        """As Client.emoji."""
        return await self.run(
            await asyncio.to_thread(calls.emoji_call, photo, model, format, size, face)
        )

    def transfer_many(
        self,
        photos: Iterable[Photo] | AsyncIterable[Photo],
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        distance: bool = False,
        concurrency: int = 8,
        ordered: bool = True,
        progress: bool = True,
    ) -> AsyncGenerator[Done[Transferred], None]:
        """As Client.transfer_many; photos may be an async iterable, too."""
        return self.many(
            lambda photo: calls.transfer_call(photo, model, format, distance),
            photos,
            concurrency,
            ordered,
            progress,
        )

    def emoji_many(
        self,
        photos: Iterable[Photo] | AsyncIterable[Photo],
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
        concurrency: int = 8,
        ordered: bool = True,
        progress: bool = True,
    ) -> AsyncGenerator[Done[Transferred], None]:
        """As Client.emoji_many."""
        return self.many(
            lambda photo: calls.emoji_call(photo, model, format, size, None),
            photos,
            concurrency,
            ordered,
            progress,
        )

    def person(self, id: str) -> "AsyncPerson":  # noqa: A002
        """As Client.person."""
        return AsyncPerson(self, calls.checked_person(id))

    async def models(self) -> list[schemas.ModelCard]:
        """As Client.models."""
        return await self.run(calls.models_call())

    async def ready(self) -> bool:
        """As Client.ready."""
        try:
            await self.run(calls.ready_call(), retries=0)
        except ClientError:
            return False
        return True

    def many(
        self,
        make: Make,
        photos: Iterable[Photo] | AsyncIterable[Photo],
        concurrency: int,
        ordered: bool,
        progress: bool,
    ) -> AsyncGenerator[Done[Transferred], None]:
        """A call of each photo. Raises ValueError where the concurrency is out of bounds."""
        check_concurrency(concurrency)
        hope = self.patience.hope()

        async def each(photo: Photo | EncodedPhoto) -> Transferred:
            call = await asyncio.to_thread(make, photo)
            with hope.kept():
                return await self.run(call, hope.retries())

        return in_tasks(each, photos, concurrency, ordered, progress)

    async def run(self, call: Call[T], retries: int | None = None) -> T:
        """The result of a call, asked for again as long as that makes sense."""
        request_id = uuid.uuid4().hex
        attempts = self.patience.attempts(retries)
        while True:
            try:
                answer = await self.send(call, request_id, attempts)
            except (httpx.RequestError, TimeoutError) as error:
                failure: ClientError = unreachable(error, str(self.http.base_url), request_id)
            else:
                told = judge(answer, call, request_id)
                if told is None:
                    return call.read(answer, attempts.failed)
                failure = told
            await asyncio.sleep(attempts.pause(failure))

    async def send(self, call: Call[T], request_id: str, attempts: Attempts) -> Answer:
        """One attempt. Raises httpx.RequestError, TimeoutError, BrokenError."""
        request = parameters(call, request_id, self.patience.timeout_of(attempts))
        body = bytearray()
        async with self.http.stream(**request) as response:
            async for chunk in response.aiter_bytes():
                take(chunk, body, attempts)
        return Answer(response.status_code, response.headers, bytes(body))


class AsyncPerson:
    """As service.client.Person, awaited."""

    def __init__(self, client: AsyncClient, id: str) -> None:  # noqa: A002
        self.client = client
        self.id = id
        self.kept = calls.BestEmojis(id)

    async def emoji(
        self,
        *photos: Photo,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
    ) -> PersonEmoji:
        """As Person.emoji."""
        return await self.client.run(
            await asyncio.to_thread(calls.judge_call, self.id, photos, model, format, size)
        )

    async def best(
        self,
        *,
        model: str | None = None,
        format: PictureFormat = "png",  # noqa: A002
        size: EmojiSize = 256,
    ) -> Transferred:
        """As Person.best."""
        return await self.client.run(self.kept.call(model, format, size))

    async def about(self) -> schemas.Person:
        """As Person.about."""
        return await self.client.run(calls.about_call(self.id))

    async def forget(self) -> bool:
        """As Person.forget."""
        return await self.client.run(calls.forget_call(self.id))
