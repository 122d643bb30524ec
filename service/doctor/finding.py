"""What dtn doctor finds."""

from dataclasses import dataclass
from typing import Literal

Mark = Literal["ok", "warn", "fail"]
GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what to do about it where it is not well."""

    mark: Mark
    topic: str
    told: str
    advice: str = ""


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.0f} MiB"
