"""A bound on each client's requests per second: token buckets."""

import ipaddress
import math
import time
from collections import OrderedDict

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem, problem_response

MAX_CLIENTS = 10_000
ALMOST_ONE = 1.0 - 1e-9  # tokens added up from parts
FORGET_AT_ONCE = 2  # more than one comes: idle ones get fewer with each


class Buckets:
    """A bucket of `burst` tokens for each client, filled again at `rate` tokens a second.

    At most MAX_CLIENTS are remembered. A full bucket is as good as none and is forgotten, then
    the one longest unused, whose client gets away with more than its due.
    Used on the event loop only.
    """

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        self.rate = rate
        self.burst = max(1.0, burst or 2 * rate)
        # Tokens and when there were so many, time.monotonic(); the longest unused first.
        self.clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0.0 where the client had a token, else the seconds until it has one."""
        now = time.monotonic()
        tokens, since = self.clients.get(client, (self.burst, now))
        tokens = min(self.burst, tokens + (now - since) * self.rate)
        has_one = tokens > ALMOST_ONE
        self.clients[client] = (tokens - has_one, now)
        self.clients.move_to_end(client)
        self.forget(now)
        return 0.0 if has_one else (1.0 - tokens) / self.rate

    def forget(self, now: float) -> None:
        for _ in range(FORGET_AT_ONCE):
            tokens, since = next(iter(self.clients.values()))
            is_full = tokens + (now - since) * self.rate >= self.burst
            if not is_full and len(self.clients) <= MAX_CLIENTS:
                return
            self.clients.popitem(last=False)


class RateLimit:
    """Refuses requests of clients that send too many, but to `exempt` paths."""

    def __init__(self, app: ASGIApp, buckets: Buckets, exempt: frozenset[str]) -> None:
        self.app = app
        self.buckets = buckets
        self.exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        wait = self.buckets.take(client_of(scope))
        if wait == 0.0:
            await self.app(scope, receive, send)
            return
        problem = Problem(
            "rate_limited",
            f"more than {self.buckets.rate:g} requests a second",
            {"Retry-After": str(max(1, math.ceil(wait)))},
        )
        await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)


def client_of(scope: Scope) -> str:
    """The API key's place in the list, where there are keys, else the address.

    Whoever has an IPv6 address has 2^64 of them: its network counts, a /64.
    """
    key: int | None = scope["state"].get("key")
    if key is not None:
        return f"key {key}"
    host: str = (scope.get("client") or ("",))[0]
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
