"""Many photos through one call each, a few at a time, whatever there are in all."""

import asyncio
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from service.client.errors import ClientError
from service.client.photos import EncodedPhoto, Photo, encode_photo, must_be_read_now

T = TypeVar("T")
Each = Callable[[Photo | EncodedPhoto], T]
EachAsync = Callable[[Photo | EncodedPhoto], Awaitable[T]]

MOST = 256  # calls at once
AHEAD = 2  # photos per call at once that are read before the oldest result has been taken


@dataclass(frozen=True)
class Done(Generic[T]):
    """One of many photos, and what came of it: `error`, or `result`, which raises the error."""

    index: int  # of the photo, from 0
    photo: Photo = field(repr=False)  # as it was given
    value: T | None
    error: ClientError | None

    @property
    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def check_concurrency(concurrency: int) -> None:
    """Raises ValueError where it is out of bounds."""
    if not 1 <= concurrency <= MOST:
        raise ValueError(f"concurrency is 1 to {MOST}")


def bar_of(photos: object, progress: bool) -> Any:
    """A progress bar, on stderr and only where that is a terminal."""
    total = len(photos) if hasattr(photos, "__len__") else None
    return tqdm(total=total, unit="photo", disable=None if progress else True)


def read_now(photo: Photo) -> Photo | EncodedPhoto | ClientError:
    """A photo that will still be the same when its turn comes, or why it cannot be read."""
    if not must_be_read_now(photo):
        return photo
    try:
        return encode_photo(photo)
    except ClientError as error:
        return error


def in_threads(
    each: Each[T],
    photos: Iterable[Photo],
    concurrency: int,
    ordered: bool,
    progress: bool,
    stopped: threading.Event,
) -> Generator[Done[T], None, None]:
    """`each` of all photos, by `concurrency` threads; sets `stopped` where nobody wants more."""
    source = enumerate(photos)
    pending: list[Future[Done[T]]] = []  # in the order of the photos

    def work(index: int, photo: Photo, kept: Photo | EncodedPhoto | ClientError) -> Done[T]:
        try:
            if isinstance(kept, ClientError):
                raise kept
            return Done(index, photo, each(kept), None)
        except ClientError as error:
            return Done(index, photo, None, error)

    def ready() -> list[Future[Done[T]]]:
        return [future for future in (pending[:1] if ordered else pending) if future.done()]

    with bar_of(photos, progress) as bar, ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                while len(pending) < concurrency or (
                    len(pending) < AHEAD * concurrency and not ready()
                ):
                    found = next(source, None)
                    if found is None:
                        break
                    pending.append(pool.submit(work, *found, read_now(found[1])))
                if not pending:
                    return
                if not ready():
                    wait(pending[:1] if ordered else pending, return_when=FIRST_COMPLETED)
                future = ready()[0]
                pending.remove(future)
                done = future.result()
                count(bar, done)
                yield done
        finally:
            stopped.set()
            for future in pending:
                future.cancel()


async def in_tasks(
    each: EachAsync[T],
    photos: Iterable[Photo] | AsyncIterable[Photo],
    concurrency: int,
    ordered: bool,
    progress: bool,
) -> AsyncGenerator[Done[T], None]:
    """`each` of all photos, by up to `concurrency` tasks."""
    source = each_of(photos)
    pending: list[asyncio.Task[Done[T]]] = []  # in the order of the photos
    places = asyncio.Semaphore(concurrency)
    index = 0

    async def work(index: int, photo: Photo, kept: Photo | EncodedPhoto | ClientError) -> Done[T]:
        async with places:
            try:
                if isinstance(kept, ClientError):
                    raise kept
                return Done(index, photo, await each(kept), None)
            except ClientError as error:
                return Done(index, photo, None, error)

    def ready() -> list[asyncio.Task[Done[T]]]:
        return [task for task in (pending[:1] if ordered else pending) if task.done()]

    with bar_of(photos, progress) as bar:
        try:
            while True:
                while len(pending) < concurrency or (
                    len(pending) < AHEAD * concurrency and not ready()
                ):
                    try:
                        photo = await anext(source)
                    except StopAsyncIteration:
                        break
                    reading = must_be_read_now(photo)
                    kept = await asyncio.to_thread(read_now, photo) if reading else photo
                    pending.append(asyncio.create_task(work(index, photo, kept)))
                    index += 1
                if not pending:
                    return
                if not ready():
                    await asyncio.wait(
                        pending[:1] if ordered else pending, return_when=FIRST_COMPLETED
                    )
                task = ready()[0]
                pending.remove(task)
                done = task.result()
                count(bar, done)
                yield done
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


async def each_of(photos: Iterable[Photo] | AsyncIterable[Photo]) -> AsyncIterator[Photo]:
    if isinstance(photos, AsyncIterable):
        async for photo in photos:
            yield photo
        return
    for photo in photos:
        yield photo


def count(bar: Any, done: Done[Any]) -> None:
    """One more in the bar, which tells of failures."""
    if done.error is not None:
        bar.failures = getattr(bar, "failures", 0) + 1
        bar.set_postfix(failed=bar.failures, refresh=False)
    bar.update()
