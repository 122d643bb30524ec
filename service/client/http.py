"""What Client and AsyncClient do alike between a call and the wire."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from service import __version__
from service.client.calls import Call
from service.client.errors import Answer, BrokenError, ClientError, failure_of
from service.client.many import MOST
from service.client.retries import Attempts, retry_after

MAX_ANSWER_BYTES = 64 * 1024 * 1024
# Shorter than the service keeps an idle connection: else it might close one just as it is used.
KEEP_ALIVE_S = 4.0


class Hope:
    """Whether many calls to one service still may expect it to come back.

    Once one of them has tried for as long as it may, the others try once, until one goes well:
    a thousand photos need not wait a thousand times for a service that is gone.
    """

    def __init__(self, retries: int) -> None:
        self.most = retries
        self.lost = False

    def retries(self) -> int:
        return 0 if self.lost else self.most

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Round one call."""
        try:
            yield
        except ClientError as error:
            # Who is merely busy (429) is there; a photo that is refused has been looked at.
            self.lost = error.may_pass and error.status != 429
            raise
        self.lost = False


@dataclass(frozen=True)
class Patience:
    """How long a client waits: seconds for one attempt, how many more, seconds for them all."""

    timeout: float
    retries: int
    deadline: float

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.deadline <= 0 or self.retries < 0:
            raise ValueError("timeout and deadline are more than 0, retries 0 or more")

    def attempts(self, retries: int | None) -> Attempts:
        return Attempts(self.retries if retries is None else retries, self.deadline)

    def timeout_of(self, attempts: Attempts) -> float:
        return min(self.timeout, attempts.left())

    def hope(self) -> Hope:
        return Hope(self.retries)


def options(url: str, api_key: str | None) -> dict[str, Any]:
    """Arguments of an httpx client. Raises ValueError on what is no URL or no key."""
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r}: {error}") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError(f"{url!r}: a URL looks like http://127.0.0.1:8000")
    headers = {"User-Agent": f"dtn/{__version__}"}
    if api_key is not None:
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise ValueError("the API key is empty or has characters that no key has")
        headers["Authorization"] = f"Bearer {api_key}"
    limits = httpx.Limits(
        max_connections=MOST, max_keepalive_connections=MOST, keepalive_expiry=KEEP_ALIVE_S
    )
    return {"base_url": base, "headers": headers, "limits": limits}


def parameters(call: Call[Any], request_id: str, timeout: float) -> dict[str, Any]:
    """Arguments of httpx's stream(): the same id for each attempt, so that a log joins them."""
    parts = [
        ("files", (photo.name or f"photo-{i}", photo.content, photo.media_type))
        for i, photo in enumerate(call.photos)
    ]
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.query),
        "headers": {**call.headers, "X-Request-ID": request_id},
        "content": call.content,
        "files": parts or None,
        "timeout": timeout,
    }


def take(chunk: bytes, body: bytearray, attempts: Attempts) -> None:
    """Add what has come of an answer. Raises BrokenError where it has no end, TimeoutError."""
    body += chunk
    if len(body) > MAX_ANSWER_BYTES:
        raise BrokenError("bad_answer", f"the answer has more than {MAX_ANSWER_BYTES} bytes")
    if attempts.is_over():
        raise TimeoutError


def judge(answer: Answer, call: Call[Any], request_id: str) -> ClientError | None:
    """The error that an answer is; None where it can be read."""
    wait = retry_after(answer.headers.get("retry-after"))
    failure = failure_of(answer, request_id, wait)
    return None if failure is not None and failure.code == call.expected else failure
