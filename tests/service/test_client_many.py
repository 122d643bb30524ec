import asyncio
import io
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from service.client import (
    AsyncClient,
    Client,
    ClientError,
    Done,
    PhotoError,
    RefusedError,
    Transferred,
)
from service.client.many import AHEAD, in_tasks, in_threads
from service.models import Models
from tests.service.dummy import encoded, noise
from tests.service.dummy_faces import photo_of
from tests.service.test_client import NEAR, expected, same

Each = Callable[[Any], Any]


def run_in_threads(
    each: Each, photos: Iterable[Any], concurrency: int = 4, ordered: bool = True
) -> Iterator[Done[Any]]:
    return in_threads(each, photos, concurrency, ordered, False, threading.Event())


def run_in_tasks(
    each: Each, photos: Iterable[Any], concurrency: int = 4, ordered: bool = True
) -> Iterator[Done[Any]]:
    """The same of asyncio, as a plain iterator, so that both kinds are tested alike."""

    async def each_async(photo: Any) -> Any:
        return await asyncio.to_thread(each, photo)

    many = in_tasks(each_async, photos, concurrency, ordered, False)
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(take_next(many))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(close(many))


async def take_next(many: Any) -> Any:
    return await anext(many)


async def close(many: Any) -> None:
    await many.aclose()


both = pytest.mark.parametrize("many", [run_in_threads, run_in_tasks])
Many = Callable[..., Any]


def fail_odd(photo: bytes) -> int:
    number = int(photo)
    time.sleep((number % 7) / 1000)
    if number % 2:
        raise RefusedError("no_face", f"none in {number}", 422)
    return number


@both
@pytest.mark.parametrize("ordered", [True, False])
def test_there_is_one_result_for_each_photo(many: Many, ordered: bool) -> None:
    photos = [b"%d" % i for i in range(100)]
    results = list(many(fail_odd, photos, ordered=ordered))
    assert sorted(done.index for done in results) == list(range(100))
    if ordered:
        assert [done.index for done in results] == list(range(100))
    for done in results:
        assert done.photo == photos[done.index]
        if done.index % 2:
            assert (done.value, str(done.error)) == (None, f"no_face: none in {done.index}")
            with pytest.raises(RefusedError):
                _ = done.result
        else:
            assert (done.result, done.error) == (done.index, None)


@both
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_neither_more_at_once_nor_further_ahead_than_said(
    many: Many, ordered: bool, concurrency: int
) -> None:
    lock = threading.Lock()
    running, most, read, taken = 0, 0, 0, 0

    def photos() -> Iterator[bytes]:
        nonlocal read
        for i in range(60):
            read += 1
            assert read - taken <= AHEAD * concurrency + 1
            yield b"%d" % i

    def each(photo: bytes) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return photo

    for _ in many(each, photos(), concurrency, ordered):
        taken += 1
        if taken % 20 == 0:
            time.sleep(0.05)  # one who takes them slowly
    assert taken == 60
    assert most <= concurrency


@both
def test_without_order_a_slow_photo_keeps_none_back(many: Many) -> None:
    others_done = threading.Event()

    def each(photo: bytes) -> bytes:
        if photo == b"0":
            assert others_done.wait(60)
        return photo

    order = []
    for done in many(each, [b"%d" % i for i in range(5)], 2, False):
        order.append(done.index)
        if len(order) == 4:
            others_done.set()
    assert order[-1] == 0
    assert sorted(order) == list(range(5))


@both
def test_who_stops_early_starts_no_more(many: Many) -> None:
    started: list[bytes] = []
    results = many(started.append, (b"%d" % i for i in range(1000)), 2)
    for done in results:
        if done.index == 3:
            break
    results.close()
    count = len(started)
    assert count <= 4 + AHEAD * 2
    time.sleep(0.1)
    assert len(started) == count


@both
def test_a_mistake_of_the_program_is_no_result(many: Many) -> None:
    def each(photo: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(many(each, [b"1"]))


@both
def test_an_iterable_that_fails_ends_the_run(many: Many) -> None:
    def photos() -> Iterator[bytes]:
        yield b"1"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(many(lambda photo: photo, photos()))


# Against a server


@pytest.fixture(scope="module")
def url(client: httpx.Client) -> str:
    return str(client.base_url)


def drawn_by(client: Client | None, url: str, photos: Any, **options: Any) -> list[Done[Any]]:
    """transfer_many of Client or, without one, of AsyncClient."""
    if client is not None:
        return list(client.transfer_many(photos, **options))

    async def run() -> list[Done[Transferred]]:
        async with AsyncClient(url) as there:
            return [done async for done in there.transfer_many(photos, **options)]

    return asyncio.run(run())


@pytest.mark.parametrize("is_async", [False, True])
def test_photos_of_all_kinds_come_back_with_their_results(
    url: str, models: Models, tmp_path: Path, is_async: bool
) -> None:
    pictures = [Image.fromarray(noise(20, 30, seed=i)) for i in range(12)]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")

    def photos() -> Iterator[Any]:
        for i in range(len(pictures)):
            path = tmp_path / f"{i}.png"
            if i % 3 == 0:
                yield path
            elif i % 3 == 1:
                with path.open("rb") as file:  # closed as soon as the next one is asked for
                    yield file
            else:
                with Image.open(path) as opened:
                    yield opened
        yield tmp_path / "missing.png"
        yield b"text"
        yield io.BytesIO()

    with Client(url) as client:
        results = drawn_by(None if is_async else client, url, photos(), concurrency=3)
    assert [done.index for done in results] == list(range(15))
    for done, picture in zip(results, pictures, strict=False):
        assert same(done.result, expected(models, picture))
    kinds = [(type(done.error), done.error.code) for done in results[12:] if done.error]
    assert kinds == [
        (PhotoError, "unreadable"),
        (RefusedError, "not_an_image"),
        (PhotoError, "unreadable"),
    ]


def test_options_are_those_of_one_photo(url: str, photo: bytes) -> None:
    with Client(url) as client:
        (done,) = client.transfer_many([photo], model="plain", format="webp")
        assert (done.result.model, done.result.media_type) == ("plain@1", "image/webp")
        (done,) = client.transfer_many([photo], distance=True)
        assert done.result.f_distance == client.transfer(photo, distance=True).f_distance
        faces = [NEAR, encoded(photo_of()), NEAR]
        results = list(client.emoji_many(faces, size=64))
    assert [done.error.code if done.error else "ok" for done in results] == ["ok", "no_face", "ok"]
    assert results[0].result.picture.size == (64, 64)
    assert results[0].result.face is not None


@pytest.mark.parametrize("concurrency", [0, 257])
def test_concurrency_has_bounds(url: str, concurrency: int) -> None:
    with Client(url) as client, pytest.raises(ValueError, match="1 to 256"):
        client.transfer_many([], concurrency=concurrency)


def refuse_connection() -> httpx.Response:
    raise httpx.ConnectError("Connection refused")


def balancer_without_servers() -> httpx.Response:
    return httpx.Response(503, text="no server is available")


@pytest.mark.parametrize("answer", [refuse_connection, balancer_without_servers])
def test_a_service_that_is_gone_is_waited_for_once_not_a_thousand_times(
    photo: bytes, answer: Callable[[], httpx.Response]
) -> None:
    tries: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        tries.append(request.headers["x-request-id"])
        return answer()

    with Client("http://host", retries=2, transport=httpx.MockTransport(handle)) as client:
        results = list(client.transfer_many([photo] * 1000, concurrency=4))
    assert len(results) == 1000
    assert all(done.error and done.error.may_pass for done in results)
    per_photo = Counter(tries).values()
    assert max(per_photo) == 3
    assert sum(count == 1 for count in per_photo) >= 990


def test_a_service_that_is_only_busy_is_asked_again_for_each(photo: bytes) -> None:
    tries: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        tries.append(request.headers["x-request-id"])
        return httpx.Response(429)

    with Client("http://host", retries=1, transport=httpx.MockTransport(handle)) as client:
        results = list(client.transfer_many([photo] * 20, concurrency=4))
    assert len(results) == 20
    assert set(Counter(tries).values()) == {2}


def test_the_bar_counts_all_and_tells_of_failures(
    url: str, photo: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(url) as client:
        list(client.transfer_many([photo, b"text"]))
        assert capsys.readouterr().err == ""  # no terminal, no bar

        def shown(**options: Any) -> Any:
            return tqdm(**options | {"disable": False, "mininterval": 0.0})

        monkeypatch.setattr("service.client.many.tqdm", shown)
        list(client.transfer_many([photo, b"text"]))
    told = capsys.readouterr().err
    assert "2/2" in told
    assert "failed=1" in told


def test_the_memory_of_a_long_run_is_that_of_a_few_photos(url: str) -> None:
    big = np.zeros((400, 400, 3), np.uint8)
    alive = 0

    class Heavy(io.BytesIO):
        def __init__(self) -> None:
            nonlocal alive
            alive += 1
            super().__init__(encoded(Image.fromarray(big)))

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    with Client(url) as client:
        for done in client.transfer_many((Heavy() for _ in range(100)), concurrency=3):
            assert done.error is None
            assert alive <= AHEAD * 3 + 3


# asyncio


def test_the_async_client_has_all_that_the_other_has(
    url: str, models: Models, photo: bytes, person: str
) -> None:
    async def run() -> None:
        async with AsyncClient(url) as client:
            assert await client.ready()
            assert same(await client.transfer(photo), expected(models, photo))
            assert (await client.emoji(NEAR, size=64)).picture.size == (64, 64)
            assert {card.name for card in await client.models()} == {"digits", "plain", "emoji"}
            ann = client.person(person)
            kept = await ann.emoji(NEAR)
            assert [each.chosen for each in kept.photos] == [True]
            best = await ann.best()
            assert (await ann.best()).image == best.image == kept.image
            assert (await ann.about()).person == person
            assert await ann.forget()
            with pytest.raises(RefusedError):
                await ann.best()
            results = [done async for done in client.emoji_many([NEAR, b"text"], size=64)]
            assert [done.error is None for done in results] == [True, False]
        async with AsyncClient("http://127.0.0.1:1", retries=1) as nobody:
            assert not await nobody.ready()
            with pytest.raises(ClientError):
                await nobody.models()

    asyncio.run(run())


def test_many_async_photos_may_come_from_an_async_iterable(url: str, photo: bytes) -> None:
    async def photos() -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(0)
            yield photo

    async def run() -> int:
        async with AsyncClient(url) as client:
            results = [done.result async for done in client.transfer_many(photos(), concurrency=2)]
            return len(results)

    assert asyncio.run(run()) == 5


def test_the_names_of_both_clients_are_the_same() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


def test_stopping_early_leaves_the_client_usable(url: str, photo: bytes) -> None:
    with Client(url) as client:
        with closing(client.transfer_many([photo] * 50)) as many:
            next(many)
        assert client.transfer(photo).model == "digits@1"
