"""Every error of the service as `application/problem+json` (RFC 9457)."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.schemas import ProblemDetails

MEDIA_TYPE = "application/problem+json"
INFERENCE_PATHS = "/v2/"  # whose clients look for a member `error` with the detail

Code = Literal[
    "bad_request",
    "unauthorized",
    "not_found",
    "unknown_model",
    "unknown_person",
    "method_not_allowed",
    "not_reloaded",
    "too_large",
    "not_an_image",
    "unsupported_format",
    "no_face",
    "invalid_parameter",
    "queue_full",
    "rate_limited",
    "internal_error",
    "not_ready",
    "draining",
    "store_unavailable",
    "deadline_exceeded",
]
STATUS: dict[Code, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_person": 404,
    "method_not_allowed": 405,
    "not_reloaded": 409,
    "too_large": 413,
    "not_an_image": 415,
    "unsupported_format": 415,
    "no_face": 422,
    "invalid_parameter": 422,
    "queue_full": 429,
    "rate_limited": 429,
    "internal_error": 500,
    "not_ready": 503,
    "draining": 503,
    "store_unavailable": 503,
    "deadline_exceeded": 504,
}
# Seconds after which asking again makes sense, where nothing better is known.
RETRY_AFTER: dict[Code, int] = {
    "queue_full": 1,
    "rate_limited": 1,
    "not_ready": 2,
    "draining": 5,
    "store_unavailable": 5,
}


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """A request that cannot be answered: a code of the table above and what went wrong."""

    def __init__(
        self,
        code: Code,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.members = members  # further ones of the answer, RFC 9457, 3.2
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        if code in RETRY_AFTER:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER[code]))


class ProblemResponse(Response):
    """An answer that is a problem; it leaves its code in the request's state, to be counted."""

    media_type = MEDIA_TYPE

    def __init__(self, details: ProblemDetails, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(details.model_dump_json(), details.status, headers)
        self.details = details

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem"] = self.details.code
        if scope["path"].startswith(INFERENCE_PATHS):
            told = self.details.model_copy(update={"error": self.details.detail})
            self.body = told.model_dump_json().encode()
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def invalid_parameters(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """A refused query: each parameter and what is wrong with it, of pydantic's errors."""
    faults = (f"{error['loc'][-1]}: {error['msg']}" for error in errors)
    return Problem("invalid_parameter", "; ".join(faults)[:500])


def problem_response(problem: Problem, request_id: str) -> ProblemResponse:
    """The answer a problem becomes.

    `type` is about:blank, for which RFC 9457 wants the status's own phrase as the title; what
    a program should act on is `code`.
    """
    status = STATUS[problem.code]
    details = ProblemDetails(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=problem.detail,
        code=problem.code,
        request_id=request_id,
        **problem.members,
    )
    return ProblemResponse(details, problem.headers)


def documented(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these codes, grouped by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({STATUS[code] for code in codes}):
        here = [code for code in codes if STATUS[code] == status]
        schema = {
            "allOf": [{"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}],
            "properties": {"status": {"const": status}, "code": {"enum": here}},
        }
        headers = {"X-Request-ID": {"schema": {"type": "string"}}}
        if any(code in RETRY_AFTER for code in here):
            headers["Retry-After"] = {"schema": {"type": "integer"}}
        responses[status] = {
            "description": f"{HTTPStatus(status).phrase}: `" + "`, `".join(here) + "`",
            "headers": headers,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
    return responses
