"""Whether it is worth trying again to reach what could not be reached."""

import time
from threading import Lock

PAUSE_S = 1.0


class Circuit:
    """After a failure, one caller at a time tries again, PAUSE_S after the last one.

    All others are refused at once: each would only wait for the same connection that does not
    come, and take the turn of who could be told so now.
    """

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self.pause_s = pause_s
        self.lock = Lock()
        self.broken = False
        self.trying = False
        self.again = 0.0  # time.monotonic() of the next try

    def may_try(self) -> bool:
        """Whether the caller should try; if so it must tell how that went."""
        with self.lock:
            if not self.broken:
                return True
            if self.trying or time.monotonic() < self.again:
                return False
            self.trying = True
            return True

    def is_open(self) -> bool:
        """Whether a try would be refused now; asks for no turn."""
        with self.lock:
            return self.broken and (self.trying or time.monotonic() < self.again)

    def succeeded(self) -> None:
        with self.lock:
            self.broken = self.trying = False

    def failed(self) -> None:
        with self.lock:
            self.broken = True
            self.trying = False
            self.again = time.monotonic() + self.pause_s
