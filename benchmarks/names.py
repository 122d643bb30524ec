"""A name server of one name, as Docker's own is to HAProxy: the addresses of all replicas."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

TYPE_A = 1
ANSWERED, UNKNOWN = 0x8180, 0x8183  # a response; NXDOMAIN
TTL_S = 1


def answer(query: bytes, addresses: Sequence[str]) -> bytes:
    """RFC 1035: the question and, for a question of type A, a record per IPv4 address."""
    end = query.index(b"\0", 12) + 5  # of the name, and its type and class behind it
    (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
    records = [
        struct.pack(">HHHIH4s", 0xC00C, TYPE_A, 1, TTL_S, 4, socket.inet_aton(address))
        for address in addresses
        if kind == TYPE_A
    ]
    status = ANSWERED if addresses else UNKNOWN
    head = struct.pack(">2sHHHHH", query[:2], status, 1, len(records), 0, 0)
    return head + query[12:end] + b"".join(records)


@contextmanager
def names(addresses: Sequence[str]) -> Iterator[str]:
    """`host:port` of a server that knows any name, by these addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        host, port = server.getsockname()

        def serve() -> None:
            while query := server.recvfrom(4096):
                if not query[0]:
                    return
                server.sendto(answer(query[0], addresses), query[1])

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"{host}:{port}"
        finally:
            server.sendto(b"", (host, port))  # wakes it up, to end
            thread.join()
