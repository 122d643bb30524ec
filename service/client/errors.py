"""What a call to the service may raise: why it has no result."""

import json
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx

REPEATED = frozenset((429, 502, 503, 504))  # statuses of a service that is busy or not up yet
NO_SUCH_HOST = ("Name or service not known", "nodename nor servname", "No address associated")


class ClientError(Exception):
    """Why there is no result. `code` is for programs, `detail` for people.

    Of an error that the service told (RFC 9457), `code` and `detail` are its own, and `members`
    holds what else it told, such as the `photos` of a person.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        members: dict[str, Any] | None = None,
    ) -> None:
        # All arguments, so that it can be pickled and go from one process to another.
        super().__init__(code, detail, status, request_id, retry_after, members)
        self.code = code
        self.detail = detail
        self.status = status  # of HTTP; None where there was no answer
        self.request_id = request_id  # what the service's log knows the call by
        self.retry_after = retry_after  # seconds
        self.members = members or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"

    @property
    def may_pass(self) -> bool:
        """Whether the same call may go well later."""
        return False


class PhotoError(ClientError):
    """The photo cannot be read, so that nothing was sent; the code is `unreadable`."""


class RefusedError(ClientError):
    """The service does not want the call as it is (4xx): the photo, a parameter, the key."""


class UnavailableError(ClientError):
    """The service is busy, starting, or draining (429, 502, 503, 504), and stayed so."""

    @property
    def may_pass(self) -> bool:
        return True


class UnreachableError(ClientError):
    """There was no answer, or half of one; the code is `unreachable` or `timed_out`."""

    @property
    def may_pass(self) -> bool:
        """Unless there is no such host, or none with a certificate that is trusted."""
        hopeless = ("CERTIFICATE_VERIFY_FAILED", *NO_SUCH_HOST)
        return not any(reason in self.detail for reason in hopeless)


class BrokenError(ClientError):
    """The service failed (500), or what answers is no such service: `bad_answer`."""


class Answer(NamedTuple):
    """A complete HTTP answer."""

    status: int
    headers: httpx.Headers
    content: bytes


def failure_of(answer: Answer, request_id: str, retry_after: float | None) -> ClientError | None:
    """The error that an answer tells of; None where it tells a result."""
    status = answer.status
    if status < 300 or status == 304:
        return None
    kind: type[ClientError] = BrokenError
    if status in REPEATED:
        kind = UnavailableError
    elif 400 <= status < 500:
        kind = RefusedError
    told = problem_of(answer)
    known = {name: told.pop(name, None) for name in ("type", "title", "status", "code", "detail")}
    if isinstance(known["code"], str) and isinstance(known["detail"], str):
        echoed = told.pop("request_id", request_id)
        return kind(known["code"], known["detail"], status, echoed, retry_after, told)
    # No problem of the service's: a proxy before it, or something else altogether.
    phrase = HTTPStatus(status).phrase if status in list(HTTPStatus) else "unknown"
    detail = f"the answer is {status} ({phrase}) and not the service's own"
    if 300 <= status < 400:
        detail += f"; it leads to {answer.headers.get('location', 'nowhere')[:200]}"
    return kind("bad_answer", detail, status, request_id, retry_after)


def problem_of(answer: Answer) -> dict[str, Any]:
    """The members of an RFC 9457 problem; none where the answer is something else."""
    if "json" not in answer.headers.get("content-type", ""):
        return {}
    try:
        told = json.loads(answer.content)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def unreachable(error: Exception, url: str, request_id: str) -> UnreachableError:
    """No answer, or half of one."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        code, detail = "timed_out", f"{url} did not answer in time"
    else:
        reason = str(error) or type(error).__name__
        code, detail = "unreachable", f"{url} cannot be reached: {reason}"
    failure = UnreachableError(code, detail, None, request_id)
    failure.__cause__ = error
    return failure
