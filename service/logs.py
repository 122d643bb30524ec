"""The log: lines of text or of JSON, with the request's id where there is one.

Nothing of a request is logged but its method, its route's template and its size: no picture, no
file name, no query, no key, no address.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.settings import Settings

# Of the request that the running task answers; worker threads do not know it, unless told.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

access = logging.getLogger("service.access")

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure(settings: Settings) -> None:
    """Send what is logged to standard error, as the settings say."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # Pillow's debugging messages tell what it found in a photo, such as where it was taken.
    logging.getLogger("PIL").setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # else it tells of its own parts


class JsonLines(logging.Formatter):
    """A record as one line of JSON. `extra={"fields": {...}}` adds members, `request_id` too."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = getattr(record, "request_id", None) or request_id.get()
        if known is not None:
            line["request_id"] = known
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_access(
    request: str,
    method: str,
    route: str,
    status: int,
    seconds: float,
    bytes_in: int,
    model: str | None = None,
) -> None:
    """The line of an answered request, `request` being its id."""
    ms = round(seconds * 1000, 3)
    fields: dict[str, Any] = {
        "method": method,
        "route": route,
        "status": status,
        "ms": ms,
        "bytes_in": bytes_in,
    }
    if model is not None:
        fields["model"] = model
    access.info(
        "%s %s %d in %.1f ms, %d bytes in, %s, request %s",
        method,
        route,
        status,
        ms,
        bytes_in,
        model or "no model",
        request,
        extra={"request_id": request, "fields": fields},
    )
