"""When to ask again.

Every call of the client may be repeated, also a POST whose answer got lost on the way: /transfer
and /emoji compute and keep nothing, and a person's emoji is replaced only by one with a smaller
distance, so that the same photos a second time change nothing.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from service.client.errors import ClientError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class Attempts:
    """The attempts at one call: how long each may take, and how long to wait before the next."""

    def __init__(
        self, retries: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.retries = retries
        self.clock = clock
        self.ends = clock() + seconds
        self.failed = 0

    def left(self) -> float:
        """Seconds until the call as a whole is given up."""
        return max(0.001, self.ends - self.clock())

    def is_over(self) -> bool:
        return self.clock() > self.ends

    def pause(self, failure: ClientError) -> float:
        """Seconds to wait after a failure; raises it where another attempt makes no sense.

        Twice as long after each, by chance up to a half shorter, so that many clients of one
        service do not come back at the same moment; never sooner than it has asked for.
        """
        self.failed += 1
        if not failure.may_pass or self.failed > self.retries:
            raise failure
        doubled = FIRST_PAUSE_S * float(2 ** min(self.failed - 1, 30))
        usual = min(doubled, LONGEST_PAUSE_S)
        pause = usual * random.uniform(0.5, 1)  # noqa: S311 - no secret
        if failure.retry_after is not None:
            pause = max(pause, failure.retry_after + pause / 4)
        if self.clock() + pause >= self.ends:
            raise failure
        return pause


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After asks for, as a number or a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
