import socket
from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest

from service import wire
from service.wire import (
    HEAD,
    LENGTH,
    MAGIC,
    WireError,
    pack_message,
    receive,
    receive_message,
    send,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(5)
        yield here, there


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(24, dtype=np.uint8).reshape(2, 4, 3)],
        [np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-2], np.array([0.5, np.nan], "f4")],
        [np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.ones((1, 2), np.int64)],
        [np.array(7, np.int64)],
    ],
)
def test_what_is_sent_arrives(pair: Pair, arrays: list[np.ndarray]) -> None:
    send(pair[0], 7, ("transfer", "1", "é"), arrays)
    key, words, received = receive(pair[1])
    assert (key, words) == (7, ("transfer", "1", "é"))
    assert len(received) == len(arrays)
    for array, sent in zip(received, arrays, strict=True):
        assert (array.dtype, array.shape) == (sent.dtype, sent.shape)
        np.testing.assert_array_equal(array, sent)
        array[...] = 0  # its own memory


def test_frames_larger_than_the_sockets_buffer_arrive_in_order(pair: Pair) -> None:
    rng = np.random.default_rng(0)
    large = [rng.integers(0, 256, (4, 1000, 700, 3), np.uint8) for _ in range(2)]

    def send_all() -> None:
        for key, array in enumerate(large):
            send(pair[0], key, (), [array, array[0]])

    sender = Thread(target=send_all)
    sender.start()
    for key, array in enumerate(large):
        received = receive(pair[1])
        assert received[0] == key
        np.testing.assert_array_equal(received[2][0], array)
        np.testing.assert_array_equal(received[2][1], array[0])
    sender.join()


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ((b"HTTP", 1, 2), b"[]"),
        ((MAGIC, 1, wire.MAX_TEXT + 1), b""),
        ((MAGIC, 1, 2), b"[]"),
        ((MAGIC, 1, 8), b"nonsense"),
        ((MAGIC, 1, 9), b"[[1], []]"),
        ((MAGIC, 1, 21), b'[["x"],[["|u1",[-1]]]]'[:21]),
        ((MAGIC, 1, 22), b'[["x"],[["|u1",[-1]]]]'),
        ((MAGIC, 1, 21), b'[["x"],[["|O8",[1]]]]'),
        ((MAGIC, 1, 30), b'[["x"],[["|u1",[40000,40000]]]'),
        ((MAGIC, 1, 31), b'[["x"],[["|u1",[40000,40000]]]]'),
        ((MAGIC, 1, 37), b'[["x"],[["|u1",[1,1,1,1,1,1,1,1,1]]]]'),
    ],
)
def test_what_is_no_frame_is_refused(pair: Pair, head: tuple[bytes, int, int], text: bytes) -> None:
    pair[0].sendall(HEAD.pack(*head) + text)
    with pytest.raises(WireError):
        receive(pair[1])


def test_too_much_is_not_sent(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    with pytest.raises(WireError):
        send(pair[0], 1, ("large",), [np.zeros(1001, np.uint8)])
    send(pair[0], 1, (), [np.zeros(1000, np.uint8)])  # nothing of the other has gone out
    assert receive(pair[1])[2][0].shape == (1000,)


@pytest.mark.parametrize("sent", [b"", MAGIC, HEAD.pack(MAGIC, 1, 8) + b"[[], "])
def test_an_end_in_between_is_an_end(pair: Pair, sent: bytes) -> None:
    pair[0].sendall(sent)
    pair[0].close()
    with pytest.raises(ConnectionError):
        receive(pair[1])


def test_messages_arrive_one_by_one(pair: Pair) -> None:
    for message in ({"kind": "ready"}, {"kind": "took", "number": 2}):
        pair[0].sendall(pack_message(message))
    assert receive_message(pair[1]) == {"kind": "ready"}
    assert receive_message(pair[1]) == {"kind": "took", "number": 2}
    pair[0].sendall(LENGTH.pack(wire.MAX_MESSAGE + 1))
    with pytest.raises(WireError):
        receive_message(pair[1])
