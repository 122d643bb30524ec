"""Arrays between two processes of one machine, over a stream socket: no pickle, sizes bounded.

A frame is HEAD, a JSON text with words and each array's type and shape, then the arrays' bytes.
A message is a length and JSON: what is said seldom and holds no array.
"""

import json
import math
import re
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Spec: TypeAlias = tuple[str, tuple[int, ...]]  # type and shape of an array
Frame: TypeAlias = tuple[int, tuple[str, ...], list[Array]]  # a key, words, arrays

MAGIC = b"DTN1"
HEAD = struct.Struct("<4sII")  # MAGIC, key, bytes of text
LENGTH = struct.Struct("<I")
WARM_UP = "warm_up"  # the only word of a frame that wants its model to be warm
TYPE = re.compile(r"[|<][buif][1248]")  # numbers, in the order of bytes that all machines have
MAX_TEXT = 64 * 1024
MAX_AXES = 8
MAX_BYTES = 1 << 30  # of a frame's arrays: thrice what the largest picture allowed takes
MAX_MESSAGE = 16 * 1024 * 1024


class WireError(Exception):
    """What was sent is no frame, or larger than one may be."""


def send(
    connection: socket.socket, key: int, words: tuple[str, ...], arrays: Sequence[Array]
) -> None:
    """Send a frame. Raises WireError where it would be too large, OSError."""
    text = write_text(words, tuple((array.dtype.str, array.shape) for array in arrays))
    parts = [memoryview(HEAD.pack(MAGIC, key, len(text)) + text)]
    # Without the empty ones: there is no view of no bytes.
    parts += [np.ascontiguousarray(array).data.cast("B") for array in arrays if array.nbytes]
    while parts:
        sent = connection.sendmsg(parts)
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if sent:
            parts[0] = parts[0][sent:]


def receive(connection: socket.socket) -> Frame:
    """The next frame. Raises ConnectionError where the other end is closed, WireError."""
    head = bytearray(HEAD.size)
    fill(connection, memoryview(head))
    magic, key, length = HEAD.unpack(head)
    if magic != MAGIC or length > MAX_TEXT:
        raise WireError("no frame")
    text = bytearray(length)
    fill(connection, memoryview(text))
    words, specs = read_text(bytes(text))
    arrays = [np.empty(shape, dtype) for dtype, shape in specs]
    for array in arrays:
        if array.nbytes:
            fill(connection, array.data.cast("B"))
    return key, words, arrays


def fill(connection: socket.socket, view: memoryview) -> None:
    """Receive as many bytes as the view has. Raises ConnectionError."""
    while view:
        got = connection.recv_into(view, len(view), socket.MSG_WAITALL)
        if got == 0:
            raise ConnectionError("the other end is closed")
        view = view[got:]


@lru_cache(maxsize=256)  # the same few texts, again and again
def write_text(words: tuple[str, ...], specs: tuple[Spec, ...]) -> bytes:
    """The text of a frame. Raises WireError."""
    text = json.dumps([words, specs]).encode()
    read_text(text)
    return text


@lru_cache(maxsize=256)
def read_text(text: bytes) -> tuple[tuple[str, ...], tuple[Spec, ...]]:
    """Words and specs of a frame's text. Raises WireError."""
    try:
        words, specs = json.loads(text)
        found = tuple((dtype, tuple(shape)) for dtype, shape in specs)
        good = all(isinstance(word, str) for word in words) and all(map(is_spec, found))
    except (ValueError, TypeError) as error:
        raise WireError("no text of a frame") from error
    if not good or len(text) > MAX_TEXT or sum(map(size, found)) > MAX_BYTES:
        raise WireError("a frame with what it must not hold, or too much of it")
    return tuple(words), found


def is_spec(spec: Spec) -> bool:
    dtype, shape = spec
    sides = all(type(side) is int and side >= 0 for side in shape)
    return bool(TYPE.fullmatch(dtype)) and len(shape) <= MAX_AXES and sides


def size(spec: Spec) -> int:
    """An array's bytes."""
    return math.prod(spec[1]) * np.dtype(spec[0]).itemsize


def pack_message(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    text = json.dumps(message).encode()
    return LENGTH.pack(len(text)) + text


def message_length(head: bytes) -> int:
    """How many bytes of JSON follow. Raises WireError where there are too many."""
    length: int = LENGTH.unpack(head)[0]
    if length > MAX_MESSAGE:
        raise WireError("a message that is too long")
    return length


def receive_message(connection: socket.socket) -> dict[str, Any]:
    """The next message. Raises ConnectionError where the other end is closed, WireError."""
    head = bytearray(LENGTH.size)
    fill(connection, memoryview(head))
    text = bytearray(message_length(bytes(head)))
    fill(connection, memoryview(text))
    message: dict[str, Any] = json.loads(text)
    return message
