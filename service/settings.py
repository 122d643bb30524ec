"""The settings of the service: environment variables DTN_*, one frozen typed object."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "DTN_"
MIB = 1024 * 1024

# Pillow itself warns of a decompression bomb above this many pixels and refuses twice as many;
# a higher limit of ours would never be reached.
PILLOW_PIXELS = 89_478_485

# Browsers send it so: in lower case, without a path, a slash at the end or the usual port.
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?")

Device = Literal["auto", "cpu", "cuda"]


def cores() -> int:
    """CPU cores this process may use, which in a container are often fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """What an operator may set. Raises pydantic.ValidationError on a value out of bounds."""

    # hide_input_in_errors: a mistyped list of keys must not end up in a log.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    models: Path = Field(
        Path(__file__).resolve().parent.parent / "models",
        description="directory of the model folders",
    )
    default_model: str = Field(
        "digits", min_length=1, description="model of a request that names none"
    )
    emoji_model: str = Field(
        "emoji",
        min_length=1,
        description="model of faces of a request for an emoji that names none",
    )
    device: Device = Field(
        "auto",
        description="where graphs run; cuda refuses to start where CUDA does not work, "
        "auto falls back to the CPU and says so",
    )
    threads: int = Field(
        1, ge=1, le=256, description="threads of one run of a graph (onnxruntime's intra-op)"
    )
    workers: int = Field(
        default_factory=cores,
        ge=1,
        le=256,
        description="pictures decoded, run and encoded side by side, and threads, up to 4, of a "
        "lone search for faces or enlarging; default: the CPU's cores",
    )
    fronts: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that speak HTTP, decode and encode, beside one that runs the "
        "graphs; 0: one process does it all",
    )
    max_queue: int = Field(
        64, ge=0, le=100_000, description="pictures waiting for a worker; one more gets a 429"
    )
    max_bytes: int = Field(20 * MIB, ge=1, le=1024 * MIB, description="bytes of a request body")
    max_batch_bytes: int = Field(
        128 * MIB,
        ge=1,
        le=1024 * MIB,
        description="bytes of a request body with several pictures",
    )
    max_buffered_bytes: int = Field(
        256 * MIB,
        ge=1,
        description="bytes of all uploads held in memory at once; more get a 429",
    )
    max_pixels: int = Field(
        50_000_000, ge=1, le=PILLOW_PIXELS, description="width times height of a picture"
    )
    deadline_s: float = Field(
        30.0, gt=0, le=3600, description="seconds from the received upload to the answer"
    )
    upload_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="seconds in which an upload must have arrived"
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="seconds from SIGTERM, when readiness goes off, until the port is closed",
    )
    shutdown_grace_s: int = Field(
        30, ge=1, le=3600, description="seconds that requests in flight get to finish after that"
    )
    database_url: SecretStr | None = Field(
        None,
        description="where persons' emojis are kept, sqlite:///FILE or postgresql://...; "
        "by default dtn/dtn.db where the user's data are, ~/.local/share on Linux",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated keys; when set, requests must carry one"
    )
    rate_limit: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="requests per second of one API key or, where there are no keys, of one "
        "address, to each process; 0: any number",
    )
    rate_burst: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="requests that may come at once after a pause; 0: twice DTN_RATE_LIMIT, "
        "at least 1",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated origins, such as https://example.org, whose pages may use "
        "the service, or * for all",
    )
    settings_dir: Path | None = Field(
        None,
        description="directory of files such as dtn_database_url and dtn_api_keys, each holding "
        "the setting it is named after; a variable goes before its file",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe messages to log"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="messages as text for people or as a line of JSON each"
    )
    access_log: bool = Field(False, description="log a line for each request, at level info")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given goes before variables, and these go before files in settings_dir."""
        directory = (env_settings() | init_settings()).get("settings_dir")
        files: dict[str, Any] = {}
        if directory:
            with suppress(OSError, ValueError):  # what is wrong with it, check_files tells
                files |= read_files(Path(directory))
        return init_settings, env_settings, InitSettingsSource(settings_cls, files)

    @field_validator("settings_dir", mode="before")
    @classmethod
    def check_files(cls, value: object) -> object:
        """Refuses a directory with a file that cannot be read or sets nothing."""
        if not isinstance(value, str | Path) or value == "":
            return value or None
        try:
            read_files(Path(value))
        except OSError as error:
            raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def split_keys(cls, value: object) -> object:
        """`a, b` -> ("a", "b"); refuses a value that is set but holds no key."""
        if not isinstance(value, str) or value == "":
            return value or ()
        keys = tuple(key.strip() for key in value.split(","))
        if not all(keys):
            raise ValueError("holds an empty key")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split_origins(cls, value: object) -> object:
        """`a, b` -> ("a", "b"), each as browsers write it; refuses what is no origin."""
        if not isinstance(value, str):
            return value
        origins = tuple(o.strip() for o in value.split(",")) if value else ()
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError("holds what is no origin; one looks like https://example.org")
        return origins

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def lower(cls, value: object) -> object:
        """`INFO` is what most people write."""
        return value.lower() if isinstance(value, str) else value


def read_files(directory: Path) -> dict[str, str]:
    """Settings by their names, from a directory's files `dtn_*`.

    Raises OSError where one cannot be read, ValueError where one is no text or no setting.
    """
    texts = {}
    for path in sorted(directory.iterdir()):
        name = path.name.lower()
        if not name.startswith(PREFIX.lower()):
            continue  # others' secrets, and what Kubernetes keeps beside them
        name = name.removeprefix(PREFIX.lower())
        if name not in Settings.model_fields or name == "settings_dir":
            raise ValueError(f"{path} is named after no setting")
        try:
            texts[name] = path.read_text().strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text") from None
    return texts


def type_name(annotation: object) -> str:
    """A field's type as an operator reads it: `integer`, `auto|cpu|cuda`, `list`."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    words: dict[object, str] = {str: "text", int: "integer", float: "number", Path: "path"}
    words |= {SecretStr | None: "URL", Path | None: "path", bool: "true|false"}
    return words.get(annotation, "list")


def describe(name: str, field: FieldInfo) -> tuple[str, str]:
    """One setting as a line of help: variable with type, then meaning and default."""
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "none" if default in ((), None) else default
    return (
        f"{PREFIX}{name.upper()} {type_name(field.annotation)}",
        f"{field.description} [default: {shown}]",
    )


def unknown_variables() -> list[str]:
    """DTN_* variables that set nothing: mistyped, such as DTN_API_KEY for DTN_API_KEYS."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
