"""A name server of one name, as Docker's own is to HAProxy: the addresses of all replicas."""

import socket
import struct
from threading import Thread
from types import TracebackType

TYPE_A, CLASS_IN = 1, 1
ANSWER, NAME_AT_12 = 0x8180, 0xC00C


class NameServer:
    """Answers `api` with `addresses`, which may change as replicas come and go."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.at = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = Thread(target=self.serve, daemon=True)

    def serve(self) -> None:
        """Until the socket is closed."""
        while True:
            try:
                query, client = self.socket.recvfrom(4096)
            except OSError:
                return
            if not query:
                return
            self.socket.sendto(self.answer(query), client)

    def answer(self, query: bytes) -> bytes:
        """The answer to a query of one question (RFC 1035)."""
        end = query.index(b"\0", 12) + 5  # the name, its type and class
        question = query[12:end]
        (kind,) = struct.unpack("!H", question[-4:-2])
        addresses = self.addresses if kind == TYPE_A else []
        head = query[:2] + struct.pack("!HHHHH", ANSWER, 1, len(addresses), 0, 0)
        records = b"".join(
            struct.pack("!HHHIH", NAME_AT_12, TYPE_A, CLASS_IN, 1, 4) + socket.inet_aton(address)
            for address in addresses
        )
        return head + question + records

    def __enter__(self) -> "NameServer":
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()
