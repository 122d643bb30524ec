"""What dtn doctor looks at of the service itself: settings, devices, models, database."""

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from service.commands import fault_of
from service.doctor.finding import Finding
from service.doctor.machine import look_at_disk
from service.migrate import NewerDatabase, current, is_newest, newest
from service.settings import PREFIX, Settings, unknown_variables
from service.store import StoreError, data_file, open_engine

CLIENTS = {"DTN_API_KEY"}  # variables that dtn transfer --url reads, not the service
GPU = Path("/dev/nvidia0")
TRIALS = 5


def read_valid_settings() -> tuple[Settings | None, list[Finding]]:
    """The settings, and what is to be said of them; None where they are not valid."""
    findings = []
    given: dict[str, Any] = {}  # all from the environment
    try:
        settings = Settings(**given)
    except ValidationError as error:
        findings = [
            Finding("fail", "settings", fault_of(each), "dtn serve --help lists what may be set")
            for each in error.errors()
        ]
        return None, findings
    changed = list(changes(settings))
    findings.append(Finding("ok", "settings", "; ".join(changed) or "all as by default"))
    unknown = [name for name in unknown_variables() if name not in CLIENTS]
    if unknown:
        advice = "mistyped? dtn serve --help lists all"
        findings.append(Finding("warn", "settings", f"set nothing: {', '.join(unknown)}", advice))
    return settings, findings


def changes(settings: Settings) -> Iterator[str]:
    """The settings that are not as by default, secrets hidden."""
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value != field.get_default(call_default_factory=True, validated_data={}):
            yield f"{PREFIX}{name.upper()}={shown(value)}"


def shown(value: Any) -> str:
    """A setting as it may be read by others."""
    if isinstance(value, SecretStr):
        return without_password(value.get_secret_value())
    if isinstance(value, tuple):
        hidden = any(isinstance(each, SecretStr) for each in value)
        return f"({len(value)}, hidden)" if hidden else ",".join(map(str, value))
    return str(value)


def without_password(address: str) -> str:
    """A database's URL without what a password may stand in."""
    try:
        return make_url(address).set(query={}).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(hidden)"


def look_at_models(settings: Settings) -> Iterator[Finding]:
    """Each model's hashes, its device, and a trial run."""
    try:
        models, ort = (importlib.import_module(n) for n in ("service.models", "onnxruntime"))
    except ImportError as error:
        advice = 'pip install "dtn[cpu]", or "dtn[gpu]" where CUDA is'
        yield Finding("fail", "models", f"cannot be run: {error}", advice)
        return
    providers = ort.get_available_providers()
    told = f"onnxruntime {ort.__version__} has {', '.join(providers)}"
    if GPU.exists() and models.CUDA not in providers:
        advice = 'there is a GPU: pip uninstall onnxruntime; pip install "dtn[gpu]"'
        yield Finding("warn", "devices", told, advice)
    else:
        yield Finding("ok", "devices", told)
    try:
        folders = models.model_folders(settings.models)
    except models.ModelError as error:
        yield Finding("fail", "models", str(error), "set DTN_MODELS to the folder of the models")
        return
    loaded = []
    for folder in folders:
        try:
            model = models.Model(folder, settings.device, settings.threads)
            model.warm_up()
        except models.ModelError as error:
            advice = "bring the folder back as it was exported, or take it out of DTN_MODELS"
            yield Finding("fail", "models", str(error), advice)
            continue
        loaded.append(model)
        yield Finding("ok", "models", tried(model))
    yield from look_at_defaults(settings, loaded)


def tried(model: Any) -> str:
    """What was seen of a model that runs."""
    files = [*model.manifest.graphs.values(), *filter(None, [model.manifest.weights])]
    side = model.manifest.alignment.side if model.manifest.alignment else 32
    numpy = importlib.import_module("numpy")
    x = numpy.full((1, side, side, 3), 127, numpy.uint8)
    trials = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        model(x)
        trials.append(time.perf_counter() - began)
    return (
        f"{model.reference}: {len(files)} files with the right sha256, a picture in "
        f"{1000 * sorted(trials)[TRIALS // 2]:.2g} ms on {model.device} ({model.provider})"
    )


def look_at_defaults(settings: Settings, loaded: list[Any]) -> Iterator[Finding]:
    """Whether the models of requests that name none are there."""
    names = {model.manifest.name: model for model in loaded}
    there = ", ".join(names) or "none"
    if settings.default_model not in names:
        told = f"no {settings.default_model!r} to be the default; there is: {there}"
        yield Finding("fail", "models", told, "set DTN_DEFAULT_MODEL to one of them")
    faces = [name for name, model in names.items() if model.manifest.alignment]
    if settings.emoji_model not in faces:
        told = (
            f"no {settings.emoji_model!r} for /emoji; models of faces: {', '.join(faces) or 'none'}"
        )
        yield Finding("warn", "models", told, "set DTN_EMOJI_MODEL to one of them, or do without")


def look_at_database(settings: Settings) -> Iterator[Finding]:
    """Whether persons can be kept; makes and changes nothing."""
    url = settings.database_url
    address = url.get_secret_value() if url else f"sqlite:///{data_file()}"
    advice = "until then the service answers all but /persons"
    try:
        engine = open_engine(address)
    except StoreError as error:
        yield Finding("fail", "database", str(error), "set DTN_DATABASE_URL; see dtn serve --help")
        return
    where = without_password(address)
    try:
        if engine.dialect.name == "sqlite":
            file = Path(str(engine.url.database)).absolute()
            yield from look_at_disk(file.parent)
            refusal = unwritable(file)
            if refusal:
                yield Finding("fail", "database", f"{where}: {refusal}", advice)
                return
            if not file.exists():
                yield Finding("ok", "database", f"{where}: made on first use")
                return
        with engine.connect() as connection:
            up_to_date = is_newest(connection)
            found = current(connection) or "none"
        if up_to_date:
            yield Finding("ok", "database", f"{where}: reached, revision {found}, the newest")
        else:
            told = f"{where}: reached, revision {found}; the newest is {newest()}"
            yield Finding(
                "warn", "database", told, "dtn database upgrade, or let the service do it"
            )
    except NewerDatabase as error:
        yield Finding("fail", "database", f"{where}: {error}", "install the release that made it")
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        yield Finding("fail", "database", f"{where}: {reason}", advice)
    finally:
        engine.dispose()


def unwritable(file: Path) -> str:
    """Why an SQLite file could not be written, with the log beside it; none where it could."""
    there = next(each for each in (file.parent, *file.parents) if each.exists())
    if not there.is_dir():
        return f"{there} is no directory"
    if file.is_dir():
        return "is a directory"
    for each in (there, *([file] if file.exists() else [])):
        if not os.access(each, os.W_OK):
            return f"{each} may not be written"
    return ""
